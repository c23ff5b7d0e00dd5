"""Groups of variables: each is trained as if its optimizer had been made for it alone."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers.groups import Group, Grouped, layer_decay
from disttrain.optimizers.lars import LARS
from disttrain.optimizers.lookahead import Lookahead
from disttrain.optimizers.slots import find_slots
from disttrain.replication import resolve
from tests.distributed import checks
from tests.optimizers import steps

STEPS = 3
GROUPS = [
    Group("backbone/*", learning_rate=0.1),
    Group("*/bias", weight_decay=False),
    Group("norm/gamma", learning_rate=2.0, weight_decay=0.5),
]

#: Name -> a function of a learning rate and a weight decay that makes an optimizer.
INNER = {
    "sgd": lambda lr, decay: keras.optimizers.SGD(lr, weight_decay=decay),
    "momentum": lambda lr, decay: keras.optimizers.SGD(
        lr, momentum=0.9, nesterov=True, weight_decay=decay
    ),
    "adamw": lambda lr, decay: keras.optimizers.AdamW(lr, weight_decay=decay or 0.0),
    "rmsprop": lambda lr, decay: keras.optimizers.RMSprop(lr, weight_decay=decay),
    "lion": lambda lr, decay: keras.optimizers.Lion(lr, weight_decay=decay),
    "adafactor": lambda lr, decay: keras.optimizers.Adafactor(lr, weight_decay=decay),
}
RATE, DECAY = 0.05, 0.2


def each_alone(inner, settings):
    """Trains each variable by an optimizer of its own.

    Args:
        inner: One of `INNER`.
        settings: Path to `(learning rate, weight decay)`; others stay as they are.
    """
    expected = steps.starts()
    for path, (rate, decay) in settings.items():
        (variable,) = steps.make_variables({path: steps.starts()[path]})
        optimizer = inner(rate, decay)
        for parts in steps.gradients(STEPS):
            optimizer.apply([tf.constant(steps.mean(parts)[path])], [variable])
        expected[path] = variable.numpy()
    return expected


SETTINGS = {
    "backbone/kernel": (0.1 * RATE, DECAY),
    "backbone/bias": (RATE, None),  # the last group that matches wins, with its rate of 1
    "norm/gamma": (2 * RATE, 0.5),
    "head/kernel": (RATE, DECAY),
    "head/bias": (RATE, None),
}


@pytest.mark.graph
@pytest.mark.parametrize("name", INNER)
def test_each_variable_moves_as_by_an_optimizer_of_its_own(name):
    inner = INNER[name]
    weights, _ = steps.alone(lambda: Grouped(inner(RATE, DECAY), GROUPS), STEPS)
    steps.assert_close(weights, each_alone(inner, SETTINGS), atol=1e-6)


@pytest.mark.graph
@pytest.mark.parametrize("adopt", [False, True])
@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_mirrored_replicas_with_gradients_of_their_own_do_as_one_device(mirrored, name, adopt):
    inner = INNER[name]
    weights, optimizer = steps.together(
        mirrored(2), lambda: Grouped(inner(RATE, DECAY), GROUPS), STEPS, adopt=adopt
    )
    steps.assert_close(weights, each_alone(inner, SETTINGS))
    assert int(optimizer.iterations.numpy()) == STEPS
    assert isinstance(optimizer.inner, Grouped)


@pytest.mark.graph
def test_one_device_in_a_distributed_optimizer_does_as_alone():
    inner = INNER["adamw"]
    weights, _ = steps.together(
        resolve("single"), lambda: Grouped(inner(RATE, DECAY), GROUPS), STEPS
    )
    steps.assert_close(weights, each_alone(inner, SETTINGS))


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [1, 2])
def test_frozen_variables_and_their_slots_stay_bit_for_bit(mirrored, replicas):
    replication = mirrored(2) if replicas == 2 else resolve("single")
    inner = INNER["adamw"]
    weights, optimizer = steps.together(
        replication,
        lambda: Grouped(inner(RATE, DECAY), [Group("backbone/*", frozen=True)]),
        STEPS,
    )
    settings = {p: (RATE, DECAY) for p in steps.SHAPES if not p.startswith("backbone")}
    steps.assert_close(weights, each_alone(inner, settings))
    for path in ("backbone/kernel", "backbone/bias"):
        np.testing.assert_array_equal(weights[path], steps.starts()[path])
    base = optimizer.inner.inner
    assert not np.any(base._momentums[0].numpy())
    assert np.any(base._momentums[2].numpy())


@pytest.mark.unit
def test_a_step_in_which_only_frozen_variables_have_gradients_still_counts():
    one, two = steps.make_variables({"a/kernel": np.ones(1, "f4"), "b/kernel": np.ones(1, "f4")})
    optimizer = Grouped(keras.optimizers.SGD(1.0), [Group("a/*", frozen=True)])
    optimizer.build([one, two])
    optimizer.apply([tf.ones(1)], [one])
    assert (one.numpy()[0], two.numpy()[0]) == (1.0, 1.0)
    assert int(optimizer.iterations.numpy()) == 1


@pytest.mark.unit
def test_a_schedule_is_multiplied_at_each_step():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [1.0, 0.25])
    one, two = steps.make_variables({"a/kernel": np.zeros(1, "f4"), "b/kernel": np.zeros(1, "f4")})
    optimizer = Grouped(keras.optimizers.SGD(schedule), [Group("b/*", learning_rate=0.1)])
    for _ in range(2):
        optimizer.apply([tf.ones(1), tf.ones(1)], [one, two])
    np.testing.assert_allclose([one.numpy()[0], two.numpy()[0]], [-1.25, -0.125])


@pytest.mark.graph
def test_a_rate_that_is_set_later_counts_at_the_next_step():
    (one,) = steps.make_variables({"a/kernel": np.zeros(1, "f4")})
    optimizer = disttrain.DistributedOptimizer(
        Grouped(keras.optimizers.SGD(1.0), [Group("a/*", learning_rate=0.5)])
    )
    step = tf.function(lambda: optimizer.apply([tf.ones(1)], [one]), autograph=False)
    step()
    optimizer.learning_rate = 0.1
    step()
    assert one.numpy()[0] == pytest.approx(-0.55)
    assert float(optimizer.learning_rate.numpy()) == pytest.approx(0.1)


@pytest.mark.unit
def test_weight_decay_inside_of_a_rule_of_its_own_can_be_masked_but_not_set():
    (one,) = steps.make_variables({"a/kernel": np.ones(2, "f4")})
    make = lambda: LARS(1.0, weight_decay=0.5, trust=0.1)  # noqa: E731
    Grouped(make(), [Group("*", weight_decay=False)]).apply([tf.ones(2)], [one])
    np.testing.assert_allclose(one.numpy(), 0.9, rtol=1e-6)
    with pytest.raises(ValueError, match="LARS applies weight decay by a rule of its own"):
        Grouped(make(), [Group("*", weight_decay=0.1)])


@pytest.mark.unit
def test_a_weight_decay_of_zero_is_none():
    (one,) = steps.make_variables({"a/kernel": np.ones(2, "f4")})
    inner = keras.optimizers.SGD(1.0, weight_decay=0.5)
    Grouped(inner, [Group("*", weight_decay=0.0)]).apply([tf.zeros(2)], [one])
    np.testing.assert_array_equal(one.numpy(), 1.0)


@pytest.mark.graph
def test_groups_go_around_another_wrapper():
    make = lambda: Grouped(Lookahead(keras.optimizers.SGD(1.0), 2, 0.5), GROUPS)  # noqa: E731
    weights, optimizer = steps.together(resolve("single"), make, 2)
    start = steps.starts()["backbone/kernel"]
    total = sum(steps.mean(parts)["backbone/kernel"] for parts in steps.gradients(2))
    np.testing.assert_allclose(weights["backbone/kernel"], start - 0.05 * total, atol=1e-5)
    slots = {s.path for s in optimizer.variables}
    assert len(slots) == len(optimizer.variables)


@pytest.mark.unit
def test_clip_and_loss_scale_of_the_inner_optimizer_are_taken_over():
    inner = keras.optimizers.SGD(1.0, global_clipnorm=2.0, loss_scale_factor=8.0)
    optimizer = disttrain.DistributedOptimizer(Grouped(inner, [Group("*", learning_rate=0.5)]))
    assert optimizer.clip == disttrain.ClipByGlobalNorm(2.0)
    assert optimizer.loss_scale.initial == 8.0
    assert (inner.global_clipnorm, inner.loss_scale_factor) == (None, None)
    (one,) = steps.make_variables({"a/kernel": np.zeros(1, "f4")})
    optimizer.apply([tf.constant([80.0])], [one])
    assert one.numpy()[0] == pytest.approx(-0.5 * 2.0)


@pytest.mark.unit
def test_layer_decay_gives_the_last_layer_the_full_rate():
    groups = layer_decay(["embedding/*", ["block/*", "other/*"], "head/*"], 0.5, top=2.0)
    assert [g.learning_rate for g in groups] == [0.5, 1.0, 2.0]
    assert groups[1].patterns == ("block/*", "other/*")


@pytest.mark.unit
def test_layer_decay_takes_the_layers_of_a_model_and_fits_when_it_is_built_again():
    def build():
        return keras.Sequential(
            [
                keras.Input((4,)),
                keras.layers.Dense(3, name="first"),
                keras.layers.Activation("relu"),
                keras.layers.Dense(2, name="a.b"),
            ]
        )

    groups = layer_decay(build(), 0.1)
    assert [g.learning_rate for g in groups] == [0.1, 1.0]
    again = build()
    optimizer = Grouped(keras.optimizers.SGD(1.0), groups)
    optimizer.build(again.trainable_variables)
    rates = [optimizer.group_of(v).learning_rate for v in again.trainable_variables]
    assert rates == [0.1, 0.1, 1.0, 1.0]
    assert not groups[1].matches("axb/kernel")


@pytest.mark.graph
def test_a_saved_model_comes_back_with_groups_and_slots(tmp_path):
    x, y = checks.data(16)
    model = keras.Sequential(
        [keras.Input((checks.FEATURES,)), keras.layers.Dense(checks.CLASSES, name="only")]
    )
    groups = [Group(("*only/kernel", "*only/b*"), learning_rate=0.5)]
    inner = Grouped(keras.optimizers.Adam(0.01), groups)
    model.compile(disttrain.DistributedOptimizer(inner), checks.loss(), auto_scale_loss=False)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    saved = []
    file["optimizer"].visititems(lambda name, entry: saved.append(entry))
    saved = [entry for entry in saved if isinstance(entry, h5py.Dataset)]
    assert len(saved) == len(model.optimizer.variables)  # each is saved once
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.inner.groups == inner.groups
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for one, two in zip(steps.states(loaded.optimizer), steps.states(model.optimizer), strict=True):
        np.testing.assert_array_equal(one, two)
    assert np.any(loaded.optimizer.inner.inner._momentums[0].numpy())


@pytest.mark.unit
def test_the_configuration_goes_through_json():
    groups = [*GROUPS, Group("head/.*", regex=True, frozen=True), Group(["norm/*", "head/*"])]
    optimizer = Grouped(keras.optimizers.AdamW(0.1), groups)
    again = keras.optimizers.deserialize(
        json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    )
    assert again.groups == optimizer.groups
    assert again.get_config() == optimizer.get_config()


@pytest.mark.unit
def test_a_checkpoint_of_tensorflow_keeps_the_inner_slots(tmp_path):
    def made():
        variables = steps.make_variables(steps.starts())
        optimizer = Grouped(keras.optimizers.Adam(0.1), GROUPS)
        optimizer.build(variables)
        return optimizer, variables

    optimizer, variables = made()
    for parts in steps.gradients(2):
        optimizer.apply([tf.constant(g) for g in steps.mean(parts).values()], variables)
    path = tf.train.Checkpoint(optimizer=optimizer).save(str(tmp_path / "state"))
    other, _ = made()
    tf.train.Checkpoint(optimizer=other).restore(path).assert_existing_objects_matched()
    for one, two in zip(steps.states(other), steps.states(optimizer), strict=True):
        np.testing.assert_array_equal(one, two)
    assert int(other.iterations.numpy()) == 2


@pytest.mark.unit
def test_the_slots_of_the_inner_optimizer_are_found_through_the_wrapper():
    variables = steps.make_variables(steps.starts())
    optimizer = Grouped(keras.optimizers.Adam(0.1), GROUPS)
    optimizer.build(variables)
    assert all(set(s) == {"momentum", "velocity"} for s in find_slots(optimizer, variables))


@pytest.mark.unit
def test_a_pattern_without_a_variable_is_named_with_some_paths():
    optimizer = Grouped(keras.optimizers.SGD(0.1), [Group("backbone/*"), Group("backbon/*")])
    with pytest.raises(ValueError, match=r"'backbon/\*'.*'backbone/kernel', .*'head/bias'"):
        optimizer.build(steps.make_variables(steps.starts()))


@pytest.mark.unit
def test_bad_arguments_are_refused():
    sgd = keras.optimizers.SGD
    with pytest.raises(ValueError, match="above 0, not 0"):
        Group("*", learning_rate=0)
    with pytest.raises(ValueError, match="number from 0, not -1"):
        Group("*", weight_decay=-1)
    with pytest.raises(ValueError, match="not True"):
        Group("*", weight_decay=True)
    with pytest.raises(ValueError, match=r"pattern of variable paths.*not \(\)"):
        Group([])
    with pytest.raises(ValueError, match="at least one Group"):
        Grouped(sgd(), [])
    with pytest.raises(TypeError, match="list of disttrain.optimizers.Group"):
        Grouped(sgd(), ["*"])
    with pytest.raises(TypeError, match=r"not <object"):
        Grouped(object(), GROUPS)
    with pytest.raises(TypeError, match=r"DistributedOptimizer\(Grouped\(...\)\)"):
        Grouped(disttrain.DistributedOptimizer(sgd()), GROUPS)
    with pytest.raises(TypeError, match=r"LossScaleOptimizer\(Grouped\(...\)\)"):
        Grouped(keras.optimizers.LossScaleOptimizer(sgd()), GROUPS)
    with pytest.raises(ValueError, match="in a Grouped already"):
        Grouped(Grouped(sgd(), GROUPS), GROUPS)
    with pytest.raises(ValueError, match="all 5 trainable variables are frozen"):
        Grouped(sgd(), [Group("*", frozen=True)]).build(steps.make_variables(steps.starts()))
    with pytest.raises(ValueError, match="gradient_accumulation_steps=2"):
        Grouped(sgd(gradient_accumulation_steps=2), GROUPS).build(
            steps.make_variables(steps.starts())
        )
    with pytest.raises(ValueError, match="at most 1, not 1.5"):
        layer_decay(["a/*"], 1.5)
    with pytest.raises(ValueError, match="no layer"):
        layer_decay([], 0.5)
    built = sgd()
    built.build(steps.make_variables(steps.starts()))
    with pytest.raises(ValueError, match="has built its slots"):
        Grouped(built, GROUPS)


@pytest.mark.unit
def test_an_optimizer_of_another_scope_is_refused(mirrored):
    inner = keras.optimizers.SGD()
    with mirrored(2).scope(), pytest.raises(ValueError, match=r"another tf.distribute scope"):
        Grouped(inner, GROUPS)
