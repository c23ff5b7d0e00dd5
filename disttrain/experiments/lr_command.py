"""`disttrain lr-range`: the range test of a program's trainer, as a table and a picture."""

import argparse
import importlib
import os
import sys

#: The function that is looked for where none is named.
DEFAULT = "experiment"


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: Its arguments, by default those of the process.

    Returns:
        Exit status: 0; 1 where no rate can be suggested; 2 where something cannot be read.
    """
    options = _parser().parse_args(arguments)
    # Before the first tensor; the command itself does not at its start.
    startup = importlib.import_module("disttrain.replication.startup")
    if os.environ.get("TF_CONFIG"):
        startup.join()
    if os.environ.get("DISTTRAIN_REPLICAS"):
        startup.divide()
    try:
        trainer, data = _load(options.program)
        found = trainer.lr_range(
            *data[0], **data[1], low=options.low, high=options.high, steps=options.steps
        )
        chief = trainer.replication.is_chief
        if chief:
            _show(found)
        if chief and options.out:
            print(f"Picture: {found.plot(options.out)}")
    except (TypeError, ValueError, RuntimeError, OSError) as error:
        print(f"disttrain lr-range: {error}", file=sys.stderr)
        return 2
    return 0 if found.suggestion is not None else 1


def _parser():
    parser = argparse.ArgumentParser(
        prog="disttrain lr-range",
        description="Tries ever higher learning rates on a few batches, and suggests one.",
        epilog="The program has a function that returns (trainer, data): a disttrain.Trainer, and "
        "a tf.data.Dataset, a tuple (x, y) of arrays, or a dictionary of what Trainer.fit takes, "
        "such as {'x': x, 'y': y, 'batch_size': 64}. Several processes are started as for "
        "training: horovodrun -np 2 disttrain lr-range program.py.",
    )
    parser.add_argument(
        "program",
        metavar="PROGRAM",
        help=f"program.py:function or package.module:function; without :function, {DEFAULT}",
    )
    parser.add_argument("--low", type=float, default=1e-7, metavar="RATE", help="the first rate")
    parser.add_argument("--high", type=float, default=10.0, metavar="RATE", help="the last rate")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="rates to try")
    parser.add_argument("--out", metavar="FILE.png", help="draw the curve")
    return parser


def _load(program):
    """`(trainer, (arguments, options))` of the program's function."""
    from disttrain.experiments.shared import loading
    from disttrain.trainer import Trainer

    made = loading.find(program, DEFAULT)()
    if not (isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], Trainer)):
        raise TypeError(
            f"the function of {program} must return (trainer, data), a disttrain.Trainer and what "
            f"its fit takes, not {type(made).__name__}"
        )
    trainer, data = made
    if isinstance(data, dict):
        return trainer, ((), data)
    return trainer, (data if isinstance(data, tuple) else (data,), {})


def _show(found):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("criterion")
    table.add_column("learning rate", justify="right")
    for name, rate in found.candidates.items():
        table.add_row(name, f"{rate:.3g}", style="bold" if rate == found.suggestion else None)
    if found.exploded_at is not None:
        table.add_row("exploded at", f"{found.exploded_at:.3g}")
    if table.row_count:
        Console().print(table)
    for sentence in found.objections:
        print(f"Health: {sentence}")
    print(f"Suggestion: {found}")
