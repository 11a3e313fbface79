"""Own `walras train primal` and `walras train dual`: the maps of a coordination interface, in one folder.

EDGE: everything heavy is imported inside the commands, so that help stays quick.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from walras.cli import options
from walras.cli.train import Resume, show, table_settings
from walras.progress import on_terminal
from walras.train.map_settings import MapTraining, map_training

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
        chosen, in_file = map_training(kind, preset, settings, flags)
        layout_of_table = table_settings(table, in_file, static, column, layout)
        options.refuse_unwritable(out)
        with on_terminal() as progress:
            progress.stage("Reading the table" if table else "Starting")
            panel = None if table is None else options.open_panel(table, layout_of_table)
            from walras.train.train_maps import train_map

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
