"""What a user may choose about telemetry, and how a wrong choice is answered."""

import collections
import dataclasses

import numpy as np
import pytest

from disttrain import Telemetry

pytestmark = pytest.mark.unit

Variable = collections.namedtuple("Variable", "path")

PATHS = [
    "encoder/layer_0/kernel",
    "encoder/layer_0/bias",
    "encoder/layer_1/kernel",
    "decoder/kernel",
    "decoder/bias",
]


def chosen(**options):
    return [v.path for v in Telemetry(**options).chosen([Variable(path) for path in PATHS])]


# Intervals


INTERVALS = ("every", "histograms_every", "divergence_every")
NO_INTERVALS = [
    0,
    -1,
    1.5,
    True,
    False,
    "10",
    [10],
    float("nan"),
    float("inf"),
    -float("inf"),
    np.float32(2.5),
    np.array([1, 2]),
]


@pytest.mark.parametrize("value", NO_INTERVALS, ids=repr)
@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_that_is_no_whole_number_from_1_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"Telemetry\({name}=...\) must be a whole number from 1"):
        Telemetry(**{name: value})


@pytest.mark.parametrize("name", INTERVALS)
def test_the_refusal_shows_the_value_and_says_how_to_turn_it_off(name):
    advice = "use telemetry=None to record nothing" if name == "every" else "use None for never"
    with pytest.raises(ValueError, match=rf"not -3; {advice}"):
        Telemetry(**{name: -3})


def test_every_cannot_be_never():
    with pytest.raises(ValueError, match=r"every.*not None; use telemetry=None"):
        Telemetry(every=None)


@pytest.mark.parametrize("name", INTERVALS[1:])
def test_histograms_and_the_comparison_of_replicas_can_be_never(name):
    assert getattr(Telemetry(**{name: None}), name) is None


@pytest.mark.parametrize("value", [7, 7.0, np.int64(7), np.float64(7)], ids=repr)
@pytest.mark.parametrize("name", INTERVALS)
def test_whole_numbers_of_any_kind_become_integers(name, value):
    """Steps are counted in integers, on the device too, which a float would not go into."""
    kept = getattr(Telemetry(**{name: value}), name)
    assert (kept, type(kept)) == (7, int)


# Patterns


@pytest.mark.parametrize("name", ["include", "exclude"])
@pytest.mark.parametrize("value", ["", [], [""], [None], ["a", 3], 3, b"a", [b"a"]], ids=repr)
def test_what_are_no_patterns_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"Telemetry\({name}=.*such as 'encoder/\*'.*not "):
        Telemetry(**{name: value})


def test_without_patterns_every_variable_is_recorded():
    assert chosen() == PATHS


def test_a_pattern_names_whole_paths_and_a_star_stands_for_slashes_too():
    assert chosen(include="encoder/*") == PATHS[:3]
    assert chosen(include="*/bias") == [PATHS[1], PATHS[4]]
    assert chosen(include="encoder/layer_[1-9]/?ernel") == [PATHS[2]]
    assert chosen(include="decoder/kernel") == [PATHS[3]]
    with pytest.raises(ValueError, match="no variable"):
        chosen(include="kernel")


def test_upper_and_lower_case_are_told_apart():
    with pytest.raises(ValueError, match="no variable"):
        chosen(include="Encoder/*")


def test_of_several_patterns_one_is_enough_and_the_order_stays_the_models():
    assert chosen(include=["decoder/*", "*layer_0/bias"]) == [PATHS[1], *PATHS[3:]]


def test_what_is_excluded_is_left_out():
    assert chosen(exclude="*/bias") == [PATHS[0], PATHS[2], PATHS[3]]
    assert chosen(exclude=("*/bias", "decoder/*")) == [PATHS[0], PATHS[2]]


def test_to_exclude_wins_over_to_include():
    assert chosen(include="encoder/*", exclude="*/bias") == [PATHS[0], PATHS[2]]
    assert chosen(include=PATHS[1:3], exclude=PATHS[1]) == [PATHS[2]]


def test_patterns_that_leave_nothing_are_an_error_that_names_the_paths():
    with pytest.raises(ValueError, match="leaves no variable to record") as error:
        chosen(include="encoder/*", exclude=["*layer*"])
    words = str(error.value)
    assert "include=('encoder/*',)" in words
    assert "exclude=('*layer*',)" in words
    assert all(repr(path) in words for path in PATHS)
    assert "and more" not in words


def test_of_many_paths_the_error_names_some():
    with pytest.raises(ValueError, match=r"'v4' and more$"):
        Telemetry(include="w").chosen([Variable(f"v{i}") for i in range(9)])


def test_a_model_without_variables_is_no_error():
    assert Telemetry(include="a").chosen([]) == []


# Replicas and the budget


@pytest.mark.parametrize("value", ["variable", None, 2, "True", []], ids=repr)
def test_what_replicas_record_is_one_of_three(value):
    with pytest.raises(ValueError, match=r"per_replica=.*True, False or 'variables', not"):
        Telemetry(per_replica=value)


@pytest.mark.parametrize("value", [True, False, "variables"])
def test_each_of_the_three_is_taken(value):
    assert Telemetry(per_replica=value).per_replica == value


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**20 - 1, float("nan"), float("inf"), None, "1 GB", True, [2**30]],
    ids=repr,
)
def test_a_budget_that_holds_next_to_nothing_or_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"budget=.*number of bytes, 1048576 or more, not"):
        Telemetry(budget=value)


@pytest.mark.parametrize("value", [2**20, 1e9, np.int64(2**30)], ids=repr)
def test_a_budget_becomes_a_whole_number_of_bytes(value):
    kept = Telemetry(budget=value).budget
    assert (kept, type(kept)) == (int(value), int)


# Warnings


@pytest.mark.parametrize("value", [None, 0, 1, "no", [], np.bool_(True)], ids=repr)
def test_warnings_are_wanted_or_not(value):
    with pytest.raises(ValueError, match=r"warnings=.*must be True or False, not"):
        Telemetry(warnings=value)


def test_a_training_warns_unless_told_otherwise():
    assert Telemetry().warnings is True
    assert Telemetry(warnings=False).warnings is False


# The object


def test_it_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Telemetry().every = 5


def test_equal_choices_are_equal_and_can_be_keys():
    one = Telemetry(every=5, include=["a", "b"], exclude="c")
    two = Telemetry(every=5.0, include=("a", "b"), exclude=["c"])
    assert one == two
    assert len({one: 1, two: 2}) == 1
    assert one != Telemetry(every=5)


def test_a_list_that_changes_later_changes_nothing():
    patterns = ["a"]
    options = Telemetry(include=patterns)
    patterns.append("b")
    assert options.include == ("a",)
