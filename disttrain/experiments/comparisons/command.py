"""`disttrain compare`: a comparison from a file, in a terminal."""

import argparse
import json
import os
import sys


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: Its arguments, by default those of the process.

    Returns:
        Exit status: 0, 2 where the configuration or an argument is wrong, 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        _start()
        from disttrain import replication as replication_module
        from disttrain.experiments.comparisons import comparing, configuration

        settings = configuration.read(options.configuration)
        for name in ("seeds", "epochs", "replication"):
            if getattr(options, name) is not None:
                settings[name] = getattr(options, name)
        replication = replication_module.resolve(settings.pop("replication", "auto"))
        quiet = options.quiet or options.json
        found = comparing.compare(
            **settings,
            replication=replication,
            directory=options.out or _beside(options.configuration),
            verbose=0 if quiet else 1,
        )
    except (ValueError, TypeError, RuntimeError, OSError) as error:
        if not _said_by_us(error):
            raise
        print(f"disttrain compare: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("disttrain compare: interrupted; the same command goes on", file=sys.stderr)
        return 130
    if replication.is_chief:
        _show(found, options)
    return 0


def _start():
    """Does what `import disttrain` leaves to its command, for most subcommands need no replicas."""
    from disttrain.replication import startup

    if os.path.basename(sys.argv[0]) == "disttrain":
        if os.environ.get("TF_CONFIG"):
            startup.join()
        if os.environ.get("DISTTRAIN_REPLICAS"):
            startup.divide()


def _show(found, options):
    if options.json:
        content = {
            "version": 1,
            "monitor": found.monitor,
            "best": found.best,
            "summary": found.summary,
            "tests": found.tests,
            "conclusions": found.conclusions,
        }
        print(json.dumps(content, indent=1, allow_nan=False))
        return
    from disttrain.experiments.comparisons import page, tables

    print(f"\n{tables.text(found)}\n\n{page.answer(found)}")
    out = options.out or _beside(options.configuration)
    print(f"Page: {os.path.join(out, 'index.html')}; tensorboard --logdir {out}/runs")


def _beside(path):
    """The directory of a comparison that names none."""
    return f"{os.path.splitext(os.path.basename(path))[0]}-comparison"


def _said_by_us(error):
    """Whether an error is a sentence of ours; what a user's own code raises keeps its traceback."""
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    return place.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "disttrain"


def _parser():
    parser = argparse.ArgumentParser(
        prog="disttrain compare",
        description="Trains each optimizer of a configuration with several seeds, and says which "
        "differences are more than chance: a table, curves, CSV files and one HTML page. Called "
        "again after an interruption, it goes on where it was.",
        epilog="docs/experiments.md describes the configuration.",
    )
    parser.add_argument("configuration", metavar="CONFIG", help="a .toml or .py file")
    parser.add_argument(
        "--out", metavar="DIR", help="where files go (by default CONFIG's name and -comparison)"
    )
    parser.add_argument("--seeds", type=_positive, metavar="N", help="so many seeds, from 0")
    parser.add_argument("--epochs", type=_positive, metavar="N", help="epochs of each run")
    parser.add_argument(
        "--replication", metavar="NAME", help="how replicas run: single, mirrored, ..."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, and nothing else")
    parser.add_argument("--quiet", action="store_true", help="no line for each run")
    return parser


def _positive(text):
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)
