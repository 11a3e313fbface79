"""Own the command line: what people type, and what they are told.

EDGE: `app` parses and reports, one module per command does the work; nothing below imports this package.
"""
