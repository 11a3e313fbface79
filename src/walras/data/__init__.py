"""Product tables: read, check, complete and write them; files of arrays."""
