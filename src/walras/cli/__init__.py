"""The command line: `app` parses and reports errors, one module per command group does the work."""

import os
import sys

from walras.cli.signals import EXIT_INTERRUPTED, exit_interrupted, watch_interrupts


def run_program() -> None:
    """Run the `walras` program; Ctrl-C works from the first import on."""
    watch_interrupts()
    try:
        from walras.cli.app import main

        code = main()
    except KeyboardInterrupt:
        code = exit_interrupted()
    if code == EXIT_INTERRUPTED:
        # Libraries that were interrupted may crash while they are shut down.
        sys.stdout.flush()
        os._exit(code)
    sys.exit(code)
