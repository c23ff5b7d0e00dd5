"""What a route shows as a file to keep: CSV for spreadsheets and pandas, or the route's JSON.

CSV has one header line, and a line for each name and column (bucket of steps). Numbers are the
shortest decimals that give the same float32 again; `nan`, `inf` and `-inf` were recorded as such,
and an empty cell was not recorded. Text that a spreadsheet would take for a formula has a `'` in
front.
"""

import io
import itertools
import re

import numpy as np
from tensorboard import errors

from tensorboard_plugin import answers

FORMATS = ("csv", "json")

#: What can be exported: the routes with arrays.
KINDS = ("heatmap", "series", "steps", "replicas", "histograms")

_AXIS = ("first_step", "last_step", "first_wall_time", "last_wall_time")
_NUMBERS = ("minimum", "mean", "maximum", "nonfinite")

#: A cell that begins with one of these is a formula to some spreadsheet.
_FORMULA = tuple("=+-@\t\r\n")

#: Letters of a run's or a statistic's name in a file name.
_NAMED = 60


def file_name(format_, kind, *names):
    """A name without anything that a file system or a header could take for something else.

    Args:
        format_: One of `FORMATS`.
        kind: One of `KINDS`.
        names: Of the run, and of the statistic if there is one.
    """
    safe = [re.sub(r"[^A-Za-z0-9_.-]+|\.\.+", "_", name)[:_NAMED].strip("._-") for name in names]
    return "-".join(["disttrain", *(name for name in (safe[0], kind, *safe[1:]) if name)]) + (
        f".{format_}"
    )


def to_csv(kind, header, arrays, recorded):
    """A route's answer as CSV, UTF-8 with lines that end as RFC 4180 has it.

    Args:
        kind: One of `KINDS`.
        header: As of the route.
        arrays: Float32 arrays by name, as of the route.
        recorded: Bool array; where it is false, cells are empty.

    Returns:
        Bytes.

    Raises:
        errors.InvalidArgumentError: It would take more than `answers.MOST_BYTES`.
    """
    names, numbers = _names(kind, header), _numbers(kind, header)
    rows = list(itertools.product(*names.values()))
    columns = len(header["first_step"])
    axis = [",".join(map(repr, values)) for values in zip(*(header[n] for n in _AXIS), strict=True)]
    shape = (len(rows), columns, len(header["bins"]) if kind == "histograms" else 1)
    tables = [arrays[name].reshape(shape) for name in _NUMBERS if name in arrays]
    known = recorded.reshape(shape)
    out = io.BytesIO()
    out.write(_line([*names, *_AXIS, *numbers]))
    for row, values in enumerate(rows):
        begin = ",".join(map(_cell, values))
        cells = np.concatenate([_texts(table[row], known[row]) for table in tables], axis=-1)
        lines = [
            f"{begin},{at},{','.join(cell)}\r\n"
            for at, cell in zip(axis, cells.tolist(), strict=True)
        ]
        out.write("".join(lines).encode(errors="backslashreplace"))
        if out.tell() > answers.MOST_BYTES:
            raise errors.InvalidArgumentError(_too_long(columns, row + 1, len(rows), out.tell()))
    return out.getvalue()


def _names(kind, header):
    """By the name of a CSV column, the names that its lines go through."""
    if kind == "replicas":
        return {"replica": range(header["replicas"]), "quantity": _of(header["quantities"])}
    if kind == "steps":
        return {"quantity": _of(header["quantities"])}
    if kind == "histograms":
        return {"variable": header["variables"], "quantity": _of([header["quantity"]])}
    statistics = header["statistics"] if kind == "series" else [header["statistic"]]
    return {"variable": header["variables"], "statistic": _of(statistics)}


def _of(described):
    return [item["name"] for item in described]


def _numbers(kind, header):
    if kind != "histograms":
        return _NUMBERS
    return [name if isinstance(name, str) else f"2^{name}" for name in header["bins"]]


def _texts(values, recorded):
    """Shortest decimals of float32; counts come as `3.0`."""
    return np.where(recorded, values.astype(np.float32).astype(str), "")


def _line(values):
    return (",".join(map(_cell, values)) + "\r\n").encode(errors="backslashreplace")


def _cell(value):
    text = str(value)
    if text.startswith(_FORMULA):
        text = "'" + text
    if any(sign in text for sign in ',"\r\n'):
        text = '"' + text.replace('"', '""') + '"'
    return text


def _too_long(columns, done, rows, size):
    most = int(columns * (answers.MOST_BYTES / size) * (done / rows) * 0.9)
    advice = f"at most {most} columns, " if most else ""
    return (
        f"the file would be longer than {answers.MOST_BYTES // 1_000_000} MB; ask for {advice}"
        "fewer variables or fewer steps"
    )
