"""The `disttrain` command."""

import argparse
import sys

import disttrain


def main(arguments=None):
    """Runs the `disttrain` command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="disttrain", description=disttrain.__doc__.partition("\n")[0]
    )
    parser.add_argument("--version", action="version", version=f"disttrain {disttrain.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser(
        "demo",
        help="train a small network on images; see disttrain demo --help",
        add_help=False,
    )
    commands.add_parser(
        "inspect",
        help="show the layers of a run in the terminal; see disttrain inspect --help",
        add_help=False,
    )
    commands.add_parser(
        "doctor",
        help="tell what is missing for training, and what mends it; see disttrain doctor --help",
        add_help=False,
    )
    commands.add_parser(
        "launch",
        help="print a launch script to copy; see disttrain launch --help",
        add_help=False,
    )
    commands.add_parser(
        "compare",
        help="compare optimizers with several seeds; see disttrain compare --help",
        add_help=False,
    )
    commands.add_parser(
        "lr-range",
        help="find a learning rate by the range test; see disttrain lr-range --help",
        add_help=False,
    )
    commands.add_parser(
        "trajectory",
        help="follow optimizers on a function; see disttrain trajectory --help",
        add_help=False,
    )
    chosen, rest = parser.parse_known_args(arguments)
    if chosen.command == "demo":
        from disttrain.examples import images

        images.main(rest)
    if chosen.command == "inspect":
        from disttrain import inspect

        return inspect.main(rest)
    if chosen.command == "doctor":
        from disttrain import doctor

        return doctor.main(rest)
    if chosen.command == "launch":
        from disttrain.launching import scripts

        return scripts.main(rest)
    if chosen.command == "compare":
        from disttrain.experiments import compare_command

        return compare_command.main(rest)
    if chosen.command == "lr-range":
        from disttrain.experiments import lr_command

        return lr_command.main(rest)
    if chosen.command == "trajectory":
        from disttrain.experiments import trajectory_command

        return trajectory_command.main(rest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
