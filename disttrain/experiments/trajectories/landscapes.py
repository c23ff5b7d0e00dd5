"""Functions to follow an optimizer on: expressions, and the classics by name."""

import dataclasses
from collections.abc import Callable

from disttrain.experiments.trajectories import expressions


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A function of one or two variables.

    Attributes:
        name: The expression, or the name of a classic.
        variables: `("x",)` or `("x", "y")`.
        compute: From one float tensor for each variable to the value.
        start: The usual start, a tuple, or `None`.
        minima: The known global minima, tuples.
    """

    name: str
    variables: tuple
    compute: Callable
    start: tuple | None = None
    minima: tuple = ()


def _classic(name, text, start, minima):
    function = expressions.parse(text)
    return Landscape(name, function.variables, function, start, minima)


#: Rosenbrock 1960; Beale 1958; Himmelblau 1972; with the usual starts of Moré, Garbow and
#: Hillstrom 1981, "Testing unconstrained optimization software", where they give one.
CLASSICS = {
    classic.name: classic
    for classic in (
        _classic("rosenbrock", "(1 - x)^2 + 100*(y - x^2)^2", (-1.2, 1.0), ((1.0, 1.0),)),
        _classic(
            "beale",
            "(1.5 - x + x*y)^2 + (2.25 - x + x*y^2)^2 + (2.625 - x + x*y^3)^2",
            (1.0, 1.0),
            ((3.0, 0.5),),
        ),
        _classic(
            "himmelblau",
            "(x^2 + y - 11)^2 + (x + y^2 - 7)^2",
            (0.0, 0.0),
            (
                (3.0, 2.0),
                (-2.805118, 3.131312),
                (-3.779310, -3.283186),
                (3.584428, -1.848126),
            ),
        ),
    )
}


def find(expression):
    """The function that an expression or a name means.

    Args:
        expression: A text: an expression of x, or of x and y, or a name of `CLASSICS`; or a
            `Landscape`.

    Raises:
        TypeError: It is neither.
        ValueError: It is no expression; see `expressions.parse`.
    """
    if isinstance(expression, Landscape):
        return expression
    if isinstance(expression, str) and expression.strip().lower() in CLASSICS:
        return CLASSICS[expression.strip().lower()]
    try:
        function = expressions.parse(expression)
    except ValueError as error:
        if isinstance(expression, str) and expression.strip().isidentifier():
            raise ValueError(
                f"{expression.strip()!r} is neither an expression of x nor one of "
                f"{', '.join(CLASSICS)}"
            ) from None
        raise error
    return Landscape(function.text, function.variables, function)
