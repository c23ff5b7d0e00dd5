"""Another optimizer in the middle of a training: what goes over and what begins anew."""

import keras
import numpy as np
import pytest

from disttrain.optimizers.slots import find_slots
from tests.distributed import checks

pytestmark = pytest.mark.graph


@pytest.fixture(params=[1, 2], ids=["single", "mirrored"])
def replication(request, mirrored):
    return "single" if request.param == 1 else mirrored(2)


def trained(replication, optimizer, **options):
    made = checks.trainer(replication, optimizer=optimizer, **options)
    made.fit(checks.dataset(32), epochs=2, verbose=0)
    return made


def test_adam_becomes_adamw_without_a_jolt(replication):
    """Without weight decay AdamW is Adam, so a switched run is the run that went on."""
    switched = trained(replication, keras.optimizers.Adam(0.01))
    switched.switch_optimizer(keras.optimizers.AdamW(0.01, weight_decay=0.0))
    assert switched.optimizer.iterations.numpy() == 8
    switched.fit(checks.dataset(32), epochs=2, verbose=0)
    went_on = checks.trainer("single", optimizer=keras.optimizers.Adam(0.01))
    went_on.fit(checks.dataset(32), epochs=4, verbose=0)
    np.testing.assert_allclose(
        checks.flat(switched.model.trainable_variables),
        checks.flat(went_on.model.trainable_variables),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (lambda: keras.optimizers.SGD(0.1, momentum=0.9), lambda: keras.optimizers.Adam(0.01)),
        (lambda: keras.optimizers.Adam(0.01), lambda: keras.optimizers.SGD(0.01, momentum=0.9)),
        (lambda: keras.optimizers.RMSprop(0.01), lambda: keras.optimizers.Adam(0.01)),
        (
            lambda: keras.optimizers.Adam(0.01),
            lambda: keras.optimizers.RMSprop(0.01, momentum=0.9),
        ),
        (lambda: keras.optimizers.Adam(0.01), lambda: keras.optimizers.Adam(0.01, amsgrad=True)),
    ],
    ids=["SGD to Adam", "Adam to SGD", "RMSprop to Adam", "Adam to RMSprop", "to AMSGrad"],
)
def test_where_slots_mean_something_else_all_begin_anew(replication, before, after):
    """SGD's momentum is a step, Adam's a gradient; and half of Adam's would be corrected twice."""
    made = trained(replication, before())
    weights = checks.flat(made.model.trainable_variables)
    made.switch_optimizer(after())
    np.testing.assert_array_equal(checks.flat(made.model.trainable_variables), weights)
    inner = made.optimizer.inner
    assert inner.iterations.numpy() == 0
    for slots in find_slots(inner, made.model.trainable_variables):
        for name, slot in slots.items():
            assert not slot.numpy().any(), name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Adam", "Nadam"),
        ("AdamW", "Lamb"),
        ("Adam", "RMSprop"),
        ("Adamax", "Lion"),
        ("Adagrad", "Adagrad"),
    ],
)
def test_slots_that_mean_the_same_go_over_with_the_count(replication, before, after):
    made = trained(replication, getattr(keras.optimizers, before)(0.01))
    variables = made.model.trainable_variables
    old = find_slots(made.optimizer.inner, variables)
    values = [{name: slot.numpy() for name, slot in slots.items()} for slots in old]
    made.switch_optimizer(getattr(keras.optimizers, after)(0.01))
    assert made.optimizer.iterations.numpy() == 8
    for slots, before_them in zip(find_slots(made.optimizer.inner, variables), values, strict=True):
        for name, slot in slots.items():
            np.testing.assert_array_equal(slot.numpy(), before_them[name], err_msg=name)


def test_the_next_step_goes_downhill():
    """Adam's mean gradient as SGD's velocity would go on uphill."""
    made = trained("single", keras.optimizers.Adam(0.01))
    x, y = next(iter(checks.dataset(32)))
    before = made.evaluate(x, y, batch_size=8)["loss"]
    made.switch_optimizer(keras.optimizers.SGD(0.01, momentum=0.9))
    made.fit(x, y, batch_size=8, epochs=5, verbose=0)
    assert made.evaluate(x, y, batch_size=8)["loss"] < before


def test_nothing_goes_over_where_that_is_not_wanted(replication):
    made = trained(replication, keras.optimizers.Adam(0.01))
    made.switch_optimizer(keras.optimizers.AdamW(0.01), carry_over=False)
    assert not made.optimizer.inner._momentums[0].numpy().any()
    assert made.optimizer.iterations.numpy() == 0


def test_a_schedule_goes_on_from_the_step_of_the_training(replication):
    made = trained(replication, keras.optimizers.SGD(0.1))
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([7, 8], [1.0, 0.5, 0.25])
    made.switch_optimizer(keras.optimizers.Adam(schedule))
    assert float(made.optimizer.learning_rate) == 0.5
    made.fit(checks.dataset(8), verbose=0)
    assert float(made.optimizer.learning_rate) == 0.25


@pytest.mark.parametrize("after", ["SGD", "Adam"])
def test_the_rate_rises_over_the_warmup(replication, after):
    made = trained(replication, keras.optimizers.SGD(0.1))
    made.switch_optimizer(getattr(keras.optimizers, after)(0.8), warmup_steps=3)
    rates = []
    for _ in range(5):
        rates.append(float(made.optimizer.learning_rate))
        made.fit(checks.dataset(8), verbose=0)
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 0.8], rtol=1e-6)


def test_a_callback_can_switch_in_the_middle_of_an_epoch(replication, tmp_path):
    """Two steps of one optimizer and two of another, within one epoch."""

    class Switch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2:
                made.switch_optimizer(keras.optimizers.SGD(0.5))

    made = checks.trainer(
        replication, optimizer=keras.optimizers.SGD(0.1), logdir=str(tmp_path), metrics=["accuracy"]
    )
    history = made.fit(checks.dataset(32), verbose=0, callbacks=[Switch()])

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.optimizer.learning_rate = 0.1 if batch < 2 else 0.5

    expected = checks.trainer("single", optimizer=keras.optimizers.SGD(0.1), metrics=["accuracy"])
    one = expected.fit(checks.dataset(32), verbose=0, callbacks=[Rates()])
    np.testing.assert_allclose(
        checks.flat(made.model.trainable_variables),
        checks.flat(expected.model.trainable_variables),
        atol=1e-6,
    )
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history.history[name], one.history[name], rtol=1e-5)
    assert made.optimizer.iterations.numpy() == 4


def test_the_settings_of_the_trainer_stay(replication):
    import disttrain

    made = trained(replication, keras.optimizers.SGD(0.1), clip=disttrain.ClipByGlobalNorm(0.5))
    made.switch_optimizer("adam")
    assert made.optimizer.clip == disttrain.ClipByGlobalNorm(0.5)
    assert isinstance(made.optimizer.inner, keras.optimizers.Adam)


def test_a_warmup_of_less_than_nothing_is_refused():
    made = trained("single", keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="warmup_steps.*-1"):
        made.switch_optimizer("adam", warmup_steps=-1)
    with pytest.raises(TypeError, match="optimizer must be"):
        made.switch_optimizer(3)


def test_the_continued_rate_survives_serialization():
    from disttrain.optimizers.switching import Continued

    rate = Continued(keras.optimizers.schedules.ExponentialDecay(1.0, 2, 0.5), 3, 4, 5)
    config = keras.saving.serialize_keras_object(rate)
    loaded = keras.saving.deserialize_keras_object(config)
    assert [float(loaded(s)) for s in range(5, 12)] == [float(rate(s)) for s in range(5, 12)]
