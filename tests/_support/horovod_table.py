"""Reads the table of `docs/from_horovod.md` and executes its rows."""

import dataclasses
import pathlib
import re

import keras
import numpy as np
import tensorflow as tf

import disttrain

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "from_horovod.md"

#: Old names of arguments, and those that do not change what is computed.
WITHOUT_A_ROW = ("average", "device_dense", "device_sparse", "use_locking", "scale_local_gradients")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        horovod: What stands in a script of Horovod's.
        code: What replaces it; empty where it is left out.
        remark: What is different.
    """

    horovod: str
    code: str
    remark: str


def rows():
    """The rows of the table, in order."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    return [Row(*_cells(line)) for line in lines]


def _cells(line):
    horovod, code, remark = (cell.strip() for cell in line[1:-1].split("|"))
    return horovod, re.sub("^`|`$", "", code), remark


def namespace(folder, replication="auto"):
    """The names that rows use."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="adapter")])
    path = f"{folder}/model.keras"
    model.save(path)
    return {
        "disttrain": disttrain,
        "keras": keras,
        "replication": disttrain.replication.resolve(replication),
        "variables": model.trainable_variables,
        "gradients": [tf.ones(v.shape) for v in model.trainable_variables],
        "value": np.float32([1, 2]),
        "obj": {"a": 1},
        "path": path,
        "rate": 0.1,
        "steps_per_epoch": 4,
        "function": lambda epoch: 0.5**epoch,
    }


def run(row, names):
    """Executes a row; returns the value of an expression.

    Raises:
        AssertionError: A row without code does not say what to do.
    """
    if not row.code:
        assert row.remark.startswith("Leave"), row
        return None
    # Rows share an optimizer by name, and each wraps a new one.
    names = {**names, "optimizer": keras.optimizers.SGD(0.1)}
    try:
        code = compile(row.code, row.horovod, "eval")
    except SyntaxError:
        exec(row.code, names)
        return None
    return eval(code, names)
