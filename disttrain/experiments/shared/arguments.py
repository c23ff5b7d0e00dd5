"""Arguments that `compare` and `search` share, and what may be wrong with them."""

import inspect
import numbers

from disttrain.checkpoints import Checkpoint
from disttrain.trainer import Trainer

#: Arguments of `Trainer.fit` that an experiment hands on.
FIT = (
    "shuffle",
    "class_weight",
    "steps_per_epoch",
    "validation_split",
    "validation_steps",
    "validation_batch_size",
)

#: What belongs to the single run, and is not a user's to set.
OWN = ("optimizer", "replication", "logdir", "checkpoint", "seed", "loss", "metrics")


def checked_seeds(seeds):
    """Seeds as a list of whole numbers; a number stands for so many, from 0.

    Raises:
        TypeError: They are no whole numbers.
        ValueError: There is none, or one twice, or one below 0.
    """
    if isinstance(seeds, numbers.Integral) and not isinstance(seeds, bool):
        seeds = range(seeds)
    try:
        seeds = list(seeds)
    except TypeError:
        seeds = [seeds]
    if not all(isinstance(s, numbers.Integral) and not isinstance(s, bool) for s in seeds):
        raise TypeError(f"seeds must be whole numbers, such as range(5), not {seeds!r}")
    seeds = [int(seed) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ValueError(
            f"seeds must be different whole numbers from 0 to 2**32 - 1, at least one, not {seeds}"
        )
    return seeds


def check_epochs(epochs):
    """Raises a `ValueError` unless it is a whole number from 1."""
    if not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1:
        raise ValueError(f"epochs must be a whole number from 1, not {epochs!r}")


def check_mode(mode):
    """Raises a `ValueError` unless it is `"auto"`, `"min"` or `"max"`."""
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"unknown mode {mode!r}; choose one of 'auto', 'min', 'max'")


def split_options(options):
    """Further arguments as those of the trainer and those of its `fit`, two dictionaries.

    Raises:
        TypeError: Neither knows one, or the experiment sets it itself.
    """
    for name in OWN:
        if name in options:
            raise TypeError(
                f"{name} is not an option of the trainer here: each run gets its own; see the "
                "arguments of the function itself"
            )
    fit = {name: options[name] for name in FIT if name in options}
    trainer = {name: value for name, value in options.items() if name not in fit}
    _check_known(trainer)
    return trainer, fit


def _check_known(options):
    known = [*inspect.signature(Trainer.__init__).parameters][2:]
    for name in options:
        if name not in known:
            also = ", ".join(name for name in known if name not in OWN)
            raise TypeError(
                f"unknown option {name!r}; besides its own arguments there are those of the "
                f"trainer ({also}) and of fit ({', '.join(FIT)})"
            )


def check_callable(name, value):
    """Raises a `TypeError` where a function is wanted and something else was given."""
    if not callable(value) or hasattr(value, "trainable_variables"):
        raise TypeError(f"{name} must be a function, called anew for each run, not {value!r}")


def mode_of(metric, mode="auto"):
    """Whether a metric is better when it is smaller, `"min"`, or larger, `"max"`."""
    if mode != "auto":
        return mode
    grows = Checkpoint(".", best=metric).better(1.0, 0.0)
    return "max" if grows else "min"
