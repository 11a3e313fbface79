"""`walras train buyer`, `primal` and `dual`: learned policies and maps, in folders from which training resumes."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.options import NO_FLAGS
from walras.config import TableSettings, checked
from walras.errors import SettingsError
from walras.progress import on_terminal
from walras.train.settings import BuyerTraining, MapTraining, read_map_training, read_training

if TYPE_CHECKING:
    from walras.train.loop import TrainResult

BUYER_OUT, MAPS_OUT = Path("walras-out/buyer"), Path("walras-out/interface")
BuyerFlags = Annotated[BuyerTraining | None, Parameter(name="*")]
MapFlags = Annotated[MapTraining | None, Parameter(name="*")]
Table = Annotated[Path | None, Parameter(help="table of products and weeks (default: generated populations)")]
BuyerOut = Annotated[Path, Parameter(name="--out", help="folder for checkpoints, records and the result")]
MapsOut = Annotated[Path, Parameter(name="--out", help="folder of the interface; both of its maps go to the same")]
Preset = Annotated[
    Literal["small", "paper"], Parameter(name="--preset", help="base values that flags and settings file change")
]
Resume = Annotated[
    bool,
    Parameter(name="--resume", negative="--fresh", help="resume the folder's training, or remove it and start again"),
]


def buyer_command(
    table: Table = None,
    /,
    *,
    flags: BuyerFlags = None,
    table_flags: options.TableFlags = NO_FLAGS,
    out: BuyerOut = BUYER_OUT,
    resume: Resume = True,
    as_json: options.Json = False,
) -> None:
    """Train a buyer that responds to shadow prices; a stopped training is resumed."""
    chosen, in_file = read_training(table_flags.settings, flags, BuyerTraining)
    table_settings = _table_settings(table, in_file, table_flags)
    from walras.train.buyer_training import train_buyer

    train = partial(train_buyer, settings=chosen, folder=out, resume=resume)
    _train(train, table, table_settings, out, as_json)


def _map_command(kind: str, text: str) -> Callable[..., None]:
    """Return the command that trains one kind of map ("primal map" or "dual map"), with its help text."""

    def command(
        table: Table = None,
        /,
        *,
        preset: Preset = "small",
        flags: MapFlags = None,
        table_flags: options.TableFlags = NO_FLAGS,
        out: MapsOut = MAPS_OUT,
        resume: Resume = True,
        as_json: options.Json = False,
    ) -> None:
        chosen, in_file = read_map_training(kind, preset, table_flags.settings, flags)
        table_settings = _table_settings(table, in_file, table_flags)
        from walras.train.maps_training import train_map

        train = partial(train_map, kind, settings=chosen, folder=out, resume=resume)
        _train(train, table, table_settings, out, as_json)

    command.__doc__ = text
    return command


primal_command = _map_command(
    "primal map",
    "Train a map from shadow prices to utilization, at prices that the folder's dual map proposes if there is one.",
)
dual_command = _map_command(
    "dual map", "Train a map from capacity to shadow prices, through the closed coordination loop."
)


def _table_settings(table: Path | None, in_file: TableSettings, flags: options.TableFlags) -> TableSettings:
    """Join the settings of the table from file and flags; refuse them without a table."""
    given = in_file.model_dump(exclude_unset=True) | flags.fields()
    if table is None and given:
        raise SettingsError(
            f"`{min(given)}` says how to read a table, but no table was named; name one, or leave it out"
        )
    return checked(TableSettings, given, "the settings")


def _train(
    train: "Callable[..., TrainResult]",
    table: Path | None,
    table_settings: TableSettings,
    out: Path,
    as_json: bool,
) -> None:
    """Read the table, train, and print the result."""
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the table" if table else "Starting")
        panel = None if table is None else options.load_panel(table, table_settings)
        result = train(panel, progress=progress, command=["walras", *sys.argv[1:]])
    names = ("step", "best_step", "best_value", "stopped", "seconds", "notes")
    end = "all steps were done" if result.stopped == "steps" else "the validation value no longer improved"
    sentences = (
        *result.notes,
        f"{result.step:,} steps in {result.seconds:,.0f} s: {end}.",
        f"Best after step {result.best_step:,}, with validation value {result.best_value:.6g}.",
    )
    options.print_result(as_json, {name: getattr(result, name) for name in names}, sentences, [result.path])
