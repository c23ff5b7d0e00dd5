"""The benchmarks of speed run, and take turns as they should; their times are nobody's business."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import types

import keras
import numpy as np
import psutil
import pytest

from tests._support.covering import representatives
from tests._support.timeouts import TIMEOUT
from tests.benchmarks import (
    growth,
    harness,
    jobs,
    loops,
    models,
    peers,
    report,
    start,
    telemetry,
)
from tests.benchmarks import speed as speed_module
from tests.benchmarks.programs import turns

ROOT = pathlib.Path(__file__).resolve().parents[1]

#: A program that counts its turns, without TensorFlow: what it is told and what it does.
COUNTING = """
import os, sys, time
from tests.benchmarks.programs import turns
rank, path, wrong = int(os.environ["RANK"]), sys.argv[1], sys.argv[2:] == ["wrong"]
done = 0
def steps(count):
    global done
    done += count
    with open(path, "a") as file:
        file.write(f"{rank} {count}\\n")
def fail(count):
    raise OSError("no data")
runs = {"count": (steps, lambda: 1.0 + done + rank * wrong), "fail": (fail, lambda: 1.0)}
turns.take(rank, runs, pid=os.getpid())
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "counting.py"
    path.write_text(COUNTING)
    return path


def counting(program, *arguments, processes=2):
    environment = {"PYTHONPATH": str(ROOT)}
    commands = [
        ([sys.executable, str(program), *arguments], {"RANK": str(rank), **environment})
        for rank in range(processes)
    ]
    return jobs.Job(commands, processes)


def state(pid):
    """The letter by which Linux says what a process does; `T` where it is stopped."""
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def is_gone(pid):
    try:
        return state(pid) == "Z"
    except FileNotFoundError:
        return True


# Turns


@pytest.mark.processes
def test_every_process_of_a_job_makes_the_steps_of_a_turn_and_is_stopped_between(program, tmp_path):
    log = tmp_path / "log"
    with counting(program, str(log)) as job:
        pids = [facts["pid"] for facts in job.facts]
        for count in (3, 5):
            job.variant("count")(count)
            for pid in pids:
                wait_until(lambda pid=pid: state(pid) == "T")
        job.check("count")
    assert sorted(log.read_text().splitlines()) == ["0 3", "0 5", "1 3", "1 5"]
    for pid in pids:
        wait_until(lambda pid=pid: is_gone(pid))


@pytest.mark.processes
def test_jobs_are_measured_by_turns(program, tmp_path):
    log = tmp_path / "log"
    with counting(program, str(log), processes=1) as one, counting(program, str(log)) as two:
        variants = [
            harness.Variant("one", one.variant("count")),
            harness.Variant("two", two.variant("count"), "one"),
        ]
        settings = harness.Settings(rounds=6, slice_seconds=0.001)
        timings = harness.measure(variants, settings)
    assert timings.seconds["one"].shape == timings.seconds["two"].shape
    assert np.all(timings.seconds["two"] > 0)


@pytest.mark.processes
def test_processes_that_train_apart_are_an_error(program, tmp_path):
    with counting(program, str(tmp_path / "log"), "wrong") as job:
        job.variant("count")(1)
        with pytest.raises(RuntimeError, match=r"trained 'count' to other weights, \[2.0, 3.0\]"):
            job.check("count")


@pytest.mark.processes
def test_an_error_of_a_process_is_told_with_its_rank(program, tmp_path):
    failure = pytest.raises(RuntimeError, match="(?s)rank 0 failed.*OSError: no data")
    with counting(program, str(tmp_path / "log")) as job, failure:
        job.variant("fail")(1)


@pytest.mark.processes
def test_a_program_that_does_not_start_is_told_with_what_it_has_said(tmp_path):
    program = tmp_path / "broken.py"
    program.write_text("raise SystemExit('no such package')")
    failure = pytest.raises(RuntimeError, match="(?s)did not start.*no such package")
    with failure, counting(program):
        pass


@pytest.mark.processes
def test_a_process_that_dies_is_told(program, tmp_path):
    with counting(program, str(tmp_path / "log")) as job:
        os.kill(job.facts[1]["pid"], signal.SIGKILL)
        with pytest.raises(RuntimeError, match="lost rank 1"):
            job.variant("count")(1)


def wait_until(condition, seconds=TIMEOUT):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# Loops


@pytest.mark.graph
@pytest.mark.parametrize("per_call", [1, 4])
def test_the_loop_by_hand_makes_its_steps(per_call):
    run = loops.ByHand(models.TINY, per_call)
    run(8)
    assert run.iterations == 8


@pytest.mark.graph
def test_all_loops_train_alike():
    """The same seed, data and optimizer give the same weights, so the work is the same."""
    runs = {
        "by hand": loops.ByHand(models.TINY),
        "several": loops.ByHand(models.TINY, 4),
    }
    for run in runs.values():
        run(8)
    by_hand, several = (run.weights() for run in runs.values())
    with loops.by_keras(models.TINY) as keras_run, loops.by_trainer(models.TINY) as ours:
        for run in (keras_run, ours):
            run(8)
        others = [run.model.get_weights() for run in (keras_run, ours)]
    for other in (several, *others):
        for a, b in zip(by_hand, other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


# Growth


def line(slope, start, counts=(10, 100, 1000, 3000), bend=0.0):
    """Timings of an update of n variables that takes `start + slope * n` seconds."""
    seconds = {}
    for kind, factor in (("disttrain", 1.0), ("Keras", 2.0)):
        for n in counts:
            one = start + factor * slope * n + bend * n**2
            seconds[f"{kind}, {n}"] = np.full(4, 7 * one * counts[-1] / n)
    return harness.Timings(seconds, 7, 1, np.arange(4))


@pytest.mark.unit
def test_the_slope_is_that_of_one_update():
    slope, begin = growth._slopes(line(2e-6, 5e-5), "disttrain", growth.COUNTS)
    np.testing.assert_allclose(slope, 2e-6)
    np.testing.assert_allclose(begin, 5e-5)
    slope, _ = growth._slopes(line(2e-6, 5e-5), "Keras", growth.COUNTS)
    np.testing.assert_allclose(slope, 4e-6)


@pytest.mark.graph
def test_an_optimizer_of_fewer_variables_updates_them_oftener():
    adam = keras.optimizers.Adam()
    growth.Updates(adam, 2, 6)(5)
    assert int(adam.iterations.numpy()) == 15


@pytest.mark.unit
def test_growth_takes_the_path_that_it_is_named_for():
    """Adam by disttrain's own operation, where it can be compiled; Ftrl by Keras."""
    import disttrain
    from disttrain import kernels
    from disttrain.optimizers import fused

    for make, own in ((keras.optimizers.Adam, True), (keras.optimizers.Ftrl, False)):
        made = growth.Updates(disttrain.DistributedOptimizer(make(), replication="single"), 2, 2)
        found = fused.find(made.optimizer.inner, made.variables)
        assert (found is not None) == (own and kernels.available() is not None)


# Figures


@pytest.mark.unit
def test_a_goal_of_throughput_is_one_of_time():
    seconds = {"hand": np.full(3, 2.0), "ours": np.full(3, 2.03)}
    timings = harness.Timings(seconds, 1, 1, np.arange(3))
    found = report.versus("speed", "mlp", timings, "ours", "hand", 0.98)
    assert found.name == "ours / hand"
    assert found.summary.median == pytest.approx(1.015)
    assert found.goal == pytest.approx(1 / 0.98)
    assert found.met
    assert not report.versus("speed", "mlp", timings, "ours", "hand", 1.1).met


# All of them run


@pytest.mark.graph
@pytest.mark.parametrize(
    "benchmark",
    representatives([speed_module.speed, growth.adam, growth.clip, growth.ftrl], growth.adam),
)
def test_what_runs_in_this_process_runs(benchmark):
    found = list(benchmark(dataclasses.replace(harness.QUICK, builds=1)))
    assert found
    json.dumps([line.details for line in found])
    assert all(np.isfinite(line.summary.median) for line in found)


#: Benchmarks that start processes.
WITH_PROCESSES = ("mirrored", "start", "epochs", "peers-pinned", "scaling", "telemetry-memory")


def quick(directory, *names):
    """The figures of benchmarks that start processes, by the first part of the name."""
    path = directory / "figures.json"
    command = [sys.executable, "-m", "tests.benchmarks", *names, "--quick", "--json", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=5 * TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    figures = {}
    for figure in json.loads(path.read_text())["figures"]:
        assert figure["summary"]["median"] > 0, figure
        figures.setdefault(figure["benchmark"], []).append(figure)
    return figures


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_mirrored_runs_on_two_devices(background_job):
    assert [figure["goal"] for figure in background_job["mirrored"]] == [pytest.approx(1 / 1.1)] * 2


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_epochs_are_measured_on_one_device_and_mirrored(background_job):
    assert [figure["name"] for figure in background_job["epochs"]] == [
        "disttrain / Model.fit",
        "disttrain, mirrored / Model.fit, mirrored",
    ]


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_the_start_is_measured_in_fresh_processes(background_job):
    *imports, first = background_job["start"]
    assert [figure["goal"] for figure in imports] == [start.IMPORT, start.IMPORT, None]
    assert first["goal"] == start.FIRST_STEP


@pytest.mark.processes
def test_the_start_is_measured_from_the_process_to_the_first_step(monkeypatch):
    order = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            order.append("process")
            super().__init__(*args, **kwargs)

    def clock():
        order.append("clock")
        return len(order)

    monkeypatch.setattr(start, "time", types.SimpleNamespace(perf_counter=clock))
    monkeypatch.setattr(start.subprocess, "Popen", Popen)
    assert start._until_line("print('first step')") == 2
    assert order == ["clock", "process", "clock"]


@pytest.mark.processes
@pytest.mark.exhaustive
def test_a_benchmark_that_is_ended_ends_its_processes():
    command = [sys.executable, "-m", "tests.benchmarks", "mirrored", "--quick"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        found = []

        def measures():
            # Others come and go, such as those of the standard library's `platform`.
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(running.pid).children()
                found[:] = [c for c in children if "tests.benchmarks.mirrored" in c.cmdline()]
            return found

        wait_until(measures)
        (child,) = found
        running.terminate()
        assert running.wait(TIMEOUT) == 143
    wait_until(lambda: not child.is_running())


@pytest.mark.unit
def test_a_process_keeps_to_one_core_unless_it_is_free(monkeypatch):
    kept = []
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: kept.append(cores))
    turns.pin(1)
    assert [len(cores) for cores in kept] == [1]
    monkeypatch.setenv(turns.FREE, "1")
    turns.pin(1)
    assert len(kept) == 1


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_peers_take_turns_with_disttrain_itself(background_job):
    assert [figure["name"] for figure in background_job["peers"]] == [
        "disttrain / disttrain again",
        "disttrain, 10 a call / disttrain again, 10 a call",
    ]


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_scaling_runs(background_job):
    found = {(figure["case"], figure["name"]) for figure in background_job["scaling"]}
    together = {name for case, name in found if case == "tiny, batch 64"}
    assert {name.partition(" / ")[0] for name in together} >= {"2 processes", "2 apart"}
    assert {("tiny", "fp16 / plain"), ("4,096 bytes", "reduction")} <= found


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.background_job(quick, *WITH_PROCESSES)
def test_memory_is_measured_in_processes_of_their_own(background_job):
    found, *_ = background_job["telemetry-memory"]
    off, every = found["details"]["off_bytes"], found["details"]["every_bytes"]
    assert len(off) == len(every) == 1
    assert off[0] > 2**26
    assert found["goal"] == telemetry.VARIABLES
    assert found["summary"]["median"] == pytest.approx((every[0] - off[0]) / (4 * 64 * 64))


@pytest.mark.unit
def test_peers_that_are_not_there_are_left_out_with_a_word(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jobs.harness, "measure_anew", lambda build, settings: NOTHING)
    missing = "is left out; tests/benchmarks/old_horovod.sh makes its environment"
    with (
        pytest.warns(UserWarning, match=f"horovod {missing}"),
        pytest.warns(UserWarning, match=f"torch {missing}"),
    ):
        assert list(peers.peers(harness.Settings(cases=("mlp",)))) == []


NOTHING = harness.Timings({}, 1, 1, np.arange(0))


@pytest.mark.processes
def test_the_script_says_where_the_environments_are(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    script = ROOT / "tests" / "benchmarks" / "old_horovod.sh"
    said = subprocess.run([script, "--where"], check=True, capture_output=True, text=True).stdout
    python = peers.environments()["horovod"]
    assert str(python) == f"{said.strip()}/horovod/bin/python"
    assert not list(tmp_path.iterdir())
