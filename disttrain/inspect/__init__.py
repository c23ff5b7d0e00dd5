"""`disttrain inspect`: what the optimizer did to every layer, in a terminal, without TensorBoard.

It reads event files through the plugin's own reader and health rules, and imports no TensorFlow, so
that it answers at once, on a login node as well. `reading` finds and reads runs, `summary` makes
numbers of them, `display` prints these.
"""

import argparse
import json
import logging
import sys

#: Version of what `--json` prints; a field that is added does not change it.
VERSION = 1


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: Its arguments, by default those of the process.

    Returns:
        Exit status: 0, or 2 where there is nothing to inspect.
    """
    options = _parser().parse_args(arguments)
    from disttrain.inspect import display, reading, summary

    # What a part's reader warns of is shown with the run.
    logging.getLogger("tensorboard_plugin").addHandler(logging.NullHandler())
    try:
        # TensorBoard's reader takes some seconds for each 100 MB.
        with display.waiting(f"Reading {options.logdir}"):
            found = [
                summary.summarize(name, *read, last=options.last)
                for name, read in reading.runs(options.logdir, options.run)
            ]
        if options.sort is not None:
            summary.sort(found, options.sort)
    except (reading.NothingToInspect, summary.UnknownStatistic) as error:
        print(f"disttrain inspect: {error}", file=sys.stderr)
        return 2
    # An output that cannot hold an arrow gets a question mark.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    if options.json:
        content = {"version": VERSION, "logdir": options.logdir, "runs": found}
        print(json.dumps(summary.jsonable(content), indent=1, allow_nan=False))
    else:
        display.show(found, options.logdir)
    return 0 if any(one["records"] for one in found) else 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="disttrain inspect",
        description="Shows the layers of a training in a table, what the run as a whole did, and "
        "what looks wrong, with what to try. Reads event files; needs neither TensorBoard running "
        "nor TensorFlow.",
        epilog="The table holds medians over the records. Columns that do not fit are left out; "
        "COLUMNS=160 sets another width.",
    )
    parser.add_argument("logdir", metavar="LOGDIR", help="directory of a run, or of several runs")
    parser.add_argument("--run", metavar="NAME", help="the run to show, where there are several")
    parser.add_argument(
        "--sort",
        metavar="STAT",
        help="sort layers by a statistic, largest first: update_ratio, gradient_norm, "
        "slot/velocity, parameters, ...; by default they are in model order",
    )
    parser.add_argument(
        "--last", type=_positive, metavar="N", help="look at the last N records alone"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, findings included")
    return parser


def _positive(text):
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return int(text)
