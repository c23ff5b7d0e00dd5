"""Elastic jobs under horovodrun: ranks die, hosts join, and the training is the one it would be."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests._support.timeouts import TIMEOUT
from tests.checkpoints.elastic_program import RATE, optimizer
from tests.checkpoints.training import X, Y, build_plain, trainer
from tests.distributed.jobs import ROOT, _environment

EPOCHS, SECONDS = 7, 0.2

#: Steps between checkpoints, as `training.trainer` has them.
EVERY = 4


def told(directory):
    """What all processes of `elastic_program` have told, in the order of time."""
    lines = []
    for path in directory.glob("steps.*"):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                lines.append(json.loads(line))
    return sorted(lines, key=lambda line: line["time"])


class Job:
    """An elastic job whose hosts can be changed.

    Args:
        directory: Where its program writes.
        *hosts: Lines of the discovery script, such as `localhost:1`.
    """

    def __init__(self, directory, *hosts):
        self.directory = directory
        self._hosts = directory / "hosts"
        self.set_hosts(*hosts)
        script = directory / "discover.sh"
        script.write_text(f"#!/bin/sh\ncat '{self._hosts}'\n")
        script.chmod(0o755)
        horovodrun = os.path.join(os.path.dirname(sys.executable), "horovodrun")
        command = [horovodrun, "--gloo", "-np", "2", "--min-np", "1", "--max-np", "3"]
        command += ["--host-discovery-script", str(script)]
        # Who waited for Horovod to give up would wait longer than the test.
        command += ["--gloo-timeout-seconds", "5000", "--elastic-timeout", "5000"]
        command += [sys.executable, "-m"]
        command += ["tests.checkpoints.elastic_program", str(directory), str(EPOCHS), str(SECONDS)]
        self._output = open(directory / "output", "wb")  # noqa: SIM115, closed by `close`
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def set_hosts(self, *hosts):
        new = self._hosts.with_suffix(".new")
        new.write_text("".join(f"{host}\n" for host in hosts))
        new.replace(self._hosts)

    def steps(self):
        return told(self.directory)

    def wait_for(self, what, seconds=TIMEOUT):
        """The first told step for which `what` holds."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = [line for line in self.steps() if what(line)]
            if found:
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"it did not come to that; the job says {self.output()[-3000:]}")

    def output(self):
        return (self.directory / "output").read_text(errors="replace")

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for line in self.steps():
            with contextlib.suppress(ProcessLookupError):
                os.kill(line["pid"], signal.SIGKILL)
        self._output.close()


def lose_a_rank_and_get_one(directory):
    """A job that lost a rank of two, went on with one, and then got a second again."""
    job = Job(directory, "localhost:1", "127.0.0.1:1")
    with contextlib.closing(job):
        victim = job.wait_for(lambda line: line["rank"] == 1 and line["step"] >= 9)
        killed = time.time()
        os.kill(victim["pid"], signal.SIGKILL)
        job.alone = job.wait_for(lambda line: line["size"] == 1 and line["time"] > killed)
        job.killed = killed
        job.wait_for(lambda line: line["size"] == 1 and line["step"] > job.alone["step"] + 5)
        # The launcher takes a host that has failed no more, so the other gets a second slot.
        job.changed = time.time()
        other = {"localhost", "127.0.0.1"} - {job.alone["host"]}
        job.set_hosts(f"{job.alone['host']}:2", *(f"{host}:1" for host in other))
        job.again = job.wait_for(lambda line: line["size"] == 2 and line["time"] > job.changed)
        assert job.process.wait(timeout=TIMEOUT) == 0, job.output()[-3000:]
        return job


pytestmark = [pytest.mark.processes, pytest.mark.background_job.with_args(lose_a_rank_and_get_one)]


@pytest.fixture
def job(background_job):
    return background_job


class Replayed(keras.optimizers.schedules.LearningRateSchedule):
    """The rate that each step had in the end, by the number of ranks that made it."""

    def __init__(self, steps):
        # A step that was lost is made again, and told later.
        sizes = {line["step"]: line["size"] for line in steps}
        self.rates = [RATE * sizes[step] for step in sorted(sizes)]

    def __call__(self, step):
        return tf.gather(tf.constant(self.rates), tf.minimum(step, len(self.rates) - 1))


def test_weights_are_those_of_one_process_whose_rate_follows_the_ranks(job):
    rates = Replayed(job.steps())
    assert set(np.float32(rates.rates)) == {np.float32(RATE), np.float32(2 * RATE)}
    made = trainer(None, build_plain, optimizer=optimizer(rates), metrics=None)
    made.fit(X, Y, batch_size=4, epochs=EPOCHS, verbose=0)
    weights = made.model.get_weights()
    with np.load(job.directory / "weights.npz") as found:
        assert len(found.files) == len(weights)
        for name, expected in zip(found.files, weights, strict=True):
            np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-6)


def test_a_lost_rank_costs_the_steps_since_the_checkpoint(job):
    before = [line for line in job.steps() if line["time"] < job.killed]
    last = max(line["step"] for line in before)
    assert 0 <= last - (job.alone["step"] - 1) <= 2 * EVERY
    assert job.alone["anew"] == 1


def test_a_new_host_costs_no_step(job):
    before = [line for line in job.steps() if line["time"] < job.again["time"]]
    last = max(line["step"] for line in before)
    assert job.again["step"] == last + 1


def test_every_step_is_made(job):
    assert {line["step"] for line in job.steps()} == set(range(1, EPOCHS * 11 + 1))


def test_the_user_is_told_why_it_begins_anew(job):
    output = job.output()
    assert "disttrain: a rank is lost; beginning anew" in output
    assert "the hosts of the job have changed" in output
