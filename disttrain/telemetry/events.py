"""Records as TensorBoard's events: which tag and metadata each part gets, and the bytes of both."""

import dataclasses

import numpy as np
from tensorboard.compat.proto import (
    event_pb2,
    summary_pb2,
    tensor_pb2,
    tensor_shape_pb2,
    types_pb2,
)
from tensorboard.plugins.scalar import metadata as scalar_metadata

from tensorboard_plugin import metadata


@dataclasses.dataclass(frozen=True)
class Record:
    """What is written of one step, as one event.

    Attributes:
        step: Its number.
        wall_time: Seconds since the epoch.
        parts: One of `metadata.TAGS` to `(metadata.Part, float32 array)`; another `Part` than
            before opens a new part.
        scalars: Tag to number, for TensorBoard's own pages; what is not one number is left out.
    """

    step: int
    wall_time: float
    parts: dict
    scalars: dict


class Encoder:
    """Serializes the records of one event file, in their order."""

    def __init__(self):
        self._parts = {}
        self._described = set()
        self._forms = {}

    def encode(self, record):
        """The `Event` of a `Record`, as bytes."""
        describe, arrays = {}, []
        for tag, (part, array) in record.parts.items():
            name = self._part_tag(tag, part, array)
            arrays.append((name, np.asarray(array, "<f4")))
            if name not in self._described:
                describe[name] = _plugin_metadata(tag, part)
        for tag, value in record.scalars.items():
            value = np.asarray(value)
            if value.size == 1 and np.issubdtype(value.dtype, np.number):
                arrays.append((tag, np.asarray(value.reshape(()), "<f4")))
                if tag not in self._described:
                    describe[tag] = _scalar_metadata()
        if describe:
            # Readers look at a tag's first metadata only.
            self._described |= describe.keys()
            event = _form(arrays, describe)
        else:
            # All but the numbers is the same at the next step, and costs ten times as much.
            tags = tuple(tag for tag, _ in arrays)
            event = self._forms.get(tags)
            if event is None:
                event = self._forms[tags] = _form(arrays, describe)
        event.wall_time, event.step = float(record.wall_time), int(record.step)
        for value, (_, array) in zip(event.summary.value, arrays, strict=True):
            value.tensor.tensor_content = array.tobytes()
        return event.SerializeToString()

    def _part_tag(self, tag, description, array):
        part = self._parts.get(tag)
        if part is None or part[2] > metadata.PART_BYTES or not _same(part[1], description):
            number = 0 if part is None else part[0] + 1
            part = self._parts[tag] = [number, description, 0]
            self._forms.clear()
        part[2] += array.nbytes
        return metadata.part_tag(tag, part[0])


def _same(a, b):
    # Comparing the names of all variables takes longer than writing their numbers.
    return a is b or a == b


def _form(arrays, describe):
    """An `Event` of these tags and shapes; the numbers are yet to come."""
    values = []
    for tag, array in arrays:
        shape = tensor_shape_pb2.TensorShapeProto(
            dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=side) for side in array.shape]
        )
        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, tensor_shape=shape)
        values.append(summary_pb2.Summary.Value(tag=tag, tensor=tensor, metadata=describe.get(tag)))
    return event_pb2.Event(summary=summary_pb2.Summary(value=values))


def _plugin_metadata(tag, part):
    summary = summary_pb2.SummaryMetadata(data_class=summary_pb2.DATA_CLASS_TENSOR)
    summary.plugin_data.plugin_name = metadata.PLUGIN_NAME
    summary.plugin_data.content = metadata.encode(tag, part)
    return summary


def _scalar_metadata():
    summary = scalar_metadata.create_summary_metadata("", "")
    summary.data_class = summary_pb2.DATA_CLASS_SCALAR
    return summary
