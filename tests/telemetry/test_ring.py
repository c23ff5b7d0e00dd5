"""Which steps are recorded, and that the buffers keep them until the host has read them."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from disttrain.telemetry.ring import NEVER, SPARE, Buffer, Plan, Ring

PLANS = [
    Plan(1),
    Plan(3),
    Plan(10, 4),
    Plan(4, 10, last=39),
    Plan(5, 5, last=40),
    Plan(NEVER),
    Plan(NEVER, 7, last=20),
    Plan(100, 100, last=1),
]


def recorded(plan, step):
    """The rule, in words: the first, the last, multiples of either interval."""
    return step == 1 or step == plan.last or step % plan.every == 0 or counted(plan, step)


def counted(plan, step):
    return step == 1 or step == plan.last or step % plan.histograms == 0


# The plan


@pytest.mark.unit
@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_follows_the_rule_on_the_host(plan):
    for step in range(1, 50):
        assert bool(plan.records(step)) == recorded(plan, step)
        assert bool(plan.with_histograms(step)) == counted(plan, step)


@pytest.mark.graph
@pytest.mark.parametrize("plan", PLANS, ids=repr)
def test_a_plan_follows_the_same_rule_on_a_replica(plan):
    steps = tf.range(1, 50, dtype=tf.int64)

    @tf.function
    def decide(numbers):
        on_device = Plan(*tf.unstack(numbers))
        return on_device.records(steps), on_device.with_histograms(steps)

    numbers = tf.constant([plan.every, plan.histograms, plan.last], tf.int64)
    records, histograms = decide(numbers)
    assert records.numpy().tolist() == [recorded(plan, s) for s in range(1, 50)]
    assert histograms.numpy().tolist() == [counted(plan, s) for s in range(1, 50)]


@pytest.mark.unit
@settings(max_examples=60, deadline=None)
@given(
    every=st.integers(1, 40) | st.just(NEVER),
    histograms=st.integers(1, 40) | st.just(NEVER),
    last=st.integers(0, 90),
    first=st.integers(1, 90),
    more=st.integers(-1, 90),
)
def test_the_counts_agree_with_the_rule(every, histograms, last, first, more):
    plan = Plan(every, histograms, last)
    steps = range(first, first + more + 1)
    assert plan.count(first, first + more) == sum(recorded(plan, s) for s in steps)
    expected = sum(counted(plan, s) for s in steps) if histograms < NEVER else 0
    assert plan.count_histograms(first, first + more) == expected


@pytest.mark.unit
@settings(max_examples=200, deadline=None)
@given(
    every=st.integers(1, 40) | st.just(NEVER),
    histograms=st.integers(1, 40) | st.just(NEVER),
    last=st.integers(0, 200),
    step=st.integers(0, 200),
    rows=st.integers(0, 30),
    counts=st.integers(0, 5),
)
def test_no_more_are_recorded_than_there_is_room_for(every, histograms, last, step, rows, counts):
    plan = Plan(every, histograms, last)
    until = plan.last_within(step, rows, counts)
    assert until >= step
    until = min(until, step + 5_000)
    assert plan.count(step + 1, until) <= rows
    assert plan.count_histograms(step + 1, until) <= counts


@pytest.mark.unit
def test_the_room_is_used():
    assert Plan(1).last_within(1, 100, 3) == 101
    assert Plan(10).last_within(100, 100, 3) == 1109
    assert Plan(10, 100).last_within(100, 100, 3) == 499


@pytest.mark.unit
def test_histograms_only_ever_come_with_a_record():
    plan = Plan(7, 5, last=33)
    assert all(plan.records(s) for s in range(1, 99) if plan.with_histograms(s))


@pytest.mark.unit
def test_steps_far_beyond_32_bits_are_told_apart():
    plan, far = Plan(10, NEVER), 2**40
    assert [bool(plan.records(tf.constant(far + i, tf.int64))) for i in range(12)] == [
        (far + i) % 10 == 0 for i in range(12)
    ]


# The ring


class Replica:
    """A replica that writes each recorded step's number into its buffer, too."""

    def __init__(self, plan, capacity, first_step=0):
        self.ring = Ring(plan, first_step, capacity)
        self.buffer = Buffer(self.ring.rows, [2])
        self.step = tf.function(self._step, autograph=False)

    def _step(self, skipped):
        named, _ = self.ring.begin()

        def write():
            row = self.ring.take()
            self.buffer.write(row, tf.fill([2], tf.cast(self.ring.step.read_value(), tf.float32)))
            return True

        def write_skipped():
            return tf.cond(self.ring.has_room(), write, lambda: False)

        tf.cond(skipped, write_skipped, lambda: tf.cond(named, write, lambda: False))

    def steps(self, count, skipped=()):
        for _ in range(count):
            self.step(tf.constant(int(self.ring.step.numpy()) + 1 in skipped))

    def read(self):
        """The numbers of the recorded steps, after a look whether the rows hold the same."""
        steps, rows = self.ring.read()
        np.testing.assert_array_equal(self.buffer.read(rows), np.stack([steps, steps], axis=1))
        return steps.tolist()


@pytest.mark.graph
def test_what_the_plan_names_is_read_in_order():
    replica = Replica(Plan(3, last=10), capacity=8)
    replica.steps(10)
    assert replica.read() == [1, 3, 6, 9, 10]


@pytest.mark.graph
def test_reading_empties():
    replica = Replica(Plan(2), capacity=4)
    replica.steps(4)
    assert replica.read() == [1, 2, 4]
    assert replica.read() == []
    replica.steps(4)
    assert replica.read() == [6, 8]


@pytest.mark.unit
def test_nothing_was_recorded_before_the_first_step():
    assert Replica(Plan(2), capacity=4).read() == []


@pytest.mark.graph
def test_a_plan_that_never_records_still_records_the_first_step():
    replica = Replica(Plan(NEVER), capacity=4)
    replica.steps(5)
    assert replica.read() == [1]


@pytest.mark.graph
def test_steps_are_counted_from_where_the_run_stands():
    replica = Replica(Plan(5), capacity=4, first_step=12)
    replica.steps(9)
    assert replica.read() == [15, 20]


@pytest.mark.graph
def test_many_reads_lose_nothing_and_repeat_nothing():
    """Whether the rows of a read come before or behind those of the last one in the buffer."""
    replica, found = Replica(Plan(1), capacity=5), []
    for count in (1, 5, 2, 5, 4, 3, 5):
        replica.steps(count)
        found += replica.read()
    assert found == list(range(1, 26))


@pytest.mark.graph
def test_where_the_host_reads_too_late_the_newest_rows_are_left():
    replica = Replica(Plan(1), capacity=4)
    replica.steps(50)
    assert replica.read() == list(range(51 - 4 - SPARE, 51))
    replica.steps(2)
    assert replica.read() == [51, 52]


@pytest.mark.graph
def test_another_plan_holds_from_the_next_step_on():
    replica = Replica(Plan(2), capacity=8)
    replica.steps(4)
    replica.ring.follow(Plan(3, last=10))
    replica.steps(6)
    assert replica.read() == [1, 2, 4, 6, 9, 10]
    replica.ring.follow(Plan(NEVER))
    replica.steps(6)
    assert replica.read() == []


@pytest.mark.graph
def test_a_skipped_step_is_recorded_though_the_plan_does_not_name_it():
    replica = Replica(Plan(4), capacity=4)
    replica.steps(8, skipped={2, 4, 7})
    assert replica.read() == [1, 2, 4, 7, 8]


@pytest.mark.graph
def test_of_many_skipped_steps_the_first_are_recorded():
    replica = Replica(Plan(NEVER), capacity=2)
    replica.steps(40, skipped=range(2, 41))
    assert replica.read() == list(range(1, 2 + SPARE))


@pytest.mark.graph
def test_skipped_steps_never_take_the_rows_of_steps_that_the_plan_names():
    replica = Replica(Plan(20), capacity=6)
    replica.steps(100, skipped=range(2, 100))
    found = replica.read()
    assert set(found) >= {1, 20, 40, 60, 80, 100}
    assert len(found) == 6 + SPARE
    assert found == sorted(found)


@pytest.mark.graph
def test_after_a_read_there_are_spare_rows_again():
    replica = Replica(Plan(NEVER), capacity=2)
    replica.steps(30, skipped=range(1, 31))
    assert len(replica.read()) == 1 + SPARE
    replica.steps(30, skipped=range(31, 61))
    assert replica.read() == list(range(31, 31 + SPARE))


@pytest.fixture(scope="module")
def replica():
    return Replica(Plan(1), capacity=13)


@pytest.mark.graph
@settings(max_examples=25, deadline=None)
@given(
    every=st.integers(1, 12),
    executions=st.lists(st.integers(1, 12), max_size=6),
    skipped=st.sets(st.integers(1, 72)),
)
def test_what_the_plan_names_always_gets_through(replica, every, executions, skipped):
    """As long as the host reads before there are more of them than rows."""
    plan, done = Plan(every), 0
    replica.ring.step.assign(0)
    replica.ring.follow(plan)
    for count in executions:
        replica.steps(count, skipped)
        found = replica.read()
        named = [s for s in range(done + 1, done + count + 1) if plan.records(s)]
        extra = [s for s in range(done + 1, done + count + 1) if s in skipped and s not in named]
        assert found == sorted(named + extra[:SPARE])
        done += count
