"""A step that is skipped leaves everything as it was, down to the bits."""

import numpy as np
import pytest
import tensorflow as tf

from tests.optimizers.fused_steps import (
    RULES,
    assert_same_bits,
    by_us,
    gradients,
    with_settings,
    with_sparse,
)

pytestmark = [pytest.mark.graph, pytest.mark.usefixtures("compiled_operations", "updated_at_once")]


def with_bad(batches, places, value=np.nan):
    """The same steps, and after some of them one whose gradient of one variable is not finite."""
    found = []
    for step, batch in enumerate(batches):
        found.append(batch)
        if step in places:
            found.append(
                [_spoiled(g, value) if i == places[step] else g for i, g in enumerate(batch)]
            )
    return found


def _spoiled(gradient, value):
    if isinstance(gradient, tf.IndexedSlices):
        values = _spoiled(gradient.values, value)
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    values = np.array(gradient)
    values.flat[-1] = value
    return tf.constant(values)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_and_its_state_stand_still(rule):
    make = with_settings(rule, "decay with a schedule but for some")
    steps = gradients(steps=3)
    spoiled = with_bad(steps, {0: 3, 1: 0, 2: 4})
    assert len(spoiled) == 6
    assert_same_bits(by_us(make, batches=spoiled), by_us(make, batches=steps))


@pytest.mark.parametrize("rule", ["SGD", "Adagrad", "Adam"])
@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=str)
def test_rows_that_are_not_finite_leave_all_rows(rule, value):
    make, steps = with_settings(rule, "plain"), with_sparse(gradients(steps=3), [4, 2])
    spoiled = with_bad(steps, {1: 4}, value)
    assert_same_bits(by_us(make, batches=spoiled), by_us(make, batches=steps))


@pytest.mark.parametrize("rule", ["Nadam", "amsgrad"])
def test_one_replica_with_nan_stops_both(mirrored, rule):
    make = with_settings(rule, "decay")
    parts = list(zip(gradients(steps=3, seed=5), gradients(steps=3, seed=6), strict=True))
    spoiled = [
        parts[0],
        [parts[1][0], [_spoiled(g, np.nan) if i == 2 else g for i, g in enumerate(parts[1][1])]],
        *parts[1:],
    ]

    def run(each):
        return by_us(make, parts=[list(both) for both in each], replication=mirrored(2))

    assert_same_bits(run(spoiled), run(parts))


def test_an_update_after_many_skipped_steps_is_the_first():
    make, (step,) = with_settings("Nadam", "schedule"), gradients(steps=1)
    spoiled = [[_spoiled(g, np.inf) for g in step]] * 7
    assert_same_bits(by_us(make, batches=[*spoiled, step]), by_us(make, batches=[step]))
