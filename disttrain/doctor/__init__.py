"""`disttrain doctor`: is all here that training needs, on this machine and on others?

`probe` tells what a host has, in a process of its own, so that a broken package breaks nothing
else; the modules beside it make findings of that, one subject each, and `display` prints them.
"""

import argparse
import concurrent.futures
import json
import sys

#: Version of what `--json` prints; a field that is added does not change it.
VERSION = 1


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: Its arguments, by default those of the process.

    Returns:
        Exit status: 0, 1 where training would fail, or 2 where the arguments are wrong.
    """
    options = _parser().parse_args(arguments)
    from disttrain.doctor import display
    from disttrain.launching import hosts

    try:
        machines = hosts.parse(options.hosts) if options.hosts else []
    except ValueError as error:
        print(f"disttrain doctor: {error}", file=sys.stderr)
        return 2
    with display.waiting("Looking at this machine"):
        found = examine(
            machines,
            port=options.port,
            ssh=(options.ssh_port, options.ssh_identity_file),
            seconds=options.seconds,
        )
    healthy = not any(one.level == "error" for one in found)
    if options.json:
        listed = [one.as_dict() for one in found]
        print(json.dumps({"version": VERSION, "healthy": healthy, "findings": listed}, indent=1))
    else:
        display.show(found)
    return 0 if healthy else 1


def examine(machines=(), port=None, ssh=(None, None), seconds=60):
    """Looks at everything.

    Args:
        machines: `disttrain.launching.hosts.Host`s to look at as well.
        port: A port that has to be free here, or `None`.
        ssh: Port of the hosts' ssh servers, and a private key; both may be `None`.
        seconds: How long each trial may take.

    Returns:
        A list of `Finding`.
    """
    from disttrain.doctor import boards, cluster, devices, others, packages, probe, reduction

    with concurrent.futures.ThreadPoolExecutor() as pool:
        own = pool.submit(probe.here, seconds)
        tried = pool.submit(reduction.check, machines, ssh, seconds)
        reached = pool.submit(others.reach, machines, ssh, seconds)
        return [
            *packages.check(own.result()),
            *devices.check(own.result()),
            *boards.check(),
            *cluster.check(port),
            *others.check(own.result(), reached.result()),
            *tried.result(),
        ]


def _parser():
    parser = argparse.ArgumentParser(
        prog="disttrain doctor",
        description="Tells what is installed and works, whether two processes can reduce, whether "
        "TF_CONFIG is right, and with -H whether hosts are reached and run the same; each finding "
        "with what mends it. Ends with 1 where training would fail.",
    )
    parser.add_argument("-H", "--hosts", metavar="HOST:N,...", help="hosts to look at as well")
    parser.add_argument("--ssh-port", type=int, metavar="PORT", help="of the hosts' ssh servers")
    parser.add_argument("--ssh-identity-file", metavar="FILE", help="private key for them")
    parser.add_argument("--port", type=int, metavar="PORT", help="a port that has to be free here")
    parser.add_argument(
        "--seconds", type=int, default=60, metavar="S", help="how long a trial may take (60)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
