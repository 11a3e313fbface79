"""Atomic writing of files: each is written beside its place and then renamed, so that no half-written file appears."""

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from walras.data.panel import Panel
from walras.data.records import FLOWS, LABELS, MONEY, NUMBERS_PER_AGENT
from walras.errors import InputError, quote

OPEN_TO_ALL = 0o666


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it.

    Args:
        path: the file; its folder must exist.
        write: writes to the path it gets.

    Raises:
        InputError: when the folder cannot be written to.
    """
    path = Path(path)
    temporary = _temporary_file(path)
    try:
        write(temporary)
        os.chmod(temporary, OPEN_TO_ALL & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise _not_writable(path, error) from error
    finally:  # also after Ctrl-C
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode("utf-8"))

    write_atomic(path, write)


def write_table(path: str | Path, columns: Mapping[str, np.ndarray] | pa.Table) -> None:
    """Write columns of equal length as Parquet or CSV, by the suffix of `path`."""
    path = Path(path)
    table = columns if isinstance(columns, pa.Table) else pa.table({name: _arrow(columns[name]) for name in columns})
    if path.suffix.lower() == ".parquet":
        write_atomic(path, lambda temporary: pq.write_table(table, temporary, compression="zstd"))
    elif path.suffix.lower() == ".csv":
        write_atomic(path, lambda temporary: pacsv.write_csv(table, temporary))
    else:
        raise InputError(f"{path.name} ends in {quote(path.suffix or 'no suffix')}; write to .parquet or .csv")


def panel_to_table(panel: Panel) -> pa.Table:
    """Return a panel as a long table that can be read again: history rows on sale, then the forecast."""
    on_sale = panel.on_sale.T.copy()  # products outermost
    agent = pa.array(np.repeat(np.arange(panel.n_agents, dtype=np.int32), on_sale.sum(axis=1)))
    weekly = {name: getattr(panel, name) for name in (*FLOWS[:-1], *MONEY, "on_hand")}
    columns = {"unique_id": _repeated(panel.agents, agent)}
    columns["ds"] = _arrow(np.broadcast_to(panel.weeks, on_sale.shape)[on_sale])
    columns |= {name: _arrow(values.T[on_sale]) for name, values in weekly.items() if values is not None}
    columns |= {name: _repeated(values, agent) for name, values in _per_agent(panel).items()}
    table = pa.table(columns)
    if panel.forecast is None:
        return table
    return pa.concat_tables([table, _forecast_table(panel)], promote_options="default")


def _forecast_table(panel: Panel) -> pa.Table:
    assert panel.forecast is not None
    week, agent = np.nonzero(np.isfinite(panel.forecast))
    dates = panel.next_weeks(len(panel.forecast))
    return pa.table(
        {
            "unique_id": _arrow(panel.agents[agent]),
            "ds": _arrow(dates[week]),
            "forecast": _arrow(panel.forecast[week, agent]),
        }
    )


def _per_agent(panel: Panel) -> dict[str, np.ndarray]:
    fields = {name: getattr(panel, name) for name in (*NUMBERS_PER_AGENT, *LABELS)}
    return {name: values for name, values in fields.items() if values is not None}


def _repeated(values: np.ndarray, agent: pa.Array) -> pa.Array:
    """Give every row the value of its product; words stay codes into those of the products."""
    each = _arrow(values)
    if not pa.types.is_dictionary(each.type):
        return each.take(agent)
    return pa.DictionaryArray.from_arrays(each.indices.take(agent), each.dictionary)


def _arrow(values: np.ndarray) -> pa.Array:
    """Turn one column into Arrow; NaN becomes empty, repeated words are stored once."""
    values = np.asarray(values)
    if values.dtype.kind == "U":
        labels, codes = np.unique(values, return_inverse=True)
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(labels.tolist(), pa.string()))
    return pa.array(values, from_pandas=True)


def _temporary_file(path: Path) -> Path:
    try:
        if path.is_dir():
            raise InputError(f"{quote(path, 200)} is a folder; give the name of a file to write")
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    except (OSError, ValueError) as error:
        raise _not_writable(path, error) from error
    os.close(handle)
    return Path(name)


def _umask() -> int:
    """Read the umask, which cannot be read without setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _not_writable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or error
    return InputError(f"{quote(path, 200)} cannot be written ({quote(reason)}); choose a folder that you may write to")
