"""Optimizers with names update their own variables, as each would alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.gradients.clip_each import ClipEach
from disttrain.optimizers import named
from disttrain.optimizers.slots import find_slots
from disttrain.replication import resolve

OWNERS = ["a", "b", "a"]
GRADIENTS = np.float32([3.0, 1.0, 4.0])


def optimizers():
    return {"a": keras.optimizers.Adam(0.1), "b": keras.optimizers.SGD(0.5, momentum=0.9)}


def variables():
    return [keras.Variable(np.float32([i + 1.0]), name=f"v{i}") for i in range(3)]


def wrapped(parts=None, **settings):
    made = named.wrapped(parts or optimizers(), resolve("single"), settings)
    made.inner.owners = OWNERS
    return made


def apply(optimizer, listed, steps=2):
    for _ in range(steps):
        optimizer.apply([tf.constant([g]) for g in GRADIENTS], listed)
    return np.concatenate([v.numpy() for v in listed])


def each_alone(parts=None):
    parts, listed = parts or optimizers(), variables()
    for _ in range(2):
        for name, optimizer in parts.items():
            own = [i for i, owner in enumerate(OWNERS) if owner == name]
            optimizer.apply([tf.constant([GRADIENTS[i]]) for i in own], [listed[i] for i in own])
    return np.concatenate([v.numpy() for v in listed])


@pytest.mark.graph
def test_each_updates_its_own_variables():
    optimizer = wrapped()
    np.testing.assert_allclose(apply(optimizer, variables()), each_alone(), rtol=1e-6)
    assert int(optimizer.iterations.numpy()) == 2
    assert len(optimizer.inner.variables) == sum(
        len(o.variables) for o in optimizer.inner.optimizers
    )


@pytest.mark.graph
def test_slots_are_found_in_each():
    listed, optimizer = variables(), wrapped()
    optimizer.build(listed)
    found = [sorted(slots) for slots in find_slots(optimizer.inner, listed)]
    assert found == [["momentum", "velocity"], ["momentum"], ["momentum", "velocity"]]


@pytest.mark.graph
@pytest.mark.parametrize("limit", ["clipnorm", "global_clipnorm", "clipvalue"])
def test_a_clip_of_one_sees_its_own_gradients_alone(limit):
    def clipping():
        return {"a": keras.optimizers.SGD(0.1, **{limit: 0.5}), "b": keras.optimizers.SGD(0.5)}

    optimizer = wrapped(clipping())
    np.testing.assert_allclose(apply(optimizer, variables()), each_alone(clipping()), rtol=1e-6)
    assert optimizer.clip_frequency() == 1.0


@pytest.mark.graph
def test_one_clip_for_all_acts_on_each_by_itself():
    def clipping():
        return {name: keras.optimizers.SGD(0.1, global_clipnorm=0.5) for name in "ab"}

    plain = {name: keras.optimizers.SGD(0.1) for name in "ab"}
    optimizer = wrapped(plain, clip=disttrain.ClipByGlobalNorm(0.5))
    np.testing.assert_allclose(apply(optimizer, variables()), each_alone(clipping()), rtol=1e-6)


@pytest.mark.graph
def test_its_configuration_makes_it_again_with_its_clips_and_state():
    listed = variables()
    optimizer = wrapped(clip=disttrain.AutoClip(window=4))
    apply(optimizer, listed)
    again = disttrain.DistributedOptimizer.from_config(optimizer.get_config())
    assert again.inner.names == ["a", "b"]
    assert again.clip == optimizer.clip
    again.build(listed)
    assert [v.name for v in again.variables] == [v.name for v in optimizer.variables]
    stored = {}
    optimizer.save_own_variables(stored)
    again.load_own_variables(stored)
    again.inner.set_weights([v.numpy() for v in optimizer.inner.variables])
    copies = [keras.Variable(v.numpy(), name=v.name) for v in listed]
    assert len(copies) == 3
    for ours, theirs in zip(again.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.graph
def test_a_saved_model_keeps_the_state_of_each(tmp_path):
    def model():
        made = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2), keras.layers.Dense(1)])
        optimizer = named.wrapped(optimizers(), resolve("single"), {})
        optimizer.inner.owners = ["a", "a", "b", "b"]
        made.compile(optimizer, "mse", auto_scale_loss=False)
        return made

    x, y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
    trained = model()
    trained.fit(x, y, verbose=0)
    trained.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    saved = trained.optimizer.inner.variables
    for ours, theirs in zip(loaded.optimizer.inner.variables, saved, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6)


@pytest.mark.unit
def test_a_clip_before_the_reduction_and_one_after_it_do_not_go_together():
    clips = {
        "a": disttrain.ClipByGlobalNorm(1.0),
        "b": disttrain.ClipByGlobalNorm(1.0, before_reduce=True),
    }
    with pytest.raises(ValueError, match="set before_reduce alike for all"):
        ClipEach(clips)
    with pytest.raises(TypeError, match="not 0.5 for 'a'"):
        ClipEach({"a": 0.5})


def _twice():
    one = keras.optimizers.SGD(0.1)
    return {"a": one, "b": one}


@pytest.mark.unit
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (_twice, "'a' and 'b' are the same object"),
        (lambda: {"a": keras.optimizers.SGD(gradient_accumulation_steps=2)}, "accumulate_steps="),
        (lambda: {"a": keras.optimizers.SGD(loss_scale_factor=2.0)}, r"Trainer\(loss_scale="),
        (
            lambda: {"a": disttrain.optimizers.SAM(keras.optimizers.SGD(0.1))},
            "'a' is a SAM, which cannot be one of several",
        ),
    ],
)
def test_what_cannot_be_one_of_several_is_named(parts, message):
    with pytest.raises(ValueError, match=message):
        wrapped(parts())


@pytest.mark.unit
def test_a_wrapped_optimizer_is_refused():
    parts = {"a": disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1))}
    with pytest.raises(TypeError, match="the trainer wraps it itself"):
        wrapped(parts)
