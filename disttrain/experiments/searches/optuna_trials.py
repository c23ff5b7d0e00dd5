"""Which trial comes next, as Optuna's tree-structured Parzen estimator chooses (Bergstra 2011).

The study lives in SQLite, so that several jobs share it. `trials.NumberedTrials` has the same
methods.
"""

import contextlib
import os
import warnings

import numpy as np

from disttrain.experiments.searches import trials
from disttrain.experiments.searches.spaces import Integer, LogUniform, Uniform
from disttrain.experiments.shared import directory as directories
from disttrain.experiments.shared import runs
from disttrain.optional import needed

_NAME = "disttrain"


class OptunaTrials:
    """Trials that Optuna proposes, each by what came of those before it.

    What a trial is given depends on the seed, its number, and the trials before it, so that an
    interrupted search goes on as it would have.

    Args:
        directory: The directory of the search.
        space: From `spaces.checked`.
        total: How many trials there are to be, over all jobs.
        mode: `"min"` or `"max"`.
        seed: Seed of the proposals.
        storage: URL of Optuna's storage, or `None` for `study.db` in the directory.

    Raises:
        RuntimeError: Optuna is not installed.
    """

    def __init__(self, directory, space, total, mode, seed, storage=None):
        self._optuna = needed("optuna", "method='optuna'")
        self._directory, self._total, self._seed = directory, total, seed
        self._distributions = {name: self._distribution(one) for name, one in space.items()}
        url = storage or f"sqlite:///{os.path.join(directory, 'study.db')}"
        # SQLite has one writer at a time, and another job may be it.
        patient = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
        with directories.alone_in(directory), self._quietly():
            self._study = self._optuna.create_study(
                study_name=_NAME,
                storage=self._optuna.storages.RDBStorage(url, engine_kwargs=patient),
                direction="minimize" if mode == "min" else "maximize",
                load_if_exists=True,
            )
        self._lock = None

    def next(self):
        """Takes a trial: one that a job has left behind, or a new one; `None` after the last."""
        state = self._optuna.trial.TrialState
        with directories.alone_in(self._directory):
            found = self._study.get_trials(deepcopy=False)
            for trial in found:
                if trial.state == state.RUNNING:
                    record = trials.record(self._directory, trial.number)
                    if record is not None:  # Its job has died between two lines of `tell`.
                        self._report(record["number"], record["value"], record["state"])
                        continue
                    # The lock of a job that lives is held.
                    self._lock = trials.claim(self._directory, trial.number)
                    if self._lock is not None:
                        return trial.number, dict(trial.params)
            if sum(trial.state != state.FAIL for trial in found) >= self._total:
                return None
            with self._quietly():
                drawn = np.random.SeedSequence([self._seed, len(found)]).generate_state(1)
                self._study.sampler = self._optuna.samplers.TPESampler(
                    seed=int(drawn[0]), constant_liar=True
                )
                trial = self._study.ask(self._distributions)
            self._lock = trials.claim(self._directory, trial.number)
            return trial.number, dict(trial.params)

    def tell(self, number, parameters, value, state, reason):
        """Keeps what came of the trial that was taken."""
        # Who looks between the two would take it for the trial of a job that has died here.
        with directories.alone_in(self._directory):
            trials.keep(self._directory, number, parameters, value, state, reason)
            self._report(number, value, state)
        self._lock.release()

    def close(self):
        """Lets go of a trial that was taken and not told of: an error has ended it."""
        if self._lock is not None:
            self._lock.release()

    def _report(self, number, value, state):
        if state == runs.FINISHED:
            self._study.tell(number, value)
        else:
            self._study.tell(number, state=self._optuna.trial.TrialState.PRUNED)

    def _distribution(self, choice):
        kinds = self._optuna.distributions
        if isinstance(choice, Uniform):
            return kinds.FloatDistribution(choice.low, choice.high)
        if isinstance(choice, LogUniform):
            return kinds.FloatDistribution(choice.low, choice.high, log=True)
        if isinstance(choice, Integer):
            return kinds.IntDistribution(choice.low, choice.high)
        return kinds.CategoricalDistribution(choice)

    @contextlib.contextmanager
    def _quietly(self):
        """Without Optuna's log lines, and its warnings of what is still experimental."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
                yield
        finally:
            logging.set_verbosity(before)
