"""The `disttrain` command."""

import argparse
import importlib
import os
import sys

import disttrain

#: Name to what it does, and to the module with the `main` for it, imported when it is asked for.
COMMANDS = {
    "demo": ("train a small network on images", "disttrain.examples.images"),
    "inspect": ("show the layers of a run in the terminal", "disttrain.inspect"),
    "doctor": ("tell what is missing for training, and what mends it", "disttrain.doctor"),
    "launch": ("print a launch script to copy", "disttrain.launching.scripts"),
    "compare": (
        "compare optimizers with several seeds",
        "disttrain.experiments.comparisons.command",
    ),
    "lr-range": ("find a learning rate by the range test", "disttrain.experiments.lr_command"),
    "trajectory": (
        "follow optimizers on a function",
        "disttrain.experiments.trajectories.command",
    ),
}


def main(arguments=None):
    """Runs the `disttrain` command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="disttrain", description=disttrain.__doc__.partition("\n")[0]
    )
    parser.add_argument("--version", action="version", version=f"disttrain {disttrain.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (does, _) in COMMANDS.items():
        commands.add_parser(name, help=f"{does}; see disttrain {name} --help", add_help=False)
    chosen, rest = parser.parse_known_args(arguments)
    # What TensorFlow says of the machine is no part of an answer.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    status = importlib.import_module(COMMANDS[chosen.command][1]).main(rest)
    # The demo is an example, whose `main` returns what it has found.
    return status if isinstance(status, int) else 0


if __name__ == "__main__":
    sys.exit(main())
