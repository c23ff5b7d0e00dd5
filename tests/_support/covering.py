"""Chooses from a product of parameters what the default run tests: all pairs of values.

Most faults depend on one parameter or on two together. Tests of all pairs find those at a fraction
of the cost; the rest of the product is marked `exhaustive`.
"""

import itertools

import covertable
import pytest

#: Of the order in which values are combined. Another seed gives other, equally good combinations.
SEED = "disttrain"


def all_pairs(**values):
    """The combinations that hold every pair of values of two parameters at least once.

    Args:
        **values: Name of a parameter to an iterable of its values.

    Returns:
        A list of tuples of values, in the order of the parameters.
    """
    values = {name: list(one) for name, one in values.items()}
    indices = {name: list(range(len(one))) for name, one in values.items()}
    if len(indices) < 2:
        return list(itertools.product(*values.values()))
    rows = covertable.make(indices, salt=SEED)
    places = sorted(tuple(row[name] for name in values) for row in rows)
    return [
        tuple(own[place] for own, place in zip(values.values(), row, strict=True)) for row in places
    ]


def product(**values):
    """Parameters of a test of a whole product; what is not needed for all pairs is `exhaustive`.

    Example:
        >>> @pytest.mark.parametrize(("clip", "replicas"), product(clip=[1, 2], replicas=[1, 2]))

    Args:
        **values: Name of a parameter to an iterable of its values, each with an unambiguous `repr`.

    Returns:
        A list of `pytest.param`.
    """
    values = {name: list(one) for name, one in values.items()}
    chosen = {repr(row) for row in all_pairs(**values)}
    return [
        pytest.param(*row, marks=() if repr(row) in chosen else pytest.mark.exhaustive)
        for row in itertools.product(*values.values())
    ]


def representatives(values, *kept):
    """Parameters of a test; all but the values in `kept` are `exhaustive`.

    Args:
        values: An iterable of values.
        *kept: Those that the default run tests.

    Raises:
        ValueError: One of `kept` is not among the values.
    """
    values = list(values)
    for value in kept:
        if value not in values:
            raise ValueError(f"{value!r} is none of the values {values!r}")
    return [
        pytest.param(value, marks=() if value in kept else pytest.mark.exhaustive)
        for value in values
    ]
