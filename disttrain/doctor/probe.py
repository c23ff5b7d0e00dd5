"""Tells what a host has, as JSON: `python -m disttrain.doctor.probe`, here or over ssh.

Each thing is tried by itself, and what goes wrong with it becomes a sentence.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import socket
import subprocess
import sys

#: Stands before the JSON, for libraries print what they like.
_MARK = "disttrain-probe: "

PACKAGES = ("tensorflow", "keras", "tensorboard", "numpy", "horovod", "tensorflow-addons")


def here(seconds):
    """What this machine has, a dictionary; with `"failed"` where even that cannot be told."""
    command = [sys.executable, "-m", "disttrain.doctor.probe"]
    try:
        done = subprocess.run(
            command, env=environment(), capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"importing TensorFlow took more than {seconds} s"}
    return read(done.stdout, done.stderr)


def environment():
    """That of a process that joins no cluster and says little."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TF_CONFIG", "DISTTRAIN_REPLICAS") and not name.startswith("HOROVOD_")
    }
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3"}


def read(output, errors):
    """What a probe has printed; with `"failed"` where it has not."""
    for line in output.splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    said = [line for line in errors.splitlines() if line.strip()]
    return {"failed": said[-1] if said else "it printed nothing"}


def main():
    """Prints what this process can use."""
    found = {
        "host": platform.node(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "address": _address(),
        "versions": {name: _version(name) for name in PACKAGES},
        "broken": {},
    }
    _try(found, "tensorflow", _tensorflow)
    _try(found, "keras", lambda: _loads("keras"))
    if found["versions"]["horovod"]:
        _try(found, "horovod", _horovod)
    if found["versions"]["tensorflow-addons"]:
        _try(found, "tensorflow-addons", _addons)
    _try(found, "disttrain", _disttrain)
    print(_MARK + json.dumps(found), flush=True)


def _try(found, name, look):
    try:
        found |= look()
    except Exception as error:
        found["broken"][name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _address():
    """Where this host believes its own name to be; `None` where nobody knows."""
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return None


def _loads(name):
    importlib.import_module(name)
    return {}


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tensorflow():
    tf = importlib.import_module("tensorflow")
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(g).get("device_name", "GPU") for g in gpus]
    build = tf.sysconfig.get_build_info()
    cuda = build.get("cuda_version") if build["is_cuda_build"] else None
    return {"gpus": names, "cuda": cuda, "onednn": _onednn()}


def _onednn():
    """Whether TensorFlow uses oneDNN; `None` where somebody has decided, or nobody can tell."""
    if "TF_ENABLE_ONEDNN_OPTS" in os.environ or platform.machine() != "x86_64":
        return None
    try:
        # Nothing public tells what TensorFlow has made of the processor.
        port = importlib.import_module("tensorflow.python.util._pywrap_util_port")
        return bool(port.IsMklEnabled())
    except (ImportError, AttributeError):
        return None


def _horovod():
    hvd = importlib.import_module("horovod.tensorflow")
    asked = ("gloo_built", "mpi_built", "nccl_built", "ddl_built", "ccl_built", "cuda_built")
    return {"horovod": {name.removesuffix("_built"): bool(getattr(hvd, name)()) for name in asked}}


def _addons():
    from disttrain import optimizers

    optimizers.from_addons("LAMB", learning_rate=0.1)
    return {}


def _disttrain():
    from disttrain import kernels, peers

    return {"code": peers.versions()["disttrain"], "compiled": bool(kernels.available())}


if __name__ == "__main__":
    main()
