"""What the launch scripts call: `python -m disttrain.launching KIND OPTIONS -- COMMAND`."""

import argparse
import sys

from disttrain.launching import horovodrun, hosts, managed, workers


def main(arguments=None):
    """Runs a job; returns its exit status."""
    options = _parser().parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise SystemExit("disttrain: there is no program to run; name it after the options.")
    try:
        if options.kind == "horovodrun":
            return horovodrun.run(
                command,
                options.log,
                options.name,
                options.peers,
                (options.ssh_port, options.ssh_identity_file),
            )
        if options.kind in ("slurm", "lsf"):
            return managed.main(options.kind, options, command)
        job = workers.Job(
            command,
            hosts.parse(options.hosts),
            options.port,
            options.ssh_port,
            options.ssh_identity_file,
        )
        if options.dry_run:
            print("\n".join(job.described()))
            return 0
        if options.index is not None:
            return job.become(options.index)
        return job.run(options.log, options.name)
    except ValueError as error:
        raise SystemExit(f"disttrain: {error}") from None


def _parser():
    parser = argparse.ArgumentParser(prog="python -m disttrain.launching", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind, what in (
        ("horovodrun", "a horovodrun with its options"),
        ("workers", "the program that each worker runs, with TF_CONFIG set"),
        ("slurm", "the program that srun starts"),
        ("lsf", "the program that jsrun starts"),
    ):
        one = kinds.add_parser(kind)
        one.add_argument("--log", metavar="FILE", help="keep what every rank writes")
        one.add_argument("--name", default="the program", help="what a message calls the job")
        one.add_argument("--ssh-port", type=int)
        one.add_argument("--ssh-identity-file")
        one.add_argument("command", nargs=argparse.REMAINDER, help=what)
        if kind == "horovodrun":
            one.add_argument("--peers", default="", help="hosts to look at when they get lost")
        elif kind in ("slurm", "lsf"):
            managed.add_options(one)
        else:
            one.add_argument("--hosts", default="localhost:1", metavar="HOST:SLOTS,...")
            one.add_argument("--port", type=int, help="port of each host's first worker")
            one.add_argument("--index", type=int, help="be this worker, and start no other")
            one.add_argument("--dry-run", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
