"""Event files that no trainer writes: cut off, overwritten, of others, with anything anywhere."""

import json
import math
import struct

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2, types_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tensorboard_plugin import metadata
from tests.plugin.run_writer import (
    RunWriter,
    layers_part,
    replicas_part,
    steps_part,
    variable,
    write_training,
)

LONG = "x" * 10_000

#: Metadata of a part that is JSON, and not as ours.
DESCRIPTIONS = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"\xff\xfe",
    b'{"version": 99, "statistics": ["weight_norm"]}',
    b'{"version": 1, "statistics": {}, "variables": 3}',
    b'{"version": 1, "statistics": [], "variables": []}',
    b'{"version": NaN, "statistics": ["a"]}',
    b'{"version": 1, "statistics": ["a"], "replicas": -1}',
    b'{"version": 1, "statistics": ["a"], "replicas": 1e400}',
    b'{"version": 1, "statistics": ["a"], "variables": [{"path": 3}]}',
    json.dumps({"version": 1, "quantities": ["loss"], "variables": [{"path": "\ud800"}]}).encode(),
    json.dumps(
        {
            "version": 1,
            "statistics": ["weight_norm", "weight_norm", "nonfinite", "update_ratio"],
            "variables": [
                {"path": "=1+1", "shape": [1e9, "x"], "slots": 3, "dtype": [], "trainable": "no"},
                {"path": "=1+1", "shape": [2**62, 2**62], "slots": {"momentum": None}},
                {"path": "", "shape": [-5]},
            ],
            "optimizer": {"config": {"epsilon": "?", "groups": 5}, "class_name": {}, "clip": 7},
        }
    ).encode(),
)


def write_cut(directory):
    """A run whose file ends in the middle of a record."""
    _spoil(directory, lambda content: content[: 2 * len(content) // 3])


def write_overwritten(directory):
    """A run of whose file some bytes in the middle are others."""
    rng = np.random.default_rng(0)

    def spoil(content):
        middle = len(content) // 2
        return content[:middle] + rng.bytes(1000) + content[middle + 1000 :]

    _spoil(directory, spoil)


def _spoil(directory, change):
    write_training(directory, records=30, blocks=1)
    (path,) = directory.iterdir()
    path.write_bytes(change(path.read_bytes()))


def write_noise(directory):
    """A run whose file holds no events at all."""
    directory.mkdir()
    content = np.random.default_rng(0).bytes(5000)
    (directory / "events.out.tfevents.1.host").write_bytes(content)
    (directory / "events.out.tfevents.2.host").write_bytes(b"")


def write_anything(directory):
    """A run with NaN and infinities as values, steps and times that jump, and any metadata."""
    rng = np.random.default_rng(0)
    part = layers_part([variable("a/kernel"), variable("a/bias", (4,))], ["velocity"])
    local = replicas_part(3)
    with RunWriter(directory) as writer:
        for number, description in enumerate(DESCRIPTIONS):
            for step in range(3):
                shape = (3, 4) if number == len(DESCRIPTIONS) - 1 else (1, 1)
                values = np.ones(shape)
                writer.record(metadata.LAYERS, 10 + number, description, step, values)
                writer.record(metadata.HISTOGRAMS, 10 + number, description, step, values)
        for i in range(150):
            step = [i, -i, 2**40 + i, i % 3][i % 4]
            wall_time = [1e9 + i, -5.0, 1e300, 0.0, math.inf, math.nan][i % 6]
            for tag, written in ((metadata.LAYERS, part), (metadata.REPLICAS, local)):
                values = rng.choice([0, 1, -1, 1e38, math.nan, math.inf], written.shape(tag))
                writer.record(tag, 0, written, step, values, wall_time)
            values = rng.choice([0, math.nan, -math.inf], len(steps_part().columns))
            writer.record(metadata.STEPS, 0, steps_part(), step, values, wall_time)


def write_long(directory):
    """A run with two hundred names of 10,000 letters."""
    part = layers_part([variable(f"{i}{LONG}") for i in range(200)], ())
    with RunWriter(directory) as writer:
        writer.record(metadata.LAYERS, 0, part, 1, np.ones(part.shape(metadata.LAYERS)))


def write_others(directory):
    """A run of other kinds of summaries under our plugin's name and tags."""
    tensors = summary_pb2.Summary()
    part = metadata.encode(metadata.LAYERS, layers_part([variable("a")], ()))
    for number in range(6):
        value = tensors.value.add(tag=f"disttrain/layers/{number}")
        value.metadata.plugin_data.plugin_name = metadata.PLUGIN_NAME
        value.metadata.plugin_data.content = part
        value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        value.tensor.dtype = types_pb2.DT_FLOAT
        shape = [(1, 8), (2**40, 2), (1, 8), (-1, 8), (), (1, 8)][number]
        for size in shape:
            value.tensor.tensor_shape.dim.add(size=size)
        value.tensor.tensor_content = struct.pack("<8f", *range(8))
        if number == 2:
            value.tensor.tensor_content = b"abc"
        if number == 4:
            value.tensor.dtype = types_pb2.DT_STRING
            value.tensor.string_val.append(b"text")
        if number == 5:
            value.metadata.data_class = summary_pb2.DATA_CLASS_BLOB_SEQUENCE
    value = tensors.value.add(tag="disttrain/steps/0", simple_value=3.0)
    value.metadata.plugin_data.plugin_name = "scalars"
    writer = EventFileWriter(str(directory))
    for step in range(3):
        writer.add_event(event_pb2.Event(step=step, wall_time=1e9 + step, summary=tensors))
    writer.close()
