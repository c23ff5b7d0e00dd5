#!/usr/bin/env python3
"""Trains on a Ray cluster by Horovod: ray_job.py --num-workers 4 program.py ARGS

Ray chooses the hosts. Each worker runs the program as `python program.py ARGS` would; the folder
has to be there on every host, or is sent there by `ray job submit --working-dir`.
"""

import argparse
import os
import runpy
import shlex
import sys
import traceback

#: Horovod's options as the variables that horovodrun makes of them.
VARIABLES = {
    "--timeline-filename": "HOROVOD_TIMELINE",
    "--autotune-log-file": "HOROVOD_AUTOTUNE_LOG",
    "--stall-check-warning-time-seconds": "HOROVOD_STALL_CHECK_TIME_SECONDS",
    "--stall-check-shutdown-time-seconds": "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS",
    "--gloo-timeout-seconds": "HOROVOD_GLOO_TIMEOUT_SECONDS",
}
FLAGS = {"--autotune": "HOROVOD_AUTOTUNE", "--no-stall-check": "HOROVOD_STALL_CHECK_DISABLE"}


def parser():
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--num-workers", type=int, default=2, metavar="N", help="processes (2)")
    made.add_argument("--cpus-per-worker", type=int, default=1, metavar="N", help="(1)")
    made.add_argument("--use-gpu", action="store_true", help="a GPU for each worker")
    made.add_argument("--address", default="auto", help="of the cluster; 'local' starts one here")
    made.add_argument("--network-interfaces", metavar="NAME,...", help="found by default")
    made.add_argument("--start-timeout", type=int, default=100, metavar="S", help="(100)")
    for option, variable in VARIABLES.items():
        made.add_argument(option, dest=variable, metavar="X", help=f"sets {variable}")
    for option, variable in FLAGS.items():
        made.add_argument(option, dest=variable, action="store_const", const="1")
    made.add_argument("--dry-run", action="store_true", help="print what would run")
    made.add_argument("program", help="the training program, a .py file")
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    return made


def train(program, arguments, folder):
    """One worker: runs the program; returns its exit status and what it raised, as text."""
    os.chdir(folder)
    sys.argv = [program, *arguments]
    # As Python itself does for a program.
    sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0, ""
        return 1, str(end.code)
    except BaseException:
        return 1, traceback.format_exc()
    return 0, ""


def main(arguments=None):
    options = parser().parse_args(arguments)
    names = [*VARIABLES.values(), *FLAGS.values()]
    variables = {name: getattr(options, name) for name in names if getattr(options, name)}
    if options.dry_run:
        given = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
        command = shlex.join([sys.executable, options.program, *options.arguments])
        print(f"on each of {options.num_workers} Ray workers:", *given, command)
        return 0
    if not os.path.exists(options.program):
        print(f"disttrain: {options.program} is not there.", file=sys.stderr)
        return 2
    try:
        import ray
        from horovod.ray import RayExecutor
    except ImportError as error:
        print(f"disttrain: {error}; install Ray: pip install 'ray>=2.9'", file=sys.stderr)
        return 2
    # The workers' output comes here by itself.
    ray.init(address=None if options.address == "local" else options.address)
    nics = set(options.network_interfaces.split(",")) if options.network_interfaces else None
    executor = RayExecutor(
        RayExecutor.create_settings(timeout_s=options.start_timeout, nics=nics),
        num_workers=options.num_workers,
        cpus_per_worker=options.cpus_per_worker,
        use_gpu=options.use_gpu,
    )
    try:
        executor.start(extra_env_vars={**variables, "PYTHONUNBUFFERED": "1"})
        ends = executor.run(train, args=[options.program, options.arguments, os.getcwd()])
    finally:
        executor.shutdown()
        ray.shutdown()
    for rank, (status, error) in enumerate(ends):
        if status:
            print(error, file=sys.stderr)
            print(
                f"disttrain: {options.program} failed in rank {rank} with status {status}.",
                file=sys.stderr,
            )
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
