"""A training that goes wrong says so while it runs, once, and a sound one says nothing."""

import threading
import time
import warnings

import keras
import numpy as np
import pytest

import disttrain
from disttrain.callbacks import TelemetryCallback
from disttrain.telemetry import alerts
from tensorboard_plugin import health, metadata
from tests._support.covering import representatives
from tests._support.timeouts import TIMEOUT
from tests.distributed import checks
from tests.plugin.health_runs import Training

LAYERS = tuple(s.name for s in metadata.layer_statistics(["momentum", "velocity"]))


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The end of a training waits for the rules however slow the machine is."""
    monkeypatch.setattr(alerts, "_PATIENCE", TIMEOUT)


def chunks(training, rows=100, part=None):
    """A training's records in portions, as the log reads them."""
    part = part or metadata.Part(LAYERS, tuple(training.variables), training.optimizer)
    for at in range(0, len(training.steps), rows):
        some = slice(at, at + rows)
        yield alerts.Chunk(
            part,
            training.steps[some],
            training.layers[some],
            training.quantities[some],
            training.replicas[some],
        )


def dead():
    """A training of which one variable stands still from its 150th record on."""
    training = Training()
    training.layer("update_norm", "block_2/kernel")[150:] = 0
    return training


def said(found):
    """The warnings that are findings."""
    return [str(w.message) for w in found if "Telemetry(warnings=False)" in str(w.message)]


def quietly(found, watcher):
    """Waits until what is under way has been looked at."""
    end = time.monotonic() + TIMEOUT
    while not watcher._looking.done() and time.monotonic() < end:
        time.sleep(0.01)
    return said(found)


# The rules on a window.


@pytest.mark.unit
def test_records_in_portions_are_the_run_again():
    training = Training(200)
    found, expected = alerts.as_run(list(chunks(training, 30)), 1), training.run()
    assert found.variables == expected.variables
    assert found.optimizer == expected.optimizer
    for name in ("layers", "quantities", "replicas"):
        table, wanted = getattr(found, name), getattr(expected, name)
        np.testing.assert_array_equal(table.steps, wanted.steps)
        assert set(table.columns) == set(wanted.columns)
        for column, values in wanted.columns.items():
            np.testing.assert_array_equal(table.columns[column], values, err_msg=column)


@pytest.mark.unit
def test_short_steps_are_looked_at_once_a_second_and_no_record_is_missed(monkeypatch):
    """A look takes a millisecond from the training, where 100 records may take 250."""
    now, looks = [100.0], []
    monkeypatch.setattr(alerts.time, "monotonic", lambda: now[0])
    watcher = alerts.Alerts()

    def look():
        looks.append(watcher._unseen)
        watcher._unseen, watcher._looked = 0, now[0]

    monkeypatch.setattr(watcher, "_look", look)
    for chunk in chunks(Training(1300)):
        watcher.add(chunk)
    # The first hundred at once; then as many as are kept, although no time has passed.
    assert looks == [100, 600, 600]
    now[0] += 1.0
    (chunk,) = chunks(Training(100))
    watcher.add(chunk)
    assert looks == [100, 600, 600, 100]


@pytest.mark.unit
def test_a_finding_is_told_once_at_the_next_call():
    watcher = alerts.Alerts()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for number, chunk in enumerate(chunks(dead())):
            watcher.add(chunk)
            if number == 2:
                # Found on the other thread, and not told from there.
                assert quietly(found, watcher) == []
            quietly(found, watcher)
        watcher.finish()
        assert len(said(found)) == 1
        assert "block_2/kernel did not change" in said(found)[0]
        watcher.finish()
        assert len(said(found)) == 1
    assert found[0].filename == __file__


@pytest.mark.unit
def test_another_optimizer_begins_another_window():
    training = dead()
    parts = [metadata.Part(LAYERS, tuple(training.variables), training.optimizer) for _ in range(2)]
    watcher = alerts.Alerts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, chunk in enumerate(chunks(Training(), part=parts[0])):
            if number < 3:
                watcher.add(chunk)
        (*_, last) = chunks(Training(), part=parts[1])
        watcher.add(last)
        watcher.finish()
    assert watcher._since == last.steps[0]
    assert [chunk.part for chunk in watcher._chunks] == [parts[1]]


@pytest.mark.unit
def test_only_the_last_records_are_kept():
    watcher = alerts.Alerts()
    for chunk in chunks(Training(2000), 64):
        watcher.add(chunk)
        assert sum(len(c.steps) for c in watcher._chunks) < alerts.WINDOW + 64
    watcher.finish()


@pytest.mark.unit
def test_of_many_variables_fewer_records_are_kept(monkeypatch):
    training = Training(400)
    monkeypatch.setattr(alerts, "MOST_BYTES", 50 * training.layers[0].nbytes)
    watcher = alerts.Alerts()
    for chunk in chunks(training, 10):
        watcher.add(chunk)
    watcher.finish()
    assert sum(len(c.steps) for c in watcher._chunks) == 50


@pytest.mark.unit
def test_notes_are_for_the_page_alone(monkeypatch):
    note = health.Finding("r", "note", "m.", "w.", "a.", health.Place("overview"), 1, 2, {})
    monkeypatch.setattr(health, "findings", lambda run: [note])
    watcher = alerts.Alerts()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        watcher.add(next(chunks(Training())))
        watcher.finish()


@pytest.mark.unit
def test_a_rule_that_fails_is_told_and_ends_nothing(monkeypatch):
    def broken(run):
        raise ZeroDivisionError("of a rule")

    monkeypatch.setattr(health, "findings", broken)
    watcher = alerts.Alerts()
    watcher.add(next(chunks(Training())))
    with pytest.warns(UserWarning, match="health rules failed.*training goes on"):
        watcher.finish()


@pytest.mark.unit
def test_the_rules_run_on_another_thread_and_hold_up_nobody(monkeypatch):
    threads, go_on = [], threading.Event()

    def slow(run):
        threads.append(threading.current_thread().name)
        go_on.wait(TIMEOUT)
        return []

    monkeypatch.setattr(health, "findings", slow)
    watcher = alerts.Alerts()
    for chunk in chunks(Training(1000)):
        watcher.add(chunk)
    # All records are added before the rules have looked at the first of them.
    assert not watcher._looking.done()
    go_on.set()
    watcher.finish()
    assert set(threads) == {"disttrain-alerts_0"}
    assert len(threads) <= 2


# In a training.


def blind():
    """A model of which one layer has no influence on the loss."""
    x = keras.Input((checks.FEATURES,))
    seen = keras.layers.Dense(checks.CLASSES, name="seen")(x)
    unseen = keras.layers.Dense(checks.CLASSES, name="unseen")(x)
    return keras.Model(x, seen + keras.layers.Rescaling(0.0)(unseen))


def fit(logdir, model=checks.build, **telemetry):
    """Trains 1200 steps."""
    made = checks.trainer(
        "single",
        model,
        keras.optimizers.SGD(0.01, momentum=0.9),
        telemetry=disttrain.Telemetry(**{"every": 1, "histograms_every": None, **telemetry}),
        logdir=str(logdir),
    )
    made.fit(checks.dataset(48).repeat(100), epochs=2, verbose=0)


OPTIONS = [
    {},
    {"every": 3},
    {"per_replica": False},
    {"per_replica": "variables"},
    {"include": "*/kernel"},
    {"histograms_every": 50},
    {"budget": 2**20},
]


@pytest.mark.graph
@pytest.mark.parametrize(
    "options", representatives(OPTIONS, {}, {"per_replica": "variables"}), ids=str
)
def test_a_sound_training_warns_of_nothing(tmp_path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(tmp_path, **options)


@pytest.mark.graph
@pytest.mark.parametrize(
    "options", representatives(OPTIONS, {"every": 3}, {"histograms_every": 50}), ids=str
)
def test_a_layer_that_learns_nothing_is_told_once(tmp_path, options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        fit(tmp_path, blind, **options)
    (text,) = said(found)
    assert "unseen/kernel" in text
    assert {w.filename for w in found if str(w.message) == text} == {__file__}


@pytest.mark.graph
def test_it_is_silent_if_that_is_wanted(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(tmp_path, blind, warnings=False)


@pytest.mark.graph
def test_a_training_that_ends_in_an_error_says_what_was_found(tmp_path):
    made = checks.trainer("single", telemetry=disttrain.Telemetry(every=1), logdir=str(tmp_path))
    x, y = checks.data(48)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="NaN or infinite"):
            made.fit(x * np.nan, y, batch_size=8, verbose=0)
    assert any("NaN" in text for text in said(found))


@pytest.mark.graph
def test_fit_of_keras_tells_it_too(tmp_path):
    model = checks.build()
    model.compile(disttrain.DistributedOptimizer(keras.optimizers.SGD(0.01)), checks.loss())
    recorded = TelemetryCallback(str(tmp_path), disttrain.Telemetry(every=1))
    x, y = checks.data(48)
    with pytest.warns(UserWarning, match="variables had NaN") as found:
        model.fit(x * np.nan, y, batch_size=8, verbose=0, callbacks=[recorded])
    assert [w.filename for w in found if "had NaN" in str(w.message)] == [__file__]
