"""What surrounds each public method of a `Trainer`."""

import difflib
import functools
import inspect

from disttrain.replication import ambient

#: Arguments of Keras 2's `fit` to what replaces them.
_MOVED = dict.fromkeys(
    ("workers", "use_multiprocessing", "max_queue_size"),
    "it belongs to the data: keras.utils.PyDataset(workers=..., use_multiprocessing=..., "
    "max_queue_size=...)",
)


def trainer_method(method):
    """A method that leaves a strategy's scope, and restarts with the processes that are left.

    While it runs, the processes find the one that all wait for.

    Args:
        method: A method of a `Trainer`.
    """
    parameters = inspect.signature(method).parameters

    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        _check_names(method.__name__, parameters, kwargs)
        _check_count(method.__name__, parameters, args)
        with ambient.leave(self.replication), self.replication.regrouping():
            self._listen()
            return method(self, *args, **kwargs)

    return wrapper


def _check_names(method, parameters, given):
    """Names arguments that a method does not have, and says what they might be."""
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return
    for name in given:
        if name in parameters:
            continue
        near = difflib.get_close_matches(name, parameters, 1)
        hint = _MOVED.get(name) or (f"did you mean {near[0]!r}?" if near else "")
        raise TypeError(
            f"Trainer.{method} has no argument {name!r}; "
            + (hint or f"its arguments are {', '.join([*parameters][1:])}")
        )


def _check_count(method, parameters, given):
    """Says which arguments need their names."""
    named = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY]
    most = len(parameters) - len(named) - 1
    if named and len(given) > most:
        raise TypeError(
            f"Trainer.{method} takes {most} arguments by position, not {len(given)}; give the "
            f"others by name, such as {named[0]}=..."
        )
