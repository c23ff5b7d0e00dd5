"""What people who come from Horovod use, computed under every replication; see `checks.py`."""

import types

import keras
import numpy as np
import tensorflow as tf

import disttrain
from disttrain.schedules import Warmup
from tests._support import horovod_table


def objects(replication, folder):
    """Objects of other sizes on each process, one that cannot be pickled, and another root."""
    process, processes = replication.topology.process, replication.topology.processes
    last = processes - 1
    mine = {"process": process, "text": "x" * (7 * process), "array": np.arange(process)}
    received = disttrain.broadcast_object(mine, root_rank=last, replication=replication)
    gathered = disttrain.allgather_object(mine, replication=replication)
    error = ""
    try:
        obj = (lambda: 0) if process == last else 7
        disttrain.allgather_object(obj, replication=replication)
    except TypeError as raised:
        error = str(raised)
    return {
        "received": received["process"],
        "length": len(received["text"]) + len(received["array"]),
        "gathered": [one["process"] for one in gathered],
        "lengths": [len(one["text"]) for one in gathered],
        "error": error,
    }


def page(replication, folder):
    """The rows of the page that fail, on the ranks of Horovod."""
    failed, names = [], horovod_table.namespace(folder, replication)
    for row in horovod_table.rows() if replication.name == "horovod" else []:
        try:
            horovod_table.run(row, names)
        except Exception as error:
            failed.append(f"{row.horovod}: {error!r}")
    return {"failed": np.asarray(failed, dtype=str)}


def horovods_warmup(rate, epochs, steps):
    """The rates that Horovod's own callback sets in each batch, on the ranks of the job."""
    from horovod._keras.callbacks import LearningRateWarmupCallbackImpl

    optimizer = types.SimpleNamespace(lr=rate)
    backend = types.SimpleNamespace(
        get_value=lambda value: value, set_value=lambda _, value: setattr(optimizer, "lr", value)
    )
    callback = LearningRateWarmupCallbackImpl(
        backend, rate, warmup_epochs=epochs, momentum_correction=False, steps_per_epoch=steps
    )
    callback.model = types.SimpleNamespace(optimizer=optimizer)
    seen = []
    for epoch in range(epochs):
        callback.on_epoch_begin(epoch)
        for batch in range(steps):
            callback.on_batch_begin(batch)
            seen.append(optimizer.lr)
    return seen


def warmup(replication, folder):
    """Horovod's rate and ours in each batch; ours twice under other replications."""
    rate, epochs, steps = 0.8, 2, 3
    size = replication.replicas
    schedule = Warmup(rate, epochs * steps, start=rate / size, ahead=1)
    ours = [float(schedule(k)) for k in range(epochs * steps)]
    theirs = horovods_warmup(rate, epochs, steps) if replication.name == "horovod" else ours
    return {"ours": ours, "theirs": theirs}


def horovods_accumulation(gradients, average):
    """What Horovod's own aggregation makes of a rank's gradients, on the ranks of the job."""
    import horovod.tensorflow as hvd
    from horovod.tensorflow.gradient_aggregation_eager import LocalGradientAggregationHelperEager

    variable = tf.Variable([0.0])
    helper = LocalGradientAggregationHelperEager(
        len(gradients),
        lambda reduced, variables: [hvd.allreduce(one, op=hvd.Average) for one in reduced],
        sparse_as_dense=False,
        average_aggregated_gradients=average,
    )
    for gradient in gradients:
        (reduced,) = helper.compute_gradients([tf.constant([gradient])], [variable])
    return reduced.numpy()


def accumulation(replication, folder):
    """Horovod's update in both of its ways, and ours, of other gradients on each rank."""
    if replication.name != "horovod":
        return {"ours": 0.0, "averaged": 0.0, "added": 0.0}
    own = [replication.topology.process + one for one in (1.0, 5.0)]
    variable = keras.Variable(np.zeros(1, np.float32))
    inner = keras.optimizers.SGD(1.0)
    optimizer = disttrain.DistributedOptimizer(inner, accumulate_steps=2, replication=replication)
    for gradient in own:
        optimizer.apply([tf.constant([gradient])], [variable])
    return {
        "ours": -variable.numpy(),
        "averaged": horovods_accumulation(own, average=True),
        "added": horovods_accumulation(own, average=False),
    }


def compiled(replication, folder):
    """`Model.fit` compiled by XLA, in which Horovod's operations cannot be."""
    if replication.name != "horovod":
        return {"error": ""}
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse", jit_compile=True
    )
    try:
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    except ValueError as error:
        return {"error": str(error)}
    return {"error": "none"}


CHECKS = {
    "objects": objects,
    "horovod-page": page,
    "horovod-compiled": compiled,
    "horovod-warmup": warmup,
    "horovod-accumulation": accumulation,
}
