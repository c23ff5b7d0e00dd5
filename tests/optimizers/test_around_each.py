"""Watching each variable around its own update: the update stays what it is, and is seen whole."""

import contextlib
import importlib.util
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from disttrain.optimizers import around_each, fused, taking_over
from disttrain.replication import replica_value, resolve
from tests.optimizers import steps

pytestmark = pytest.mark.graph

STEPS = 3

#: Every optimizer of Keras that updates by itself, with settings that move the weights.
KERAS = {
    "SGD": {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
    "Adam": {"learning_rate": 0.01, "amsgrad": True},
    "AdamW": {"learning_rate": 0.01},
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
    "ScheduleFreeAdamW": {"learning_rate": 0.01, "warmup_steps": 2},
}
#: Those that update others. Of these, the first never stands inside of a `DistributedOptimizer`.
AROUND_OTHERS = ["LossScaleOptimizer", "MultiOptimizer"]


@pytest.fixture(autouse=True)
def updated_by_keras(monkeypatch):
    """An update of all variables at once measures them itself; here each has one of its own."""
    monkeypatch.setattr(fused, "find", lambda inner, variables: None)


def keras_optimizer(name, **options):
    return getattr(keras.optimizers, name)(**{**KERAS[name], **options})


class Momentum:
    """An optimizer in the style of TensorFlow Core."""

    def __init__(self):
        self.learning_rate = 0.1
        self.velocities = []

    def apply_gradients(self, grads, vars):
        if not self.velocities:
            self.velocities = [tf.Variable(tf.zeros_like(v)) for v in vars]
        for velocity, g, v in zip(self.velocities, grads, vars, strict=True):
            velocity.assign(0.9 * velocity + g)
            v.assign_sub(self.learning_rate * velocity)


def multi():
    biases = {".*bias": keras.optimizers.SGD(0.2)}
    return keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.Adam(0.01), biases)
    )


OTHERS = {
    "LARS": lambda: disttrain.optimizers.LARS(0.5, weight_decay=0.1),
    "Lookahead": lambda: disttrain.optimizers.Lookahead(
        keras.optimizers.Adam(0.01, weight_decay=0.1), sync_period=2
    ),
    "Grouped": lambda: disttrain.optimizers.Grouped(
        keras.optimizers.SGD(0.1, weight_decay=0.1),
        [disttrain.optimizers.Group("*/bias", learning_rate=0.1, weight_decay=False)],
    ),
    "Core": lambda: disttrain.optimizers.from_legacy(Momentum()),
}
if hasattr(keras.optimizers, "MultiOptimizer"):
    OTHERS["MultiOptimizer"] = multi
if importlib.util.find_spec("tensorflow_addons") is not None:
    OTHERS["Addons"] = lambda: disttrain.optimizers.from_addons("LAMB", learning_rate=0.01)


class Seen:
    """A watch that keeps the values that variables have when it is called.

    Args:
        variables: A list of `keras.Variable`.
    """

    def __init__(self, variables):
        def room():
            return [tf.Variable(tf.fill(v.shape, np.nan), trainable=False) for v in variables]

        self._variables = variables
        with tf.init_scope():
            self._before, self._after = room(), room()

    def before(self, group):
        self._keep(self._before, group)

    def after(self, group):
        return self._keep(self._after, group)

    def _keep(self, kept, group):
        for i in group:
            value = replica_value(self._variables[i]).read_value()
            kept[i].assign(tf.cast(value, tf.float32))
        return [kept[i].read_value() for i in group]

    def take(self):
        """`(before, after)`, two lists of arrays; from then on NaN until something is seen."""
        taken = tuple([v.numpy() for v in part] for part in (self._before, self._after))
        for variable in (*self._before, *self._after):
            variable.assign(tf.fill(variable.shape, np.nan))
        return taken


def graph(function):
    return tf.function(function, autograph=False)


def eager(function):
    return function


def variables_of(constraint=None):
    variables = steps.make_variables(steps.starts())
    variables[0].constraint = constraint
    return variables


def batches():
    """For each step a gradient for each variable, each that of the whole batch."""
    for parts in steps.gradients(STEPS):
        yield [tf.constant(g) for g in steps.mean(parts).values()]


def sparse(gradients):
    """The same, but the first holds only two rows of its own."""
    first = tf.IndexedSlices(tf.gather(gradients[0], [2, 0]), tf.constant([2, 0]), [4, 3])
    return [first, *gradients[1:]]


def alone(make, constraint=None, change=list):
    """The weights after each step of an optimizer by itself."""
    variables = variables_of(constraint)
    optimizer = make()
    optimizer.build(variables)
    found = []
    for gradients in batches():
        optimizer.apply(change(gradients), variables)
        found.append([v.numpy() for v in variables])
    return found


def watched(make, replication=None, constraint=None, change=list, function=graph):
    """The same, watched on the first replica.

    Returns:
        `(found, one_by_one)`: for each step the weights before and after it, and what the watch has
        seen as such, four lists of arrays; and whether variables were watched one by one.
    """
    replication = replication or resolve("single")
    with replication.scope():
        variables = variables_of(constraint)
        optimizer = make()
        taking_over.silence(optimizer)
        optimizer.build(variables)
    seen = Seen(variables)

    def on_replica(gradients):
        def update():
            optimizer.apply(change(gradients), variables)

        if replication.replica_index() == 0:
            around_each.call(update, optimizer, variables, seen)
        else:
            update()

    step = function(lambda parts: replication.run(on_replica, parts) and None)
    found = []
    for gradients in batches():
        before = [v.numpy() for v in variables]
        step([gradients] * replication.replicas)
        found.append((before, [v.numpy() for v in variables], *seen.take()))
    assert_equal_on_replicas(replication, variables)
    return found, around_each.updates_one_by_one(optimizer, variables)


def assert_equal_on_replicas(replication, variables):
    for variable in variables if replication.replicas > 1 else ():
        one, two = replication.strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(one.numpy(), two.numpy())


def assert_seen_as_it_is(found, expected):
    """What was seen is the variables' true change, and is what it would have been unseen."""
    for (before, after, seen_before, seen_after), weights in zip(found, expected, strict=True):
        assert any(np.any(b != a) for b, a in zip(before, after, strict=True))
        for i, path in enumerate(steps.SHAPES):
            np.testing.assert_allclose(after[i], weights[i], rtol=1e-6, atol=1e-6, err_msg=path)
            np.testing.assert_array_equal(seen_before[i], before[i], err_msg=path)
            np.testing.assert_array_equal(seen_after[i], after[i], err_msg=path)


def assert_watched(make, one_by_one, **options):
    found, found_one_by_one = watched(make, **options)
    kept = {name: options[name] for name in ("constraint", "change") if name in options}
    assert_seen_as_it_is(found, alone(make, **kept))
    assert found_one_by_one == one_by_one


# Every optimizer does what it does without a watch, and the watch sees all of it.


def test_every_optimizer_that_keras_has_is_looked_at_here():
    kinds = inspect.getmembers(keras.optimizers, inspect.isclass)
    names = {n for n, kind in kinds if issubclass(kind, keras.optimizers.Optimizer)}
    assert names - {"Optimizer", *AROUND_OTHERS} == set(KERAS)


@pytest.mark.parametrize("name", KERAS)
def test_keras_optimizers(name):
    assert_watched(lambda: keras_optimizer(name), name != "Muon", function=eager)


@pytest.mark.parametrize("name", KERAS)
def test_keras_optimizers_with_weight_decay(one_or_two, name):
    assert_watched(
        lambda: keras_optimizer(name, weight_decay=0.1),
        # Muon decays by a rule of its own.
        name != "Muon",
        replication=resolve(one_or_two),
    )


@pytest.mark.parametrize("name", KERAS)
def test_keras_optimizers_with_a_constraint_on_a_variable(name):
    def make():
        return keras_optimizer(name, weight_decay=0.1)

    constraint = keras.constraints.UnitNorm()
    assert_watched(make, False, constraint=constraint, function=eager)


@pytest.mark.parametrize("name", OTHERS)
def test_other_optimizers(one_or_two, name):
    assert_watched(OTHERS[name], False, replication=resolve(one_or_two))


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_sparse_gradients(one_or_two, name):
    def make():
        return keras_optimizer(name, weight_decay=0.1)

    assert_watched(make, True, change=sparse, replication=resolve(one_or_two))


def test_a_constraint_under_several_replicas(mirrored):
    def make():
        return keras_optimizer("SGD", weight_decay=0.1)

    constraint = keras.constraints.UnitNorm()
    assert_watched(make, False, constraint=constraint, replication=mirrored(2))


def test_variables_that_are_left_out_of_weight_decay(one_or_two):
    def make():
        optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        return optimizer

    assert_watched(make, True, replication=resolve(one_or_two))


def test_weight_decay_follows_a_schedule_of_the_learning_rate(one_or_two):
    def make():
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
        return keras.optimizers.SGD(rate, weight_decay=0.5)

    assert_watched(make, True, replication=resolve(one_or_two))


def test_weight_decay_that_an_optimizer_sets_for_some_variables_alone():
    """Muon has one rate for matrices and another for the rest, and either may be the only one."""

    def make():
        return keras.optimizers.Muon(0.01, weight_decay=None, adam_weight_decay=0.5)

    assert_watched(make, False)


def test_gradients_that_keras_accumulates():
    """The update stands in a branch, out of which nothing that is watched could come."""
    variables = variables_of()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    optimizer.build(variables)
    one_by_one = around_each.updates_one_by_one(optimizer, variables)
    assert one_by_one is False


def test_a_variable_that_keras_overwrites_with_its_gradient():
    """As in training with float8, where a scale's gradient is its new value."""
    kernel, scale = (keras.Variable(np.ones(2, "f4")) for _ in range(2))
    scale.overwrite_with_gradient = True
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([kernel, scale])
    seen = Seen([kernel, scale])
    gradients = [tf.constant([1.0, 2.0]), tf.constant([5.0, 6.0])]

    @tf.function
    def step():
        around_each.call(
            lambda: optimizer.apply(gradients, [kernel, scale]), optimizer, [kernel, scale], seen
        )

    step()
    before, after = seen.take()
    np.testing.assert_array_equal(before, np.ones((2, 2)))
    np.testing.assert_allclose(after, [[0.9, 0.8], [5.0, 6.0]])


# Inside of a `DistributedOptimizer`.


class Observer:
    """Shows what a `DistributedOptimizer` asks of an observer, and has a `Seen` for each step."""

    def __init__(self, replication, variables):
        self._replication = replication
        self.seen = Seen(variables)

    def begin(self):
        return tf.constant(True), tf.constant(False)

    def noted(self, name):
        return tf.constant(0.0)

    def arrived(self, *args):
        return {}

    def reduced(self, found, gradients):
        return {}

    def here(self):
        return self if self._replication.replica_index() == 0 else None

    def watch(self, variables, gradients, norms, record, with_histograms):
        return self.seen

    def skipped(self):
        return tf.constant(True)

    def write(self, record, facts, norms, watch, finite=None):
        pass


def distributed(make, replication, constraint=None, observed=True, function=graph, **options):
    """Steps of a `DistributedOptimizer`; the same as `watched` returns for each."""
    with replication.scope():
        variables = variables_of(constraint)
        optimizer = disttrain.DistributedOptimizer(make(), replication=replication, **options)
        optimizer.build(variables)
    observer = Observer(replication, variables)
    optimizer.observer = observer if observed else None

    def on_replica(gradients):
        again = (lambda: [0.5 * g for g in gradients]) if optimizer.two_gradients else None
        optimizer.apply(gradients, variables, recompute=again)

    step = function(lambda parts: replication.run(on_replica, parts) and None)
    found = []
    for gradients in batches():
        before = [v.numpy() for v in variables]
        step([gradients] * replication.replicas)
        found.append((before, [v.numpy() for v in variables], *observer.seen.take()))
    assert_equal_on_replicas(replication, variables)
    return found


def assert_observed(make, replication, **options):
    found = distributed(make, replication, **options)
    without = distributed(make, replication, observed=False, **options)
    assert_seen_as_it_is(found, [after for _, after, _, _ in without])
    return found


@pytest.mark.parametrize("name", KERAS)
def test_averages_of_the_weights_that_overwrite_them(name):
    def make():
        return keras_optimizer(
            name, weight_decay=0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
        )

    options = {"constraint": keras.constraints.NonNeg(), "function": eager}
    found = assert_observed(make, resolve("single"), **options)
    jumps = [np.abs(after[3] - before[3]).max() for before, after, _, _ in found]
    assert jumps[1] > 0


INSIDE = {
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "Nadam with averages": lambda: keras.optimizers.Nadam(
        0.01, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "SAM": lambda: disttrain.optimizers.SAM(keras.optimizers.SGD(0.1, weight_decay=0.1), 0.1),
    "Lookahead": OTHERS["Lookahead"],
}


@pytest.mark.parametrize("name", INSIDE)
def test_in_the_branches_of_a_step_on_replicas(mirrored, name):
    options = {"clip": disttrain.ClipByGlobalNorm(1.0), "loss_scale": "dynamic"}
    assert_observed(INSIDE[name], mirrored(2), **options)


def test_in_the_branches_of_a_step_on_one_device():
    options = {"clip": disttrain.ClipByGlobalNorm(1.0), "loss_scale": "dynamic"}
    assert_observed(INSIDE["AdamW"], resolve("single"), **options)


# A step that is skipped.


def test_what_nothing_changes_can_be_looked_at_as_well(one_or_two):
    replication = resolve(one_or_two)
    with replication.scope():
        variables = variables_of()
    seen = Seen(variables)

    def on_replica(part):
        if replication.replica_index() == 0:
            around_each.look(variables, seen)

    graph(lambda: replication.run(on_replica, [0] * replication.replicas) and None)()
    before, after = seen.take()
    for variable, one, other in zip(variables, before, after, strict=True):
        np.testing.assert_array_equal(one, variable.numpy())
        np.testing.assert_array_equal(other, variable.numpy())


# What is kept at a time.


class Room:
    """An update of variables of given sizes, all in float32 elements, watched with little room.

    Args:
        sizes: The variables' sizes.
        group: How many are measured together.
        kept: How many there is room for.

    Attributes:
        groups: The groups that came, each a list of places.
    """

    def __init__(self, sizes, monkeypatch, group, kept=10_000):
        monkeypatch.setattr(around_each, "GROUP_BYTES", 4 * group)
        monkeypatch.setattr(around_each, "KEPT_BYTES", 4 * kept)
        self._variables = [keras.Variable(np.ones(size, "f4")) for size in sizes]
        self._optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
        self._optimizer.build(self._variables)
        self.groups, self._values, self._done = [], [], []
        graph(self._step).get_concrete_function()

    def _step(self):
        gradients = [tf.ones(v.shape) for v in self._variables]

        def update():
            self._optimizer.apply(gradients, self._variables)

        around_each.call(update, self._optimizer, self._variables, self)

    def before(self, group):
        self.groups.append(group)
        self._values.append([tf.identity(self._variables[i].value) for i in group])

    def after(self, group):
        assert group is self.groups[-1]
        changes = zip(group, self._values[-1], strict=True)
        self._done.append([self._variables[i].value - value for i, value in changes])
        return self._done[-1]

    def waits(self, later, earlier):
        """Whether one group is looked at, and updated, only once another is let go."""
        needed = {tensor.op for tensor in self._done[earlier]}
        looked = [needed <= ancestors(tensor.op) for tensor in self._values[later]]
        updated = [needed <= ancestors(tensor.op) for tensor in self._done[later]]
        assert len({*looked, *updated}) == 1
        return looked[0]


def test_small_variables_that_follow_each_other_are_watched_together(monkeypatch):
    assert Room([8, 1, 1, 6, 8, 1], monkeypatch, group=16).groups == [[0, 1, 2, 3], [4, 5]]
    assert Room([8] * 5, monkeypatch, group=16).groups == [[0, 1], [2, 3], [4]]


def test_a_large_variable_is_watched_by_itself(monkeypatch):
    assert Room([8, 8, 40, 8, 8], monkeypatch, group=16).groups == [[0, 1], [2], [3, 4]]


def test_a_group_has_no_thousands_of_variables(monkeypatch):
    groups = Room([1] * 150, monkeypatch, group=10_000).groups
    assert [len(group) for group in groups] == [64, 64, 22]


def test_a_group_waits_until_there_is_room_and_no_longer(monkeypatch):
    room = Room([8] * 6, monkeypatch, group=8, kept=16)
    for later in range(6):
        for earlier in range(later):
            assert room.waits(later, earlier) == (later - earlier >= 2), (later, earlier)


def test_a_group_waits_for_as_many_as_it_needs(monkeypatch):
    room = Room([4, 4, 4, 8, 4], monkeypatch, group=1, kept=12)
    waits = {k: [e for e in range(k) if room.waits(k, e)] for k in range(5)}
    # The fourth takes the room of the first two, the fifth that of the third.
    assert waits == {0: [], 1: [], 2: [], 3: [0, 1], 4: [0, 1, 2]}


def test_a_group_that_is_larger_than_the_room_passes_alone(monkeypatch):
    room = Room([8, 8, 40, 8, 8], monkeypatch, group=8, kept=16)
    assert room.waits(2, 0)
    assert room.waits(2, 1)
    assert room.waits(3, 2)
    assert not room.waits(1, 0)
    assert not room.waits(4, 3)


def ancestors(operation):
    """All operations of a graph that this one waits for."""
    found, open_ = set(), [operation]
    while open_:
        one = open_.pop()
        if one not in found:
            found.add(one)
            open_ += [*one.control_inputs, *(x.op for x in one.inputs)]
    return found


# Whose update is one of one variable at a time.


def test_an_optimizer_with_its_own_way_from_gradients_to_variables_is_not_taken_apart():
    class Coupled(keras.optimizers.SGD):
        def _backend_update_step(self, grads, trainable_variables, learning_rate):
            super()._backend_update_step(grads, trainable_variables, learning_rate)
            for variable in trainable_variables:
                variable.assign(variable * 0.5)

    assert_watched(lambda: Coupled(0.1), False)


def test_a_method_that_was_put_into_an_optimizer_is_noticed(monkeypatch):
    def make():
        optimizer = keras.optimizers.SGD(0.1)
        apply = optimizer.apply

        def shrinking(grads, variables):
            apply(grads, variables)
            for variable in variables:
                variable.assign(variable * 0.5)

        optimizer.apply = shrinking
        return optimizer

    assert_watched(make, False)


def test_averages_count_as_a_change_behind_the_update():
    variables = variables_of()
    plain, averaged = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1, use_ema=True)
    assert around_each.updates_one_by_one(plain, variables)
    assert not around_each.updates_one_by_one(averaged, variables)


# Afterwards, the optimizer is as it was.


@pytest.mark.parametrize("own", [False, True], ids=["its class's methods", "methods of its own"])
@pytest.mark.parametrize("fails", [False, True], ids=["traced", "tracing fails"])
def test_the_optimizer_has_its_methods_back(own, fails):
    variables = variables_of()
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.1)
    optimizer.build(variables)
    if own:
        optimizer.update_step = lambda *args: keras.optimizers.SGD.update_step(optimizer, *args)
    before = dict(vars(optimizer))
    seen = Seen(variables)
    if fails:

        def refuse(group):
            raise ArithmeticError("no")

        seen.after = refuse

    def step():
        gradients = [tf.ones(v.shape) for v in variables]
        around_each.call(lambda: optimizer.apply(gradients, variables), optimizer, variables, seen)

    with pytest.raises(ArithmeticError) if fails else contextlib.nullcontext():
        tf.function(step, autograph=False)()
    cache = "_exclude_from_weight_decay_cache"  # made by Keras
    assert vars(optimizer).keys() - {cache} == before.keys() - {cache}
    for name in ("update_step", "_apply_weight_decay"):
        assert vars(optimizer).get(name) is before.get(name)
    # So a step without a watch decays and updates, once each.
    values = [v.numpy() for v in variables]
    optimizer.apply([tf.ones(v.shape) for v in variables], variables)
    for value, variable in zip(values, variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), 0.99 * value - 0.1, rtol=1e-5, atol=1e-6)
