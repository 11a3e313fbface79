"""Own `walras train`: policies and maps that are learned, in folders that a stopped training goes on from.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.output import print_files, print_json, print_text
from walras.config import TableFormat, TableSettings, checked
from walras.errors import SettingsError
from walras.progress import on_terminal
from walras.train.settings import BuyerTraining, MapTraining, read_map_training, read_training

if TYPE_CHECKING:
    from walras.train.loop.train import TrainResult

BUYER_OUT = Path("walras-out/buyer")
BuyerFlags = Annotated[BuyerTraining | None, Parameter(name="*")]
Resume = Annotated[
    bool,
    Parameter(
        name="--resume",
        negative="--fresh",
        help="go on where the folder's training ended, or remove it and begin again",
    ),
]


def buyer(
    table: Annotated[
        Path | None, Parameter(help="table of products and weeks to train on; made-up populations without")
    ] = None,
    /,
    *,
    flags: BuyerFlags = None,
    settings: options.SettingsFile = None,
    static: options.Static = None,
    column: options.Columns = (),
    layout: options.Format = None,
    out: Annotated[Path, Parameter(name="--out", help="folder for checkpoints, records and the result")] = BUYER_OUT,
    resume: Resume = True,
    as_json: options.Json = False,
) -> None:
    """Train a buyer that answers shadow prices; a training that was stopped goes on where it ended."""
    chosen, in_file = read_training(settings, flags, BuyerTraining)
    layout_of_table = table_settings(table, in_file, static, column, layout)
    options.require_writable(out)
    with on_terminal() as progress:
        progress.stage("Reading the table" if table else "Starting")
        panel = None if table is None else options.load_panel(table, layout_of_table)
        from walras.train.buyer_training import train_buyer

        fitted = train_buyer(panel, chosen, out, progress=progress, resume=resume, command=["walras", *sys.argv[1:]])
    show(fitted, as_json)


def table_settings(
    table: Path | None, in_file: TableSettings, static: Path | None, column: tuple[str, ...], layout: TableFormat | None
) -> TableSettings:
    """Join what file and flags say of the table; refuse it where there is none."""
    given = in_file.model_dump(exclude_unset=True) | options.table_flags(static, column, layout)
    if table is None and given:
        raise SettingsError(
            f"`{min(given)}` says how to read a table, but no table was named; name one, or leave it out"
        )
    return checked(TableSettings, given, "the settings")


def show(fitted: "TrainResult", as_json: bool) -> None:
    """Print what came of a training for a program or for a person."""
    if as_json:
        print_json(facts(fitted))
        return
    end = "all steps were done" if fitted.stopped == "steps" else "what was held out no longer got better"
    print_text(
        *fitted.notes,
        f"{fitted.step:,} steps in {fitted.seconds:,.0f} s: {end}.",
        f"Best after step {fitted.best_step:,}, with {fitted.best_value:.6g} on what was held out.",
    )
    print_files([fitted.path])


def facts(fitted: "TrainResult") -> dict[str, Any]:
    """Give what came of a training as a program reads it."""
    names = ("step", "best_step", "best_value", "stopped", "seconds", "notes")
    return {**{name: getattr(fitted, name) for name in names}, "files": [fitted.path]}


OUT = Path("walras-out/interface")
MapFlags = Annotated[MapTraining | None, Parameter(name="*")]
Preset = Annotated[
    Literal["small", "paper"], Parameter(name="--preset", help="values that flags and settings file change")
]
Table = Annotated[Path | None, Parameter(help="table of products and weeks to train on; made-up populations without")]
MapOut = Annotated[Path, Parameter(name="--out", help="folder of the interface; both maps of one go to the same")]


def _command(kind: str, words: str) -> Callable[..., None]:
    """Make the command that trains one kind of map: the options of both are the same.

    Args:
        kind: "primal map" or "dual map".
        words: what its help says.
    """

    def train(
        table: Table = None,
        /,
        *,
        preset: Preset = "small",
        flags: MapFlags = None,
        settings: options.SettingsFile = None,
        static: options.Static = None,
        column: options.Columns = (),
        layout: options.Format = None,
        out: MapOut = OUT,
        resume: Resume = True,
        as_json: options.Json = False,
    ) -> None:
        chosen, in_file = read_map_training(kind, preset, settings, flags)
        layout_of_table = table_settings(table, in_file, static, column, layout)
        options.require_writable(out)
        with on_terminal() as progress:
            progress.stage("Reading the table" if table else "Starting")
            panel = None if table is None else options.load_panel(table, layout_of_table)
            from walras.train.maps_training import train_map

            command = ["walras", *sys.argv[1:]]
            fitted = train_map(kind, panel, chosen, out, progress=progress, resume=resume, command=command)
        show(fitted, as_json)

    train.__doc__ = words
    return train


primal = _command(
    "primal map",
    "Train a map from shadow prices to utilization, under what the folder's dual map proposes where it has one.",
)
dual = _command("dual map", "Train a map from capacity to shadow prices, through the closed coordination loop.")
