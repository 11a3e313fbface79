"""Own how numbered studies are found, run in chunks, and remembered; the studies themselves are in `studies/`."""
