"""Which function gets which parameter of a search."""

import dataclasses
import inspect

#: Parameters that no function takes, but the runs themselves.
_OF_RUNS = ("batch_size",)


@dataclasses.dataclass(frozen=True)
class Parts:
    """A trial's parameters by who gets them: `model` and `optimizer`, two dictionaries."""

    model: dict
    optimizer: dict


class Routes:
    """Parameters by the names of arguments.

    Args:
        space: The parameters.
        build_model: The function that builds the model.
        optimizer: The function that makes the optimizer.

    Raises:
        ValueError: Nobody takes a parameter.
    """

    def __init__(self, space, build_model, optimizer):
        self.optimizer = optimizer
        self._model, self._optimizer = set(), set()
        functions = ((build_model, self._model), (optimizer, self._optimizer))
        for name in space:
            named = [taken for function, taken in functions if name in _named(function)]
            # Only where nobody names it: Keras's optimizers pass on what they do not know.
            takers = named or [taken for function, taken in functions if _takes_all(function)]
            if not takers and name not in _OF_RUNS:
                raise ValueError(
                    f"neither build_model ({_listed(build_model)}) nor optimizer "
                    f"({_listed(optimizer)}) has an argument {name!r}; add it to one of them, or "
                    "leave it out of the space"
                )
            for taken in takers if named or name not in _OF_RUNS else ():
                taken.add(name)

    def split(self, parameters):
        """A trial's parameters as `Parts`."""
        return Parts(
            {name: value for name, value in parameters.items() if name in self._model},
            {name: value for name, value in parameters.items() if name in self._optimizer},
        )


def _parameters(function):
    try:
        return inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Some functions of C have no signature.
        return ()


def _named(function):
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in _parameters(function) if p.kind in kinds}


def _takes_all(function):
    return any(p.kind == inspect.Parameter.VAR_KEYWORD for p in _parameters(function))


def _listed(function):
    return ", ".join(sorted(_named(function))) or "no arguments"
