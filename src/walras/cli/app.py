"""Own the `walras` command: parsing, exit codes, and the one sentence that every mistake ends in.

EDGE: commands are registered as strings, so that help and mistakes never wait for jax to be imported.
"""

import difflib
import os
import re
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError, Parameter, UnknownCommandError, UnusedCliTokensError

from walras import __version__
from walras.cli.signals import exit_interrupted, reset
from walras.errors import WalrasError, one_line

EXIT_FINE = 0
EXIT_DEFECT = 1
EXIT_MISTAKE = 2
HELP = "Plan shared capacity for very large populations of agents that decide for themselves, with shadow prices."
EPILOGUE = "Every command takes --json (one JSON object as the last line) and --debug (show where a defect came from)."


def build_app() -> App:
    """Describe the commands; their modules are imported only when one of them runs."""
    plain = Parameter(negative_iterable=())
    app = App(name="walras", help=HELP, help_epilogue=EPILOGUE, version=__version__, default_parameter=plain)
    app.suppress_keyboard_interrupt = False  # the library would end the program without a word
    app.command("walras.cli.plan:demo", name="demo", help="Plan the embedded population: no file needed.")
    app.command("walras.cli.plan:plan", name="plan", help="Plan capacity for the products of a table.")
    app.command("walras.cli.simulate:simulate", name="simulate", help="Simulate a population under given prices.")
    data = App(name="data", help="Look at tables before planning, or make one up.")
    data.command("walras.cli.data:check", name="check", help="Say what is wrong with a table, and what is in it.")
    data.command("walras.cli.data:generate", name="generate", help="Write a table of a made-up population.")
    app.command(data)
    train = App(name="train", help="Train what answers shadow prices, or sets them.")
    train.command("walras.cli.train:buyer", name="buyer", help="Train a buyer through the simulator.")
    train.command("walras.cli.train:primal", name="primal", help="Train a map from prices to utilization.")
    train.command("walras.cli.train:dual", name="dual", help="Train a map from capacity to shadow prices.")
    app.command(train)
    study = App(name="study", help="Ask what the maps are worth: numbered studies, measured again on this machine.")
    study.command("walras.cli.study:list_command", name="list", help="Show all studies with their answers.")
    study.command("walras.cli.study:run_command", name="run", help="Run one study; a stopped run is resumed.")
    study.command("walras.cli.study:report_command", name="report", help="Write one page with all answers.")
    app.command(study)
    policy = App(name="policy", help="Compare what agents could do on a table's own history.")
    policy.command("walras.cli.policy:compare", name="compare", help="Rank policies on weeks that none was tuned on.")
    app.command(policy)
    fulfil = App(name="fulfil", help="Decide orders in parallel, exactly as one after the other.")
    fulfil.command("walras.cli.fulfil:simulate_fulfilment", name="simulate", help="Decide all orders.")
    fulfil.command("walras.cli.fulfil:optimise_fulfilment", name="optimise", help="Learn prices of stock and capacity.")
    fulfil.command("walras.cli.fulfil:benchmark_fulfilment", name="benchmark", help="Time it against one after the other.")
    app.command(fulfil)
    return app


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises, whatever the user or the code did.

    Args:
        argv: the words after `walras`; those of this process where not given.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    interrupts: list[int] = []
    reset()
    try:
        with noting_interrupts(interrupts):
            return dispatch(words)
    except KeyboardInterrupt:
        return exit_interrupted()
    except BrokenPipeError:
        return close_pipe()
    except SystemExit as stop:
        # The console library ends the program itself when nobody reads its output any more.
        return stop.code if isinstance(stop.code, int) else EXIT_FINE
    except Exception as error:
        if interrupts:
            # Some C extensions turn the KeyboardInterrupt that reached them into an error of their own.
            return exit_interrupted()
        if debug:
            traceback.print_exc()
        return report(error)


def dispatch(words: list[str]) -> int:
    """Parse the words and call the command they name; a command returns its exit code or nothing."""
    app = build_app()
    result = app(words, exit_on_error=False, print_error=False, verbose=False, result_action="return_value")
    sys.stdout.flush()
    return result if isinstance(result, int) else EXIT_FINE


def report(error: Exception) -> int:
    """Tell the user about an error in one sentence and choose the exit code."""
    if isinstance(error, WalrasError):
        return print_error(str(error), EXIT_MISTAKE)
    if isinstance(error, CycloptsError):
        return print_error(parse_sentence(error), EXIT_MISTAKE)
    if isinstance(error, OSError) and error.strerror:
        where = f"`{error.filename}`: " if error.filename else ""
        return print_error(f"{where}{error.strerror}", EXIT_MISTAKE)
    return print_error(f"a defect in walras ended this command ({write_crash_log(error)})", EXIT_DEFECT)


def print_error(sentence: str, code: int) -> int:
    """Print one sentence on stderr and pass the exit code on."""
    print(f"walras: {one_line(sentence)}", file=sys.stderr, flush=True)
    return code


def parse_sentence(error: CycloptsError) -> str:
    """Fold the parser's message, which may have several sentences, into one."""
    if isinstance(error, UnknownCommandError):
        return unknown_command(error)
    if isinstance(error, UnusedCliTokensError):
        return (
            f"`{' '.join(error.unused_tokens or [])}` is more than this command takes; --help shows what it does take"
        )
    if type(error.__cause__).__module__.startswith("pydantic"):
        return flag_sentence(error.__cause__)
    text = one_line(str(error)).rstrip(".")
    return re.sub(r"\. ([A-Z])", lambda match: "; " + match.group(1).lower(), text[:1].lower() + text[1:])


def unknown_command(error: UnknownCommandError) -> str:
    """Say which commands there are, and which of them was probably meant."""
    given = (error.unused_tokens or [""])[0]
    # The parser's own message would import every command to list its aliases.
    names = [] if error.app is None else sorted(name for name in error.app if not name.startswith("-"))
    near = difflib.get_close_matches(given, names, n=1)
    advice = f"did you mean `{near[0]}`?" if near else f"the commands are {', '.join(names)}"
    return f"`{given}` is not a command; {advice}"


def flag_sentence(error: Any) -> str:
    """Say what is wrong with a setting that was given as a flag."""
    from walras.config import PlanFields, mistake

    return mistake(error, PlanFields, "the flags")


def write_crash_log(error: Exception) -> str:
    """Write the traceback to a file, so that a defect can be reported, and say where it lies."""
    kind = type(error).__name__
    text = "".join(traceback.format_exception(error))
    try:
        handle, path = tempfile.mkstemp(prefix="walras-", suffix=".log")
        with os.fdopen(handle, "w") as log:
            log.write(f"walras {__version__}, Python {sys.version.split()[0]}\n{text}")
    except OSError:
        return f"{kind}; run it again with --debug to see where"
    return f"{kind}; the details are in {path}"


@contextmanager
def noting_interrupts(seen: list[int]) -> Iterator[None]:
    """Remember that Ctrl-C was pressed, besides raising KeyboardInterrupt as Python does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(number: int, frame: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def close_pipe() -> int:
    """End quietly when the reader of our output has gone (`walras ... | head`)."""
    # Python would flush stdout once more at exit and complain; nothing can be written there any more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_FINE
