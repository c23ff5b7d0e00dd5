"""Comparing optimizers: pairs, results, files, interruptions, and every replication alike."""

import csv
import glob
import html.parser
import json
import os
import pathlib
import re
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from disttrain.experiments import compare
from disttrain.experiments.comparisons import comparing, tables
from disttrain.experiments.comparisons.comparison import Comparison
from disttrain.experiments.shared import runs
from tests.experiments.problems import (
    SETTINGS,
    TRAIN,
    VALIDATION,
    Interrupt,
    Interrupted,
    X,
    Y,
    build,
    sgd,
)

pytestmark = pytest.mark.graph

#: The rate of the last one makes any loss infinite, and its name is no name of a directory.
OPTIMIZERS = {"good": sgd(0.1), "slow": sgd(0.01)}
WILD = "<b>wild</b> & co"


def compared(optimizers=OPTIMIZERS, seeds=2, build_model=build, data=TRAIN, **options):
    return compare(build_model, data, optimizers, seeds, **{**SETTINGS, **options})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def first(directory):
    """Two optimizers with five seeds."""
    return compared(seeds=5, metrics=["mae"], target=1.2, directory=directory)


@pytest.fixture(scope="module")
def found(first, directory):
    """One more, which diverges, added to the directory."""
    optimizers = {**OPTIMIZERS, WILD: sgd(1e30)}
    made = {path: os.path.getmtime(path) for path in records(directory)}
    result = compared(optimizers, 5, metrics=["mae"], target=1.2, directory=directory)
    assert len(made) == 10
    assert all(os.path.getmtime(path) == before for path, before in made.items())
    return result


def records(directory):
    return sorted(glob.glob(f"{directory}/runs/*/seed-*/run.json"))


def plain(result):
    """What must not depend on when and where a comparison ran."""
    kept = ("optimizer", "seed", "state", "steps", "history", "initial_weights")
    return [{key: record[key] for key in kept} for record in result.runs]


# What is found.


def test_a_known_winner_is_found(first):
    assert first.best == "good"
    assert first.optimizers == ["good", "slow"]
    (test,) = first.tests
    assert test["significant"]
    assert test["seeds"] == 5
    assert "good ended with a lower val_loss than slow" in first.conclusions[0]


def test_runs_that_diverge_are_counted_and_rank_last(found):
    assert found.optimizers == ["good", "slow", WILD]
    assert [row["diverged"] for row in found.summary] == [0, 0, 5]
    assert found.summary[-1]["val_loss_final_mean"] is None
    assert found.best == "good"
    assert any("5 of 5 runs of <b>wild</b> & co diverged" in text for text in found.conclusions)
    assert sum(record["state"] == runs.DIVERGED for record in found.runs) == 5


def test_the_table_holds_means_and_intervals_over_the_seeds(first):
    row = first.summary[0]
    assert (row["rank"], row["optimizer"], row["runs"]) == (1, "good", 5)
    for metric in ("val_loss", "val_mae"):
        values = [r["history"][metric][-1] for r in first.runs if r["optimizer"] == "good"]
        assert row[f"{metric}_final_mean"] == pytest.approx(np.mean(values))
        assert row[f"{metric}_final_low"] < np.mean(values) < row[f"{metric}_final_high"]
    best = [min(r["history"]["val_loss"]) for r in first.runs if r["optimizer"] == "slow"]
    assert first.summary[1]["val_loss_best_mean"] == pytest.approx(np.mean(best))


def test_runs_that_never_reach_the_target_count_as_late(found):
    good, slow, wild = found.summary
    reached = [
        next(
            (s for s, v in zip(r["steps"], r["history"]["val_loss"], strict=True) if v <= 1.2), None
        )
        for r in found.runs
        if r["optimizer"] == "good"
    ]
    count = sum(steps is not None for steps in reached)
    assert count == 3
    assert good["reached_target"] == count
    late = sorted(9999 if steps is None else steps for steps in reached)[2]
    assert good["steps_to_target_median"] == late
    assert good["seconds_to_target_median"] > 0
    assert (slow["reached_target"], slow["steps_to_target_median"]) == (0, None)
    assert (wild["reached_target"], wild["seconds_to_target_median"]) == (0, None)
    assert f"{count} of 5" in str(found)


def record(name, seed, losses):
    """A run of two epochs of ten steps, or more, as `runs.train` returns it."""
    epochs = range(1, len(losses) + 1)
    return {
        "optimizer": name,
        "seed": seed,
        "state": runs.DIVERGED if losses[-1] is None else runs.FINISHED,
        "initial_weights": str(seed),
        "steps": [10 * epoch for epoch in epochs],
        "seconds": [0.5 * epoch for epoch in epochs],
        "history": {"val_loss": losses},
        "training_seconds": 0.5 * len(losses),
        "findings": [],
    }


def test_the_median_time_to_the_target_counts_runs_that_never_came_there():
    losses = [[1, 9, 9], [9, 1, 9], [9, 9, 1], [9, 9, 9], [9, 9, 9]]
    made = [record("a", seed, own) for seed, own in enumerate(losses)]
    (row,) = Comparison(made, ["a"], target=1).summary
    # The third of five; the median of those that came there would be 20 steps.
    assert row["reached_target"] == 3
    assert (row["steps_to_target_median"], row["seconds_to_target_median"]) == (30, 1.5)
    (row,) = Comparison(made[1:], ["a"], target=1).summary
    assert (row["reached_target"], row["steps_to_target_median"]) == (2, None)


def test_one_diverged_run_ranks_an_optimizer_below_a_worse_mean():
    shaky = [record("shaky", seed, [1, 0.1 * seed]) for seed in range(3)]
    shaky.append(record("shaky", 3, [1, None]))
    steady = [record("steady", seed, [2, 2 + 0.1 * seed]) for seed in range(4)]
    found = Comparison([*shaky, *steady], ["shaky", "steady"])
    assert found.optimizers == ["steady", "shaky"]
    assert found.summary[1]["diverged"] == 1
    assert found.tests[0]["test"] == "ranks"
    # What it had reached before counts as its best.
    assert found.best_values("shaky").tolist() == [0, 0.1, 0.2, 1]


def test_a_run_that_came_to_no_end_of_an_epoch_is_in_the_table_of_all_runs():
    broken = {**record("a", 1, [None]), "steps": [], "seconds": [], "history": {}}
    rows = tables.epochs(Comparison([record("a", 0, [2, 1]), broken], ["a"]))
    assert [(r["seed"], r["epoch"], r["state"]) for r in rows] == [
        (0, 1, "finished"),
        (0, 2, "finished"),
        (1, 0, "diverged"),
    ]


def test_validation_is_no_part_of_the_seconds_of_training(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(runs, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))

    class Clock(keras.callbacks.Callback):
        """A step takes a second, and a validation a thousand."""

        def on_train_batch_end(self, batch, logs=None):
            now[0] += 1

        def on_test_end(self, logs=None):
            now[0] += 1000

    record = compared({"a": sgd(0.1)}, 1, epochs=3, callbacks=lambda: [Clock()]).runs[0]
    assert record["seconds"] == record["steps"]
    assert record["training_seconds"] == record["steps"][-1]


# Pairs.


class Drawing(keras.optimizers.SGD):
    """Draws numbers while it is made, from every generator that there is."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        np.random.rand(3)
        tf.random.normal([3])
        keras.random.normal([3])


def shuffled(seed):
    """Datasets that leave their order to the global seed."""
    train = tf.data.Dataset.from_tensor_slices(TRAIN).shuffle(64).batch(16)
    return train, tf.data.Dataset.from_tensor_slices(VALIDATION).batch(32)


def test_a_seed_gives_all_optimizers_the_same_weights_and_batches(mirrored):
    """On two replicas, whose scope makes an optimizer once more."""
    optimizers = {"one": sgd(0.02), "two": lambda: Drawing(0.02)}
    result = compared(
        optimizers, 2, data=shuffled, batch_size=None, validation_data=None, replication=mirrored(2)
    )
    first, second = ([r for r in result.runs if r["seed"] == seed] for seed in (0, 1))
    for own in (first, second):
        assert len({record["initial_weights"] for record in own}) == 1
        # Equal to the last bit, and so is the order.
        assert own[0]["history"] == own[1]["history"]
    assert first[0]["initial_weights"] != second[0]["initial_weights"]
    assert first[0]["history"] != second[0]["history"]
    assert result.best is None
    assert all("with every seed" in test["conclusion"] for test in result.tests)


def test_pairs_that_are_none_are_told():
    count = iter(range(99))

    def unseeded():
        start = keras.initializers.Constant(next(count))
        return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, bias_initializer=start)])

    result = compared(build_model=unseeded)
    assert any("did not begin seed 0 with the same weights" in t for t in result.conclusions)


def test_a_baseline_is_compared_with_each_of_the_others_alone(found):
    names = ["good", "slow", WILD]
    own = Comparison(found.runs, names, baseline="slow")
    assert [(t["first"], t["second"]) for t in own.tests] == [("good", "slow"), (WILD, "slow")]
    assert own.tests[0]["corrected_p"] < found.tests[0]["corrected_p"] * 1.01
    assert own.best is None


def test_two_replicas_give_the_results_of_one_to_rounding(mirrored):
    alone, two = compared(seeds=1), compared(seeds=1, replication=mirrored(2))
    for a, b in zip(plain(alone), plain(two), strict=True):
        assert a["initial_weights"] == b["initial_weights"]
        assert a["steps"] == b["steps"]
        for name, values in a["history"].items():
            np.testing.assert_allclose(b["history"][name], values, rtol=1e-5)


# Files.


class Outside(html.parser.HTMLParser):
    """What a page would load, and its text."""

    def __init__(self):
        super().__init__()
        self.sources, self.tags, self.text = [], set(), ""

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.sources += [v for k, v in attributes if k in ("src", "srcset", "href", "data")]

    def handle_data(self, data):
        self.text += data


def test_the_page_stands_alone_and_escapes_names(found, directory):
    text = (directory / "index.html").read_text()
    page = Outside()
    page.feed(text)
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not page.tags & {"script", "link", "iframe", "b"}
    assert "http" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert WILD in page.text
    assert found.conclusions[0] in page.text
    assert "good ended with the lowest val_loss" in page.text
    assert "prefers-color-scheme: dark" in text


def test_the_picture_is_a_png(found, directory):
    import matplotlib.image

    pixels = matplotlib.image.imread(directory / "curves.png")
    assert pixels.shape[0] > 300
    assert pixels.std() > 0.01


def test_the_files_hold_all_runs_and_all_epochs(found, directory):
    with open(directory / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    good = [row for row in rows if row["optimizer"] == "good"]
    assert [(r["seed"], r["epoch"]) for r in good] == [(str(s), e) for s in range(5) for e in "12"]
    record = next(r for r in found.runs if r["optimizer"] == "good")
    assert float(good[1]["val_loss"]) == record["history"]["val_loss"][1]
    assert good[1]["steps"] == "8"
    # The diverged ones stand there, too.
    wild = [row for row in rows if row["optimizer"] == WILD]
    assert {row["seed"] for row in wild} == set("01234")
    assert {row["state"] for row in wild} == {"diverged"}
    with open(directory / "summary.csv", newline="") as file:
        assert [row["optimizer"] for row in csv.DictReader(file)] == found.optimizers
    with open(directory / "tests.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_tensorboards_own_page_sees_every_run_with_its_metrics(found, directory):
    """Through the HParams plugin's own backend."""
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(directory / "runs"))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(directory))
    context = backend_context.Context(base_plugin.TBContext(data_provider=provider))
    statuses = [api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE]
    request = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=99, allowed_statuses=statuses, include_metrics=True
    )
    metrics = context._compute_metric_names(RequestContext(), "", set(multiplexer.Runs()))
    assert {"val_loss", "val_mae"} <= {tag for tag, _ in metrics}
    request.col_params.extend(
        api_pb2.ColParams(metric=api_pb2.MetricName(tag=tag, group=group)) for tag, group in metrics
    )
    answer = list_session_groups.Handler(RequestContext(), context, "", request).run()
    groups = {group.name: group for group in answer.session_groups}
    assert set(groups) == {"good", "slow", WILD}
    assert {name: len(group.sessions) for name, group in groups.items()} == dict.fromkeys(groups, 5)
    good = groups["good"]
    assert good.hparams["optimizer"].string_value == "good"
    assert good.hparams["class"].string_value == "SGD"
    assert good.hparams["learning_rate"].number_value == pytest.approx(0.1)
    ends = {name: {s.status for s in group.sessions} for name, group in groups.items()}
    assert ends["good"] == {api_pb2.STATUS_SUCCESS}
    assert ends[WILD] == {api_pb2.STATUS_FAILURE}
    values = {value.name.tag: value.value for value in good.metric_values}
    assert values["val_loss"] == pytest.approx(found.summary[0]["val_loss_final_mean"], rel=1e-5)


def test_our_own_reader_sees_every_run(found, directory):
    from disttrain.inspect import reading

    seen = [name for name, _ in reading.runs(str(directory / "runs"), None)]
    assert len(seen) == 15
    assert "good/seed-3" in seen


# Going on.


def test_an_interrupted_comparison_goes_on_in_the_middle_of_a_run(tmp_path, monkeypatch):
    options = {
        "optimizers": {"adam": "adam", "good": sgd(0.1)},
        "callbacks": lambda: [Interrupt()],
        "seeds": 1,
    }
    Interrupt.left = 10**9
    whole = compared(**options, directory=tmp_path / "whole")
    with monkeypatch.context() as often:
        often.setattr(comparing, "_CHECKPOINT_SECONDS", 1e-6)
        # Four batches an epoch, eight a run: this is in the second epoch of the second run.
        Interrupt.left = 15
        with pytest.raises(Interrupted):
            compared(**options, directory=tmp_path / "parts")
    (done,) = records(tmp_path / "parts")
    before = os.path.getmtime(done)
    Interrupt.left = 10**9
    resumed = compared(**options, directory=tmp_path / "parts")
    # Not the four of the first epoch; those after it as far as they were not saved.
    assert 1 <= 10**9 - Interrupt.left <= 4
    assert os.path.getmtime(done) == before
    assert plain(resumed) == plain(whole)
    assert not glob.glob(f"{tmp_path}/parts/runs/*/*/checkpoint")


def test_a_run_that_had_no_checkpoint_begins_anew(tmp_path):
    Interrupt.left = 3
    options = {"optimizers": {"good": sgd(0.1)}, "callbacks": lambda: [Interrupt()], "seeds": 1}
    with pytest.raises(Interrupted):
        compared(**options, directory=tmp_path)
    Interrupt.left = 10**9
    resumed = compared(**options, directory=tmp_path)
    assert plain(resumed) == plain(compared(**options))
    starts = glob.glob(f"{tmp_path}/runs/good/seed-0/events*")
    assert len(starts) == 3


def test_what_is_finished_is_not_trained_again(first, directory):
    def never():
        raise AssertionError("nothing was left to train")

    again = compared(seeds=5, metrics=["mae"], target=1.2, directory=directory, callbacks=never)
    assert plain(again) == plain(first)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"epochs": 3, "batch_size": 8}, "epochs was 2, now 3; batch_size was 16, now 8"),
        ({"optimizers": {"good": sgd(0.2)}}, r"optimizers\.good\.learning_rate was 0\.1"),
        ({"build_model": lambda: build(4)}, r"model\.parameters was 4, now"),
        ({"data": (X[:64], Y[:64] + 1)}, r"data\[1\] was 'float32\[64, 1\] \w+', now"),
        ({"loss": "mae"}, "loss was 'mean_squared_error', now 'mae'"),
        ({"clip": keras.initializers.Zeros()}, r"options\.clip was None, now"),
    ],
)
def test_a_changed_configuration_is_refused_with_what_has_changed(first, directory, change, told):
    arguments = {"metrics": ["mae"], "target": 1.2, "directory": directory, **change}
    with pytest.raises(ValueError, match=f"another configuration: .*{told}"):
        compared(**arguments)


def test_a_second_job_in_the_directory_is_refused(first, directory):
    from disttrain.checkpoints.lock import Lock

    lock = Lock(str(directory))
    lock.acquire()
    try:
        with pytest.raises(RuntimeError, match="directory of experiments .* is in use by process"):
            compared(metrics=["mae"], target=1.2, directory=directory)
    finally:
        lock.release()


def test_a_damaged_record_is_told(tmp_path):
    compared({"good": sgd(0.1)}, 1, directory=tmp_path)
    (path,) = records(tmp_path)
    assert json.loads(pathlib.Path(path).read_text())["state"] == "finished"
    pathlib.Path(path).write_text("{")
    with pytest.raises(ValueError, match="is no record of a run .* remove it"):
        compared({"good": sgd(0.1)}, 1, directory=tmp_path)


# Bad input.


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"optimizers": {}}, ValueError, "optimizers is empty"),
        ({"optimizers": ["adam"]}, TypeError, "must be a dictionary"),
        (
            {"optimizers": {"a/b": "sgd", "a b": "sgd"}},
            ValueError,
            "would share the directory 'a_b'",
        ),
        ({"optimizers": {" ": "sgd"}}, ValueError, "must be a text that is not empty"),
        ({"optimizers": {"a": "adamm"}}, ValueError, "Keras makes no optimizer 'a' of 'adamm'"),
        ({"optimizers": {"a": lambda rate: None}}, TypeError, "is called without arguments"),
        ({"optimizers": {"a": lambda: 3}}, TypeError, "must return a new keras.optimizers"),
        ({"optimizers": {"a": 3}}, TypeError, "must be a function that returns"),
        ({"seeds": []}, ValueError, "at least one"),
        ({"seeds": [1, 1]}, ValueError, "different whole numbers"),
        ({"seeds": [0.5]}, TypeError, "whole numbers"),
        ({"epochs": 0}, ValueError, "epochs must be a whole number from 1, not 0"),
        ({"mode": "best"}, ValueError, "unknown mode 'best'"),
        ({"target": "low"}, TypeError, "target must be a value"),
        ({"baseline": "adam"}, ValueError, "the baseline 'adam' is none of"),
        ({"build_model": keras.Sequential()}, TypeError, "build_model must be a function"),
        ({"data": 3}, TypeError, "data must be arrays"),
        ({"data": lambda: 3}, TypeError, "the function of data must return"),
        ({"data": lambda a, b: 3}, ValueError, "gets the seed alone, but takes a, b"),
        ({"data": lambda s: (TRAIN, VALIDATION)}, ValueError, "leave one out"),
        ({"logdir": "runs"}, TypeError, "logdir is not an option"),
        ({"epoch": 3}, TypeError, "unknown option 'epoch'"),
        ({"callbacks": []}, TypeError, "callbacks must be a function"),
        ({"monitor": "val_acc", "seeds": 1}, ValueError, "no run has a metric 'val_acc'"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change, error, told):
    with pytest.raises(error, match=re.escape(told)):
        compared(**change)


def test_an_optimizer_that_was_used_is_refused():
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build([keras.Variable([1.0])])
    with pytest.raises(ValueError, match="belongs to a model already"):
        compared({"a": optimizer})


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name, *rest):
        if name.startswith("scipy"):
            raise ImportError("No module named 'scipy'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(RuntimeError, match=r"pip install 'disttrain\[experiments\]'"):
        compared()


# Optimizers and data as users have them.


def test_an_optimizer_may_be_given_in_every_way_keras_knows():
    unused = keras.optimizers.SGD(0.01)
    optimizers = {
        "class": keras.optimizers.SGD,
        "name": "sgd",
        "configuration": {"class_name": "SGD", "config": {"learning_rate": 0.01}},
        "unused": unused,
    }
    result = compared(optimizers, 1, epochs=1)
    assert len({tuple(r["history"]["loss"]) for r in result.runs}) == 1
    assert not unused.built


def test_data_may_be_a_function_of_nothing_and_metrics_objects():
    metric = keras.metrics.MeanAbsoluteError(name="far")
    result = compared(data=lambda: TRAIN, metrics=[metric], monitor="val_far", epochs=1)
    assert result.mode == "min"
    assert float(metric.result()) == 0
    assert set(result.metrics) >= {"loss", "far", "val_loss", "val_far"}


def test_without_validation_the_loss_decides():
    result = compared(seeds=1, validation_data=None, epochs=1)
    assert result.monitor == "loss"
    assert "one seed shows no spread" in result.conclusions[0]
