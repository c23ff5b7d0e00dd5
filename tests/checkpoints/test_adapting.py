"""What may follow the number of replicas, and what may not."""

import copy
import math

import keras
import numpy as np
import pytest

import disttrain
from disttrain import schedules
from disttrain.checkpoints import adapting, comparing
from disttrain.checkpoints.comparing import Changed
from tests.checkpoints import training

RATE = "optimizer.inner.config.learning_rate"


@pytest.mark.unit
@pytest.mark.parametrize(
    ("key", "before", "now", "replicas", "ratio"),
    [
        (RATE, 0.1, 0.2, (1, 2), 2.0),
        (RATE, 0.2, 0.1, (4, 2), 0.5),
        (RATE, 0.1, 0.1 * math.sqrt(3), (1, 3), math.sqrt(3)),
        (RATE + ".config.values[1]", 0.3, 0.1, (3, 1), 1 / 3),
        (RATE, 0.1, 0.2, (2, 2), None),
        (RATE, 0.1, 0.3, (1, 2), None),
        (RATE, 0.0, 0.1, (1, 2), None),
        (RATE, "a", "b", (1, 2), None),
        (RATE, True, 2, (1, 2), None),
        ("optimizer.clip.config.max_norm", 1.0, 2.0, (1, 2), None),
    ],
)
def test_a_rate_follows_by_one_of_the_rules(key, before, now, replicas, ratio):
    found = adapting.rate_ratio(key, before, now, replicas)
    assert found == (None if ratio is None else pytest.approx(ratio))


def scaled(replicas, **options):
    return schedules.scaled_learning_rate(0.05, replicas, **options)


def decayed(replicas):
    decay = keras.optimizers.schedules.ExponentialDecay(0.05, 9, 0.5)
    return schedules.scaled_learning_rate(decay, replicas)


RATES = {
    "a number": scaled,
    "a number by hand": lambda replicas: 0.05 * replicas,
    "the square root": lambda replicas: scaled(replicas, rule="sqrt"),
    "a warmup": lambda replicas: scaled(replicas, warmup_steps=5),
    "a schedule": decayed,
    "the beginning of a schedule": lambda replicas: keras.optimizers.schedules.CosineDecay(
        float(scaled(replicas)), 100
    ),
    "a list": lambda replicas: keras.optimizers.schedules.PiecewiseConstantDecay(
        [5], [0.1 * replicas, 0.01 * replicas]
    ),
}


def manifest(rate, replicas, **options):
    optimizer = disttrain.DistributedOptimizer(keras.optimizers.SGD(rate), **options)
    return {
        "step": 9,
        "replicas": replicas,
        "variables": [],
        "optimizer": comparing.configuration(optimizer),
        "seed": 0,
        "data": {"steps": 10, "batch": 8, "endless": False, "numbered": True},
        "place": {"batches": 5, "data": {"passes": 2, "epoch": 1, "taken": 5}},
    }


@pytest.mark.unit
@pytest.mark.parametrize("name", RATES)
def test_every_way_to_scale_is_known(name):
    before, now = manifest(RATES[name](2), 2), manifest(RATES[name](6), 6)
    ratio = math.sqrt(3) if "root" in name else 3.0
    found = list(comparing.check(before, now).values())
    assert found == pytest.approx([ratio] * len(found))
    assert found
    with pytest.raises(Changed, match="learning_rate"):
        comparing.check(before, {**now, "replicas": 2})


@pytest.mark.unit
def test_nothing_else_of_the_optimizer_may_follow():
    before = manifest(0.1, 2, clip=disttrain.ClipByGlobalNorm(1.0))
    now = manifest(0.2, 4, clip=disttrain.ClipByGlobalNorm(2.0))
    with pytest.raises(Changed) as caught:
        comparing.check(before, now)
    assert "was 1.0, now 2.0" in str(caught.value)
    assert "learning_rate" not in str(caught.value)


@pytest.mark.unit
def test_the_batch_may_follow_and_the_kind_of_data_not():
    before, now = manifest(0.1, 2), manifest(0.1, 4)
    now["data"] |= {"steps": 5, "batch": 16}
    assert comparing.check(before, now) == {}
    with pytest.raises(Changed, match="data.steps was 10, now 5"):
        comparing.check(before, {**now, "replicas": 2})
    now["data"]["endless"] = True
    with pytest.raises(Changed, match="data.endless"):
        comparing.check(before, now)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("before", "batches", "now", "expected"),
    [
        ((10, 8), 5, (10, 8), 5),
        ((10, 8), 5, (5, 16), 2),
        ((5, 16), 2, (10, 8), 4),
        ((10, 8), 1, (5, 16), 1),
        ((10, 8), 10, (7, 12), 7),
        ((10, 8), 9, (7, 12), 6),
        ((10, None), 5, (5, None), 2),
        ((None, 8), 6, (None, 16), 3),
        ((None, None), 6, (None, None), 6),
        ((10, 8), 0, (5, 16), 0),
    ],
)
def test_the_place_counts_examples(before, batches, now, expected):
    old = manifest(0.1, 2)
    old["data"] |= dict(zip(("steps", "batch"), before, strict=True))
    old["place"]["batches"] = old["place"]["data"]["taken"] = batches
    new = copy.deepcopy(old)
    new["data"] |= dict(zip(("steps", "batch"), now, strict=True))
    place, done = adapting.place(old, new)
    assert done == expected
    assert place == {"passes": 2, "epoch": 1, "taken": expected}


@pytest.mark.unit
def test_one_iterator_over_the_epochs_counts_them_all():
    old = manifest(0.1, 2)
    old["place"]["data"]["taken"] = 25
    new = copy.deepcopy(old)
    new["data"] |= {"steps": 5, "batch": 16}
    place, done = adapting.place(old, new)
    assert (place["taken"], done) == (12, 2)


def fit(made, callbacks=(), batch=training.BATCH):
    x, y = training.X, training.Y
    made.fit(x, y, batch_size=batch, epochs=2, verbose=0, callbacks=list(callbacks))


@pytest.mark.graph
def test_a_training_goes_on_with_more_replicas_a_larger_batch_and_its_rate(tmp_path, mirrored):
    """As Horovod's users do it: so many examples and so much learning rate for each replica."""

    def make(directory, replicas):
        return training.trainer(
            directory,
            training.build_plain,
            replication=mirrored(replicas),
            optimizer=keras.optimizers.SGD(scaled(replicas), momentum=0.9),
            metrics=None,
        )

    class Halve(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.optimizer.inner.learning_rate.assign(scaled(2) / 2)

    def interrupted(made, callbacks):
        fit(made, [*callbacks, Halve()])

    # Of 11 batches an epoch 18 are done, and 16 saved: 5 in the second one, which are 20 examples.
    training.interrupt(interrupted, lambda path: make(path, 2), tmp_path, 18)
    resumed = make(tmp_path, 4)
    fit(resumed, batch=2 * training.BATCH)
    assert resumed._log.steps_done == 16 + 4

    alone = training.trainer(
        None,
        training.build_plain,
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        metrics=None,
    )

    def go_on(epoch, first, last, batch, rate):
        order = np.random.default_rng([resumed._seed or 0, epoch]).permutation(training.ROWS)
        rows = order[first:last]
        if rate is not None:
            alone.optimizer.inner.learning_rate.assign(rate)
        x, y = training.X[rows], training.Y[rows]
        alone.fit(x, y, batch_size=batch, shuffle=False, epochs=1, verbose=0)

    go_on(0, 0, training.ROWS, 4, None)
    go_on(1, 0, 20, 4, 0.05)
    # Two batches of 8 are done; the last 4 of the 20 examples come again, with twice the rate.
    go_on(1, 16, training.ROWS, 8, 0.1)
    for one, other in zip(resumed.model.weights, alone.model.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-4, atol=1e-6)
    assert float(resumed.optimizer.inner.learning_rate.numpy()) == pytest.approx(0.1)
