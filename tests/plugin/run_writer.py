"""Writes run directories as the trainer does, with TensorBoard's own writer and no TensorFlow.

`RunWriter` writes single records; `write_training` writes a made-up training of a small
transformer, whose values follow the formulas given there, for the server and page tests.
"""

import math

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from tensorboard_plugin import metadata

#: Wall time of step 0, in seconds since the epoch.
EPOCH = 1_700_000_000.0

#: Number of replicas of the made-up training.
REPLICAS = 4


def variable(path, shape=(4, 4), slots=("momentum",), trainable=True):
    """A variable as a part's metadata describes it."""
    described = {slot: {"dtype": "float32", "bytes": 4 * int(np.prod(shape))} for slot in slots}
    return {
        "path": path,
        "shape": list(shape),
        "dtype": "float32",
        "trainable": trainable,
        "slots": described,
    }


def layers_part(variables, slots=("momentum",), replicas=2):
    """The metadata of a part of `disttrain/layers`."""
    columns = tuple(statistic.name for statistic in metadata.layer_statistics(slots))
    optimizer = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9}
    return metadata.Part(columns, tuple(variables), optimizer, replicas)


def steps_part(replicas=2):
    """The metadata of a part of `disttrain/steps`."""
    columns = tuple(quantity.name for quantity in metadata.STEP_QUANTITIES)
    return metadata.Part(columns, replicas=replicas)


def replicas_part(replicas=2, paths=()):
    """The metadata of a part of `disttrain/replicas`, with a column for each of some variables."""
    local = [metadata.local_gradient_norm(path) for path in paths]
    columns = tuple(quantity.name for quantity in (*metadata.REPLICA_QUANTITIES, *local))
    return metadata.Part(columns, replicas=replicas)


def histograms_part(variables, slots=("momentum",), bins=metadata.BINS, replicas=2):
    """The metadata of a part of `disttrain/histograms`."""
    columns = tuple(quantity.name for quantity in metadata.histogram_quantities(slots))
    return metadata.Part(columns, tuple(variables), replicas=replicas, bins=tuple(bins))


def normal_histogram(elements, deviation):
    """Counts, `[len(metadata.BINS)]`, of normal elements around 0; all are 0 without deviation."""
    counts = np.zeros(len(metadata.BINS))
    if not deviation > 0:
        counts[metadata.BINS.index("zero")] = elements
        return counts
    edges = [2.0**exponent / (deviation * math.sqrt(2)) for exponent in metadata.EXPONENTS[1:]]
    below = np.round([0, *(elements * math.erf(edge) for edge in edges), elements])
    counts[len(metadata.COUNTS) :] = np.diff(below)
    counts[metadata.BINS.index("negative")] = elements // 2
    return counts


class RunWriter:
    """Writes one event file; use it as a context manager."""

    def __init__(self, directory):
        self._writer = EventFileWriter(str(directory))
        self._begun = set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._writer.close()

    def record(self, tag, number, part, step, tensor, wall_time=None):
        """Writes one tensor; `part` is a `metadata.Part`, or bytes of metadata that is damaged."""
        name = metadata.part_tag(tag, number)
        content = part if isinstance(part, bytes) else metadata.encode(tag, part)
        self.raw(name, content, step, tensor, wall_time)

    def raw(self, name, content, step, tensor, wall_time=None):
        """Writes one tensor under any tag."""
        value = summary_pb2.Summary.Value(tag=name)
        value.tensor.CopyFrom(tensor_util.make_tensor_proto(np.asarray(tensor, np.float32)))
        if name not in self._begun:
            self._begun.add(name)
            value.metadata.plugin_data.plugin_name = metadata.PLUGIN_NAME
            value.metadata.plugin_data.content = content
            value.metadata.data_class = summary_pb2.DATA_CLASS_TENSOR
        self._writer.add_event(
            event_pb2.Event(
                step=step,
                wall_time=EPOCH + step if wall_time is None else wall_time,
                summary=summary_pb2.Summary(value=[value]),
            )
        )


def transformer(blocks=4):
    """Paths and shapes of a small transformer's variables, in model order."""
    named = [("embedding/embeddings", (8000, 128)), ("position/embeddings", (256, 128))]
    for block in range(blocks):
        at = f"transformer/block_{block}"
        named += [
            (f"{at}/attention/query/kernel", (128, 4, 32)),
            (f"{at}/attention/key/kernel", (128, 4, 32)),
            (f"{at}/attention/value/kernel", (128, 4, 32)),
            (f"{at}/attention/output/kernel", (4, 32, 128)),
            (f"{at}/attention_norm/gamma", (128,)),
            (f"{at}/feed_forward/up/kernel", (128, 512)),
            (f"{at}/feed_forward/down/kernel", (512, 128)),
        ]
    return named + [("final_norm/gamma", (128,)), ("logits/kernel", (128, 8000))]


def write_training(directory, records=300, every=10, blocks=4, seed=0, nan_at=170):
    """Writes a training of `transformer(blocks)` with Adam.

    The `update_ratio` follows warmup and decay and is 0 for `position/embeddings` in the first
    tenth of the run. From record `nan_at`, the gradient of the middle block's attention output is
    not finite for three records, on replica 1. The last replica is the slowest: the others wait
    for it. Every tenth record has histograms, of normal elements.
    """
    rng, local_rng = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    slots = ("momentum", "velocity")
    variables = [variable(path, shape, slots) for path, shape in transformer(blocks)]
    part, whole = layers_part(variables, slots, REPLICAS), steps_part(REPLICAS)
    column = {name: index for index, name in enumerate(part.columns)}
    norm = np.array([np.sqrt(np.prod(item["shape"])) * 0.05 for item in variables])
    depth = rng.normal(0, 0.35, len(variables)) + np.linspace(0.5, -0.5, len(variables))
    noise = np.zeros(len(variables))
    paths = [item["path"] for item in variables]
    size = np.array([np.prod(item["shape"], dtype=int) for item in variables])
    local_part = replicas_part(REPLICAS, paths)
    counted = histograms_part(variables, slots, replicas=REPLICAS)
    broken = paths.index(f"transformer/block_{blocks // 2}/attention/output/kernel")
    with RunWriter(directory) as writer:
        for record in range(records):
            done = record / records
            rate = 1e-3 * min(1, record / (0.1 * records)) * 0.5 * (1 + np.cos(np.pi * done))
            noise = 0.8 * noise + rng.normal(0, 0.08, len(variables))
            ratio = 1.5 * rate * 10 ** (depth + noise)
            gradient = 0.3 * norm * 10 ** (0.5 * depth + noise - 0.8 * done)
            values = np.zeros((len(variables), len(column)))
            values[:, column["weight_norm"]] = norm * (1 + 0.4 * done)
            values[:, column["gradient_norm"]] = gradient
            values[:, column["update_norm"]] = ratio * norm * (1 + 0.4 * done)
            values[:, column["update_ratio"]] = ratio
            values[:, column["gradient_max"]] = 0.1 * gradient
            values[:, column["zero_fraction"]] = rng.uniform(0, 0.05, len(variables))
            values[:, column["slot/momentum"]] = 0.4 * gradient
            values[:, column["slot/velocity"]] = 0.02 * gradient**2
            values[:, column["update_cosine"]] = 0.6 - 0.3 * done + 0.5 * noise
            if done < 0.1:
                values[1, [column["update_norm"], column["update_ratio"]]] = 0
            if nan_at <= record < nan_at + 3:
                values[broken, column["gradient_norm"]] = np.inf
                values[broken, column["gradient_max"]] = np.nan
                values[broken, column["update_ratio"]] = np.nan
                values[broken, column["nonfinite"]] = 12
            loss = 2.2 + 6.8 * np.exp(-5 * done) + rng.normal(0, 0.08)
            quantities = [loss, rate, np.linalg.norm(gradient), 1, 1, 0, 0.04, 1600, np.nan]
            spoilt = broken if nan_at <= record < nan_at + 3 else None
            local = _local_values(local_rng, loss, gradient, spoilt)
            step = record * every
            writer.record(metadata.LAYERS, 0, part, step, values)
            writer.record(metadata.STEPS, 0, whole, step, quantities)
            writer.record(metadata.REPLICAS, 0, local_part, step, local)
            if record % 10 == 0:
                names = ("weight_norm", "gradient_norm", "update_norm", *map(_slot, slots))
                counts = _counts(size, values[:, [column[name] for name in names]], spoilt)
                writer.record(metadata.HISTOGRAMS, 0, counted, step, counts)
    return directory


def _slot(slot):
    return metadata.SLOT_PREFIX + slot


def _local_values(rng, loss, gradient, spoilt):
    """A record of `disttrain/replicas`; the last replica is slow, and 1 may spoil a variable."""
    values = np.zeros((REPLICAS, len(metadata.REPLICA_QUANTITIES) + len(gradient)))
    norm, local_loss, seconds, wait = range(len(metadata.REPLICA_QUANTITIES))
    local = gradient * rng.uniform(1, 1.5, (REPLICAS, len(gradient)))
    if spoilt is not None:
        local[1, spoilt] = np.inf
    values[:, wait + 1 :] = local
    values[:, norm] = np.sqrt(np.square(local).sum(axis=1))
    values[:, local_loss] = loss + rng.normal(0, 0.1, REPLICAS)
    values[:, seconds] = 0.04
    values[:, wait] = rng.uniform(0.010, 0.014, REPLICAS)
    values[-1, wait] = 0.001
    return values


def _counts(sizes, norms, spoilt):
    """A record of `disttrain/histograms`, `[variables, quantities, bins]`, of normal elements."""
    deviations = np.nan_to_num(norms, posinf=0) / np.sqrt(sizes)[:, None]
    counts = np.array(
        [
            [normal_histogram(elements, deviation) for deviation in row]
            for elements, row in zip(sizes, deviations, strict=True)
        ]
    )
    if spoilt is not None:
        counts[spoilt, 1, metadata.BINS.index("nan")] = 12
        counts[spoilt, 1, metadata.BINS.index("zero")] = sizes[spoilt] - 12
    return counts
