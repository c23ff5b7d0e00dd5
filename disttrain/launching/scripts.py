"""`disttrain launch`: the scripts of `launch/` for who has installed with pip."""

import argparse
import pathlib
import sys

#: Kind to file and what it is for; the files are package data, a link to `launch/`.
KINDS = {
    "local": ("local.sh", "several replicas on this machine"),
    "multi_worker": ("multi_worker.sh", "workers with TF_CONFIG, here or on several hosts"),
    "hosts": ("hosts.sh", "Horovod on several hosts, over ssh"),
    "elastic": ("elastic.sh", "Horovod on hosts that come and go"),
    "discover_hosts": ("discover_hosts.sh", "tells elastic which hosts there are"),
    "slurm": ("slurm.sbatch", "a Slurm job"),
    "lsf": ("lsf.sh", "an LSF job"),
    "mpijob": ("mpijob.yaml", "a Kubeflow MPIJob"),
    "containerfile": ("Containerfile", "the image of the MPIJob"),
    "ray": ("ray_job.py", "a Ray cluster"),
}


def folder():
    """Where the scripts are."""
    return pathlib.Path(__file__).parent / "scripts"


def main(arguments=None):
    """Runs the command; returns its exit status: 0, or 2 where the file cannot be written."""
    options = _parser().parse_args(arguments)
    source = folder() / KINDS[options.kind][0]
    if options.to is None:
        sys.stdout.write(source.read_text())
        return 0
    target = pathlib.Path(options.to)
    if target.is_dir():
        target /= source.name
    try:
        # A file that is there may hold somebody's changes.
        with open(target, "w" if options.force else "x") as file:
            file.write(source.read_text())
        if source.read_bytes().startswith(b"#!"):
            target.chmod(target.stat().st_mode | 0o111)
    except FileExistsError:
        print(
            f"disttrain launch: {target} is there already; choose another name, or --force",
            file=sys.stderr,
        )
        return 2
    except OSError as error:
        print(
            f"disttrain launch: {target} cannot be written ({error.strerror}); choose another --to",
            file=sys.stderr,
        )
        return 2
    print(f"wrote {target}")
    return 0


def _parser():
    listed = "\n".join(f"  {kind:<15} {what}" for kind, (_, what) in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="disttrain launch",
        description="Prints a launch script, or writes it to a file, to copy and change.",
        epilog=f"kinds:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("kind", metavar="KIND", choices=KINDS, help="one of those below")
    parser.add_argument("--to", metavar="FILE", help="write to this file, or into this folder")
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    return parser
