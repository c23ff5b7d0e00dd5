"""What a person sees of a training: one bar on a terminal, one line an epoch elsewhere."""

import math
import os
import sys
import time

import rich.console
import rich.progress


def terminal():
    """Whether the user's terminal is at the end of standard output.

    Launchers put a pipe between a process and the terminal; `DISTTRAIN_TERMINAL=1` says that they
    pass on what is written as it is.
    """
    return sys.stdout.isatty() or os.environ.get("DISTTRAIN_TERMINAL") == "1"


class Progress:
    """Shows epochs as they go by.

    Args:
        epochs: Number of the last epoch.
        steps: Steps of an epoch, or `None`.
        verbose: 0 shows nothing, 1 a bar where there is a terminal, 2 a line an epoch.
    """

    def __init__(self, epochs, steps, verbose=1):
        self._epochs = epochs
        self._steps = steps
        self._console = _console()
        self.enabled = verbose > 0
        self._bar = None
        if verbose == 1 and terminal():
            self._bar = _bar(self._console)

    def begin(self, epoch):
        """Begins an epoch, counted from 0."""
        self._epoch = epoch
        self._began = self._warm_at = time.perf_counter()
        self._warm_examples = 0.0
        self._warm_step = 0
        if self._bar is not None:
            self._bar.start()
            self._row = self._bar.add_task(
                f"Epoch {epoch + 1}/{self._epochs}", total=self._steps, step="", numbers=""
            )

    def update(self, step, examples, logs, learning_rate):
        """Shows the state after a step.

        Args:
            step: Steps done in this epoch.
            examples: Examples done in this epoch.
            logs: Names to numbers.
            learning_rate: The current one.
        """
        now = time.perf_counter()
        if self._warm_step == 0:
            # The first execution traces the graph; it would spoil speed and time left.
            self._warm_at, self._warm_examples, self._warm_step = now, examples, step
        if self._bar is None:
            return
        text = [_pair(name, value) for name, value in logs.items()]
        text += _rate(learning_rate)
        elapsed = now - self._warm_at
        if step > self._warm_step and elapsed > 0:
            text.append(f"{(examples - self._warm_examples) / elapsed:,.0f} examples/s")
            if self._steps:
                left = elapsed / (step - self._warm_step) * (self._steps - step)
                text.append(f"{_duration(left)} left")
        of = f"{step}/{self._steps}" if self._steps else f"{step}"
        self._bar.update(self._row, completed=step, step=of, numbers="  ".join(text))

    def trained(self):
        """Notes that the training steps of the epoch are done; validation follows."""
        self._seconds = time.perf_counter() - self._began

    def end(self, examples, logs, learning_rate):
        """Ends an epoch with the line that stays."""
        seconds = self._seconds
        if self._bar is not None:
            self._bar.remove_task(self._row)
            self._bar.stop()
        if self.enabled:
            width = len(str(self._epochs))
            text = [_pair(name, value) for name, value in logs.items()]
            text += [
                *_rate(learning_rate),
                f"{examples / seconds:,.0f} examples/s",
                f"{_duration(seconds)}",
            ]
            line = "  ".join([f"Epoch {self._epoch + 1:>{width}}/{self._epochs}", *text])
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self):
        """Gives the terminal back, also in the middle of an epoch."""
        if self._bar is not None:
            self._bar.stop()


class BatchProgress:
    """Shows an evaluation or a prediction as it goes by.

    Args:
        label: What it is.
        steps: Its batches, or `None`.
        verbose: 0 shows nothing, `"auto"` a bar where there is a terminal, which goes away at the
            end, 1 a line at the end as well, 2 that line alone.
    """

    def __init__(self, label, steps, verbose):
        self._label = label
        self._line = verbose in (1, 2)
        self._began = time.perf_counter()
        self._steps = steps
        self._bar = None
        self._console = _console()
        if verbose in ("auto", 1) and terminal():
            self._bar = _bar(self._console)
            self._bar.start()
            self._row = self._bar.add_task(label, total=steps, step="", numbers="")

    def update(self, done):
        """Shows how many batches are done."""
        if self._bar is not None:
            of = f"{done}/{self._steps}" if self._steps else f"{done}"
            self._bar.update(self._row, completed=done, step=of)

    def end(self, logs):
        """Ends with the line that stays.

        Args:
            logs: Names to numbers.
        """
        self.close()
        if self._line:
            seconds = time.perf_counter() - self._began
            text = [self._label, *(_pair(*pair) for pair in logs.items()), _duration(seconds)]
            line = "  ".join(text)
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def close(self):
        """Gives the terminal back, also in the middle."""
        if self._bar is not None:
            self._bar.stop()


def _console():
    return rich.console.Console(
        file=sys.stdout,
        force_terminal=True if terminal() else None,
        width=int(os.environ.get("COLUMNS", 0)) or None,
    )


def _bar(console):
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(bar_width=24),
        rich.progress.TextColumn("{task.fields[step]}"),
        rich.progress.TextColumn("{task.fields[numbers]}"),
        console=console,
        transient=True,
        refresh_per_second=4,
    )


def _rate(learning_rate):
    return [] if math.isnan(learning_rate) else [f"lr {learning_rate:.3g}"]


def _pair(name, value):
    try:
        number = float(value)
    except TypeError:
        return f"{name} [{len(value)} values]"
    tiny = 0 < abs(number) < 1e-3
    return f"{name} {number:.2e}" if tiny else f"{name} {number:.4f}"


def _duration(seconds):
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    seconds = round(seconds)
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    if seconds >= 60:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds} s"
