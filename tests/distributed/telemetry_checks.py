"""What telemetry does under every replication; see `checks.py`."""

import os
import warnings

import keras
import numpy as np
import tensorflow as tf

import disttrain
from disttrain.telemetry.divergence import DivergenceCheck
from tests.distributed import checks


def replicas_recorded(replication, folder):
    """A run of Adam with what each replica saw, and the weights before each step."""
    logdir = os.path.join(folder, "run")
    made = checks.trainer(
        replication,
        optimizer=keras.optimizers.Adam(1e-2),
        telemetry=disttrain.Telemetry(every=1, per_replica="variables", divergence_every=2),
        logdir=logdir,
        loss_scale=128.0,
        clip=disttrain.ClipByNorm(0.1),
    )
    weights, velocities = [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append([v.numpy() for v in self.model.trainable_variables])
            velocities.append([v.numpy() for v in made.optimizer.inner._velocities])

    initial = [v.numpy() for v in made.model.trainable_variables]
    made.fit(checks.dataset(41), verbose=0, callbacks=[Watch()])
    steps = [initial, *weights]
    return {
        "logdir": logdir,
        **{f"weights_{i}": np.stack([s[i] for s in steps]) for i in range(len(initial))},
        **{f"velocity_{i}": np.stack([s[i] for s in velocities]) for i in range(len(initial))},
    }


def accumulated(replication, folder):
    """Two updates of three batches each, with one skipped update between them."""
    logdir = os.path.join(folder, "run")
    x, y = checks.data(9 * checks.BATCH)
    x[4 * checks.BATCH] = np.nan
    made = checks.trainer(
        replication,
        telemetry=disttrain.Telemetry(every=1),
        logdir=logdir,
        loss_scale=8.0,
        accumulate_steps=3,
        steps_per_execution=2,
    )
    made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(checks.BATCH), verbose=0)
    return {"logdir": logdir}


def divergence(replication, folder):
    """The last replica rounds a weight differently, then gets another one, as by a callback."""
    with replication.scope():
        variables = [
            keras.Variable(np.linspace(-1, 1, 6).reshape(2, 3), dtype="float32", name=f"v{i}")
            for i in range(3)
        ]
    check = DivergenceCheck(replication, variables, every=5)
    check.check(1)
    value = np.asarray(variables[2].numpy())
    near = value.copy()
    near.view(np.uint32)[0, 0] ^= 1
    _assign_on_last_replica(replication, variables[2], near)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check.check(5)
    _assign_on_last_replica(replication, variables[1], value[::-1])
    error = ""
    try:
        check.check(10)
    except RuntimeError as raised:
        error = str(raised)
    rounding = sum("round differently" in str(w.message) for w in caught)
    return {"error": error, "warnings": rounding}


def _assign_on_last_replica(replication, variable, value):
    strategy = getattr(replication, "strategy", None)
    own = [variable.value]
    if strategy is not None:
        own = strategy.experimental_local_results(variable.value)
    if replication.topology.process == replication.topology.processes - 1:
        own[-1].assign(value)


CHECKS = {
    "replicas-recorded": replicas_recorded,
    "accumulated": accumulated,
    "divergence": divergence,
}
