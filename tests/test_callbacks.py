"""Every callback that Keras ships does through `Trainer.fit` what it does through `Model.fit`."""

import csv
import functools
import http.server
import inspect
import json
import subprocess
import sys
import threading
import urllib.parse

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import disttrain
from disttrain import callbacks as callbacks_module
from tests._support.timeouts import TIMEOUT

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 4)).astype(np.float32)
Y = RNG.integers(0, 3, 10)
VALIDATION = (X[:7] + 0.5, Y[:7])
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

#: All of Keras's, beside the base class and the list.
SHIPPED = {
    "BackupAndRestore",
    "CSVLogger",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "OrbaxCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "RemoteMonitor",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
}


def build():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def adam(**options):
    return keras.optimizers.Adam(0.05, **options)


def trainer_of(replication="single", optimizer=None, **options):
    options = {"loss": LOSS, "metrics": ["accuracy"], **options}
    return disttrain.Trainer(
        build, optimizer=optimizer or adam(), replication=replication, **options
    )


def fit(trainer, callbacks, epochs=3, **options):
    options = {"validation_data": VALIDATION, "shuffle": False, "verbose": 0, **options}
    return trainer.fit(X, Y, batch_size=4, epochs=epochs, callbacks=callbacks, **options)


def by_keras(callbacks, optimizer=None, epochs=3, x=X, **options):
    """`(model, history)` of `Model.fit` on one device."""
    keras.utils.set_random_seed(0)
    model = build()
    model.compile(optimizer=optimizer or adam(), loss=LOSS, metrics=["accuracy"], jit_compile=False)
    options = {"validation_data": VALIDATION, "shuffle": False, "verbose": 0, **options}
    return model, model.fit(x, Y, batch_size=4, epochs=epochs, callbacks=callbacks, **options)


def assert_same_history(ours, theirs):
    assert ours.epoch == theirs.epoch
    assert set(ours.history) == set(theirs.history)
    for name, values in theirs.history.items():
        np.testing.assert_allclose(ours.history[name], values, err_msg=name, **CLOSE)


def assert_same_weights(ours, theirs):
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)


def iterations(model):
    return int(model.optimizer.iterations.numpy())


@pytest.fixture(params=[1, 2], ids="{} replicas".format)
def replication(request, mirrored):
    return "single" if request.param == 1 else mirrored(2)


@pytest.mark.unit
def test_no_callback_of_keras_is_left_out():
    classes = {name for name, _ in inspect.getmembers(keras.callbacks, inspect.isclass)} - {
        "Callback",
        "CallbackList",
    }
    assert classes == SHIPPED


# Those that leave their mark on the history and the weights


def decay(epoch, rate):
    return rate * 0.5


STEERING = {
    "History": list,
    "LearningRateScheduler": lambda: [keras.callbacks.LearningRateScheduler(decay)],
    "ReduceLROnPlateau": lambda: [
        # Nothing is an improvement of 100, so each epoch after the first halves the rate.
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=0, min_delta=100)
    ],
    "EarlyStopping": lambda: [keras.callbacks.EarlyStopping("val_loss", min_delta=100, patience=1)],
    "EarlyStopping with the best weights": lambda: [
        keras.callbacks.EarlyStopping(
            "val_loss", min_delta=100, patience=1, restore_best_weights=True
        )
    ],
    "several": lambda: [
        keras.callbacks.LearningRateScheduler(decay),
        keras.callbacks.EarlyStopping("loss", min_delta=100, patience=1),
    ],
}


@functools.cache
def steered_by_keras(name):
    return by_keras(STEERING[name]())


@pytest.mark.graph
@pytest.mark.parametrize(
    ("name", "replicas"),
    [
        *((name, 1) for name in STEERING),
        ("several", 2),
        *(
            pytest.param(name, 2, marks=pytest.mark.exhaustive)
            for name in STEERING
            if name != "several"
        ),
    ],
)
def test_history_and_weights_equal_those_of_keras(name, replicas, mirrored):
    replication = "single" if replicas == 1 else mirrored(replicas)
    trainer = trainer_of(replication)
    history = fit(trainer, STEERING[name]())
    model, expected = steered_by_keras(name)
    assert_same_history(history, expected)
    assert_same_weights(trainer.model, model)
    assert trainer.model.history is history


@pytest.mark.graph
def test_early_stopping_stops_and_puts_the_best_weights_back():
    first = []
    notice = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: first.append(trainer.model.get_weights())
    )
    trainer = trainer_of()
    history = fit(trainer, [notice, *STEERING["EarlyStopping with the best weights"]()], epochs=9)
    assert history.epoch == [0, 1]
    for ours, best in zip(trainer.model.get_weights(), first[0], strict=True):
        np.testing.assert_array_equal(ours, best)
    assert np.abs(first[1][0] - first[0][0]).max() > 0


@pytest.mark.graph
def test_the_learning_rate_of_a_callback_moves_the_weights(replication):
    # The gradient is 1, so that each step moves the weight by the learning rate.
    def one_weight():
        return keras.Sequential(
            [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        )

    trainer = disttrain.Trainer(
        one_weight,
        optimizer=keras.optimizers.SGD(100.0),
        loss=lambda y_true, y_pred: -y_pred[:, 0],
        replication=replication,
    )
    rates = keras.callbacks.LearningRateScheduler(lambda epoch: 10.0**-epoch)
    ones = np.ones([6, 1], np.float32)
    history = trainer.fit(ones, ones, batch_size=3, epochs=3, callbacks=rates, verbose=0)
    np.testing.assert_allclose(trainer.model.get_weights()[0], [[2.22]], rtol=1e-5)
    np.testing.assert_allclose(history.history["learning_rate"], [1, 0.1, 0.01], rtol=1e-5)


@pytest.mark.graph
@pytest.mark.parametrize("swap_on_epoch", [False, True])
def test_swap_ema_weights_validates_and_ends_with_the_averages(swap_on_epoch, replication):
    def averaging():
        return adam(use_ema=True, ema_momentum=0.7)

    def swap():
        return keras.callbacks.SwapEMAWeights(swap_on_epoch=swap_on_epoch)

    trainer = trainer_of(replication, averaging())
    history = fit(trainer, [swap()])
    model, expected = by_keras([swap()], averaging())
    assert_same_history(history, expected)
    assert_same_weights(trainer.model, model)


@pytest.mark.graph
@pytest.mark.parametrize("bad", [[5], range(10)], ids=["one example", "all"])
def test_terminate_on_nan_stops_at_the_batch(bad, replication):
    x = X.copy()
    x[list(bad)] = np.nan
    trainer = trainer_of(replication)
    ends = []
    notice = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(batch)
    )
    history = trainer.fit(
        x,
        Y,
        batch_size=4,
        epochs=3,
        shuffle=False,
        callbacks=[keras.callbacks.TerminateOnNaN(), notice],
        verbose=0,
    )
    assert ends == ([0, 1] if len(bad) == 1 else [0])
    assert history.epoch == [0]
    assert np.isnan(history.history["loss"]).all()
    assert np.isfinite(trainer.model.get_weights()[0]).all(), "the step with the NaN was skipped"


# Events


class Watching(keras.callbacks.Callback):
    """Writes down the events of a training, as a class of a user would."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def on_train_begin(self, logs=None):
        self.calls.append("train begins")

    def on_train_end(self, logs=None):
        self.calls.append(("train ends", *sorted(logs)))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch begins", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch ends", epoch, *sorted(logs)))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch begins", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch ends", batch, *sorted(logs)))

    def on_test_begin(self, logs=None):
        self.calls.append("test begins")

    def on_test_end(self, logs=None):
        self.calls.append(("test ends", *sorted(logs)))


@pytest.mark.graph
def test_a_callback_hears_what_it_hears_in_keras(replication):
    ours, theirs = Watching(), Watching()
    fit(trainer_of(replication), [ours], epochs=2)
    by_keras([theirs], epochs=2)
    assert ours.calls == theirs.calls
    assert {k: v for k, v in ours.params.items() if k != "verbose"} == {
        k: v for k, v in theirs.params.items() if k != "verbose"
    }


@pytest.mark.graph
def test_losses_of_batches_are_running_means_as_in_keras():
    def losses(run):
        seen = []
        run([keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs: seen.append(logs))])
        return [(log["loss"], log["accuracy"]) for log in seen]

    ours = losses(lambda callbacks: fit(trainer_of(), callbacks, epochs=2))
    theirs = losses(lambda callbacks: by_keras(callbacks, epochs=2))
    np.testing.assert_allclose(ours, theirs, **CLOSE)


@pytest.mark.graph
def test_lambda_callback_hears_begin_and_end():
    heard = []
    callback = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: heard.append("train"),
        on_epoch_begin=lambda epoch, logs: heard.append(f"epoch {epoch}"),
        on_epoch_end=lambda epoch, logs: heard.append(f"end {epoch}"),
        on_train_end=lambda logs: heard.append("trained"),
    )
    fit(trainer_of(), callback, epochs=2)
    assert heard == ["train", "epoch 0", "end 0", "epoch 1", "end 1", "trained"]


@pytest.mark.graph
def test_a_callback_stops_the_training_within_an_epoch():
    def stop(batch, logs):
        if batch == 1:
            trainer.model.stop_training = True

    trainer = trainer_of()
    history = fit(trainer, keras.callbacks.LambdaCallback(on_train_batch_end=stop), epochs=5)
    assert history.epoch == [0]
    assert iterations(trainer.model) == 2


@pytest.mark.graph
def test_batch_ends_come_once_for_steps_that_run_together():
    ends = []
    notice = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(batch)
    )
    fit(trainer_of(steps_per_execution=2), notice, epochs=1)
    assert ends == [1, 2]


# Those that write


@pytest.mark.graph
def test_csv_logger_writes_the_history(tmp_path, replication):
    path = tmp_path / "log.csv"
    history = fit(trainer_of(replication), keras.callbacks.CSVLogger(str(path)))
    rows = list(csv.DictReader(path.open()))
    assert [int(row["epoch"]) for row in rows] == history.epoch
    for name, values in history.history.items():
        np.testing.assert_allclose([float(row[name]) for row in rows], values, err_msg=name)


@pytest.mark.graph
def test_model_checkpoint_saves_whole_models(tmp_path, replication):
    path = str(tmp_path / "{epoch}.keras")
    trainer = trainer_of(replication, clip=disttrain.ClipByGlobalNorm(1.0), loss_scale="dynamic")
    fit(trainer, keras.callbacks.ModelCheckpoint(path), epochs=2)
    loaded = keras.models.load_model(path.format(epoch=2))
    np.testing.assert_allclose(loaded.predict(X, verbose=0), trainer.predict(X), **CLOSE)
    assert iterations(loaded) == 6
    assert isinstance(loaded.optimizer, disttrain.DistributedOptimizer)
    assert loaded.optimizer.clip == disttrain.ClipByGlobalNorm(1.0)
    assert isinstance(loaded.optimizer.loss_scale, disttrain.DynamicLossScale)
    slots = zip(loaded.optimizer.variables, trainer.optimizer.variables, strict=True)
    for theirs, ours in slots:
        np.testing.assert_allclose(theirs.numpy(), ours.numpy(), **CLOSE)
    assert iterations(keras.models.load_model(path.format(epoch=1))) == 3


@pytest.mark.processes
def test_a_saved_model_loads_in_a_new_process_that_imports_disttrain(tmp_path):
    path = str(tmp_path / "model.keras")
    trainer = trainer_of(clip=disttrain.ClipByGlobalNorm(1.0), loss_scale="dynamic")
    fit(trainer, keras.callbacks.ModelCheckpoint(path), epochs=1)
    np.save(tmp_path / "x.npy", X)
    program = (
        "import sys, keras, numpy as np, disttrain\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "print(type(model.optimizer).__name__, int(model.optimizer.iterations))\n"
        "print(float(np.abs(model(np.load(sys.argv[2]))).sum()))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, path, str(tmp_path / "x.npy")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    optimizer, total = result.stdout.splitlines()
    assert optimizer == "DistributedOptimizer 3"
    assert float(total) == pytest.approx(float(np.abs(trainer.predict(X)).sum()), rel=1e-5)


@pytest.mark.graph
def test_model_checkpoint_saves_weights_alone(tmp_path, replication):
    path = str(tmp_path / "best.weights.h5")
    trainer = trainer_of(replication)
    fit(
        trainer,
        keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_best_only=True),
    )
    other = trainer_of(replication, seed=1)
    assert np.abs(other.predict(X) - trainer.predict(X)).max() > 0.1
    other.model.load_weights(path)
    np.testing.assert_allclose(other.predict(X), trainer.predict(X), **CLOSE)
    fit(other, [], epochs=1)
    assert iterations(other.model) == 9 + 3, "the optimizer's state came with them"


@pytest.mark.graph
def test_model_checkpoint_saves_after_so_many_batches(tmp_path, replication):
    path = str(tmp_path / "{epoch}-{batch}.keras")
    fit(trainer_of(replication), keras.callbacks.ModelCheckpoint(path, save_freq=2), epochs=2)
    saved = {file.name: iterations(keras.models.load_model(file)) for file in tmp_path.iterdir()}
    model_path = tmp_path / "keras"
    model_path.mkdir()
    by_keras(
        [keras.callbacks.ModelCheckpoint(str(model_path / "{epoch}-{batch}.keras"), save_freq=2)],
        epochs=2,
    )
    assert saved == {
        file.name: iterations(keras.models.load_model(file)) for file in model_path.iterdir()
    }
    assert sorted(saved.values()) == [2, 4, 6]


class Interrupted(Exception):
    pass


@pytest.mark.graph
@pytest.mark.parametrize("save_freq", ["epoch", 1])
def test_backup_and_restore_goes_on_where_the_training_was_interrupted(
    save_freq, tmp_path, replication
):
    def backup():
        return keras.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=save_freq)

    def interrupt(epoch, logs):
        if epoch == 1:
            raise Interrupted

    # Shuffled arrays: an epoch has its order from its number, so it is repeated as it was.
    first = trainer_of(replication)
    with pytest.raises(Interrupted):
        fit(
            first,
            [backup(), keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)],
            shuffle=True,
        )
    weights = first.model.get_weights()

    again = trainer_of(replication, seed=None)
    restored = []
    notice = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: restored.append(again.model.get_weights())
    )
    history = fit(again, [backup(), notice], shuffle=True)
    if save_freq == "epoch":
        assert history.epoch == [1, 2]
    for ours, theirs in zip(restored[0], weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if save_freq == "epoch":
        straight = trainer_of(replication)
        fit(straight, [], shuffle=True)
        assert_same_weights(again.model, straight.model)
        assert iterations(again.model) == 9
    assert not (tmp_path / "backup").exists(), "a finished training leaves no backup"


def scalars(folder):
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [
            (event.step, float(tf.make_ndarray(event.tensor_proto)))
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
        if tag.startswith(("epoch_", "batch_", "evaluation_"))
    }


@pytest.mark.graph
def test_tensorboard_writes_the_history(tmp_path, replication):
    board = keras.callbacks.TensorBoard(str(tmp_path), histogram_freq=1, update_freq="batch")
    history = fit(trainer_of(replication), board, epochs=2).history
    train, validation = scalars(tmp_path / "train"), scalars(tmp_path / "validation")
    np.testing.assert_allclose(train["epoch_loss"], list(enumerate(history["loss"])), rtol=1e-5)
    np.testing.assert_allclose(
        validation["epoch_loss"], list(enumerate(history["val_loss"])), rtol=1e-5
    )
    assert [step for step, _ in train["batch_loss"]] == list(range(1, 7))


class Monitor(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.received.append(json.loads(urllib.parse.parse_qs(body)["data"][0]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.mark.graph
def test_remote_monitor_sends_every_epoch(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Monitor) as server:
        server.received = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            history = fit(trainer_of(), keras.callbacks.RemoteMonitor(root), epochs=2)
        finally:
            server.shutdown()
            thread.join()
    assert [message.pop("epoch") for message in server.received] == [0, 1]
    for epoch, message in enumerate(server.received):
        assert message == pytest.approx({k: v[epoch] for k, v in history.history.items()})


@pytest.mark.graph
def test_progbar_logger_prints_its_bar(capsys):
    fit(trainer_of(), keras.callbacks.ProgbarLogger(), epochs=2, verbose=1)
    out = capsys.readouterr().out
    assert "3/3" in out
    assert "accuracy" in out
    assert "val_loss" in out


@pytest.mark.unit
def test_orbax_checkpoint_needs_its_package(tmp_path):
    try:
        import orbax.checkpoint  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="orbax"):
            keras.callbacks.OrbaxCheckpoint(str(tmp_path))
        return
    trainer = trainer_of()
    fit(trainer, keras.callbacks.OrbaxCheckpoint(str(tmp_path / "orbax")), epochs=1)
    assert any((tmp_path / "orbax").iterdir())


# Which run where


@pytest.mark.unit
def test_on_other_processes_only_those_that_write_nothing_run(tmp_path):
    writers = [
        keras.callbacks.BackupAndRestore(str(tmp_path)),
        keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
        keras.callbacks.ModelCheckpoint(str(tmp_path / "a.keras")),
        keras.callbacks.RemoteMonitor(),
        keras.callbacks.TensorBoard(str(tmp_path)),
    ]
    others = [
        keras.callbacks.EarlyStopping(),
        keras.callbacks.LearningRateScheduler(decay),
        keras.callbacks.TerminateOnNaN(),
    ]
    every = [*writers, *others]
    assert callbacks_module.on_this_process(every, is_chief=True) == every
    assert callbacks_module.on_this_process(every, is_chief=False) == others
    assert callbacks_module.on_this_process(None, is_chief=True) == []
    assert callbacks_module.on_this_process(others[0], is_chief=True) == others[:1]


@pytest.mark.unit
def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match=r"keras\.callbacks\.Callback objects, not 'stop'"):
        callbacks_module.on_this_process(["stop"], is_chief=True)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("callback", "watches"),
    [
        (keras.callbacks.Callback, False),
        (keras.callbacks.History, False),
        (keras.callbacks.EarlyStopping, False),
        (keras.callbacks.TerminateOnNaN, True),
        (Watching, True),
        (lambda: keras.callbacks.LambdaCallback(on_epoch_end=print), False),
        (lambda: keras.callbacks.LambdaCallback(on_train_batch_end=print), True),
    ],
)
def test_batches_are_read_only_where_a_callback_looks_at_them(callback, watches):
    assert callbacks_module.watch_batches([callback()]) is watches


@pytest.mark.graph
def test_what_was_accumulated_is_applied_by_one_trace_for_all_epochs(monkeypatch, mirrored):
    """A second call of `fit`, before which the variables may change, has another."""
    traces = []
    flush = disttrain.DistributedOptimizer.flush
    monkeypatch.setattr(
        disttrain.DistributedOptimizer, "flush", lambda self: traces.append(1) or flush(self)
    )
    strategy = mirrored(2).strategy
    with strategy.scope():
        model = build()
        optimizer = disttrain.DistributedOptimizer("sgd", accumulate_steps=2)
        model.compile(optimizer, LOSS, auto_scale_loss=False)
    callback = disttrain.callbacks.FlushAccumulation()
    for _ in range(2):
        traces.clear()
        # Three batches are one update, and one of what is left.
        model.fit(X[:6], Y[:6], batch_size=2, epochs=3, verbose=0, callbacks=[callback])
        assert len(traces) == 2, "of two replicas"
    assert int(optimizer.iterations.numpy()) == 2 * 3 * 2
