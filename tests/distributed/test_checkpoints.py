"""Every replication goes on from its checkpoints as if nothing had been."""

import signal

import numpy as np
import pytest

from tests.distributed import checkpoint_checks

pytestmark = pytest.mark.processes

RESUMED = (
    "checkpoint-resume",
    pytest.param("checkpoint-several-steps", marks=pytest.mark.two_ranks),
    "checkpoint-preempt",
)


@pytest.mark.parametrize("check", RESUMED)
def test_a_resumed_training_ends_with_the_same_bits_on_every_process(outcome, check):
    whole, resumed = outcome.every(check, "whole"), outcome.every(check, "resumed")
    for one, other in zip(whole, resumed, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_chief_alone_has_written_and_all_have_counted_on(outcome):
    expected = [f"step-{step:08d}" for step in (4, 8, 12)]
    for found in outcome.every("checkpoint-resume", "names"):
        assert list(found) == expected
    for steps in outcome.every("checkpoint-resume", "steps"):
        assert steps == checkpoint_checks.STEPS
    assert outcome("checkpoint-resume", "iterations") == checkpoint_checks.STEPS
    whole, resumed = (outcome("checkpoint-resume", f"{name}_loss") for name in ("whole", "resumed"))
    np.testing.assert_array_equal(whole, resumed)


def test_each_process_gets_its_own_variables_back(outcome, kind):
    heads = outcome.every("checkpoint-resume", "head")
    if not kind.startswith("mirrored"):
        assert (heads[0] != heads[1]).any()


def test_a_signal_on_one_process_stops_all_of_them_at_one_step(outcome, kind):
    for code in outcome.every("checkpoint-preempt", "code"):
        # Each ends as the one does that has got the signal.
        assert code == 128 + signal.SIGUSR1
    steps = [int(step) for step in outcome.every("checkpoint-preempt", "step")]
    # With several processes the next step carries the news.
    assert set(steps) == {8 if kind.startswith("mirrored") else 9}
    for status in outcome.every("checkpoint-preempt", "status"):
        assert status == "preempted"
    assert outcome("checkpoint-preempt", "status_step") == steps[0]


@pytest.mark.two_ranks
def test_several_steps_an_execution_stop_together(outcome):
    for code in outcome.every("checkpoint-several-steps", "code"):
        assert code == 128 + signal.SIGTERM


@pytest.mark.two_ranks
def test_the_clock_of_the_chief_decides_for_all(outcome):
    for found in outcome.every("checkpoint-by-the-clock", "names"):
        # The clock may have saved the last step already, before the epoch ended.
        last = f"step-{checkpoint_checks.STEPS:08d}"
        assert found[-1] in (last, f"{last}-2")
        assert len({name[: len(last)] for name in found}) >= 2


@pytest.mark.two_ranks
@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        ("changed", "Changed", "model no longer has"),
        ("in_use", "InUse", "is in use by process"),
        ("damaged", "NoneIsGood", "no checkpoint in"),
    ],
)
def test_every_process_is_told_what_is_wrong(outcome, refusal, error, says):
    chief, *others = map(str, outcome.every("checkpoint-refusals", refusal))
    assert chief.startswith(f"{error}: ")
    assert says in chief
    for other in others:
        assert other.split(": ", 1)[0] in (error, "RuntimeError")
        assert says in other
