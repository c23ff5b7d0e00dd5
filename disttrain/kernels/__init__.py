"""Operations of our own, in C++, and how they get compiled.

The first process that needs them compiles them into the user's cache, which takes some seconds and
a C++ compiler. Where there is none, `load` says so by `None`, and the callers use TensorFlow's own
operations: slower, equal results. `python -m disttrain.kernels` compiles ahead and tells what is
wrong.
"""

import fcntl
import functools
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile

import tensorflow as tf

#: What is compiled; it includes the headers beside it.
_SOURCE = pathlib.Path(__file__).with_name("operations.cc")

_COMPILERS = ("c++", "g++", "clang++")

#: Nothing is contracted, so that the same numbers come out on all processors: replicas that round
#: differently drift apart.
_FLAGS = ("-std=c++17", "-O3", "-shared", "-fPIC", "-w", "-fno-math-errno", "-ffp-contract=off")

_SECONDS = 300

_WRITABLE = "set XDG_CACHE_HOME to a folder that can be written"


class CannotCompile(RuntimeError):
    """The operations cannot be had here; the message says why and what to do."""


def cache_folder():
    """Where compiled operations are kept, a `pathlib.Path`."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return pathlib.Path(cache).expanduser() / "disttrain" / "kernels"
    except RuntimeError as error:
        raise CannotCompile(f"the user has no home directory; {_WRITABLE}") from error


def library():
    """The file that holds, or will hold, the operations for the installed TensorFlow."""
    try:
        source = b"".join(
            path.read_bytes() for path in [_SOURCE, *sorted(_SOURCE.parent.glob("*.h"))]
        )
    except OSError as error:
        raise CannotCompile(
            f"the source of the operations is missing ({error}); install disttrain again"
        ) from error
    flags = [*_FLAGS, *tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    key = hashlib.sha256(source + " ".join(flags).encode()).hexdigest()[:16]
    return cache_folder() / f"tensorflow-{tf.__version__}-{platform.machine()}-{key}.so"


def identity(path):
    """What tells a library from one that takes its place; `None` where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def build(unusable=None):
    """Compiles the operations unless they are there.

    Args:
        unusable: `identity` of a library that is not good enough to be taken as it is.

    Returns:
        The library, a `pathlib.Path`.

    Raises:
        CannotCompile: There is no compiler, it fails, or the cache cannot be written.
    """
    target = library()

    def is_there():
        return _is_whole(target) and identity(target) != unusable

    if is_there():
        return target
    command = shlex.split(os.environ.get("CXX", "")) or _find_compiler()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be compiling the same.
        with open(target.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_there():
                _compile(command, target)
    except OSError as error:
        raise CannotCompile(
            f"the compiled operations cannot be kept ({error}); {_WRITABLE}"
        ) from error
    return target


def _find_compiler():
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise CannotCompile("there is no C++ compiler; install one, such as g++")
    return [compiler]


def _compile(command, target):
    compiler = command[0]
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = pathlib.Path(folder) / target.name
        command = [
            *command,
            *_FLAGS,
            *(str(_SOURCE), "-o", str(made)),
            *tf.sysconfig.get_compile_flags(),
            *tf.sysconfig.get_link_flags(),
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise CannotCompile(f"{compiler} took more than {_SECONDS} seconds") from error
        except OSError as error:
            raise CannotCompile(
                f"{compiler!r} cannot be run ({error.strerror}); set CXX to a C++ compiler, or "
                "unset it"
            ) from error
        if done.returncode != 0:
            raise CannotCompile(f"{compiler} failed:\n{done.stderr[-2000:]}")
        _seal(made)
        # Renamed, so that what stands in the cache is whole.
        os.replace(made, target)


def _seal(path):
    """Appends a checksum, which loaders pass over: to map a file that was cut short is fatal."""
    content = path.read_bytes()
    path.write_bytes(content + hashlib.sha256(content).digest())


def _is_whole(path):
    try:
        content = path.read_bytes()
    except OSError:
        return False
    size = hashlib.sha256().digest_size
    return hashlib.sha256(content[:-size]).digest() == content[-size:]


def load_or_say_why():
    """Compiles the operations unless they are there, and loads them.

    Returns:
        `(library, operations)`: a `pathlib.Path` and a module.

    Raises:
        CannotCompile: They cannot be compiled, or not loaded.
    """
    path = build()
    try:
        return path, tf.load_op_library(str(path))
    except tf.errors.OpError:
        # It may come from a host with other system libraries that shares the cache.
        path = build(unusable=identity(path))
    try:
        return path, tf.load_op_library(str(path))
    except tf.errors.OpError as error:
        raise CannotCompile(f"what was compiled cannot be loaded: {error.message}") from error


@functools.cache
def load():
    """The operations, a module, or `None` where they cannot be compiled or loaded."""
    try:
        return load_or_say_why()[1]
    except CannotCompile:
        return None


def in_xla():
    """Whether what is traced now will be compiled by XLA."""
    # Who only compiles does not need it; there is no public way to ask.
    from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def available():
    """The operations, where they can run: not under XLA, and not on a GPU; else `None`."""
    if _without or in_xla() or tf.config.list_logical_devices("GPU"):
        return None
    return load()


_without = False


def together(variables):
    """Handles of variables as one input of an operation, for each input takes its time at a step.

    TensorFlow keeps in order what uses the same input. Nothing else in the graph may use one of
    these variables by its own handle, unless it depends on the operation, or that on it.

    Args:
        variables: `tf.Variable`s on a CPU.

    Returns:
        A list of resource tensors: one, or as many as variables where they are not at hand.
    """
    handles = [variable.handle for variable in variables]
    with tf.init_scope():
        if not handles or not all(map(tf.is_tensor, handles)) or not tf.executing_eagerly():
            return handles
        with tf.device("CPU:0"):
            return [tf.stack(handles)]


def agree(replication):
    """Has all processes do without the operations if one has to; called by all of them.

    TensorFlow's operations round differently, and replicas are to stay equal to the last bit.

    Args:
        replication: A `disttrain.replication.Replication`.
    """
    global _without
    if replication.topology.processes > 1:
        without = load() is None
        with replication.pulse.waiting("the agreement on compiled operations"):
            _without = replication.any(without)
