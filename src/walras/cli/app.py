"""The `walras` command: parsing, exit codes, and one sentence for every error."""

import difflib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError

from walras import __version__
from walras.cli import exit_interrupted, record_interrupts
from walras.errors import WalrasError, one_line

EXIT_FINE = 0
EXIT_DEFECT = 1
EXIT_MISTAKE = 2
HELP = "Plan shared capacity for very large populations of agents that decide for themselves, with shadow prices."
EPILOGUE = "Every command takes --json (one JSON object as the last line) and --debug (show where a defect came from)."

# Functions are named by strings, so that help and errors do not wait for jax to be imported.
COMMANDS = {
    "demo": ("walras.cli.plan:demo_command", "Plan the embedded population: no file needed."),
    "plan": ("walras.cli.plan:plan_command", "Plan capacity for the products of a table."),
    "simulate": ("walras.cli.plan:simulate_command", "Simulate a population under given prices."),
    "compare": ("walras.cli.stored:compare_plans_command", "Say in what two plans differ."),
    "whatif": ("walras.cli.stored:what_if_command", "Estimate another capacity from a stored plan."),
    "data check": ("walras.cli.data:check_command", "Check a table and describe it."),
    "data generate": ("walras.cli.data:generate_command", "Write a table of a generated population."),
    "train buyer": ("walras.cli.train:buyer_command", "Train a buyer through the simulator."),
    "train primal": ("walras.cli.train:primal_command", "Train a map from prices to utilization."),
    "train dual": ("walras.cli.train:dual_command", "Train a map from capacity to shadow prices."),
    "study list": ("walras.cli.study:list_command", "List all studies with their answers."),
    "study run": ("walras.cli.study:run_command", "Run one study; a stopped run is resumed."),
    "study report": ("walras.cli.study:report_command", "Write one page with all answers."),
    "policy compare": ("walras.cli.policy:compare_command", "Rank policies on held-out weeks."),
    "fulfil simulate": ("walras.cli.fulfil:simulate_fulfilment", "Assign all orders of an instance to centres."),
    "fulfil optimise": ("walras.cli.fulfil:optimise_fulfilment", "Learn prices of stock and capacity."),
    "fulfil benchmark": ("walras.cli.fulfil:benchmark_fulfilment", "Time it against one order at a time."),
}

GROUPS = {
    "data": "Check or generate tables.",
    "train": "Train ordering policies and coordination maps.",
    "study": "Measure the maps again by numbered studies (from a checkout of the source).",
    "policy": "Compare ordering policies on a table's own history.",
    "fulfil": "Order fulfilment, decided in parallel with the result of one order after the other.",
}


def build_app() -> App:
    """Return the parser; the commands' modules are imported only when one of them runs."""
    plain = Parameter(negative_iterable=())
    app = App(name="walras", help=HELP, help_epilogue=EPILOGUE, version=__version__, default_parameter=plain)
    app.suppress_keyboard_interrupt = False  # the library would exit without a message
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for command, (function, text) in COMMANDS.items():
        group, _, name = command.rpartition(" ")
        (groups[group] if group else app).command(function, name=name, help=text)
    for part in groups.values():
        app.command(part)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command, by default that of this process, and return its exit code; never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    interrupts: list[int] = []
    try:
        with record_interrupts() as interrupts:
            return dispatch(words)
    except KeyboardInterrupt:
        return exit_interrupted()
    except BrokenPipeError:
        return close_pipe()
    except SystemExit as stop:
        # The console library exits by itself when its output is no longer read.
        return stop.code if isinstance(stop.code, int) else EXIT_FINE
    except Exception as error:
        if interrupts:
            # Some C extensions turn a KeyboardInterrupt into an error of their own.
            return exit_interrupted()
        if debug:
            traceback.print_exc()
        return report_error(error)


def dispatch(words: list[str]) -> int:
    """Parse the words and call the command they name; a command returns its exit code or nothing."""
    app = build_app()
    result = app(words, exit_on_error=False, print_error=False, verbose=False, result_action="return_value")
    sys.stdout.flush()
    return result if isinstance(result, int) else EXIT_FINE


def report_error(error: Exception) -> int:
    """Print an error as one sentence and return the exit code."""
    if isinstance(error, WalrasError):
        return print_error(str(error), EXIT_MISTAKE)
    if isinstance(error, CycloptsError):
        return print_error(parse_sentence(error), EXIT_MISTAKE)
    if isinstance(error, OSError) and error.strerror:
        where = f"`{error.filename}`: " if error.filename else ""
        return print_error(f"{where}{error.strerror}", EXIT_MISTAKE)
    return print_error(f"a defect in walras ended this command ({write_crash_log(error)})", EXIT_DEFECT)


def print_error(sentence: str, code: int) -> int:
    """Print one sentence on stderr and return the exit code."""
    print(f"walras: {one_line(sentence)}", file=sys.stderr, flush=True)
    return code


def parse_sentence(error: CycloptsError) -> str:
    """Turn the parser's message, which may have several sentences, into one."""
    if isinstance(error, UnknownCommandError):
        given = (error.unused_tokens or [""])[0]
        # The parser's own message would import every command to list its aliases.
        names = [] if error.app is None else sorted(name for name in error.app if not name.startswith("-"))
        near = difflib.get_close_matches(given, names, n=1)
        advice = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(names)}"
        return f"`{given}` is not a command; {advice}"
    if isinstance(error, UnusedCliTokensError):
        return f"`{' '.join(error.unused_tokens or [])}` is more than this command takes; --help shows what it takes"
    cause: Any = error.__cause__
    if type(cause).__module__.startswith("pydantic"):
        from walras.config import PlanFields, validation_sentence

        return validation_sentence(cause, PlanFields, "the flags")
    text = one_line(str(error)).rstrip(".")
    return re.sub(r"\. ([A-Z])", lambda match: "; " + match.group(1).lower(), text[:1].lower() + text[1:])


def write_crash_log(error: Exception) -> str:
    """Write the traceback to a file and say where it is."""
    kind = type(error).__name__
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="walras-", suffix=".log")
        with os.fdopen(handle, "w") as log:
            log.write(f"walras {__version__}, Python {sys.version.split()[0]}\n{text}")
    except OSError:
        return f"{kind}; run it again with --debug to see where"
    return f"{kind}; the details are in {path}"


def close_pipe() -> int:
    """End quietly when the output is no longer read (`walras ... | head`)."""
    # Python would flush stdout once more at exit and fail; nothing can be written there any more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FINE
