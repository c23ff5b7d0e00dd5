"""What is computed under every replication; the tests compare the results.

Each function takes a `Replication` and a folder of its own, and returns a dictionary of NumPy
values of this process. They run in the processes of `program.py`, or, where no job is wanted, in
the test process.
"""

import contextlib
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

import disttrain

BATCH = 8
FEATURES, CLASSES = 6, 3

#: Examples -> epochs, so that 30 steps are made. The last batch of 37 has 5 examples, which no
#: number of replicas here divides; that of 41 has one, which leaves replicas without any.
EPOCHS = {37: 6, 41: 5}


def data(rows, seed=0):
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((rows, FEATURES)).astype(np.float32),
        rng.integers(0, CLASSES, rows).astype(np.int32),
    )


def dataset(rows):
    return tf.data.Dataset.from_tensor_slices(data(rows)).batch(BATCH)


def build():
    def dense(units, seed, activation=None):
        return keras.layers.Dense(
            units, activation, kernel_initializer=keras.initializers.GlorotUniform(seed)
        )

    return keras.Sequential([keras.Input((FEATURES,)), dense(16, 1, "tanh"), dense(CLASSES, 2)])


def make_optimizer(name):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 10, 0.9)
    if name == "sgd":
        return keras.optimizers.SGD(schedule, momentum=0.9)
    return keras.optimizers.Adam(schedule)


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def trainer(replication, model=build, optimizer="sgd", **options):
    if isinstance(optimizer, str):
        optimizer = make_optimizer(optimizer)
    options.setdefault("loss", loss())
    return disttrain.Trainer(model, optimizer=optimizer, replication=replication, **options)


def flat(variables):
    return np.concatenate([np.asarray(v.numpy(), np.float64).ravel() for v in variables])


def train(optimizer, rows, **options):
    def check(replication, folder):
        made = trainer(replication, optimizer=optimizer, metrics=["accuracy"], **options)
        history = made.fit(dataset(rows), epochs=EPOCHS[rows], verbose=0)
        return {
            "weights": flat(made.model.trainable_variables),
            "slots": flat(made.optimizer.inner.variables),
            "iterations": made.optimizer.iterations.numpy(),
            "loss": history.history["loss"],
            "accuracy": history.history["accuracy"],
        }

    return check


def plain_keras(optimizer, rows):
    """What one device with the whole batch gives, without disttrain."""
    model = build()
    model.compile(make_optimizer(optimizer), loss(), metrics=["accuracy"])
    history = model.fit(dataset(rows), epochs=EPOCHS[rows], verbose=0)
    return {
        "weights": flat(model.trainable_variables),
        "slots": flat(model.optimizer.variables),
        "loss": history.history["loss"],
        "accuracy": history.history["accuracy"],
    }


def apply_once(replication, gradients, optimizer_name="sgd", **options):
    """One update of a variable at 0 with another gradient on each replica."""
    with replication.scope():
        variable = keras.Variable(np.zeros(1, np.float32), name="x")
        inner = keras.optimizers.SGD(
            keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.25])
        )
        optimizer = disttrain.DistributedOptimizer(inner, replication=replication, **options)
        optimizer.build([variable])
    first = replication.topology.first_replica
    parts = [
        tf.constant([gradients[first + i]], tf.float32)
        for i in range(replication.topology.local_replicas)
    ]

    @tf.function
    def step():
        replication.run(
            lambda part: optimizer.apply([part * optimizer.current_loss_scale()], [variable]), parts
        )

    step()
    return {
        "value": variable.numpy()[0],
        "iterations": optimizer.iterations.numpy(),
        "learning_rate": np.asarray(keras.ops.convert_to_numpy(optimizer.learning_rate)),
        "loss_scale": np.asarray(optimizer.current_loss_scale()),
    }


def different(replication):
    """10 and -2 and zeros: each clipped by itself to 1 and -1 they would cancel out."""
    return [10.0, -2.0] + [0.0] * (replication.replicas - 2)


def clip_after_the_sum(replication, folder):
    clip = disttrain.ClipByGlobalNorm(1.0)
    return apply_once(replication, different(replication), clip=clip)


def mean_of_gradients(replication, folder):
    return apply_once(replication, different(replication))


def nan_on_the_last_replica(replication, folder):
    gradients = [1.0] * (replication.replicas - 1) + [float("nan")]
    return apply_once(replication, gradients, loss_scale="dynamic")


def nan_batch(replication, folder):
    """The last row of the second global batch is NaN, which the last replica alone sees."""
    x, y = data(37)
    x[2 * BATCH - 1] = np.nan
    scale = disttrain.DynamicLossScale(initial=1024.0, growth_interval=3)
    made = trainer(replication, loss_scale=scale)
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(
                (
                    made.optimizer.iterations.numpy(),
                    float(made.optimizer.current_loss_scale()),
                    float(keras.ops.convert_to_numpy(made.optimizer.learning_rate)),
                    flat(made.model.trainable_variables).sum(),
                )
            )

    examples = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    made.fit(examples, epochs=1, verbose=0, callbacks=[Watch()])
    return {"seen": np.asarray(seen), "weights": flat(made.model.trainable_variables)}


def two_and_one(replication, folder):
    """Three examples with targets 3, 3 and 0 pull a weight at 0 towards their mean, 2."""
    rows = tf.data.Dataset.from_tensor_slices(
        (np.ones((4, 1), np.float32), np.float32([[9], [3], [3], [0]]))
    )
    # A first batch that fills the replicas, whose gradient is taken back by zero weight.
    first = rows.take(1).repeat(replication.replicas).batch(replication.replicas)
    first = first.map(lambda x, y: (x, y, tf.zeros_like(y[:, 0])))
    second = rows.skip(1).batch(3).map(lambda x, y: (x, y, tf.ones_like(y[:, 0])))

    def linear():
        zeros = keras.initializers.Zeros()
        return keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer=zeros)]
        )

    made = trainer(
        replication,
        linear,
        keras.optimizers.SGD(0.5),
        loss=keras.losses.MeanSquaredError(),
    )
    made.fit(first.concatenate(second), verbose=0)
    return {"weight": flat(made.model.trainable_variables)}


def several_outputs(replication, folder):
    """Masks, sample weights, regularisation, two inputs and outputs, and every kind of mean."""
    rng = np.random.default_rng(3)
    rows = 22
    lengths = rng.integers(1, 7, rows)
    tokens = np.where(np.arange(6) < lengths[:, None], rng.integers(1, 9, (rows, 6)), 0)
    x = {"tokens": tokens.astype(np.int32), "side": rng.standard_normal((rows, 2)).astype("f4")}
    y = {
        "next": rng.integers(0, 9, (rows, 6)).astype(np.int32),
        "sum": rng.standard_normal((rows, 1)).astype("f4"),
        "weighted": rng.standard_normal((rows, 1)).astype("f4"),
    }
    weight = {
        "next": np.ones((rows, 1), np.float32),
        "sum": np.ones(rows, np.float32),
        "weighted": rng.random(rows).astype(np.float32),
    }

    def model():
        init = keras.initializers.GlorotUniform
        tokens = keras.Input((6,), dtype="int32", name="tokens")
        side = keras.Input((2,), name="side")
        embedded = keras.layers.Embedding(
            9, 4, mask_zero=True, embeddings_initializer=init(1), name="embedding"
        )(tokens)
        hidden = keras.layers.Dense(
            4,
            kernel_initializer=init(2),
            kernel_regularizer=keras.regularizers.L2(0.1),
            name="hidden",
        )(embedded)
        scores = keras.layers.Dense(9, kernel_initializer=init(3), name="scores")(hidden)
        one = keras.layers.Dense(1, kernel_initializer=init(4), name="one")(side)
        two = keras.layers.Dense(1, kernel_initializer=init(5), name="two")(side)
        return keras.Model(
            {"tokens": tokens, "side": side}, {"next": scores, "sum": one, "weighted": two}
        )

    losses = {
        "next": loss(),
        "sum": keras.losses.MeanSquaredError(reduction="sum"),
        "weighted": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
    }
    made = trainer(replication, model, keras.optimizers.SGD(0.01), loss=losses)
    examples = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(7)
    history = made.fit(examples, epochs=2, verbose=0)
    return {"weights": flat(made.model.trainable_variables), "loss": history.history["loss"]}


class Watched(keras.layers.Layer):
    """Adds a loss, and keeps the mean of it."""

    def __init__(self):
        super().__init__()
        self.added = keras.metrics.Mean(name="added")

    def call(self, x):
        loss = keras.losses.MeanSquaredError()(keras.ops.zeros_like(x), x)
        self.add_loss(0.1 * loss)
        self.added.update_state(loss)
        return x


def overlap(y_true, y_pred):
    """A metric that is one number for a batch, and no mean over examples."""
    return keras.ops.sum(y_true * y_pred) / keras.ops.sum(y_true + y_pred)


def losses_of_the_whole_batch(replication, folder):
    """A loss that is one number, one that leaves examples out, and one with a mask of its own."""
    rng = np.random.default_rng(4)
    rows = 23
    x = rng.standard_normal((rows, FEATURES)).astype("f4")
    y = {
        "dice": rng.integers(0, 2, (rows, 3)).astype("f4"),
        "some": np.where(rng.random(rows) < 0.5, -1, rng.integers(0, 3, rows)),
        "void": np.where(rng.random(rows) < 0.5, -1, rng.integers(0, 3, rows)),
    }

    def leaving_out(y_true, y_pred):
        keep = tf.reshape(y_true, [-1]) >= 0
        return keras.losses.sparse_categorical_crossentropy(
            tf.boolean_mask(tf.reshape(y_true, [-1]), keep),
            tf.boolean_mask(y_pred, keep),
            from_logits=True,
        )

    def model():
        def head(name, seed, activation=None):
            init = keras.initializers.GlorotUniform(seed)
            return keras.layers.Dense(3, activation, kernel_initializer=init, name=name)(inputs)

        features = keras.Input((FEATURES,))
        inputs = Watched()(features)
        heads = {"dice": head("dice", 1, "sigmoid"), "some": head("some", 2)}
        return keras.Model(features, {**heads, "void": head("void", 3)})

    losses = {
        "dice": keras.losses.Dice(),
        "some": leaving_out,
        "void": keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1),
    }
    options = {"loss": losses, "loss_weights": {"dice": 2.0}, "steps_per_execution": 2}
    options["metrics"] = {"dice": [overlap]}
    made = trainer(replication, model, keras.optimizers.SGD(0.1), **options)
    # The last batch has two examples, which leaves one of three replicas without any.
    examples = tf.data.Dataset.from_tensor_slices((x, y)).batch(7)
    history = made.fit(examples, epochs=2, verbose=0)
    return {
        "weights": flat(made.model.trainable_variables),
        "logs": [history.history[name] for name in sorted(history.history)],
        "evaluation": list(made.evaluate(examples).values()),
    }


class OwnLoss(keras.Model):
    """Computes a loss that is no mean over examples, and keeps its mean."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.tracker = keras.metrics.Mean(name="tracked")

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        value = super().compute_loss(x, y, y_pred, sample_weight)
        value += keras.ops.max(keras.ops.abs(x)) * keras.ops.std(y_pred)
        self.tracker.update_state(value)
        return value


def own_compute_loss(replication, folder):
    def model():
        inputs = keras.Input((FEATURES,))
        init = keras.initializers.GlorotUniform(1)
        return OwnLoss(inputs, keras.layers.Dense(CLASSES, kernel_initializer=init)(inputs))

    # It computes each loss twice in a step.
    made = trainer(replication, model, disttrain.optimizers.SAM(keras.optimizers.SGD(0.1), 0.05))
    history = made.fit(dataset(41), epochs=2, verbose=0)
    return {
        "weights": flat(made.model.trainable_variables),
        "logs": [history.history[name] for name in sorted(history.history)],
        "evaluation": list(made.evaluate(dataset(41)).values()),
    }


def evaluate_and_predict(replication, folder):
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top_2")]
    made = trainer(replication, metrics=metrics)
    x, y = data(43, seed=5)
    result = made.evaluate(x, y, batch_size=10)
    return {
        "evaluation": [result[name] for name in ("loss", "accuracy", "top_2")],
        "outputs": made.predict(x, batch_size=10),
    }


def batch_normalization(replication, folder):
    def model():
        return keras.Sequential(
            [keras.Input((FEATURES,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
        )

    made = trainer(replication, model)
    made.fit(dataset(41), epochs=2, verbose=0)
    return {"state": flat(made.model.non_trainable_variables)}


class Counts(keras.layers.Layer):
    """State that each replica moves alike, whatever its part of the batch, and a mean of it."""

    def build(self, shape):
        def state(name, **options):
            return self.add_weight(
                name=name, shape=(), initializer="ones", trainable=False, **options
            )

        self.temperature, self.mean = state("temperature"), state("mean")
        self.steps = state("steps", dtype="int32")
        self.kept = state("kept")

    def call(self, x, training=None):
        if training:
            self.temperature.assign(self.temperature * 0.9)
            self.steps.assign(self.steps + 1)
            self.mean.assign(keras.ops.mean(x))
        return x * self.temperature * self.kept


def counting(dtype="float32"):
    """A frozen layer of some dtype, and one with state, beside one that is trained."""
    init = keras.initializers.GlorotUniform(3)
    inputs = keras.Input((FEATURES,))
    frozen = keras.layers.Dense(CLASSES, kernel_initializer=init, dtype=dtype, name="frozen")
    frozen.trainable = False
    counted = keras.layers.Dense(CLASSES, dtype="float32")(Counts(name="counts")(inputs))
    return keras.Model(inputs, counted + keras.ops.cast(frozen(inputs), "float32"))


def state_of_replicas(replication, folder):
    """The last batch of 41 has an example for the last replica alone."""
    made = trainer(replication, lambda: counting("float16"))
    before = flat(made.model.get_layer("frozen").weights)
    made.fit(dataset(41), epochs=1, verbose=0)
    layer = made.model.get_layer("counts")
    return {
        "moved": np.sum(flat(made.model.get_layer("frozen").weights) != before),
        "temperature": layer.temperature.numpy(),
        "mean": layer.mean.numpy(),
        "steps": layer.steps.numpy(),
    }


def dropout_seeds(replication, folder):
    def model():
        return keras.Sequential(
            [keras.Input((FEATURES,)), keras.layers.Dropout(0.5), keras.layers.Dense(3)]
        )

    made = trainer(replication, model)
    made.fit(dataset(41), verbose=0)
    state = next(v for v in made.model.non_trainable_variables if v.name == "seed_generator_state")
    local = getattr(replication, "strategy", None)
    values = local.experimental_local_results(state.value) if local else [state.value]
    return {"seeds": np.asarray([value.numpy()[0] for value in values])}


def own_parts(replication, folder):
    """Each process reads its own shard, the first one more batches and larger ones."""
    x, y = data(30, seed=7)

    def read(context):
        processes, process = context.num_input_pipelines, context.input_pipeline_id
        sizes = [20, 10] if processes == 2 else [30 // processes] * processes
        start = sum(sizes[:process])
        shard = slice(start, start + sizes[process])
        part = tf.data.Dataset.from_tensor_slices((x[shard], y[shard]))
        return part.batch(5 if processes == 2 else 30 // processes)

    made = trainer(replication)
    history = made.fit(read, epochs=2, verbose=0)
    return {
        "weights": flat(made.model.trainable_variables),
        "iterations": made.optimizer.iterations.numpy(),
        "loss": history.history["loss"],
    }


def different_orders(replication, folder):
    """Each process shuffles by itself, as a dataset without a seed does."""
    order = np.random.default_rng(100 + replication.topology.process).permutation(41)
    x, y = data(41)
    examples = tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(BATCH)
    try:
        trainer(replication).fit(examples, verbose=0)
    except RuntimeError as error:
        return {"error": str(error)}
    return {"error": ""}


def unwritable_logdir(replication, folder):
    blocked = pathlib.Path(folder) / "file"
    if replication.is_chief:
        blocked.write_text("in the way")
    replication.any(False)
    try:
        trainer(replication, logdir=str(blocked / "run"))
    except RuntimeError as error:
        return {"error": str(error)}
    return {"error": ""}


def callbacks(replication, folder):
    """One process sets the rate, another stops; files come from the chief alone."""
    folder = pathlib.Path(folder)
    process = replication.topology.process
    own = folder / f"process-{process}"

    class OnChief(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if process == 0 and epoch == 1:
                self.model.optimizer.learning_rate = 0.5

    class OnLast(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if process == replication.topology.processes - 1 and epoch == 2:
                self.model.stop_training = True

    made = trainer(replication, optimizer=keras.optimizers.SGD(0.1))
    history = made.fit(
        dataset(41),
        epochs=9,
        verbose=0,
        callbacks=[
            OnChief(),
            OnLast(),
            keras.callbacks.CSVLogger(own.with_suffix(".csv")),
            keras.callbacks.ModelCheckpoint(own.with_suffix(".keras")),
        ],
    )
    files = sorted(p.name for p in folder.iterdir()) if replication.is_chief else []
    saved = own.with_suffix(".keras")
    restored = np.zeros(0)
    if saved.exists():
        restored = flat(keras.models.load_model(saved).trainable_variables)
    return {
        "epochs": len(history.epoch),
        "learning_rate": made.optimizer.learning_rate.numpy(),
        "weights": flat(made.model.trainable_variables),
        "files": np.asarray(files),
        "restored": restored,
    }


def resume(replication, folder):
    """An interrupted run goes on where BackupAndRestore left it, on every process."""
    backup = os.path.join(folder, "backup")

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    begun = trainer(replication, optimizer="adam")
    with contextlib.suppress(KeyboardInterrupt):
        begun.fit(
            dataset(41),
            epochs=4,
            verbose=0,
            callbacks=[keras.callbacks.BackupAndRestore(backup), Interrupt()],
        )
    replication.any(False)
    resumed = trainer(replication, optimizer="adam")
    history = resumed.fit(
        dataset(41), epochs=4, verbose=0, callbacks=[keras.callbacks.BackupAndRestore(backup)]
    )
    return {
        "epochs": np.asarray(history.epoch),
        "weights": flat(resumed.model.trainable_variables),
        "iterations": resumed.optimizer.iterations.numpy(),
    }


def recorded(replication, folder):
    """A recorded run, and beside it what the weights were before and after each step."""
    logdir = os.path.join(folder, "run")
    made = trainer(
        replication,
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        clip=disttrain.ClipByGlobalNorm(0.5),
        telemetry=disttrain.Telemetry(every=1),
        logdir=logdir,
    )
    weights, momenta, losses = [], [], []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append([v.numpy() for v in self.model.trainable_variables])
            momenta.append([v.numpy() for v in made.optimizer.inner.momentums])
            losses.append(logs["loss"])

    initial = [v.numpy() for v in made.model.trainable_variables]
    made.fit(dataset(41), epochs=1, verbose=0, callbacks=[Watch()])

    def stacked(steps):
        return {i: np.stack([step[i] for step in steps]) for i in range(len(initial))}

    result = {f"weights_{i}": value for i, value in stacked([initial, *weights]).items()}
    result |= {f"momentum_{i}": value for i, value in stacked(momenta).items()}
    return {**result, "running_loss": np.asarray(losses), "logdir": logdir}


def lr_range(replication, folder):
    """A range test between two epochs: what it finds, and what it leaves."""
    x, y = data(200)
    y = x[:, :CLASSES].argmax(axis=1)
    made = trainer(replication, optimizer=keras.optimizers.SGD(1e-3, momentum=0.9))
    made.fit(x, y, batch_size=100, epochs=1, verbose=0)
    kept = [*made.model.variables, *made.optimizer.variables]
    before = flat(kept)
    found = made.lr_range(x, y, batch_size=100, steps=60, low=1e-5)
    return {
        "before": before,
        "after": flat(kept),
        "losses": found.losses,
        "candidates": list(found.candidates.values()),
        "suggestion": np.nan if found.suggestion is None else found.suggestion,
    }


CHECKS = {
    "lr-range": lr_range,
    **{f"train-{name}-{rows}": train(name, rows) for name in ("sgd", "adam") for rows in EPOCHS},
    "steps-per-execution": train("adam", 41, steps_per_execution=4),
    "clip-after-the-sum": clip_after_the_sum,
    "mean-of-gradients": mean_of_gradients,
    "nan-on-the-last-replica": nan_on_the_last_replica,
    "nan-batch": nan_batch,
    "two-and-one": two_and_one,
    "several-outputs": several_outputs,
    "losses-of-the-whole-batch": losses_of_the_whole_batch,
    "own-compute-loss": own_compute_loss,
    "evaluate-and-predict": evaluate_and_predict,
    "batch-normalization": batch_normalization,
    "dropout-seeds": dropout_seeds,
    "state-of-replicas": state_of_replicas,
    "own-parts": own_parts,
    "different-orders": different_orders,
    "unwritable-logdir": unwritable_logdir,
    "callbacks": callbacks,
    "resume": resume,
    "recorded": recorded,
}
