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
import shutil
import subprocess
import tempfile

import tensorflow as tf

_SOURCE = pathlib.Path(__file__).with_name("statistics.cc")

_COMPILERS = ("c++", "g++", "clang++")

_SECONDS = 300


class CannotCompile(RuntimeError):
    """The operations cannot be compiled here; the message says why and what to do."""


def cache_folder():
    """Where compiled operations are kept, a `pathlib.Path`."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "disttrain" / "kernels"


def library():
    """The file that holds, or will hold, the operations for the installed TensorFlow."""
    flags = " ".join([*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()])
    key = hashlib.sha256(_SOURCE.read_bytes() + flags.encode()).hexdigest()[:16]
    return cache_folder() / f"tensorflow-{tf.__version__}-{platform.machine()}-{key}.so"


def build():
    """Compiles the operations unless they are there.

    Returns:
        The library, a `pathlib.Path`.

    Raises:
        CannotCompile: There is no compiler, it fails, or the cache cannot be written.
    """
    target = library()
    if target.exists():
        return target
    compiler = os.environ.get("CXX") or next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise CannotCompile("there is no C++ compiler; install one, such as g++")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be compiling the same.
        with open(target.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _compile(compiler, target)
    except OSError as error:
        raise CannotCompile(
            f"the compiled operations cannot be kept ({error}); set XDG_CACHE_HOME to a folder "
            "that can be written"
        ) from error
    return target


def _compile(compiler, target):
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = pathlib.Path(folder) / target.name
        command = [
            *compiler.split(),
            *("-std=c++17", "-O3", "-shared", "-fPIC", "-w", str(_SOURCE), "-o", str(made)),
            *tf.sysconfig.get_compile_flags(),
            *tf.sysconfig.get_link_flags(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CannotCompile(f"{compiler} took more than {_SECONDS} seconds") from error
        if done.returncode != 0:
            raise CannotCompile(f"{compiler} failed:\n{done.stderr[-2000:]}")
        # Renamed, so that what stands in the cache is whole.
        os.replace(made, target)


@functools.cache
def load():
    """The operations, a module, or `None` where they cannot be compiled or loaded."""
    try:
        return tf.load_op_library(str(build()))
    except (CannotCompile, tf.errors.NotFoundError):
        return None
