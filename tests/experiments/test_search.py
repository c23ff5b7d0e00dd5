"""Searching for parameters: spaces, methods, pruning, interruptions, and several jobs."""

import csv
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.experiments import Integer, LogUniform, Uniform, search
from disttrain.experiments.searches import searching, spaces
from disttrain.experiments.searches.routes import Routes
from disttrain.experiments.shared import directory
from disttrain.telemetry import alerts
from tests._support.covering import representatives
from tests._support.timeouts import TIMEOUT
from tests.experiments.problems import SETTINGS, TRAIN, Interrupt, Interrupted, build

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPACE = {"learning_rate": LogUniform(1e-3, 0.1), "units": Integer(1, 4)}


def searched(space=SPACE, data=TRAIN, **options):
    defaults = {**SETTINGS, "optimizer": keras.optimizers.SGD, "trials": 3, "epochs": 1}
    return search(build, data, space, **{**defaults, **options})


def tried(found):
    """What must not depend on when and where a search ran."""
    return [(t["number"], t["parameters"], t["value"], t["state"]) for t in found.trials]


# Spaces.


@pytest.mark.unit
def test_what_is_drawn_lies_in_its_range_and_covers_it():
    space = {"u": Uniform(-2, 3), "l": LogUniform(1e-4, 1), "i": Integer(1, 3), "c": ["a", None]}
    drawn = [spaces.draw(space, 0, number) for number in range(400)]
    uniform, rates = (np.asarray([d[name] for d in drawn]) for name in "ul")
    assert -2 <= uniform.min() < -1.8
    assert 2.8 < uniform.max() <= 3
    assert 1e-4 <= rates.min() < 2e-4
    assert 0.5 < rates.max() <= 1
    # Half of them below the middle of the logarithms, which is 1e-2.
    assert 0.4 < np.mean(rates < 1e-2) < 0.6
    assert {d["i"] for d in drawn} == {1, 2, 3}
    assert {d["c"] for d in drawn} == {"a", None}


@pytest.mark.unit
def test_a_random_trial_is_a_function_of_the_seed_and_its_number():
    draws = [spaces.draw(SPACE, 0, number) for number in range(5)]
    assert draws == [spaces.draw(SPACE, 0, number) for number in range(5)]
    assert len({json.dumps(draw) for draw in draws}) == 5
    assert draws[0] != spaces.draw(SPACE, 1, 0)


@pytest.mark.unit
def test_a_grid_goes_through_all_combinations():
    found = spaces.grid({"a": [1, 2], "b": Integer(3, 5)})
    assert found == [{"a": a, "b": b} for a in (1, 2) for b in (3, 4, 5)]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Uniform(1, 1), r"Uniform\(1, 1\): high must be above low"),
        (lambda: Uniform(0, float("inf")), "two finite numbers, not inf"),
        (lambda: LogUniform(0, 1), "must be above 0, not 0"),
        (lambda: Integer(1.5, 2), "two whole numbers, not 1.5"),
        (lambda: spaces.grid({"a": Uniform(0, 1)}), "a grid needs a list of values, but 'a'"),
        (lambda: spaces.checked({"a": []}), "the list of 'a' is empty"),
        (lambda: spaces.checked({}), "space is empty"),
    ],
)
def test_a_space_that_cannot_be_is_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.unit
@pytest.mark.parametrize("space", [[1], {"a": 3}, {"a": [object()]}, {"a b": [1]}])
def test_what_is_no_space_is_refused(space):
    with pytest.raises(TypeError):
        spaces.checked(space)


# Who gets which parameter.


@pytest.mark.unit
def test_a_parameter_goes_to_the_function_that_names_it():
    space = {"learning_rate": [0.1], "units": [3], "batch_size": [8]}
    routes = Routes(space, build, keras.optimizers.SGD)
    parts = routes.split({"learning_rate": 0.1, "units": 3, "batch_size": 8})
    assert parts.model == {"units": 3}
    assert parts.optimizer == {"learning_rate": 0.1}


@pytest.mark.unit
def test_a_parameter_that_nobody_names_goes_to_who_takes_any():
    def optimizer(**settings):
        return keras.optimizers.SGD(**settings)

    parts = Routes({"momentum": [0.9]}, build, optimizer).split({"momentum": 0.9})
    assert (parts.model, parts.optimizer) == ({}, {"momentum": 0.9})


@pytest.mark.unit
def test_a_parameter_that_nobody_takes_is_refused():
    def optimizer(rate):
        return keras.optimizers.SGD(rate)

    with pytest.raises(ValueError, match=r"neither build_model \(units\) nor optimizer \(rate\)"):
        searched({"learning_rate": [0.1]}, optimizer=optimizer)


# Methods.


@pytest.mark.graph
def test_a_random_search_repeats_and_is_continued_by_more_trials(tmp_path):
    two = searched(trials=2, directory=tmp_path)
    three = searched(trials=3, directory=tmp_path)
    assert tried(three)[:2] == tried(two)
    assert tried(three) == tried(searched(trials=3))
    assert three.best["value"] == min(t["value"] for t in three.trials)
    assert three.best_parameters == three.best["parameters"]
    assert str(three).startswith(f"trial {three.best['number']}: val_loss ")
    with open(tmp_path / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["learning_rate"]) for row in rows] == [
        t["parameters"]["learning_rate"] for t in three.trials
    ]


@pytest.mark.graph
def test_a_grid_finds_the_better_rate_and_takes_batches():
    space = {"learning_rate": [1e-4, 0.1], "batch_size": [16, 64]}
    found = searched(space, method="grid", trials=None)
    assert [t["parameters"] for t in found.trials] == spaces.grid(space)
    assert found.best_parameters == {"learning_rate": 0.1, "batch_size": 16}


@pytest.mark.graph
def test_the_mean_over_seeds_decides():
    found = searched({"learning_rate": [0.1]}, method="grid", seeds=[0, 1], trials=None)
    alone = [
        searched({"learning_rate": [0.1]}, method="grid", seeds=[seed], trials=None).best["value"]
        for seed in (0, 1)
    ]
    assert found.best["value"] == pytest.approx(sum(alone) / 2, rel=1e-12)


@pytest.mark.graph
def test_optuna_searches_behind_the_same_interface(tmp_path):
    import optuna

    found = searched(method="optuna", trials=2, directory=tmp_path)
    more = searched(method="optuna", trials=3, directory=tmp_path)
    assert tried(more)[:2] == tried(found)
    assert [t["number"] for t in more.trials] == [0, 1, 2]
    # What an uninterrupted search would have tried.
    assert tried(searched(method="optuna", trials=3)) == tried(more)
    study = optuna.load_study(study_name="disttrain", storage=f"sqlite:///{tmp_path}/study.db")
    assert [(t.number, t.params, t.value) for t in study.trials] == [
        (t["number"], t["parameters"], t["value"]) for t in more.trials
    ]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("trials", "late"), [(25, 15), pytest.param(40, 20, marks=pytest.mark.exhaustive)]
)
def test_optuna_goes_where_trials_were_good(tmp_path, trials, late):
    """Without a training, for its proposals alone: after random ones they gather at the best."""
    from disttrain.experiments.searches.optuna_trials import OptunaTrials

    space = {"x": Uniform(-10, 10), "y": LogUniform(1e-3, 1e3)}
    chooser, values = OptunaTrials(str(tmp_path), space, trials, "max", 0), []
    while (taken := chooser.next()) is not None:
        number, parameters = taken
        value = -((parameters["x"] - 3) ** 2) - np.log10(parameters["y"]) ** 2
        values.append(value)
        chooser.tell(number, parameters, value, "finished", None)
    assert len(values) == trials
    assert np.median(values[late:]) > np.median(values[:10])
    assert max(values) > -1.5


# Trials that end badly.


@pytest.mark.graph
def test_a_diverged_trial_has_no_value_and_the_search_goes_on():
    found = searched({"learning_rate": [1e30, 0.1]}, method="grid", trials=None, epochs=3)
    assert [t["state"] for t in found.trials] == ["diverged", "finished"]
    assert found.trials[0]["value"] is None
    assert "NaN or infinite" in found.trials[0]["reason"]
    assert found.best["number"] == 1


class Exploding(keras.optimizers.SGD):
    """From its 150th step on it makes the weights grow, which stay finite to the end."""

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate)
        factor = keras.ops.where(self.iterations < 150, 1.0, 1.06)
        variable.assign(variable * keras.ops.cast(factor, variable.dtype))


@pytest.mark.graph
@pytest.mark.parametrize("prune", [True, False])
def test_a_finding_of_the_health_rules_prunes_a_trial(prune, monkeypatch):
    # The whole trial takes less than the second that lies between two looks else.
    monkeypatch.setattr(alerts, "SECONDS", 0.0)
    seen = []
    # A finding is made on a thread, which a busy machine lets wait.
    steps = 5000 if prune else 900

    class Watch(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            seen.append(batch)

    found = searched(
        {"learning_rate": [0.01]},
        tf.data.Dataset.from_tensor_slices(TRAIN).batch(16).repeat(),
        method="grid",
        trials=None,
        optimizer=Exploding,
        epochs=1,
        steps_per_epoch=steps,
        batch_size=None,
        prune=prune,
        callbacks=lambda: [Watch()],
    )
    (trial,) = found.trials
    if prune:
        assert (trial["state"], trial["value"], found.best) == ("pruned", None, None)
        assert "gradient norm" in trial["reason"]
        assert len(seen) < 4000
    else:
        assert trial["state"] == "finished"
        assert trial["value"] > 1e6
        assert len(seen) == 900


# Going on, and together.


@pytest.mark.graph
@pytest.mark.parametrize("method", representatives(["random", "optuna"], "optuna"))
def test_an_interrupted_search_goes_on_with_the_same_trial(tmp_path, monkeypatch, method):
    options = {"method": method, "trials": 2, "callbacks": lambda: [Interrupt()], "epochs": 2}
    with monkeypatch.context() as often:
        often.setattr(searching, "_CHECKPOINT_SECONDS", 1e-6)
        Interrupt.left = 14  # Eight steps a trial: in the second epoch of the second one.
        # A notebook keeps the error, and all that it refers to, until the next one.
        with pytest.raises(Interrupted) as kept:
            searched(**options, directory=tmp_path)
    assert kept.traceback
    Interrupt.left = 10**9
    resumed = searched(**options, directory=tmp_path)
    assert 10**9 - Interrupt.left <= 4
    assert tried(resumed) == tried(searched(**options))


@pytest.mark.graph
def test_another_search_in_the_directory_is_refused(tmp_path):
    searched(trials=1, directory=tmp_path)
    with pytest.raises(ValueError, match=r"another configuration: space\.units\.high was 4, now 9"):
        searched({**SPACE, "units": Integer(1, 9)}, trials=1, directory=tmp_path)


@pytest.mark.graph
def test_a_trial_that_another_job_runs_is_left_to_it(tmp_path):
    from disttrain.experiments.searches import trials

    lock = trials.claim(str(tmp_path), 1)
    found = searched(trials=3, directory=tmp_path)
    assert [t["number"] for t in found.trials] == [0, 2]
    lock.release()
    assert [t["number"] for t in searched(trials=3, directory=tmp_path).trials] == [0, 1, 2]


@pytest.mark.unit
def test_a_job_that_looks_while_another_tells_of_its_trial_leaves_it_alone(tmp_path, monkeypatch):
    from disttrain.experiments.searches.optuna_trials import OptunaTrials

    one, other = (OptunaTrials(str(tmp_path), SPACE, 2, "min", 0) for _ in range(2))
    number, parameters = one.next()
    taken, waits = [], threading.Event()
    thread = threading.Thread(target=lambda: taken.append(other.next()))
    report = one._report

    def sleep(seconds):
        waits.set()
        time.sleep(seconds)

    def slowly(*told):
        thread.start()
        # The other waits for its turn, or has looked already.
        while thread.is_alive() and not waits.wait(0.01):
            pass
        report(*told)

    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(directory, "time", clock)
    monkeypatch.setattr(one, "_report", slowly)
    one.tell(number, parameters, 0.5, "finished", None)
    thread.join(TIMEOUT)
    assert [n for n, _ in taken] == [1]
    other.tell(*taken[0], 0.7, "finished", None)
    assert one.next() is None


PROGRAM = """
import os, pathlib, sys, time
from tests.experiments.test_search import searched
folder = pathlib.Path(sys.argv[1])
(folder / f"{os.getpid()} is ready").touch()
while len(list(folder.glob("* is ready"))) < 2:  # or one would have done all before the other came
    time.sleep(0.01)
found = searched(method="optuna", trials=6, directory=folder / "search")
print("trials", len(found.trials), flush=True)
"""


@pytest.mark.processes
def test_two_processes_share_a_study(tmp_path):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    limited = ["timeout", "--kill-after=5", str(TIMEOUT)]
    command = [*limited, sys.executable, "-c", PROGRAM, str(tmp_path)]
    jobs = [
        subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=-2
        )
        for _ in range(2)
    ]
    outputs = [job.communicate(timeout=TIMEOUT + 10)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    found = searched(method="optuna", trials=6, directory=tmp_path / "search")
    assert [t["number"] for t in found.trials] == list(range(6))
    assert len({json.dumps(t["parameters"]) for t in found.trials}) == 6
    events = list(tmp_path.glob("search/runs/*/seed-0/events*"))
    processes = {path.name.split(".")[-2] for path in events}
    assert len(processes) == 2, "one of them did all the work"


@pytest.mark.graph
@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"method": "bayes"}, ValueError, "unknown method 'bayes'"),
        ({"trials": 0}, ValueError, "trials must be a whole number from 1"),
        ({"storage": "sqlite:///x.db"}, ValueError, "storage is Optuna's"),
        ({"monitor": "val_acc", "trials": 1}, ValueError, "no metric 'val_acc' to search by"),
        ({"optimizer": 3}, TypeError, "must be a function that returns a new optimizer"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change, error, told):
    with pytest.raises(error, match=told):
        searched(**change)
