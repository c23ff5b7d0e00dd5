"""A run of any length stays within its budget and is seen about equally finely in all its parts."""

import bisect
import itertools

import pytest

from disttrain.telemetry import thinning
from disttrain.telemetry.thinning import NEVER, Thinning

pytestmark = pytest.mark.unit

STEPS = 10**7


def simulate(thin, steps, per_execution=1):
    """Trains; executions without a record are left out, for they change nothing.

    Returns:
        `(recorded, intervals)`: step numbers, and pairs of a step and the interval after it.
    """
    done, recorded, intervals = 0, [], [(0, thin.interval)]
    while thin.interval < NEVER or done == 0:
        following = 1 if done == 0 else (done // thin.interval + 1) * thin.interval
        done += (following - done - 1) // per_execution * per_execution
        first, last = done + 1, min(done + per_execution, steps)
        if first > steps:
            break
        steps_of_it = [step for step in range(first, last + 1) if thin.records(step)]
        count = thin.count(first, last)
        assert count == len(steps_of_it)
        recorded += steps_of_it
        done += per_execution
        if thin.recorded(count, last) != intervals[-1][1]:
            intervals.append((last, thin.interval))
    return recorded, intervals


#: Interval, bytes of a record, and how many of them the budget holds.
SIZES = [
    (every, record, fit)
    for every, record in [(1, 40_000), (10, 1_700), (7, 333), (100, 4_000_000)]
    for fit in (1, 2, 9, 100, 4_000, 50_000)
]


@pytest.mark.parametrize(("every", "record_bytes", "fit"), SIZES)
def test_ten_million_steps_stay_within_the_budget(every, record_bytes, fit):
    budget = fit * record_bytes + record_bytes // 2
    thin = Thinning(every, budget, record_bytes)
    recorded, intervals = simulate(thin, STEPS)
    assert recorded[0] == 1
    assert len(recorded) == len(set(recorded)) <= fit
    assert thin.used == len(recorded) * record_bytes <= budget
    assert all(step % every == 0 for step in recorded[1:])
    for _, interval in intervals:
        ratio = interval // every
        assert interval == NEVER or (interval % every == 0 and ratio & (ratio - 1) == 0)
    assert [i for _, i in intervals] == sorted(i for _, i in intervals)


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize(("fit", "least"), [(4_000, 12), (20_000, 60), (100_000, 300)])
def test_the_last_tenth_of_a_run_of_any_length_is_seen(every, fit, least):
    recorded, _ = simulate(Thinning(every, fit * 1000, 1000), STEPS)
    for exponent in range(20, 71):
        length = round(10 ** (exponent / 10))
        if length > 10 * least * every:
            first = bisect.bisect_right(recorded, length * 9 // 10)
            assert bisect.bisect_right(recorded, length) - first >= least


@pytest.mark.parametrize(("every", "record_bytes", "fit"), SIZES)
def test_spacing_grows_no_faster_than_the_steps(every, record_bytes, fit):
    thin = Thinning(every, fit * record_bytes, record_bytes)
    recorded, _ = simulate(thin, STEPS)
    for number, (step, following) in enumerate(itertools.pairwise(recorded), start=1):
        share = 16 / max(fit - number, 8)
        assert following - step <= max(every, share * (step + 1))


@pytest.mark.parametrize("every", [1, 10])
def test_the_users_interval_holds_until_a_ninth_is_used(every):
    thin = Thinning(every, 8_000, 1)
    _, intervals = simulate(thin, STEPS)
    (begin, interval), (grown, following) = intervals[:2]
    assert (begin, interval, following) == (0, every, 2 * every)
    assert 8_000 / 10 < grown / every < 8_000 / 8


def test_half_the_budget_is_left_after_thousands_of_times_the_first_stretch():
    thin = Thinning(1, 10_000, 1)
    simulate(thin, 1000 * 1111)
    assert 0.4 < thin.room / 10_000 < 0.6


@pytest.mark.parametrize("fit", [1, 2, 3, 8, 9, 20, 300])
@pytest.mark.parametrize("per_execution", [2, 10, 64, 1000])
@pytest.mark.parametrize("every", [1, 3, 10])
def test_several_steps_an_execution_stay_within_the_budget_too(every, per_execution, fit):
    thin = Thinning(every, fit * 10, 10, per_execution)
    recorded, _ = simulate(thin, STEPS, per_execution)
    assert recorded[0] == 1
    assert thin.used == 10 * len(recorded) <= fit * 10


@pytest.mark.parametrize("ahead", [1, 50])
@pytest.mark.parametrize(("every", "fit"), [(1, 40), (1, 5_000), (10, 300), (3, 9)])
def test_what_is_said_to_be_steady_is_though_each_step_is_recorded(every, fit, ahead):
    thin = Thinning(every, fit * 10, 10, ahead)
    changes = long = 0
    for step in range(1, 20_000):
        interval, until = thin.interval, thin.steady
        long += until > step + ahead
        following = thin.recorded(min(thin.room, 1), step)
        changes += following != interval
        assert following == interval or step > until
        if not thin.room:
            break
    assert changes
    assert long > 10 or fit < 300


def test_without_room_nothing_ever_changes():
    assert Thinning(1, 0, 10).steady == NEVER


def test_executions_without_records_change_nothing():
    plain, called = Thinning(3, 500, 10), Thinning(3, 500, 10)
    for step in range(1, 5000):
        assert plain.records(step) == called.records(step)
        called.recorded(called.count(step, step), step)
        if plain.records(step):
            plain.recorded(1, step)
        assert plain.interval == called.interval


@pytest.mark.parametrize("fit", [50, 5_000])
def test_processes_decide_alike_without_asking(fit):
    assert simulate(Thinning(10, fit * 8, 8), 10**5) == simulate(Thinning(10, fit * 8, 8), 10**5)


def test_two_kinds_of_records_have_their_own_shares():
    total = 200 * 2**20
    rows = Thinning(10, total * 3 // 4, 40_000)
    histograms = Thinning(100, total // 4, 1_500_000)
    assert len(simulate(rows, STEPS)[0]) > 20 * len(simulate(histograms, STEPS)[0]) > 0
    assert rows.used + histograms.used <= total


@pytest.mark.parametrize("budget", [0, 99])
def test_a_record_larger_than_the_budget_is_never_made(budget):
    thin = Thinning(1, budget, 100)
    assert thin.room == 0
    assert not any(thin.records(step) for step in range(1, 100))
    assert thin.count(1, 100) == 0


def test_a_budget_of_one_record_keeps_the_first_step():
    thin = Thinning(1, 100, 100, steps_per_execution=10)
    assert thin.count(1, 10) == 1
    assert thin.recorded(1, 10) == NEVER
    assert thin.count(11, 10**9) == 0


def test_larger_records_are_made_less_often_and_smaller_ones_more_often():
    thin = Thinning(1, 100_000, 10)
    simulate(thin, 20_000)
    before = thin.interval
    assert thin.resize(80) > before
    assert thin.resize(10) == before
    assert thin.resize(1) < before


@pytest.mark.parametrize("sizes", [(10, 1000), (1000, 10), (10, 10**6), (10, 10**9)])
def test_records_that_change_their_size_stay_within_the_budget(sizes):
    budget = 2_000_000
    thin = Thinning(1, budget, sizes[0])
    made, done = 0, 0
    for step in range(1, 200_001):
        if step == 5000:
            thin.resize(sizes[1])
        if thin.records(step):
            thin.recorded(1, step)
            made += sizes[step >= 5000]
            done = step
    assert thin.used == made <= budget
    assert done > 90_000 or sizes[1] >= 10**6


def test_the_rule_is_the_same_on_the_device():
    import tensorflow as tf

    steps = tf.range(1, 100, dtype=tf.int64)
    for interval in (1, 3, 10, NEVER):
        found = thinning.records(steps, tf.constant(interval, tf.int64))
        assert list(found.numpy()) == [thinning.records(s, interval) for s in range(1, 100)]


def test_more_records_than_fit_are_refused():
    thin = Thinning(1, 100, 10)
    with pytest.raises(ValueError, match="11 records of 10 bytes were made where 10 fit"):
        thin.recorded(11, 11)
    assert thin.used == 0


@pytest.mark.parametrize("name", ["every", "budget", "record_bytes", "steps_per_execution"])
@pytest.mark.parametrize("value", [-1, 1.5, True])
def test_arguments_that_are_no_whole_numbers_are_refused(name, value):
    arguments = {"every": 1, "budget": 100, "record_bytes": 10, "steps_per_execution": 1}
    with pytest.raises(ValueError, match=name):
        Thinning(**{**arguments, name: value})
