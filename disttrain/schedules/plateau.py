"""Lowering a schedule when a metric stops improving.

`Plateau` is the schedule with a factor on it, and `ReduceOnPlateau` the callback that lowers the
factor, by the same decision on all processes. Keras's own `ReduceLROnPlateau` sets the optimizer's
learning rate, which an optimizer with a schedule refuses.
"""

import math
import warnings

import keras
import numpy as np
import tensorflow as tf

from disttrain.schedules.base import (
    KerasSchedule,
    Schedule,
    between,
    rate,
    rate_at,
    register,
    schedule_or_rate,
    serialized,
)


@register
class Plateau(Schedule):
    """A schedule, or a learning rate, times a factor that `ReduceOnPlateau` lowers.

    The factor is a variable, so a traced step sees each change. It is part of the configuration,
    of saved models, and of a `tf.train.Checkpoint` of the optimizer; it is not one of
    `optimizer.variables`, for schedules are not.

    Args:
        schedule: A `LearningRateSchedule` or a learning rate.
        factor: What it is multiplied by at first, from 0.

    Attributes:
        factor: A float32 scalar `keras.Variable`.

    Raises:
        TypeError: `schedule` is neither a schedule nor a number.
        ValueError: `factor` is not a finite number from 0.
    """

    def __init__(self, schedule, factor=1.0):
        super().__init__()
        self.schedule = schedule_or_rate(schedule, "Plateau", "schedule")
        factor = rate(factor, "Plateau", "factor", zero=True)
        with tf.init_scope():
            self.factor = keras.Variable(
                factor,
                dtype="float32",
                trainable=False,
                aggregation="only_first_replica",
                name="plateau_factor",
            )
        self._track(self.schedule, "schedule")
        self._track(self.factor, "factor")

    def _rate(self, step):
        return rate_at(self.schedule, step) * self.factor.value

    def get_config(self):
        return {"schedule": serialized(self.schedule), "factor": float(self.factor.numpy())}


class ReduceOnPlateau(keras.callbacks.Callback):
    """Multiplies the factor of a `Plateau` when a metric has stopped improving.

    The optimizer's learning rate has to be a `Plateau`, or hold one somewhere inside:
    `SGD(Plateau(CosineDecay(0.1, 10_000)))`. Where several processes train, each looks at its own
    logs, the chief's factor is taken by all, and so their rates never part. Let the callback run
    on all of them; `disttrain.Trainer` does.

    Args:
        monitor: Name of the metric in the logs of an epoch.
        factor: What the schedule's factor is multiplied by, above 0 and below 1.
        patience: Epochs without improvement after which that happens.
        mode: `"min"`, `"max"`, or `"auto"`, which takes `"max"` for names with `acc`, `auc`,
            `precision`, `recall` or `f1` in them.
        min_delta: The least change that counts as an improvement.
        cooldown: Epochs after a reduction in which none is counted as without improvement.
        min_factor: The factor never falls below this.
        verbose: 1 says each reduction, on the chief.

    Raises:
        ValueError: An argument is outside of its range; when training begins: the optimizer has no
            `Plateau`.
    """

    def __init__(
        self,
        monitor="val_loss",
        factor=0.1,
        patience=10,
        mode="auto",
        min_delta=1e-4,
        cooldown=0,
        min_factor=0.0,
        verbose=0,
    ):
        super().__init__()
        owner = "ReduceOnPlateau"
        self.monitor = monitor
        self.reduction = rate(factor, owner, "factor")
        if self.reduction >= 1:
            raise ValueError(f"ReduceOnPlateau needs a factor below 1, not {factor!r}; try 0.1")
        self.patience = _epochs(patience, "patience", least=1)
        self.cooldown = _epochs(cooldown, "cooldown", least=0)
        self.min_delta = between(min_delta, 0, math.inf, owner, "min_delta")
        self.min_factor = between(min_factor, 0, 1, owner, "min_factor")
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"unknown mode {mode!r}; choose one of 'auto', 'min', 'max'")
        grows = ("acc", "auc", "precision", "recall", "f1")
        if mode == "auto":
            mode = "max" if any(word in monitor.lower() for word in grows) else "min"
        self.mode = mode
        self.verbose = verbose
        self._plateaus = []
        self._forget()

    def _forget(self):
        self.best = math.inf if self.mode == "min" else -math.inf
        self.wait = 0
        self.cooling = 0
        self._warned = False

    def get_state(self):
        """What a checkpoint keeps of it, as JSON values."""
        return {"best": self.best, "wait": self.wait, "cooling": self.cooling}

    def set_state(self, state):
        """Goes on from what `get_state` has returned."""
        self.best, self.wait, self.cooling = state["best"], state["wait"], state["cooling"]

    def on_train_begin(self, logs=None):
        optimizer = self.model.optimizer
        self._plateaus = find_plateaus(optimizer)
        if not self._plateaus:
            raise ValueError(
                "ReduceOnPlateau found no Plateau in the learning rate of the optimizer "
                f"{optimizer.name!r}; wrap it: learning_rate=disttrain.schedules.Plateau(0.1), or "
                "Plateau(schedule)"
            )
        self._forget()
        self._agree()

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.monitor)
        before = self._factors()
        if value is None:
            self._warn_once(logs)
        elif self._due(float(value)):
            for plateau, factor in zip(self._plateaus, before, strict=True):
                lowered = max(factor * self.reduction, self.min_factor)
                plateau.factor.assign(min(factor, lowered))
        # Also without a value, so that all processes meet whatever their own logs hold.
        self._agree()
        if self.verbose and self._is_chief() and (self._factors() != before).any():
            factors = ", ".join(f"{factor:g}" for factor in self._factors())
            print(f"\nEpoch {epoch + 1}: the learning rate schedule is multiplied by {factors}")

    def _due(self, value):
        """Counts an epoch; returns whether the factor is to be lowered."""
        gain = self.best - value if self.mode == "min" else value - self.best
        if self.cooling > 0:
            self.cooling -= 1
            self.wait = 0
        if gain > self.min_delta:
            self.best = value
            self.wait = 0
            return False
        if self.cooling > 0:
            return False
        self.wait += 1
        if self.wait < self.patience:
            return False
        self.wait = 0
        self.cooling = self.cooldown
        return True

    def _factors(self):
        return np.asarray([plateau.factor.numpy() for plateau in self._plateaus], np.float32)

    def _agree(self):
        """Takes the chief's factors over on all processes."""
        replication = _replication(self.model.optimizer)
        if replication is None or replication.topology.processes == 1:
            return
        chief = replication.all_gather(self._factors())[0]
        for plateau, factor in zip(self._plateaus, chief, strict=True):
            plateau.factor.assign(factor)

    def _is_chief(self):
        replication = _replication(self.model.optimizer)
        return replication is None or replication.is_chief

    def _warn_once(self, logs):
        if not self._warned:
            self._warned = True
            known = ", ".join(sorted(logs or {})) or "nothing"
            warnings.warn(
                f"ReduceOnPlateau watches {self.monitor!r}, which this epoch's logs lack; they "
                f"hold {known}",
                stacklevel=2,
            )


def find_plateaus(optimizer):
    """All `Plateau` schedules in the learning rate of an optimizer, however deep.

    Args:
        optimizer: A Keras optimizer, or a wrapper with an `inner` one.

    Returns:
        A list, outermost first; of several optimizers those of all, one after the other.
    """
    found = []

    def walk(value):
        if isinstance(value, Plateau):
            found.append(value)
        if isinstance(value, KerasSchedule):
            for child in vars(value).values():
                walk(child)
        elif isinstance(value, (list, tuple)):
            for child in value:
                walk(child)

    optimizers = [optimizer]
    while optimizers:
        one = optimizers.pop(0)
        while hasattr(one, "inner"):
            one = one.inner
        walk(getattr(one, "_learning_rate", None))
        optimizers = [*getattr(one, "optimizers", ()), *optimizers]
    return found


def _replication(optimizer):
    # Any other optimizer than a DistributedOptimizer trains in one process alone.
    return getattr(optimizer, "replication", None)


def _epochs(value, argument, least):
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"ReduceOnPlateau needs a whole number of epochs from {least} as {argument}, not "
            f"{value!r}"
        )
    return value
