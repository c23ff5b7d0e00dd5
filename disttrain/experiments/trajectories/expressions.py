"""Reads expressions of x and y, such as `2*x^4 + 3*x^3 + 2`, as functions on tensors.

The text is parsed by Python's `ast` and never evaluated: a whitelist of its nodes is turned into
TensorFlow operations. `path.py` follows optimizers on the result.
"""

import ast
import dataclasses
import math
import re

import tensorflow as tf

#: Characters, operations one inside of another, and operations in all.
LONGEST, DEEPEST, MOST = 500, 100, 300

#: The largest number, so that one does not become infinite in float32.
LARGEST = 1e30

CONSTANTS = {"pi": math.pi, "e": math.e}

FUNCTIONS = {
    "sin": tf.sin,
    "cos": tf.cos,
    "tan": tf.tan,
    "exp": tf.exp,
    "log": tf.math.log,
    "sqrt": tf.sqrt,
    "abs": tf.abs,
    "tanh": tf.tanh,
}

VARIABLES = ("x", "y")

_BINARY = {
    ast.Add: tf.add,
    ast.Sub: tf.subtract,
    ast.Mult: tf.multiply,
    ast.Div: tf.divide,
    ast.Pow: tf.pow,
}
_UNARY = {ast.UAdd: tf.identity, ast.USub: tf.negative}

_KNOWN = f"numbers, x, y, {', '.join(CONSTANTS)}, + - * / ^ and {', '.join(FUNCTIONS)} are known"

_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<operator>\*\*|[-+*/^])|(?P<mark>[(),])",
    re.ASCII,
)


@dataclasses.dataclass(frozen=True)
class Expression:
    """A function of one or two variables.

    Attributes:
        text: What it was read from.
        variables: `("x",)`, or `("x", "y")` where y occurs.
    """

    text: str
    variables: tuple
    _tree: ast.expr = dataclasses.field(repr=False, compare=False)

    def __call__(self, *values):
        """The value, with the shape and dtype of the given tensors, one for each variable."""
        known = dict(zip(self.variables, values, strict=True))
        return _compute(self._tree, known, values[0].dtype)


def parse(text):
    """Reads an expression.

    Args:
        text: The expression. `^` and `**` are powers.

    Returns:
        An `Expression`.

    Raises:
        TypeError: `text` is no string.
        ValueError: It is no expression, is too long or too deep, or says something unknown; the
            message points at the place.
    """
    if not isinstance(text, str):
        raise TypeError(f"an expression is a text such as 'x^2 + y^2', not {text!r}")
    if len(text) > LONGEST:
        raise ValueError(f"the expression has {len(text)} characters; it may have {LONGEST}")
    shown = "".join(c if c.isprintable() else " " for c in text)
    if not shown.strip():
        raise ValueError("the expression is empty; give one such as 'x^2 + y^2'")
    _check_order(shown, _tokens(shown))
    python, places = _with_double_stars(shown)

    def refuse(column, reason):
        return _error(shown, places[column], reason)

    try:
        # In brackets, so that spaces at the beginning mean nothing.
        tree = ast.parse(f"({python})", mode="eval").body
    except SyntaxError as error:
        column = min(max(0, (error.offset or 2) - 2), len(python))
        raise refuse(column, f"this is no expression; {_KNOWN}") from None
    except (RecursionError, MemoryError):
        raise ValueError("the expression has too many brackets or signs in a row") from None
    found = set()
    _check(tree, refuse, found)
    if not found:
        raise ValueError(f"the expression {shown.strip()!r} has no x; give one such as 'x^2 + y^2'")
    return Expression(shown.strip(), VARIABLES if "y" in found else VARIABLES[:1], tree)


def _tokens(text):
    """`(kind, token, place)` of each token, the kinds those of `_TOKEN`."""
    found, place = [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise _error(text, place, f"{text[place]!r} is not known here; {_KNOWN}")
        if match.lastgroup == "name" and match[0] not in (*VARIABLES, *CONSTANTS, *FUNCTIONS):
            raise _error(text, place, f"the name {match[0]!r} is not known; {_KNOWN}")
        if match.lastgroup != "space":
            found.append((match.lastgroup, match[0], place))
        place = match.end()
    return found


def _check_order(text, tokens):
    """Refuses what cannot follow on each other, and brackets that do not fit."""
    brackets, before = [], None
    for kind, token, place in tokens:
        begins = kind in ("number", "name") or token == "("
        after_operand = before is not None and (before[0] in ("number", "name") or before[1] == ")")
        if begins and after_operand and not (token == "(" and before[1] in FUNCTIONS):
            raise _error(text, place, "a * is missing before this; products are written as 2*x")
        needs_left = kind == "operator" and token not in "+-"
        if (needs_left or token in "),") and not after_operand:
            raise _error(text, place, f"something is missing before {token!r}")
        if token == "(":
            brackets.append((place, before is not None and before[1] in FUNCTIONS))
            if len(brackets) > DEEPEST:
                raise _error(text, place, f"more than {DEEPEST} brackets are open here")
        if token == "," and not (brackets and brackets[-1][1]):
            raise _error(text, place, f"a comma is not known here; {_KNOWN}")
        if token == ")":
            if not brackets:
                raise _error(text, place, "no bracket is open that this could close")
            brackets.pop()
        before = (kind, token)
    if before[0] not in ("number", "name") and before[1] != ")":
        raise _error(text, len(text.rstrip()), "something is missing at the end")
    if brackets:
        raise _error(text, brackets[-1][0], "this bracket is not closed")


def _with_double_stars(text):
    """The text with `**` for `^`, and for each of its columns the one in `text`."""
    python, places = "", []
    for place, character in enumerate(text):
        written = "**" if character == "^" else character
        python += written
        places += [place] * len(written)
    return python, [*places, len(text)]


def _check(tree, refuse, found):
    """Refuses what is not on the list; adds the names of the variables to `found`."""
    pending, count = [(tree, 1)], 0
    while pending:
        node, depth = pending.pop()
        count += 1
        # Columns count the bracket that was put in front.
        column = node.col_offset - 1
        if depth > DEEPEST:
            raise refuse(column, f"more than {DEEPEST} operations are one inside of another")
        if count > MOST:
            raise refuse(column, f"there are more than {MOST} numbers and operations")
        pending += [(child, depth + 1) for child in _children(node, column, refuse, found)]


def _children(node, column, refuse, found):
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return [node.left, node.right]
    if isinstance(node, ast.UnaryOp) and type(node.op) in _UNARY:
        return [node.operand]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        _check_number(node.value, column, refuse)
        return []
    if isinstance(node, ast.Name) and node.id in (*VARIABLES, *CONSTANTS, *FUNCTIONS):
        if node.id in FUNCTIONS:
            raise refuse(column, f"{node.id} is a function; write {node.id}(x)")
        found |= {node.id} & set(VARIABLES)
        return []
    if isinstance(node, ast.Call) and getattr(node.func, "id", None) in FUNCTIONS:
        if len(node.args) != 1 or node.keywords or isinstance(node.args[0], ast.Starred):
            raise refuse(column, f"{node.func.id} takes one argument, as {node.func.id}(x)")
        return node.args
    raise refuse(column, f"this is not known here; {_KNOWN}")


def _check_number(value, column, refuse):
    # Whole numbers of hundreds of digits do not become floats.
    if not abs(value) <= LARGEST:
        raise refuse(column, f"this number is too large for float32; the largest is {LARGEST:g}")


def _compute(node, known, dtype):
    if isinstance(node, ast.BinOp):
        left, right = (_compute(side, known, dtype) for side in (node.left, node.right))
        return _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp):
        return _UNARY[type(node.op)](_compute(node.operand, known, dtype))
    if isinstance(node, ast.Call):
        return FUNCTIONS[node.func.id](_compute(node.args[0], known, dtype))
    if isinstance(node, ast.Name):
        if node.id in known:
            return known[node.id]
        return tf.constant(CONSTANTS[node.id], dtype)
    return tf.constant(float(node.value), dtype)


def _error(text, place, reason):
    """An error whose message shows the text, with a mark below the place."""
    return ValueError(f"{reason}\n  {text}\n  {' ' * place}^ here")
