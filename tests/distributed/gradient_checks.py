"""What happens between the gradient and the weight, computed under every replication.

See `checks.py`, which these functions are listed beside.
"""

import importlib.util
import os

import keras
import numpy as np
import tensorflow as tf

import disttrain
from disttrain.replication import chunks
from disttrain.replication.horovod import Horovod
from tests.distributed import checks

#: Every optimizer that Keras has, with settings that move the weights.
OPTIMIZERS = {
    "SGD": {"learning_rate": 0.1},
    "SGD-nesterov": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
    "SGD-ema": {"learning_rate": 0.1, "use_ema": True, "ema_overwrite_frequency": 4},
    "Adam": {"learning_rate": 0.01},
    "Adam-amsgrad": {"learning_rate": 0.01, "amsgrad": True},
    "AdamW": {"learning_rate": 0.01, "weight_decay": 0.1},
    "Adamax": {"learning_rate": 0.01},
    "Nadam": {"learning_rate": 0.01},
    "RMSprop": {"learning_rate": 0.01, "momentum": 0.5, "centered": True},
    "Adagrad": {"learning_rate": 0.05},
    "Adadelta": {"learning_rate": 1.0},
    "Adafactor": {"learning_rate": 0.01},
    "Ftrl": {"learning_rate": 0.05},
    "Lion": {"learning_rate": 0.003},
    "Lamb": {"learning_rate": 0.01},
    "Muon": {"learning_rate": 0.01},
    "LossScaleOptimizer": {},
}
#: Optimizers that this version of Keras cannot run itself: in 3.12, the last for Python 3.10, Muon
#: asks a TensorFlow variable for its path.
BROKEN = set()
if tuple(map(int, keras.__version__.split(".")[:2])) < (3, 13):
    BROKEN.add("Muon")
    del OPTIMIZERS["Muon"]
# What Keras 3.12 lacks.
if hasattr(keras.optimizers, "ScheduleFreeAdamW"):
    OPTIMIZERS["ScheduleFreeAdamW"] = {"learning_rate": 0.01, "warmup_steps": 2}
if hasattr(keras.optimizers, "MultiOptimizer"):
    OPTIMIZERS["MultiOptimizer"] = {}


def changed_later():
    """An optimizer with what its configuration lacks."""
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    optimizer.learning_rate = 0.02
    optimizer.iterations.assign(5)
    return optimizer


#: Ours, and those that a user has changed.
OWN = {
    "AdamW, changed later": changed_later,
    "LARS": lambda: disttrain.optimizers.LARS(0.5, momentum=0.9),
    "SAM": lambda: disttrain.optimizers.SAM(keras.optimizers.SGD(0.1, momentum=0.9), rho=0.1),
    "Lookahead": lambda: disttrain.optimizers.Lookahead(keras.optimizers.SGD(0.1), sync_period=4),
    "Grouped": lambda: disttrain.optimizers.Grouped(
        keras.optimizers.SGD(0.1, weight_decay=0.1),
        [disttrain.optimizers.Group("*bias", learning_rate=0.1, weight_decay=False)],
    ),
}
if importlib.util.find_spec("tensorflow_addons") is not None:
    OWN["Addons LAMB"] = lambda: disttrain.optimizers.from_addons("LAMB", learning_rate=0.01)
    OWN["Addons NovoGrad"] = lambda: disttrain.optimizers.from_addons(
        "NovoGrad", learning_rate=0.01
    )


def keras_optimizer(name):
    if name == "LossScaleOptimizer":
        inner = keras.optimizers.SGD(0.1, momentum=0.9)
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)
    if name == "MultiOptimizer":
        biases = {".*bias": keras.optimizers.SGD(0.2)}
        optimizers = keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01), biases)
        return keras.optimizers.MultiOptimizer(optimizers)
    if name in OWN:
        return OWN[name]()
    return getattr(keras.optimizers, name.partition("-")[0])(**OPTIMIZERS[name])


def short(replication, optimizer, epochs=1, rows=21, model=checks.build, data=None, **options):
    """A short training with a last batch that does not divide; weights and loss."""
    made = checks.trainer(replication, model, optimizer, **options)
    examples = data or tf.data.Dataset.from_tensor_slices(checks.data(rows)).batch(checks.BATCH)
    history = made.fit(examples, epochs=epochs, verbose=0)
    return made, {
        "weights": checks.flat(made.model.trainable_variables),
        "loss": history.history["loss"],
        "iterations": made.optimizer.iterations.numpy(),
    }


def optimizer_check(name):
    def check(replication, folder):
        return short(replication, keras_optimizer(name), epochs=2)[1]

    return check


def plain(name):
    """The optimizer's numbers from Keras alone, on one device with whole batches."""
    model = checks.build()
    optimizer = keras_optimizer(name)
    model.compile(optimizer, checks.loss(), auto_scale_loss=False)
    # `fit` would build it symbolically, and lose the weights that ScheduleFreeAdamW begins with.
    optimizer.build(model.trainable_variables)
    examples = tf.data.Dataset.from_tensor_slices(checks.data(21)).batch(checks.BATCH)
    model.fit(examples, epochs=2, verbose=0)
    return checks.flat(model.trainable_variables)


def accumulate(replication, folder):
    """Three batches of 4 make one update; 41 examples leave 5, in batches of 4 and 1."""
    examples = tf.data.Dataset.from_tensor_slices(checks.data(41)).batch(4)
    options = {"data": examples, "accumulate_steps": 3, "steps_per_execution": 2}
    return short(replication, "adam", epochs=2, **options)[1]


def accumulate_by_hand(replication, folder):
    """Calls of `apply` with other gradients on each replica and in each micro-step."""
    with replication.scope():
        variable = keras.Variable(np.zeros(1, np.float32))
        optimizer = disttrain.DistributedOptimizer(
            keras.optimizers.SGD(1.0), accumulate_steps=3, replication=replication
        )
        optimizer.build([variable])
    first = replication.topology.first_replica
    parts = [tf.constant(float(first + i + 1)) for i in range(replication.topology.local_replicas)]

    @tf.function(autograph=False)
    def step(factor):
        replication.run(lambda part: optimizer.apply([part[None] * factor], [variable]), parts)

    @tf.function(autograph=False)
    def flush():
        replication.run(lambda part: optimizer.flush(), parts)

    seen = []
    for factor in (1.0, 2.0, 6.0, 5.0, 7.0):
        step(tf.constant(factor))
        seen.append(variable.numpy()[0])
    for _ in range(2):
        flush()
        seen.append(variable.numpy()[0])
    return {"seen": seen, "iterations": optimizer.iterations.numpy()}


def compressed(kind, groups=1):
    def check(replication, folder):
        inner = keras.optimizers.SGD(0.05, momentum=0.9)
        wrapped = disttrain.DistributedOptimizer(inner, compression=kind, groups=groups)
        return short(replication, wrapped, epochs=3)[1]

    return check


def large_compressed(replication, folder):
    """Gradients whose sum is more than float16 holds."""
    gradients = [40000.0] * replication.replicas

    def step(**options):
        return checks.apply_once(replication, gradients, compression="fp16", **options)["value"]

    return {"mean": step(), "sum": step(reduction="sum")}


def float8():
    """A layer whose scales are made from the largest numbers of each batch."""
    init = keras.initializers.GlorotUniform
    return keras.Sequential(
        [
            keras.Input((checks.FEATURES,)),
            keras.layers.Dense(
                8, "relu", kernel_initializer=init(1), dtype="float8_from_float32", name="eight"
            ),
            keras.layers.Dense(checks.CLASSES, kernel_initializer=init(2)),
        ]
    )


def float8_training(replication, folder):
    options = {"loss_scale": 64.0, "clip": disttrain.ClipByGlobalNorm(0.5), "accumulate_steps": 2}
    made, result = short(replication, "adam", 2, model=float8, steps_per_execution=2, **options)
    return {**result, "scales": checks.flat(made.model.get_layer("eight").trainable_variables[:6])}


def embedding(sparse_as_dense, **options):
    """Repeated words, so that gradients hold rows several times, on one replica and across them."""

    def model():
        return keras.Sequential(
            [
                keras.Input((5,), dtype="int32"),
                keras.layers.Embedding(
                    20, 4, embeddings_initializer=keras.initializers.GlorotUniform(1)
                ),
                keras.layers.GlobalAveragePooling1D(),
                keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(2)),
            ]
        )

    def check(replication, folder):
        rng = np.random.default_rng(0)
        # Each batch has more words than the one before, and so a gradient of more rows.
        words = rng.integers(0, 1 + 3 * (np.arange(21) // checks.BATCH)[:, None], (21, 5))
        words = words.astype(np.int32)
        labels = rng.integers(0, 3, 21).astype(np.int32)
        examples = tf.data.Dataset.from_tensor_slices((words, labels)).batch(checks.BATCH)
        inner = keras.optimizers.SGD(0.5)
        wrapped = disttrain.DistributedOptimizer(
            inner, clip=disttrain.ClipByGlobalNorm(0.05), sparse_as_dense=sparse_as_dense
        )
        logdir = f"{folder}/run"
        return short(replication, wrapped, model=model, data=examples, logdir=logdir, **options)[1]

    return check


def embedding_in_a_loop(replication, folder):
    """Steps of one call whose sparse gradients have other numbers of rows, sent in many pieces."""
    rows, chunks.ROWS = chunks.ROWS, 2
    try:
        return embedding(sparse_as_dense=False, steps_per_execution=3)(replication, folder)
    finally:
        chunks.ROWS = rows


def adasum(replication, folder):
    """Orthogonal gradients are added, parallel ones averaged."""
    count = replication.replicas
    across = np.zeros((2, 4), np.float32)
    across[0] = [1, 0, 0, 0]
    across[1] = [0, 2, 0, 0]
    results = {}
    for name, vectors in (
        ("orthogonal", np.concatenate([across, np.zeros((count, 4), np.float32)])[:count]),
        ("parallel", np.tile(np.float32([[1, 2, 0, 0]]), (count, 1))),
    ):
        with replication.scope():
            variable = keras.Variable(np.zeros(4, np.float32))
            optimizer = disttrain.DistributedOptimizer(
                keras.optimizers.SGD(1.0), reduction="adasum", replication=replication
            )
            optimizer.build([variable])
        first = replication.topology.first_replica
        local = range(replication.topology.local_replicas)
        parts = [tf.constant(vectors[first + i]) for i in local]
        results[name] = _applied(replication, optimizer, variable, parts)
    return results


def _applied(replication, optimizer, variable, parts):
    tf.function(
        lambda: replication.run(lambda part: optimizer.apply([part], [variable]), parts),
        autograph=False,
    )()
    return variable.numpy()


def adasum_training(replication, folder):
    inner = keras.optimizers.SGD(0.05)
    wrapped = disttrain.DistributedOptimizer(inner, reduction="adasum", loss_scale=16.0)
    return short(replication, wrapped, epochs=3)[1]


def clipped(name):
    def check(replication, folder):
        clip = {
            "by-value": disttrain.ClipByValue(0.01),
            "by-norm": disttrain.ClipByNorm(0.05),
            "adaptive": disttrain.AdaptiveClip(0.02),
            "auto": disttrain.AutoClip(30.0, window=4),
        }[name]
        made, result = short(
            replication, keras.optimizers.SGD(0.1), epochs=3, clip=clip, loss_scale=8.0
        )
        return {**result, "frequency": made.optimizer.clip_frequency()}

    return check


def clip_before_the_sum(replication, folder):
    """With the limit 1, gradients of 10, -2 and 0 become 1, -1 and 0, and their mean is 0."""
    clip = disttrain.ClipByGlobalNorm(1.0, before_reduce=True)
    return checks.apply_once(replication, checks.different(replication), clip=clip, loss_scale=4.0)


def local_variables(replication, folder):
    """One variable is reduced, the other each replica keeps for itself."""
    result = {}
    for name, clip, options in (
        ("sum", disttrain.ClipByGlobalNorm(100.0), {"reduction": "sum"}),
        ("mean", disttrain.ClipByGlobalNorm(0.5, before_reduce=True), {"loss_scale": 4.0}),
    ):
        with replication.scope():
            shared, own = (keras.Variable(np.zeros(1, np.float32), name=n) for n in ("it", "own"))
            optimizer = disttrain.DistributedOptimizer(
                keras.optimizers.SGD(1.0),
                local_variables=["*own*"],
                clip=clip,
                replication=replication,
                **options,
            )
            optimizer.build([shared, own])
        own.assign(own + replication.topology.process * 10)
        replication.start_equal(optimizer.to_broadcast([shared, own, *optimizer.variables]))
        first, scale = replication.topology.first_replica, options.get("loss_scale", 1.0)
        parts = [
            tf.constant([scale * (first + i + 1)]) for i in range(len(local_parts(replication)))
        ]
        _apply_to_both(replication, optimizer, [shared, own], parts)
        strategy = getattr(replication, "strategy", None)
        values = strategy.experimental_local_results(own.value) if strategy else [own.value]
        result[f"{name}_shared"] = shared.numpy()[0]
        result[f"{name}_own"] = np.asarray([value.numpy()[0] for value in values])
    return result


def _apply_to_both(replication, optimizer, variables, parts):
    tf.function(
        lambda: replication.run(lambda g: optimizer.apply([g, g], variables), parts),
        autograph=False,
    )()


def local_variables_of_a_trainer(replication, folder):
    """Each replica trains its head on its own examples; the last batch is uneven."""

    def model():
        zeros = keras.initializers.Zeros()
        inputs = keras.Input((1,))
        own = keras.layers.Dense(1, use_bias=False, kernel_initializer=zeros, name="own")
        shared = keras.layers.Dense(1, use_bias=False, kernel_initializer=zeros, name="shared")
        return keras.Model(inputs, [shared(inputs), own(inputs)])

    # A batch has at least an example for each replica.
    rows = 3 if replication.replicas < 4 else 5
    y = np.arange(rows, dtype=np.float32)[:, None]
    examples = tf.data.Dataset.from_tensor_slices((np.ones_like(y), (y, y))).batch(rows)
    inner = keras.optimizers.SGD(0.5)
    made = checks.trainer(
        replication,
        model,
        disttrain.DistributedOptimizer(inner, local_variables=["own/*"]),
        loss=[keras.losses.MeanSquaredError(), keras.losses.MeanSquaredError()],
    )
    made.fit(examples, verbose=0)
    shared, own = (made.model.get_layer(name).kernel for name in ("shared", "own"))
    strategy = getattr(replication, "strategy", None)
    values = strategy.experimental_local_results(own.value) if strategy else [own.value]
    return {"shared": shared.numpy()[0, 0], "own": [value.numpy()[0, 0] for value in values]}


def local_parts(replication):
    return [None] * replication.topology.local_replicas


def random_faults(replication, folder):
    """Fifty steps, in some of which one element on one replica is NaN or infinite."""
    rng = np.random.default_rng(11)
    replicas = replication.replicas
    with replication.scope():
        variables = [keras.Variable(np.zeros(3, np.float32)) for _ in range(4)]
        optimizer = disttrain.DistributedOptimizer(
            keras.optimizers.SGD(1.0),
            loss_scale=disttrain.DynamicLossScale(4.0, growth_interval=1000),
            clip=disttrain.ClipByGlobalNorm(1e6),
            replication=replication,
        )
        optimizer.build(variables)
    first = replication.topology.first_replica

    @tf.function(autograph=False)
    def step(gradients):
        parts = [gradients[first + i] for i in range(replication.topology.local_replicas)]
        replication.run(lambda part: optimizer.apply(tf.unstack(part), variables), parts)

    wrong = 0
    expected = np.zeros((4, 3))
    for _ in range(50):
        scale = float(optimizer.current_loss_scale())
        gradients = rng.standard_normal((replicas, 4, 3)).astype(np.float32)
        faulty = rng.random() < 0.5
        sent = gradients * scale
        if faulty:
            place = tuple(rng.integers(0, size) for size in sent.shape)
            sent[place] = rng.choice([np.nan, np.inf, -np.inf])
        before = [v.numpy() for v in variables]
        iterations = int(optimizer.iterations.numpy())
        step(tf.constant(sent))
        if faulty:
            same = all(np.array_equal(v.numpy(), b) for v, b in zip(variables, before, strict=True))
            wrong += not same or int(optimizer.iterations.numpy()) != iterations
        else:
            expected -= gradients.mean(axis=0)
    values = np.stack([v.numpy() for v in variables])
    return {"wrong": wrong, "values": values, "expected": expected}


def too_many_skips(replication, folder):
    x, y = checks.data(32)
    x[:] = np.nan
    inner = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), max_skipped=3)
    try:
        made = checks.trainer(replication, optimizer=inner)
        made.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), verbose=0)
    except RuntimeError as error:
        return {"error": str(error)}
    return {"error": ""}


def sync_batch_normalization(layer):
    """The last batch of 41 leaves replicas empty, which borrow a row that must not count."""

    def model():
        init = keras.initializers.GlorotUniform
        return keras.Sequential(
            [
                keras.Input((checks.FEATURES,)),
                keras.layers.Dense(8, kernel_initializer=init(1)),
                layer(),
                keras.layers.Dense(checks.CLASSES, kernel_initializer=init(2)),
            ]
        )

    def check(replication, folder):
        # As where a process has made other models before.
        for _ in range(replication.topology.process):
            model()
        made, result = short(replication, "sgd", epochs=2, rows=41, model=model)
        return {**result, "state": checks.flat(made.model.non_trainable_variables)}

    return check


def synchronized():
    return keras.layers.BatchNormalization(synchronized=True)


def model_fit_synchronized(replication, folder):
    """`Model.fit` with Keras's own layer, on this process's part of each batch of 12."""
    rows = np.arange(24).reshape(-1, 12)
    if getattr(replication, "strategy", None) is None:
        rows = np.array_split(rows, replication.replicas, axis=1)[replication.topology.process]
    x, y = checks.data(24)
    examples = tf.data.Dataset.from_tensor_slices((x[rows.ravel()], y[rows.ravel()]))
    with replication.scope():
        for _ in range(replication.topology.process):
            keras.layers.Dense(1)
        init = keras.initializers.GlorotUniform(1)
        dense = keras.layers.Dense(checks.CLASSES, kernel_initializer=init)
        model = keras.Sequential([keras.Input((checks.FEATURES,)), synchronized(), dense])
        optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(0.5))
        model.compile(optimizer, checks.loss(), auto_scale_loss=False)
    try:
        model.fit(
            examples.batch(rows.shape[1]),
            epochs=2,
            verbose=0,
            callbacks=[disttrain.callbacks.BroadcastVariables()],
        )
    except ValueError as error:
        return {"error": str(error)}
    return {"weights": checks.flat(model.variables)}


def own_start(replication, folder):
    """Each process begins with its own weights, and has adapted a layer to its own data."""
    process = replication.topology.process
    x, _ = checks.data(8)

    def model():
        normalization = keras.layers.Normalization()
        normalization.adapt(x * (1 + process) + process)
        made = keras.Sequential(
            [keras.Input((checks.FEATURES,)), normalization, keras.layers.Dense(checks.CLASSES)]
        )
        made.layers[-1].set_weights([w * 0 + 0.1 + process for w in made.layers[-1].get_weights()])
        return made

    made = checks.trainer(replication, model)
    made.evaluate(*checks.data(8))
    return {"outputs": made.model(x).numpy()}


class MeanOutputs(keras.metrics.Metric):
    """Returns a dictionary with an array."""

    def __init__(self, name="outputs", **options):
        super().__init__(name=name, **options)
        self.sums = self.add_variable((checks.CLASSES,), "zeros", name="sums")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.sums.assign_add(keras.ops.sum(y_pred, axis=0))
        self.count.assign_add(keras.ops.cast(keras.ops.shape(y_pred)[0], "float32"))

    def result(self):
        return {"mean_outputs": self.sums / self.count}


def model_fit(replication, folder):
    """`Model.fit` with this process's part of each global batch."""
    logdir = os.path.join(folder, "run")
    x, y = checks.data(48)
    topology = replication.topology
    rows = _own_rows(replication)
    examples = tf.data.Dataset.from_tensor_slices((x[rows.ravel()], y[rows.ravel()]))
    keras.utils.set_random_seed(topology.process)
    with replication.scope():
        model = keras.Sequential([keras.Input((checks.FEATURES,)), keras.layers.Dense(3)])
        model.set_weights([w * 0 + 0.1 * (topology.process + 1) for w in model.get_weights()])
        optimizer = disttrain.DistributedOptimizer(
            keras.optimizers.SGD(0.5, momentum=0.9),
            clip=disttrain.ClipByGlobalNorm(0.5),
            loss_scale="dynamic",
        )
        metrics = ["accuracy", MeanOutputs()]
        model.compile(optimizer, checks.loss(), metrics=metrics, auto_scale_loss=False)
    try:
        history = model.fit(
            examples.batch(rows.shape[1]),
            epochs=3,
            verbose=0,
            validation_data=examples.batch(rows.shape[1]),
            callbacks=[
                disttrain.callbacks.BroadcastVariables(),
                disttrain.callbacks.MetricAverage(),
                disttrain.callbacks.FlushAccumulation(),
                disttrain.callbacks.TelemetryCallback(logdir, disttrain.Telemetry(every=1)),
            ],
        )
    except ValueError as error:
        return {"error": str(error)}
    weights = checks.flat(model.trainable_variables)
    return {"weights": weights, "logdir": logdir, **history.history}


def unknown_length(replication, folder):
    """`Model.fit` on batches whose number shows at the end alone, three of which make two steps."""
    rows = np.arange(36).reshape(-1, 12)
    if getattr(replication, "strategy", None) is None:
        rows = np.array_split(rows, replication.replicas, axis=1)[replication.topology.process]
    x, y = checks.data(36)
    examples = tf.data.Dataset.from_tensor_slices((x[rows.ravel()], y[rows.ravel()]))
    examples = examples.filter(lambda x, y: True).batch(rows.shape[1])
    with replication.scope():
        model = checks.build()
        inner = keras.optimizers.SGD(0.5)
        optimizer = disttrain.DistributedOptimizer(inner, accumulate_steps=2)
        model.compile(optimizer, checks.loss(), auto_scale_loss=False)
    callbacks = [disttrain.callbacks.BroadcastVariables()]
    try:
        for _ in range(2):
            # The second call goes on between two updates.
            model.fit(examples, verbose=0, callbacks=callbacks)
    except ValueError as error:
        return {"error": str(error)}
    return {
        "iterations": optimizer.iterations.numpy(),
        "weights": checks.flat(model.trainable_variables),
    }


def _own_rows(replication):
    """This process's part of four batches of 12."""
    rows = np.arange(48).reshape(-1, 12)
    if getattr(replication, "strategy", None) is None:
        rows = np.array_split(rows, replication.topology.processes, axis=1)
        return rows[replication.topology.process]
    return rows


def model_fit_in_float16(replication, folder):
    """`Model.fit` as Keras compiles it under `mixed_float16`; in two batches one rank overflows."""
    x, y = checks.data(48)
    x[[23, 47]] *= 3e4
    rows = _own_rows(replication)
    examples = tf.data.Dataset.from_tensor_slices((x[rows.ravel()], y[rows.ravel()]))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        with replication.scope():
            model = keras.Sequential([keras.Input((checks.FEATURES,)), keras.layers.Dense(3)])
            model.set_weights([w * 0 + 0.1 for w in model.get_weights()])
            model.compile(disttrain.DistributedOptimizer(keras.optimizers.SGD(0.5)), checks.loss())
        model.fit(examples.batch(rows.shape[1]), epochs=2, verbose=0)
    except ValueError as error:
        return {"error": str(error)}
    finally:
        keras.config.set_dtype_policy(before)
    return {
        "weights": checks.flat(model.trainable_variables),
        "loss_scale": model.optimizer.current_loss_scale(),
        "iterations": model.optimizer.iterations.numpy(),
    }


def process_sets(replication, folder):
    """Ranks 0 and 1 train one model, the others each their own, at the same time."""
    if replication.name != "horovod":
        return train_in(replication)
    rank, count = replication.topology.process, replication.replicas
    groups = [[0, 1], *([other] for other in range(2, count))]
    own = next(group for group in groups if rank in group)
    result = train_in(Horovod(own, groups))
    replication.any(False)
    return result


def train_in(replication):
    return short(replication, "sgd", epochs=2, rows=41)[1]


CHECKS = {
    **{f"optimizer-{name}": optimizer_check(name) for name in (*OPTIMIZERS, *OWN)},
    "accumulate": accumulate,
    "accumulate-by-hand": accumulate_by_hand,
    "compression-fp16": compressed("fp16"),
    "compression-bf16": compressed("bf16"),
    "large-compressed": large_compressed,
    "float8": float8_training,
    "groups": compressed(None, groups=3),
    "sparse": embedding(sparse_as_dense=False),
    "sparse-as-dense": embedding(sparse_as_dense=True),
    "sparse-in-a-loop": embedding_in_a_loop,
    "adasum": adasum,
    "adasum-training": adasum_training,
    **{f"clip-{name}": clipped(name) for name in ("by-value", "by-norm", "adaptive", "auto")},
    "clip-before-the-sum": clip_before_the_sum,
    "local-variables": local_variables,
    "local-variables-of-a-trainer": local_variables_of_a_trainer,
    "random-faults": random_faults,
    "too-many-skips": too_many_skips,
    "sync-batch-normalization": sync_batch_normalization(disttrain.layers.SyncBatchNormalization),
    "keras-sync-batch-normalization": sync_batch_normalization(synchronized),
    "model-fit-synchronized": model_fit_synchronized,
    "own-start": own_start,
    "model-fit": model_fit,
    "unknown-length": unknown_length,
    "model-fit-float16": model_fit_in_float16,
    "process-sets": process_sets,
}
