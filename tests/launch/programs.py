"""The training program that the launch scripts start in tests, and a look at what is left of it."""

import os
import pathlib
import time

import pytest

from tests._support.timeouts import TIMEOUT

#: Written beside a space; `loop` and `reduce` use real Horovod, the rest needs no TensorFlow.
TEXT = '''
import glob, json, os, signal, socket, sys, time

what, *arguments = sys.argv[1:]
rank = int(os.environ.get("HOROVOD_RANK", -1))
if rank < 0 and "TF_CONFIG" in os.environ:
    rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
sys.argv[0] = os.path.abspath(__file__)


def address():
    """Where this host is: the source of a packet to the network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.213.77.254", 9))
        except OSError:
            return None
        return probe.getsockname()[0]


if what == "write":
    seen = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with open(f"rank {rank}", "w") as file:
        json.dump({**seen, "address": address()}, file)
elif what == "fail":  # one rank, or all
    if arguments[0] in ("all", str(rank)):
        print("ValueError: rank " + arguments[0] + " is bad", file=sys.stderr)
        sys.exit(int(arguments[1]))
    time.sleep(5000)
elif what == "sleep":
    open(f"began {rank}", "w").close()
    print("sleeping", flush=True)
    time.sleep(5000)
elif what == "save":  # as a training that saves before it ends

    def save(*_):
        open(f"saved {rank}", "w").close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    open(f"began {rank}", "w").close()
    print("sleeping", flush=True)
    time.sleep(5000)
elif what == "stubborn":  # keeps running when it is asked to end
    signal.signal(signal.SIGTERM, lambda *_: open(f"asked {rank}", "w").close())
    open(f"began {rank}", "w").close()
    print("sleeping", flush=True)
    time.sleep(5000)
elif what in ("reduce", "loop"):
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import horovod.tensorflow as hvd
    import tensorflow as tf

    # A test may let them wait for each other for some seconds alone.
    open(f"ready {rank}", "w").close()
    while len(glob.glob("ready *")) < int(os.environ["HOROVOD_SIZE"]):
        time.sleep(0.05)
    hvd.init()
    total = float(hvd.allreduce(tf.constant(1.0), op=hvd.Sum))
    print(f"the sum is {total}", flush=True)
    while what == "loop":
        hvd.allreduce(tf.constant(1.0), op=hvd.Sum, name="again")
        print("reduced", flush=True)
        time.sleep(0.1)
'''


@pytest.fixture
def program(tmp_path):
    """The path of the program, in a folder of its own with a space in its name."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = folder / "the program.py"
    path.write_text(TEXT)
    return path


#: A `sitecustomize` that gives what a launcher has asked to end `SECONDS` to do so.
PATIENT = """
import importlib.machinery, sys

SECONDS = 5000


def processes(module):
    module.GRACE = SECONDS
    module.Processes.terminate.__defaults__ = (SECONDS, 0)


def safe_shell_exec(module):
    module.GRACEFUL_TERMINATION_TIME_S = SECONDS


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        change = {
            "disttrain.launching.processes": processes,
            "horovod.runner.common.util.safe_shell_exec": safe_shell_exec,
        }.get(name)
        if change is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (execute(module), change(module))
        return spec


sys.meta_path.insert(0, Finder)
"""


def patient(folder):
    """The environment in which launchers leave their processes 5000 s to end."""
    (folder / "sitecustomize.py").write_text(PATIENT)
    path = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(path)}


def wait_for(folder, pattern, count):
    """Waits until a folder has `count` files of a pattern."""
    end = time.monotonic() + TIMEOUT
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < end, f"there are no {count} files {pattern!r}"
        time.sleep(0.05)


def left(folder, seconds=TIMEOUT):
    """Ids of processes that work in a folder, once there is none or so many seconds are over."""
    end = time.monotonic() + seconds
    while True:
        found = list(_working_in(str(folder)))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.2)


def _working_in(folder):
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(path / "cwd") == folder and int(path.name) != os.getpid():
                yield int(path.name)
        except OSError:
            continue
