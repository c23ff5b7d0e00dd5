"""Expressions are read by a whitelist, and bad ones are met with the place that is wrong."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow as tf

from disttrain.experiments.trajectories import expressions

pytestmark = pytest.mark.unit


def value(text, *at):
    return float(expressions.parse(text)(*(tf.constant(a, tf.float32) for a in at)))


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("2*x^4 + 3*x^3 + 2", [2.0], 58.0),
        ("2*x**4 + 3*x**3 + 2", [2.0], 58.0),
        ("-x^2", [3.0], -9.0),
        ("(-x)^2", [3.0], 9.0),
        ("2^-x", [3.0], 0.125),
        ("2^3^x", [2.0], 512.0),
        ("x - 1 - 2", [10.0], 7.0),
        ("x / 2 / 2", [10.0], 2.5),
        ("  x\t+ .5e1 ", [1.0], 6.0),
        ("1.5e-1*x + 2.", [2.0], 2.3),
        ("x*y - y/x", [2.0, 3.0], 4.5),
        ("y^2", [100.0, 3.0], 9.0),
        ("pi*x + e", [1.0], math.pi + math.e),
        ("sin(x)+cos(x)+tan(x)", [0.5], math.sin(0.5) + math.cos(0.5) + math.tan(0.5)),
        ("exp(x) + log(x) + sqrt(x)", [0.5], math.exp(0.5) + math.log(0.5) + math.sqrt(0.5)),
        ("abs(-x) * tanh((x))", [0.5], 0.5 * math.tanh(0.5)),
    ],
)
def test_values_are_those_of_mathematics(text, at, expected):
    assert value(text, *at) == pytest.approx(expected, rel=1e-6)


def test_y_makes_two_variables_of_one():
    assert expressions.parse("x^2").variables == ("x",)
    assert expressions.parse("y^2").variables == ("x", "y")
    assert expressions.parse("exp(x)").variables == ("x",), "the y of no name counts"


def test_arrays_are_taken_element_by_element_even_by_a_variable_that_does_not_occur():
    found = expressions.parse("y + 1")(tf.zeros([2, 3]), tf.ones([2, 3]))
    np.testing.assert_array_equal(found, np.full([2, 3], 2.0))


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("2x", 1, "a \\* is missing"),
        ("3 (x)", 2, "a \\* is missing"),
        ("x(1 - x)", 1, "a \\* is missing"),
        ("(x)(x)", 3, "a \\* is missing"),
        ("x^^2", 2, "something is missing before '\\^'"),
        ("x^2 + *3", 6, "something is missing before '\\*'"),
        ("x +", 3, "something is missing at the end"),
        ("()*x", 1, "something is missing before '\\)'"),
        ("x^2 + (y", 6, "this bracket is not closed"),
        ("x^2) + 1", 3, "no bracket is open"),
        ("x^2 + z", 6, "the name 'z' is not known"),
        ("x^2^y if x", 6, "the name 'if' is not known"),
        ("x^2 + sin", 6, "write sin\\(x\\)"),
        ("x^2 + sin(x, y)", 6, "takes one argument"),
        ("x + pi(x)", 6, "a \\* is missing"),
        ("(x, y)", 2, "a comma is not known here"),
        ("x^2 + 1e40", 6, "too large for float32"),
        ("9" * 400 + "*x", 0, "too large for float32"),
        ("x^2 + 007", 6, "this is no expression"),
        ("x % 2", 2, "'%' is not known here"),
        ("x.real", 1, "'.' is not known here"),
        ("x # comment", 2, "'#' is not known here"),
        ("π*x", 0, "'π' is not known here"),
        ("x + 'a'", 4, "is not known here"),
        ("x[0]", 1, "is not known here"),
        ("(lambda: x)()", 1, "the name 'lambda' is not known"),
        ("__import__('os').system('true')*x", 0, "the name '__import__' is not known"),
    ],
)
def test_what_is_wrong_is_pointed_at(text, place, words):
    with pytest.raises(ValueError, match=words) as caught:
        expressions.parse(text)
    _, line, mark = str(caught.value).split("\n")
    assert line == f"  {text}"
    assert mark == f"  {' ' * place}^ here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        (" \n ", "is empty"),
        ("3*pi", "has no x"),
        ("x" + "+x" * 250, "501 characters; it may have 500"),
        ("-" * 499 + "x", "more than 100 operations"),
        ("(" * 249 + "x" + ")" * 249, "more than 100 brackets"),
        ("+".join(["x"] * 250), "more than 100 operations"),
        ("sin(" * 99 + "x" + ")" * 99, None),
        ("*".join(["(x+x)"] * 80), "more than 300 numbers and operations"),
    ],
)
def test_there_are_limits(text, words):
    if words is None:
        assert math.isfinite(value(text, 1.0)), "just below the limit"
        return
    with pytest.raises(ValueError, match=words):
        expressions.parse(text)


def test_other_things_than_text_are_refused():
    with pytest.raises(TypeError, match="not 3"):
        expressions.parse(3)


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(st.text("xy0123456789.eE+-*/^() sincopqrtabl_\n'\"[],:#%\0π", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = expressions.parse(text)
    except ValueError:
        return
    assert set(found.variables) <= {"x", "y"}
    found(*(tf.constant(0.5) for _ in found.variables))
