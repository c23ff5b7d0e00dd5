"""The block at the start of a run: what is about to happen, in a few lines, on the chief."""

import keras
import tensorflow as tf

from disttrain import peers
from disttrain.data.kinds import ARRAYS, DATASET, kind_of
from disttrain.optimizers.named import NamedOptimizers
from disttrain.schedules.scaling import scaling_of


def announce(trainer, global_batch, places, verbose):
    """Compares what the processes run, and prints the block on the chief.

    Args:
        trainer: A `Trainer` whose model is built. All processes call this.
        global_batch: Examples in a step over all replicas, or `None` where that is not known.
        places: Where logs and checkpoints go: `{"Logs": path or None, ...}`.
        verbose: 0 prints nothing.

    Raises:
        RuntimeError: The processes run different code.
    """
    everyone = peers.meet(trainer.replication)
    if not verbose:
        return
    rows = list(_rows(trainer, everyone, global_batch, places))
    width = max(len(label) for label, _ in rows) + 2
    print("\n".join(f"{label:<{width}}{text}" for label, text in rows), flush=True)


def batch_of(data, batch_size, topology):
    """Examples of the global batch, as far as data tell it; else `None`.

    Args:
        data: What was handed to `fit`.
        batch_size: The batch size for arrays, or `None`.
        topology: A `Topology`.
    """
    kind = kind_of(data)
    if kind == ARRAYS:
        rows = len(keras.tree.flatten(data)[0])
        return min(batch_size or 32, rows)
    if kind != DATASET:
        return None
    shapes = [getattr(leaf, "shape", None) for leaf in keras.tree.flatten(data.element_spec)]
    if shapes and shapes[0] is not None and shapes[0].rank and shapes[0][0] is not None:
        return int(shapes[0][0])
    # `batch` without drop_remainder leaves the size out of the shape.
    while data is not None and not hasattr(data, "_batch_size"):
        data = getattr(data, "_input_dataset", None)
    size = None if data is None else tf.get_static_value(data._batch_size)
    return None if size is None else int(size)


def _rows(trainer, everyone, global_batch, places):
    replication, optimizer = trainer.replication, trainer.optimizer
    topology = replication.topology
    yield "Replication", _replication(replication.name, topology)
    yield "Hosts", _hosts(everyone)
    yield "Devices", _counted(device for peer in everyone for device in peer.devices)
    yield "Batch", _batch(global_batch, topology.replicas, optimizer.accumulate_steps)
    yield "Optimizer", _optimizer(optimizer.inner)
    yield "Learning rate", _learning_rate(getattr(optimizer.inner, "_learning_rate", None))
    yield "Precision", trainer.model.dtype_policy.name
    yield "Clip", repr(optimizer.clip) if optimizer.clip is not None else "none"
    yield "Loss scale", _loss_scale(optimizer)
    yield "Reduction", _reduction(optimizer.reduction)
    for label, place in places.items():
        yield label, "none" if place is None else str(place)


def _replication(name, topology):
    text = f"{name}, {_count(topology.replicas, 'replica')}"
    if topology.processes > 1:
        text += f" in {topology.processes} processes"
    return text


def _hosts(everyone):
    """`"a (ranks 0 to 3), b (rank 4)"`."""
    ranks = {}
    for rank, peer in enumerate(everyone):
        ranks.setdefault(peer.host, []).append(rank)
    if len(everyone) == 1:
        return everyone[0].host
    return ", ".join(f"{host} ({_ranks(numbers)})" for host, numbers in ranks.items())


def _ranks(numbers):
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"ranks {numbers[0]} to {numbers[-1]}"
    return "ranks " + ", ".join(map(str, numbers))


def _counted(devices):
    counts = {}
    for device in devices:
        counts[device] = counts.get(device, 0) + 1
    return ", ".join(f"{count} x {device}" for device, count in counts.items())


def _batch(size, replicas, accumulate_steps):
    if size is None:
        return "as the dataset gives it"
    text = f"{size} global, "
    if size % replicas == 0:
        text += f"{size // replicas} for each replica"
    else:
        low = size // replicas
        text += (
            f"{low} or {low + 1} for each replica; replicas with fewer wait for the others, and a "
            f"multiple of {replicas} keeps all busy"
        )
    if accumulate_steps > 1:
        text += f"; {accumulate_steps} batches make an update of {size * accumulate_steps}"
    return text


def _optimizer(inner):
    if not isinstance(inner, NamedOptimizers):
        return type(inner).__name__
    return ", ".join(f"{name}: {type(inner[name]).__name__}" for name in inner.names)


def _learning_rate(rate):
    if rate is None:
        return "several, one in each optimizer"
    if not isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        value = _number(rate() if callable(rate) and not hasattr(rate, "numpy") else rate)
        return f"{value:g}, {_scaling(scaling_of(value))}"
    first = _number(rate(0))
    text = f"{type(rate).__name__}, {first:g} at the first step"
    return f"{text}, {_scaling(scaling_of(rate))}"


def _scaling(scaling):
    if scaling is None:
        return "not scaled by the number of replicas"
    return (
        f"scaled for {_count(scaling.replicas, 'replica')} by the {scaling.rule} rule, "
        f"{scaling.factor:g} times"
    )


def _loss_scale(optimizer):
    if optimizer.loss_scale is None:
        return "none"
    now = float(optimizer.current_loss_scale())
    kind = type(optimizer.loss_scale).__name__.removesuffix("LossScale").lower()
    return f"{kind}, {now:g} at the first step"


def _reduction(reduction):
    travels = f", travels as {reduction.compression}" if reduction.compression else ""
    return f"{reduction.kind}{travels}"


def _number(value):
    return float(value.numpy() if hasattr(value, "numpy") else value)


def _count(number, noun):
    return f"{number} {noun}" + ("" if number == 1 else "s")
