"""What a user decides about checkpoints."""

import dataclasses
import os

#: Metrics that are better when they are larger, unless `best_mode` says otherwise.
_GROWING = ("acc", "auc", "precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where, when and how many checkpoints a `disttrain.Trainer` keeps.

    `fit` goes on from the newest one in the directory, in the middle of an epoch too, if there is
    one. With neither `every_steps` nor `every_seconds` one is saved at the end of each epoch. The
    end of a training, and a signal to stop, save one in any case.

    Args:
        directory: The directory; one job at a time uses it. The chief alone reads and writes it.
        every_steps: Steps (updates, skipped ones included) between two checkpoints.
        every_seconds: Seconds between two checkpoints, by the chief's clock.
        keep: How many of the newest are kept.
        best: Name of a metric in the logs of an epoch, such as `"val_loss"`. Whenever it improves,
            the end of the epoch is saved, and kept beside the newest until it improves again.
        best_mode: `"min"`, `"max"`, or `"auto"`, which takes `"max"` for names with `acc`, `auc`,
            `precision`, `recall` or `f1` in them.

    Raises:
        TypeError: `directory` is no path, or `best` no name.
        ValueError: A number is out of range, or `best_mode` is unknown.
    """

    directory: str
    every_steps: int | None = None
    every_seconds: float | None = None
    keep: int = 3
    best: str | None = None
    best_mode: str = "auto"

    def __post_init__(self):
        if not isinstance(self.directory, (str, os.PathLike)) or not str(self.directory):
            raise TypeError(
                f"directory must be a path such as 'ckpt/first', not {self.directory!r}"
            )
        object.__setattr__(self, "directory", os.path.abspath(os.fspath(self.directory)))
        if self.every_steps is not None:
            _check_whole("every_steps", self.every_steps)
        _check_whole("keep", self.keep)
        seconds = self.every_seconds
        if seconds is not None and not (_is_number(seconds) and 0 < seconds < float("inf")):
            raise ValueError(f"every_seconds must be a finite number above 0, not {seconds!r}")
        if self.best is not None and not (isinstance(self.best, str) and self.best):
            raise TypeError(
                f"best must be the name of a metric such as 'val_loss', not {self.best!r}"
            )
        if self.best_mode not in ("auto", "min", "max"):
            raise ValueError(
                f"unknown best_mode {self.best_mode!r}; choose one of 'auto', 'min', 'max'"
            )

    @property
    def each_epoch(self):
        """Whether the end of each epoch is saved."""
        return self.every_steps is None and self.every_seconds is None

    def better(self, value, than):
        """Whether a value of `best` is better than another one, or than `None`."""
        if value != value:
            return False
        if than is None:
            return True
        mode = self.best_mode
        if mode == "auto":
            mode = "max" if any(word in self.best.lower() for word in _GROWING) else "min"
        return value < than if mode == "min" else value > than


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name, value):
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number from 1, not {value!r}")
