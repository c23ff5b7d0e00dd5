"""What a person sees of a training: a line an epoch in a file, a bar on a terminal."""

import os
import pty
import re
import sys
import threading
import types

import keras
import numpy as np
import pytest

import disttrain
from disttrain import progress as progress_module
from disttrain.progress import Progress

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        fake = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(progress_module, "time", fake)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")
    for name in ("DISTTRAIN_TERMINAL", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


class Terminal:
    """A pseudo-terminal in the place of standard output; `text()` closes it.

    Made within a test: what a fixture puts there, pytest's own capture replaces.
    """

    def __init__(self, monkeypatch):
        self._master, slave = pty.openpty()
        self._chunks = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._file = os.fdopen(slave, "w")
        monkeypatch.setattr(sys, "stdout", self._file)

    def _read(self):
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:
                return
            if not chunk:
                return
            self._chunks.append(chunk)

    def text(self):
        self._file.close()
        self._reader.join()
        os.close(self._master)
        return b"".join(self._chunks).decode()


def show(clock, epochs=10, steps=8, verbose=1, logs=None):
    """One epoch of 64 examples in 8 steps that take a second each; the first one takes 10."""
    logs = logs or {"loss": 0.5, "accuracy": 0.75}
    progress = Progress(epochs, steps, verbose)
    progress.begin(0)
    for step in range(1, 5):
        clock.now += 10 if step == 1 else 1
        progress.update(step, 8.0 * step, logs, 0.01)
    if progress._bar is not None:
        progress._bar.refresh()
    clock.now += 3
    progress.trained()
    clock.now += 50  # validation
    progress.end(64.0, {**logs, "val_loss": 0.25}, 0.01)
    progress.close()


@pytest.mark.unit
def test_without_a_terminal_an_epoch_is_one_line(clock, capsys):
    show(clock)
    assert capsys.readouterr().out == (
        "Epoch  1/10  loss 0.5000  accuracy 0.7500  val_loss 0.2500  lr 0.01  4 examples/s  16 s\n"
    )


@pytest.mark.unit
def test_a_long_line_is_not_broken(clock, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    show(clock)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.unit
def test_nothing_is_shown_where_nothing_is_wanted(clock, capsys, monkeypatch):
    show(clock, verbose=0)
    assert capsys.readouterr().out == ""
    terminal = Terminal(monkeypatch)
    show(clock, verbose=0)
    assert terminal.text() == ""


@pytest.mark.unit
def test_a_terminal_shows_a_bar_with_speed_and_time_left(clock, monkeypatch):
    terminal = Terminal(monkeypatch)
    show(clock)
    text = terminal.text()
    assert "━" in text
    shown = ESCAPE.sub("", text)
    assert re.search(r"Epoch 1/10 .* 4/8 ", shown)
    for piece in ("loss 0.5000", "accuracy 0.7500", "lr 0.01"):
        assert piece in shown
    # The first step, which traces, does not count: 24 examples in 3 s, and 4 steps are left.
    assert "8 examples/s  4.0 s left" in shown
    assert shown.rstrip().splitlines()[-1].endswith("4 examples/s  16 s"), "the line stays"


@pytest.mark.unit
def test_without_a_number_of_steps_there_is_no_time_left(clock, monkeypatch):
    terminal = Terminal(monkeypatch)
    show(clock, steps=None)
    shown = ESCAPE.sub("", terminal.text())
    assert "8 examples/s" in shown
    assert "left" not in shown


@pytest.mark.unit
def test_lines_are_shown_on_a_terminal_too_where_they_are_wanted(clock, monkeypatch):
    terminal = Terminal(monkeypatch)
    show(clock, verbose=2)
    text = terminal.text()
    assert "━" not in text
    assert text.count("\n") == 1


@pytest.mark.unit
def test_a_launcher_may_say_that_there_is_a_terminal_behind_the_pipe(clock, capsys, monkeypatch):
    monkeypatch.setenv("DISTTRAIN_TERMINAL", "1")
    show(clock)
    assert "━" in capsys.readouterr().out


@pytest.mark.unit
def test_the_cursor_comes_back_in_the_middle_of_an_epoch(clock, monkeypatch):
    terminal = Terminal(monkeypatch)
    progress = Progress(2, 4)
    progress.begin(0)
    progress.update(1, 8.0, {"loss": 1.0}, 0.1)
    progress.close()
    text = terminal.text()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l") >= 0


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.23456, "x 1.2346"),
        (1e-5, "x 1.00e-05"),
        (0.0, "x 0.0000"),
        (-2.5, "x -2.5000"),
        (float("nan"), "x nan"),
        (np.float32(3), "x 3.0000"),
        (np.zeros(3), "x [3 values]"),
    ],
)
def test_numbers_are_short(value, text):
    assert progress_module._pair("x", value) == text


@pytest.mark.unit
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.24, "0.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3725, "1 h 02 min"),
    ],
)
def test_durations_are_short(seconds, text):
    assert progress_module._duration(seconds) == text


@pytest.fixture(scope="module")
def trainer():
    return disttrain.Trainer(
        lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
        optimizer="sgd",
        loss="mse",
        replication="single",
    )


ONES = np.ones([6, 2], np.float32)


@pytest.mark.graph
@pytest.mark.parametrize("verbose", ["auto", 1, 2])
def test_a_fit_prints_a_line_an_epoch(trainer, verbose, capsys):
    trainer.fit(
        ONES,
        ONES[:, :1],
        batch_size=2,
        epochs=2,
        verbose=verbose,
        validation_data=(ONES, ONES[:, :1]),
    )
    lines = capsys.readouterr().out.splitlines()
    lines = lines[[line.startswith("Epoch") for line in lines].index(True) :]  # after the block
    assert len(lines) == 2
    for number, line in enumerate(lines, 1):
        assert re.fullmatch(
            rf"Epoch {number}/2  loss \S+  val_loss \S+  lr 0\.01  [\d,]+ examples/s  .+", line
        )


@pytest.mark.graph
def test_a_silent_fit_prints_nothing(trainer, capsys):
    trainer.fit(ONES, ONES[:, :1], batch_size=2, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.graph
def test_a_fit_on_a_terminal_leaves_a_line_an_epoch(trainer, monkeypatch):
    terminal = Terminal(monkeypatch)
    trainer.fit(ONES, ONES[:, :1], batch_size=2, epochs=2)
    shown = ESCAPE.sub("", terminal.text())
    assert re.search(r"Epoch 1/2  loss .* examples/s", shown)
    assert re.search(r"Epoch 2/2  loss .* examples/s", shown)
