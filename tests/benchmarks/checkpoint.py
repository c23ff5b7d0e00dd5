"""What checkpoints cost: how long a step waits for one, and how long going on from one takes."""

import gc
import tempfile
import time

import keras
import numpy as np

import disttrain
from disttrain.batches import Batches
from tests.benchmarks import harness, report

#: Bytes of weights and slots.
_STATE = 100e6

#: Layers over which they are spread.
_LAYERS = 20

#: Steps between two checkpoints, in the README's example.
_INTERVAL = 500

_BATCH = 64


def save(settings):
    """How long a step waits for its checkpoint, as a ratio to a memory copy of the state."""
    with tempfile.TemporaryDirectory() as directory:
        made = _trained(settings, directory)
        run, step = made._run, made._train_step
        run._save(step, None)  # Gets the memory for the copies.
        variables = [*made.model.variables, *made.optimizer.variables]
        sources = [np.array(variable.numpy()) for variable in variables]
        targets = [source.copy() for source in sources]
        samples, copies = [], []
        for _ in range(settings.rounds):
            run._writer.wait()
            gc.collect()
            began = time.perf_counter()
            for source, target in zip(sources, targets, strict=True):
                np.copyto(target, source)
            copied = time.perf_counter()
            run._save(step, None)
            saved = time.perf_counter()
            copies.append(copied - began)
            samples.append((saved - copied) / copies[-1])
        run._writer.wait()
    size = sum(source.nbytes for source in sources)
    details = {"bytes": size, "copy_milliseconds": float(1e3 * np.median(copies))}
    case = f"{size / 1e6:.0f} MB, {len(sources)} variables"
    summary = harness.summarize(samples)
    yield report.Figure("checkpoint-save", case, "blocked", summary, 2.0, details)


def resume(settings):
    """How long going on from a checkpoint takes, as a ratio to 500 steps of the training."""
    samples, seconds = [], []
    with tempfile.TemporaryDirectory() as directory:
        made = _trained(settings, directory)
        for _ in range(max(2, settings.rounds // 6)):
            began = time.perf_counter()
            made.fit(*_data(settings), batch_size=_BATCH, verbose=0)
            step = (time.perf_counter() - began) / _steps(settings)
            other = _trainer(settings, directory)
            feed = made._train_feed
            other._prepare(feed)
            # The calls of `fit` are counted, and the last one has written the checkpoint.
            other._run._call = made._run._call - 1
            with other._run.fit(other._task, Batches(feed), 1):
                began = time.perf_counter()
                assert other._run.go_on(other._train_step, None).restored
                seconds.append(time.perf_counter() - began)
            samples.append(seconds[-1] / (_INTERVAL * step))
    details = {"seconds": float(np.median(seconds)), "interval_steps": _INTERVAL}
    case, name = f"every {_INTERVAL} steps", "read, checked, restored"
    summary = harness.summarize(samples)
    yield report.Figure("checkpoint-resume", case, name, summary, 1.0, details)


def _trainer(settings, directory):
    def build():
        width = _width(settings)
        hidden = [keras.layers.Dense(width, "relu") for _ in range(_LAYERS)]
        return keras.Sequential([keras.Input((width,)), *hidden, keras.layers.Dense(1)])

    return disttrain.Trainer(
        build,
        optimizer=keras.optimizers.Adam(1e-4),
        loss=keras.losses.MeanSquaredError(),
        replication="single",
        checkpoint=disttrain.Checkpoint(directory, every_steps=10**9, keep=1),
    )


def _trained(settings, directory):
    """A trainer whose weights and slots take about `_STATE` bytes, after some steps."""
    made = _trainer(settings, directory)
    made.fit(*_data(settings), batch_size=_BATCH, verbose=0)
    return made


def _width(settings):
    # Adam keeps two numbers beside each weight of 4 bytes.
    return int(((1e6 if settings.quick else _STATE) / 12 / _LAYERS) ** 0.5)


def _steps(settings):
    return 2 if settings.quick else 20


def _data(settings):
    rng, rows = np.random.default_rng(0), _BATCH * _steps(settings)
    x = rng.standard_normal((rows, _width(settings))).astype(np.float32)
    return x, rng.standard_normal((rows, 1)).astype(np.float32)
