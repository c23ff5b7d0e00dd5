"""A resumed training is the one that would have been, to the last bit."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.proto import event_pb2

import disttrain
from disttrain.checkpoints import store
from tests._support.covering import representatives
from tests.checkpoints import training
from tests.checkpoints.training import assert_same_bits, everything, interrupt, shuffled

EPOCHS = 3


def fit_dataset(made, callbacks=(), epochs=EPOCHS):
    return made.fit(shuffled(), epochs=epochs, verbose=0, callbacks=list(callbacks))


@contextlib.contextmanager
def ending_early():
    """A pass has 11 batches: 8 for one epoch and 3 for the next, which warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The data ended")
        yield


def fit_endless(made, callbacks=()):
    with ending_early():
        return made.fit(
            shuffled(), steps_per_epoch=8, epochs=4, verbose=0, callbacks=list(callbacks)
        )


def fit_infinite(made, callbacks=()):
    data = shuffled(repeat=True)
    return made.fit(data, steps_per_epoch=8, epochs=4, verbose=0, callbacks=list(callbacks))


def fit_arrays(made, callbacks=()):
    x, y = training.X, training.Y
    return made.fit(x, y, batch_size=4, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))


def fit_endless_arrays(made, callbacks=()):
    x, y = training.X, training.Y
    with ending_early():
        return made.fit(
            x, y, batch_size=4, steps_per_epoch=8, epochs=4, verbose=0, callbacks=list(callbacks)
        )


def fit_endless_unknown_length(made, callbacks=()):
    data = shuffled().filter(lambda x, y: True)
    with ending_early():
        return made.fit(data, steps_per_epoch=8, epochs=4, verbose=0, callbacks=list(callbacks))


def fit_unknown_length(made, callbacks=()):
    data = shuffled().filter(lambda x, y: True)
    return made.fit(data, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))


def fit_own_part(made, callbacks=()):
    return made.fit(lambda context: shuffled(), epochs=EPOCHS, verbose=0, callbacks=list(callbacks))


def fit_without_a_seed(made, callbacks=()):
    # The trainer has seeded TensorFlow, so its order comes again in the same program.
    data = tf.data.Dataset.from_tensor_slices((training.X, training.Y)).shuffle(16).batch(4)
    return made.fit(data, epochs=EPOCHS, verbose=0, callbacks=list(callbacks))


FITS = [
    fit_dataset,
    fit_without_a_seed,
    fit_endless,
    fit_infinite,
    fit_arrays,
    fit_endless_arrays,
    fit_endless_unknown_length,
    fit_unknown_length,
    fit_own_part,
]


def assert_resumes(tmp_path, fit, batches, make=training.trainer):
    """Compares an interrupted and resumed training with one that was not; returns the latter."""
    whole = make(None)
    history = fit(whole)
    interrupt(fit, make, tmp_path, batches)
    resumed = make(tmp_path)
    continued = fit(resumed)
    assert resumed._log.steps_done == whole._log.steps_done
    assert_same_bits(everything(resumed), everything(whole))
    assert_same_history(continued, history)
    return whole, resumed


def assert_same_history(one, other):
    assert one.epoch == other.epoch
    assert one.history.keys() == other.history.keys()
    for name, values in one.history.items():
        np.testing.assert_array_equal(values, other.history[name], err_msg=name)


@pytest.mark.graph
@pytest.mark.parametrize(
    "fit",
    representatives(FITS, fit_dataset, fit_endless, fit_arrays, fit_unknown_length, fit_own_part),
)
def test_every_kind_of_data_goes_on_in_the_middle_of_an_epoch(tmp_path, fit):
    # 19 of 11 + 11 + 11 batches, or of 8 + 3 + 8 + 3: saved at 16.
    assert_resumes(tmp_path, fit, 19)


# Before the first checkpoint, at it, at the end of an epoch, behind it, and at the end of all.
@pytest.mark.graph
@pytest.mark.parametrize("batches", representatives([1, 4, 11, 12, 33], 1, 33))
def test_it_goes_on_wherever_it_was_interrupted(tmp_path, batches):
    assert_resumes(tmp_path, fit_arrays, batches)


#: What each training has that a checkpoint must bring back.
OPTIONS = {
    "accumulation": {"accumulate_steps": 2, "kept": {"every_steps": 3}},
    "several steps per execution": {"steps_per_execution": 3},
    "averaged weights": {
        "optimizer": lambda: keras.optimizers.AdamW(
            training.schedule(), use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=3
        )
    },
    "an adaptive clip": {"clip": disttrain.ClipByGlobalNorm(0.1), "loss_scale": 128.0},
    "a clip with history": {"clip": disttrain.AutoClip(50.0, 10)},
    "a plateau": {
        "optimizer": lambda: keras.optimizers.SGD(disttrain.schedules.Plateau(0.1), momentum=0.9)
    },
    "sharpness": {
        "optimizer": lambda: disttrain.optimizers.SAM(keras.optimizers.SGD(0.05, momentum=0.9))
    },
    "slow weights": {
        "optimizer": lambda: disttrain.optimizers.Lookahead(keras.optimizers.Adam(0.01), 3)
    },
    "groups": {
        "optimizer": lambda: disttrain.optimizers.Grouped(
            keras.optimizers.Adam(0.01),
            [disttrain.optimizers.Group("*/bias", learning_rate=0.1)],
        )
    },
    "an addon": {
        "optimizer": lambda: disttrain.optimizers.from_addons("NovoGrad", learning_rate=0.01)
    },
    "compiled": {"jit_compile": True},
}


#: Several of these in one training; that each comes back by itself is tested exhaustively.
TOGETHER = [
    ("averaged weights", "accumulation", "a clip with history"),
    ("slow weights", "several steps per execution", "an adaptive clip"),
    ("groups", "compiled"),
    ("a plateau",),
    ("sharpness",),
    ("an addon",),
]


@pytest.mark.unit
def test_every_state_is_in_a_training_of_the_default_run():
    assert sorted(name for names in TOGETHER for name in names) == sorted(OPTIONS)


@pytest.mark.graph
@pytest.mark.parametrize(
    "names",
    [
        *TOGETHER,
        *(
            pytest.param((name,), marks=pytest.mark.exhaustive)
            for name in OPTIONS
            if (name,) not in TOGETHER
        ),
    ],
    ids=", ".join,
)
def test_it_goes_on_with_every_state_that_a_training_can_have(tmp_path, names):
    def make(directory):
        options = {}
        for name in names:
            options |= OPTIONS[name]
        return training.trainer(directory, **options)

    assert_resumes(tmp_path, fit_arrays, 18, make)


@pytest.mark.graph
def test_a_learning_rate_that_a_callback_has_lowered_stays_low(tmp_path):
    def fit(made, callbacks=()):
        plateau = disttrain.schedules.ReduceOnPlateau("loss", 0.5, patience=2, min_delta=10.0)
        return fit_arrays_for(made, 7, [plateau, *callbacks])

    def make(directory):
        rate = disttrain.schedules.Plateau(0.1)
        return training.trainer(directory, optimizer=keras.optimizers.SGD(rate))

    whole, _ = assert_resumes(tmp_path, fit, 50, make)
    assert float(whole.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**3)


@pytest.mark.graph
def test_keras_callbacks_go_on(tmp_path):
    """The plateau acts twice, and the end comes in the sixth epoch, with the weights of the first.

    Without what they had seen before, the interruption would put all of that off.
    """

    def fit(made, callbacks=()):
        lower = keras.callbacks.ReduceLROnPlateau("loss", 0.5, patience=2, min_delta=10.0)
        stop = keras.callbacks.EarlyStopping(
            "loss", patience=5, min_delta=10.0, restore_best_weights=True
        )
        return fit_arrays_for(made, 9, [lower, stop, *callbacks])

    def make(directory):
        return training.trainer(directory, optimizer=keras.optimizers.SGD(0.1, momentum=0.9))

    whole, _ = assert_resumes(tmp_path, fit, 50, make)
    assert whole._log.steps_done == 6 * 11
    assert float(whole.optimizer.learning_rate) == pytest.approx(0.1 * 0.5**2)


@pytest.mark.graph
def test_the_best_file_of_a_model_checkpoint_stays_the_best(tmp_path):
    path = tmp_path / "best.keras"

    def fit(made, callbacks=()):
        kept = keras.callbacks.ModelCheckpoint(str(path), "loss", mode="max", save_best_only=True)
        return fit_arrays_for(made, 3, [kept, *callbacks])

    interrupt(fit, training.trainer, tmp_path / "ckpt", 18)
    before = path.read_bytes()
    fit(training.trainer(tmp_path / "ckpt"))
    assert path.read_bytes() == before


def fit_arrays_for(made, epochs, callbacks):
    x, y = training.X, training.Y
    return made.fit(x, y, batch_size=4, epochs=epochs, verbose=0, callbacks=callbacks)


@pytest.mark.graph
def test_skipped_steps_and_the_loss_scale_come_back(tmp_path):
    x = training.X.copy()
    x[9] = np.nan

    def fit(made, callbacks=()):
        return made.fit(x, training.Y, batch_size=4, epochs=3, verbose=0, callbacks=list(callbacks))

    def make(directory):
        scale = disttrain.DynamicLossScale(2.0**10, growth_interval=4)
        return training.trainer(
            directory, loss_scale=scale, metrics=None, model=training.build_plain
        )

    whole, _ = assert_resumes(tmp_path, fit, 19, make)
    assert whole.optimizer.iterations.numpy() == 30
    assert float(whole.optimizer.loss_scale.value.numpy()) != 2.0**10


@pytest.mark.graph
def test_mirrored_replicas_go_on_with_their_own_seeds_and_statistics(tmp_path, mirrored):
    replication = mirrored(2)

    def make(directory):
        return training.trainer(directory, replication=replication)

    whole, _ = assert_resumes(tmp_path, fit_arrays, 18, make)
    state = everything(whole)
    seed = next(key for key in state if key.startswith("0/") and "seed_generator" in key)
    assert state[seed].tolist() != state["1" + seed[1:]].tolist()


@pytest.mark.graph
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (1, 2),
        (3, 2),
        pytest.param(2, 1, marks=pytest.mark.exhaustive),
        pytest.param(2, 3, marks=pytest.mark.exhaustive),
    ],
)
def test_another_number_of_replicas_sees_the_same_batches(tmp_path, mirrored, before, after):
    def make(replicas):
        def made(directory):
            return training.trainer(
                directory,
                replication="single" if replicas == 1 else mirrored(replicas),
                model=training.build_plain,
            )

        return made

    whole = make(before)(None)
    history = fit_dataset(whole)
    interrupt(fit_dataset, make(before), tmp_path, 18)
    resumed = make(after)(tmp_path)
    continued = fit_dataset(resumed)
    for one, other in zip(resumed.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-6)
    for name, values in history.history.items():
        np.testing.assert_allclose(continued.history[name], values, rtol=1e-5, err_msg=name)


@pytest.mark.graph
def test_a_finished_training_is_not_trained_again_and_goes_on_with_more_epochs(tmp_path):
    fit_dataset(training.trainer(tmp_path), epochs=2)
    again = training.trainer(tmp_path)
    assert fit_dataset(again, epochs=2).epoch == [0, 1]
    assert again._log.steps_done == 2 * training.STEPS
    more = training.trainer(tmp_path)
    whole = training.trainer()
    expected = fit_dataset(whole, epochs=3)
    assert fit_dataset(more, epochs=3).history == expected.history
    assert_same_bits(everything(more), everything(whole))


@pytest.mark.graph
def test_a_training_that_was_stopped_early_stays_stopped(tmp_path):
    def fit(made):
        stop = keras.callbacks.EarlyStopping("loss", min_delta=100.0, patience=1)
        return fit_dataset(made, [stop], epochs=6)

    assert fit(training.trainer(tmp_path)).epoch == [0, 1]
    assert fit(training.trainer(tmp_path)).epoch == [0, 1]


@pytest.mark.graph
def test_calls_of_fit_that_were_done_do_nothing(tmp_path):
    def both(made, callbacks=()):
        fit_arrays_for(made, 1, list(callbacks))
        return fit_arrays_for(made, 3, list(callbacks))

    whole = training.trainer()
    expected = both(whole)
    # 11 batches of the first call, and 14 of the second.
    stop = training.StopAfter(25)
    with pytest.raises(training.Interrupted):
        both(training.trainer(tmp_path), [stop])
    resumed = training.trainer(tmp_path)
    assert both(resumed).history == expected.history
    assert_same_bits(everything(resumed), everything(whole))


@pytest.mark.graph
def test_two_calls_of_one_trainer_do_not_go_back(tmp_path):
    made = training.trainer(tmp_path)
    fit_arrays_for(made, 1, [])
    fit_arrays_for(made, 1, [])
    assert made._log.steps_done == 2 * training.STEPS


@pytest.mark.graph
def test_global_random_generators_go_on(tmp_path):
    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + 0.1 * tf.random.get_global_generator().normal(tf.shape(x))

    def make(directory):
        tf.random.set_global_generator(tf.random.Generator.from_seed(3))
        return training.trainer(
            directory,
            model=lambda: keras.Sequential(
                [keras.Input((training.FEATURES,)), Noise(), keras.layers.Dense(training.CLASSES)]
            ),
        )

    try:
        assert_resumes(tmp_path, fit_arrays, 18, make)
    finally:
        from tensorflow.python.ops import stateful_random_ops

        stateful_random_ops.global_generator = None


def records(logdir):
    """`(tag, step)` to tensor, the later of two."""
    found = {}
    for file in sorted(logdir.glob("events.*"), key=lambda path: path.stat().st_mtime):
        for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor)
    return found


@pytest.mark.graph
def test_the_event_file_goes_on_with_the_same_steps(tmp_path):
    def make(directory):
        run = "whole" if directory is None else "run"
        telemetry = disttrain.Telemetry(every=1)
        return training.trainer(directory, logdir=tmp_path / run, telemetry=telemetry)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # It is no foreign run that is found there.
        assert_resumes(tmp_path / "ckpt", fit_arrays, 18, make)
    whole, resumed = records(tmp_path / "whole"), records(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    layers = [key for key in whole if key[0] == "disttrain/layers/0"]
    assert len(layers) == EPOCHS * training.STEPS
    for key in layers:
        np.testing.assert_array_equal(whole[key], resumed[key], err_msg=str(key))


@pytest.mark.graph
def test_records_before_a_checkpoint_are_in_the_file_when_it_counts(tmp_path, monkeypatch):
    found, original = [], store.rename

    def look(*paths):
        found.append({step for tag, step in records(tmp_path / "run")})
        original(*paths)

    monkeypatch.setattr(store, "rename", look)
    telemetry = disttrain.Telemetry(every=1)
    made = training.trainer(tmp_path / "ckpt", logdir=tmp_path / "run", telemetry=telemetry)
    fit_arrays(made, [training.Settled(made)])
    assert found[0] - {0} == {1, 2, 3, 4}
