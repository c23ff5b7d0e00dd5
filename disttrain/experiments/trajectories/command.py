"""`disttrain trajectory`: the path of an optimizer on a function, as a table and a picture."""

import argparse
import ast
import itertools
import sys


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: Its arguments, by default those of the process.

    Returns:
        Exit status: 0, or 2 where something cannot be read.
    """
    options = _parser().parse_args(arguments)
    try:
        found = _follow(options)
    except (TypeError, ValueError, RuntimeError) as error:
        print(f"disttrain trajectory: {error}", file=sys.stderr)
        return 2
    _show(found)
    from disttrain.experiments.trajectories import path, pictures

    try:
        if options.out:
            print(f"Picture: {pictures.plot(found, options.out)}")
        if options.csv:
            path.write_csv(found, options.csv)
            print(f"Path: {options.csv}")
    except (OSError, RuntimeError) as error:
        print(f"disttrain trajectory: {error}", file=sys.stderr)
        return 2
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="disttrain trajectory",
        description="Follows optimizers on a function of x, or of x and y, and says whether they "
        "converged, exceeded the steps, or exploded. Several optimizers or learning rates are all "
        "followed, and drawn into one picture.",
        epilog="Example: disttrain trajectory '2*x^4 + 3*x^3 + 2' --optimizer sgd adam "
        "--learning-rate 0.01 0.1 --start 2 --out paths.png",
    )
    parser.add_argument(
        "expression",
        help="such as '2*x^4 + 3*x^3 + 2', or rosenbrock, beale or himmelblau",
    )
    parser.add_argument(
        "--optimizer",
        nargs="+",
        default=["sgd"],
        metavar="NAME",
        help="names of Keras's optimizers, lars, or program.py:name of a class or function that "
        "makes one (default: sgd)",
    )
    parser.add_argument(
        "--learning-rate", nargs="+", type=float, metavar="RATE", help="default: the optimizer's"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="settings",
        help="another argument of the optimizers, such as momentum=0.7; may be given again",
    )
    parser.add_argument(
        "--start",
        nargs="+",
        type=float,
        metavar="NUMBER",
        help="where to start, one number for each variable; the classics have a usual start",
    )
    parser.add_argument("--steps", type=int, default=2000, metavar="N", help="most steps")
    parser.add_argument("--out", metavar="FILE.png", help="draw the paths")
    parser.add_argument("--csv", metavar="FILE.csv", help="write the paths")
    return parser


def _follow(options):
    # What is wrong in the expression is said before TensorFlow's slow start is worth it.
    from disttrain.experiments.trajectories import landscapes, path

    function = landscapes.find(options.expression)
    settings = dict(_setting(text) for text in options.settings)
    rates = options.learning_rate or [None]
    return [
        path.trajectory(
            function, make_optimizer(name, rate, settings), options.start, options.steps
        )
        for name, rate in itertools.product(options.optimizer, rates)
    ]


def make_optimizer(name, learning_rate=None, settings=None):
    """Makes an optimizer by its name.

    Args:
        name: As `--optimizer` takes it.
        learning_rate: A number, or `None` for the optimizer's own.
        settings: Its other arguments, name to value.

    Raises:
        ValueError: There is no such optimizer, or it does not take these arguments.
    """
    import keras

    from disttrain import optimizers
    from disttrain.experiments.shared import loading

    arguments = dict(settings or {})
    if learning_rate is not None:
        arguments["learning_rate"] = learning_rate
    if ":" in name or name.endswith(".py"):
        make = loading.find(name)
    elif name.lower() == "lars":
        make = optimizers.LARS
    else:
        try:
            make = type(keras.optimizers.get(name))
        except ValueError:
            raise ValueError(
                f"unknown optimizer {name!r}; give a name such as sgd, adam or lars, or "
                "program.py:name"
            ) from None
    try:
        return make(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the optimizer {name!r} cannot be made with {arguments}: {error}"
        ) from error


def _setting(text):
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set takes NAME=VALUE, such as momentum=0.7, not {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _show(found):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for title, justify in (("optimizer", "left"), ("learning rate", "right"), ("verdict", "left")):
        table.add_column(title, justify=justify)
    for one in found:
        rate = "" if one.learning_rate is None else f"{one.learning_rate:g}"
        table.add_row(one.optimizer, rate, str(one))
    Console().print(table)
