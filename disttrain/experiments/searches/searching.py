"""`search`: looks for the parameters with which a training ends best."""

import contextlib
import dataclasses
import functools
import math
import numbers
import os
import tempfile

from disttrain import replication as replication_module
from disttrain.checkpoints import exchange
from disttrain.experiments.searches import routes, spaces, trials
from disttrain.experiments.searches.found import Search
from disttrain.experiments.searches.pruning import HealthPruner
from disttrain.experiments.shared import arguments, contenders, facts, runs, sources
from disttrain.experiments.shared import directory as directories
from disttrain.telemetry import Telemetry

METHODS = ("random", "grid", "optuna")

#: Seconds between two checkpoints of a run.
_CHECKPOINT_SECONDS = 30.0


def search(
    build_model,
    data,
    space,
    *,
    optimizer,
    loss,
    method="random",
    trials=None,
    seeds=(0,),
    metrics=None,
    epochs=1,
    batch_size=None,
    validation_data=None,
    monitor="val_loss",
    mode="auto",
    prune=True,
    seed=0,
    storage=None,
    replication="auto",
    directory=None,
    callbacks=None,
    verbose=1,
    **options,
):
    """Trains with many parameters and tells which ended best.

    Each parameter goes to those of `build_model` and `optimizer` that have an argument of its name;
    `batch_size` goes to the data. With a directory, an interrupted search goes on where it was, in
    the middle of a run too, several jobs may share one, and each run is shown by TensorBoard, in
    its HParams page too. What wins a search has won it on this validation data: compare the best
    few with `compare` and new seeds before you believe it.

    Args:
        build_model: A function that returns a `keras.Model`, of parameters or of nothing.
        data: As for `compare`.
        space: Name of a parameter to a list of values, `Uniform`, `LogUniform` or `Integer`.
        optimizer: A function that returns a new optimizer, of parameters or of nothing, such as
            `keras.optimizers.Adam`; or what `compare` takes for one.
        loss: As for `disttrain.Trainer`.
        method: `"random"` (Bergstra and Bengio 2012); `"grid"`, all combinations of lists; or
            `"optuna"`, the tree-structured Parzen estimator of Optuna (Bergstra et al. 2011).
        trials: How many, over all jobs that share the directory; 20 by default, and all of a grid.
            A later call with more goes on: the first ones of a random search stay the same.
        seeds: Seeds that each trial is trained with; what counts is the mean.
        metrics: As for `disttrain.Trainer`.
        epochs: Epochs of each run.
        batch_size: Global batch size for arrays.
        validation_data: As for `compare`.
        monitor: The metric that decides, by its value after the last epoch.
        mode: As for `compare`.
        prune: Whether a trial ends with the first finding of the health rules that is an error: NaN
            and infinities, gradients that explode. Then telemetry records every step, unless
            `telemetry` says otherwise.
        seed: Seed of what is drawn from the space.
        storage: URL of another storage for Optuna than `DIRECTORY/study.db`.
        replication: As for `disttrain.Trainer`.
        directory: Where files go, or `None` to keep none.
        callbacks: A function that returns new Keras callbacks for a run.
        verbose: 1 prints a line for each trial on the chief, 0 nothing.
        **options: As for `compare`.

    Returns:
        A `Search`, the same on every process.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: An argument has a wrong value, no function takes a parameter, or the directory
            holds another search; the message lists the differences.
        RuntimeError: Optuna is wanted and not installed.
    """
    if method not in METHODS:
        raise ValueError(
            f"unknown method {method!r}; choose one of {', '.join(map(repr, METHODS))}"
        )
    if storage is not None and method != "optuna":
        raise ValueError(f"storage is Optuna's; with method={method!r} the directory is enough")
    space = spaces.checked(space)
    seeds = arguments.checked_seeds(seeds)
    arguments.check_epochs(epochs)
    arguments.check_mode(mode)
    arguments.check_callable("build_model", build_model)
    if callbacks is not None:
        arguments.check_callable("callbacks", callbacks)
    if not callable(optimizer):
        optimizer = contenders.factories({"optimizer": optimizer})["optimizer"]
    routing = routes.Routes(space, build_model, optimizer)
    total = _total(trials, method, space)
    mode = arguments.mode_of(monitor, mode)
    trainer_options, fit_options = arguments.split_options(options)
    if prune:
        trainer_options.setdefault("telemetry", Telemetry(every=1))
    replication = replication_module.resolve(replication)
    setting = runs.Setting(
        build_model,
        sources.source(data, validation_data),
        loss,
        metrics,
        epochs,
        batch_size,
        replication,
        trainer_options,
        fit_options,
        callbacks,
        _CHECKPOINT_SECONDS,
    )
    plan = {
        "version": runs.VERSION,
        "space": facts.described(space),
        "method": method,
        "seed": seed,
        "seeds": seeds,
        "monitor": [monitor, mode],
        "prune": bool(prune),
        "build_model": facts.described(build_model),
        "optimizer": facts.described(optimizer),
        **directories.shared_plan(setting, data, validation_data),
    }
    with _directory(directory, replication) as place:
        make = functools.partial(_chooser, method, place, space, total, mode, seed, storage)
        return _Searcher(setting, routing, place, seeds, monitor, mode, prune, verbose).run(
            plan, make
        )


class _Searcher:
    """Goes through the trials, on every process."""

    def __init__(self, setting, routing, place, seeds, monitor, mode, prune, verbose):
        self._setting, self._routing, self._place = setting, routing, place
        self._seeds, self._monitor, self._mode = seeds, monitor, mode
        self._watch = (HealthPruner,) if prune else ()
        self._verbose = verbose
        self._chooser = None

    def run(self, plan, make):
        replication = self._setting.replication

        def begin():
            with directories.alone_in(self._place):
                directories.agree(self._place, plan)
            self._chooser = make()

        exchange.told_by_chief(replication, begin)
        try:
            self._all()
        finally:
            if self._chooser is not None:
                self._chooser.close()

        def end():
            found = trials.kept(self._place)
            Search(found, self._monitor, self._mode).save(self._place)
            return found

        return Search(exchange.told_by_chief(replication, end), self._monitor, self._mode)

    def _all(self):
        replication = self._setting.replication
        while True:
            taken = exchange.told_by_chief(replication, lambda: self._chooser.next())
            if taken is None:
                return
            number, parameters = taken
            outcome = self._trial(number, parameters)
            exchange.told_by_chief(
                replication,
                lambda told=(number, parameters, *outcome): self._chooser.tell(*told),
            )
            self._print(number, parameters, *outcome)

    def _trial(self, number, parameters):
        """`(value, state, reason)` of a trial."""
        own = self._routing.split(parameters)
        setting = dataclasses.replace(
            self._setting,
            build_model=functools.partial(self._setting.build_model, **own.model),
            batch_size=parameters.get("batch_size", self._setting.batch_size),
        )
        name, values = f"trial-{number:04d}", []
        for seed in self._seeds:
            folder = os.path.join(trials.folder(self._place, number), f"seed-{seed}")
            record = exchange.told_by_chief(
                setting.replication, lambda folder=folder: runs.finished(folder)
            )
            if record is None:
                make = functools.partial(
                    contenders.made,
                    name,
                    functools.partial(self._routing.optimizer, **own.optimizer),
                )
                shown = {"trial": number, **parameters}
                record = runs.train(setting, name, make, seed, folder, shown, self._watch)
            if record["state"] != runs.FINISHED:
                return None, record["state"], record["reason"]
            if self._monitor not in record["history"]:
                known = ", ".join(record["history"])
                raise ValueError(
                    f"the logs have no metric {self._monitor!r} to search by; there are {known}"
                )
            value = record["history"][self._monitor][-1]
            if value is None:
                return None, runs.DIVERGED, f"{self._monitor} is not finite at the end"
            values.append(value)
        return math.fsum(values) / len(values), runs.FINISHED, None

    def _print(self, number, parameters, value, state, reason):
        if self._verbose and self._setting.replication.is_chief:
            chosen = ", ".join(
                f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
                for name, value in parameters.items()
            )
            result = f"{self._monitor} {value:.4g}" if value is not None else f"{state}: {reason}"
            print(f"trial {number}: {chosen}: {result}", flush=True)


def _chooser(method, place, space, total, mode, seed, storage):
    if method == "optuna":
        from disttrain.experiments.searches.optuna_trials import OptunaTrials

        return OptunaTrials(place, space, total, mode, seed, storage)
    if method == "grid":
        return trials.NumberedTrials(place, spaces.grid(space).__getitem__, total)
    return trials.NumberedTrials(place, functools.partial(spaces.draw, space, seed), total)


def _total(wanted, method, space):
    if wanted is not None and (
        not isinstance(wanted, numbers.Integral) or isinstance(wanted, bool) or wanted < 1
    ):
        raise ValueError(f"trials must be a whole number from 1, not {wanted!r}")
    if method == "grid":
        size = len(spaces.grid(space))
        return size if wanted is None else min(int(wanted), size)
    return 20 if wanted is None else int(wanted)


@contextlib.contextmanager
def _directory(directory, replication):
    """The directory of the search; without one, one that is gone afterwards."""
    if directory is not None:
        yield os.path.abspath(os.fspath(directory))
        return
    with contextlib.ExitStack() as stack:
        made = [None]
        if replication.is_chief:
            made[0] = stack.enter_context(tempfile.TemporaryDirectory(prefix="disttrain-search-"))
        yield exchange.told_by_chief(replication, lambda: made[0])
