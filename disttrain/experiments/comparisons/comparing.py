"""`compare`: trains each optimizer with each seed, and says what came of it."""

import math
import numbers
import os

from disttrain import replication as replication_module
from disttrain.checkpoints import exchange
from disttrain.experiments.comparisons.comparison import Comparison
from disttrain.experiments.shared import arguments, contenders, facts, hparams, runs, sources
from disttrain.experiments.shared.directory import held, plan_of
from disttrain.optional import needed

#: Seconds between two checkpoints of a run.
_CHECKPOINT_SECONDS = 30.0


def compare(
    build_model,
    data,
    optimizers,
    seeds=range(5),
    *,
    loss,
    metrics=None,
    epochs=1,
    batch_size=None,
    validation_data=None,
    monitor=None,
    mode="auto",
    target=None,
    baseline=None,
    replication="auto",
    directory=None,
    callbacks=None,
    verbose=1,
    **options,
):
    """Trains each optimizer with several seeds, and compares them honestly.

    All optimizers begin a seed with the same initial weights and see the same batches in the same
    order, so that the runs of a seed are pairs. `Comparison.conclusions` says for each pair what
    the seeds show and what they do not; `statistics.paired_test` says which test is taken and why.
    A run that diverges, whose loss is not finite any more, is kept as such: it counts, and ranks
    below every other.

    With a directory each run is written to `DIRECTORY/runs/OPTIMIZER/seed-N`, where TensorBoard
    shows it, in its HParams page too, and the result to `DIRECTORY/index.html`, `curves.png`,
    `summary.csv`, `tests.csv` and `runs.csv`. Called again after an interruption, it goes on where
    it was, in the middle of a run too. Further seeds or optimizers are added to what is there.

    Args:
        build_model: A function without arguments that returns a `keras.Model`. Random numbers are
            seeded before it is called.
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, whose order is a function of the seed; a
            `tf.data.Dataset`; or a function of the seed that returns `(train, validation)`, each
            arrays or a dataset.
        optimizers: Name to a function that returns a new optimizer, called after random numbers
            were seeded, or to Keras's configuration of one, or its name.
        seeds: Whole numbers from 0.
        loss: As for `disttrain.Trainer`.
        metrics: The same.
        epochs: Epochs of each run.
        batch_size: Global batch size for arrays.
        validation_data: As for `disttrain.Trainer.fit`, if `data` does not bring it.
        monitor: The metric that decides, by its value after the last epoch: `"val_loss"`, or
            `"loss"` without validation data.
        mode: `"min"`, `"max"`, or `"auto"`, by the metric's name as in `disttrain.Checkpoint`.
        target: A value of `monitor`; the table then has the steps and the seconds of training until
            the end of the first epoch that reached it, and how many runs did.
        baseline: Name of an optimizer: the others are compared with it alone, and not with each
            other, so that fewer tests share the 5%.
        replication: As for `disttrain.Trainer`.
        directory: Where files go, or `None` to write none.
        callbacks: A function that returns new Keras callbacks for a run.
        verbose: 1 prints a line for each run on the chief, 0 nothing.
        **options: Further arguments of `disttrain.Trainer` (`clip`, `precision`, `telemetry`, ...)
            and of its `fit` (`steps_per_epoch`, `validation_split`, `shuffle`, ...).

    Returns:
        A `Comparison`, the same on every process.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong value, or the directory holds another comparison; the
            message lists the differences.
        RuntimeError: SciPy or Matplotlib is not installed, or another job uses the directory.
    """
    needed("scipy.stats", "a comparison")
    if directory is not None:
        needed("matplotlib.figure", "a comparison")
        directory = os.path.abspath(os.fspath(directory))
    factories = contenders.factories(optimizers)
    seeds = arguments.checked_seeds(seeds)
    arguments.check_epochs(epochs)
    arguments.check_callable("build_model", build_model)
    if callbacks is not None:
        arguments.check_callable("callbacks", callbacks)
    arguments.check_mode(mode)
    if target is not None and not _is_number(target):
        raise TypeError(f"target must be a value of the metric, a finite number, not {target!r}")
    if baseline is not None and baseline not in factories:
        known = ", ".join(map(repr, factories))
        raise ValueError(f"the baseline {baseline!r} is none of the optimizers {known}")
    trainer_options, fit_options = arguments.split_options(options)
    setting = runs.Setting(
        build_model,
        sources.source(data, validation_data),
        loss,
        metrics,
        epochs,
        batch_size,
        replication_module.resolve(replication),
        trainer_options,
        fit_options,
        callbacks,
        _CHECKPOINT_SECONDS,
    )
    made = {name: contenders.made(name, factory) for name, factory in factories.items()}
    shown = {name: hparams.of_optimizer(name, one) for name, one in made.items()}
    plan = None
    if directory is not None:
        plan = {
            **plan_of(setting, data, validation_data),
            "optimizers": {name: facts.described(one) for name, one in made.items()},
        }
    with held(directory, plan, setting.replication):
        records = []
        for seed in seeds:
            for name, factory in factories.items():
                folder = _folder(directory, name, seed)
                record = exchange.told_by_chief(
                    setting.replication, lambda folder=folder: runs.finished(folder)
                )
                if record is None:
                    record = runs.train(setting, name, factory, seed, folder, shown[name])
                    _tell(record, setting.replication.is_chief and verbose, monitor)
                records.append(record)
        found = Comparison(
            records, list(factories), monitor=monitor, mode=mode, target=target, baseline=baseline
        )
        if directory is not None:
            exchange.told_by_chief(setting.replication, lambda: found.save(directory))
    return found


def _is_number(value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def _folder(directory, name, seed):
    if directory is None:
        return None
    return os.path.join(directory, "runs", contenders.folder(name), f"seed-{seed}")


def _tell(record, wanted, monitor):
    if not wanted:
        return
    history = record["history"]
    name = monitor or ("val_loss" if "val_loss" in history else "loss")
    last = (history.get(name) or [None])[-1]
    result = f"{name} not finite" if last is None else f"{name} {last:.4g}"
    if record["state"] == runs.DIVERGED:
        result = "diverged"
    print(
        f"{record['optimizer']}, seed {record['seed']}: {result}, "
        f"{record['training_seconds']:.1f} s",
        flush=True,
    )
