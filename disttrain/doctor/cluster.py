"""Is `TF_CONFIG` right, and is this process's port free?"""

import json
import os
import socket

from disttrain import tf_config
from disttrain.doctor.findings import Finding


def check(port=None):
    """Looks at the environment.

    Args:
        port: A port that the user wants to be free, or `None`.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        yield Finding("TF_CONFIG", "ok", "not set; launch/multi_worker.sh sets it")
    else:
        try:
            tf_config.check_tf_config(text)
        except ValueError as error:
            yield Finding("TF_CONFIG", "error", str(error), "launch/multi_worker.sh sets it right")
        else:
            config = json.loads(text)
            task, own = config["task"], _own(config)
            yield Finding(
                "TF_CONFIG",
                "ok",
                f"{task['type']} {task['index']} of {tf_config.workers(text)}, at {own}",
            )
            number = own.rpartition(":")[2]
            if number.isdecimal():
                yield _port(int(number))
    if port is not None:
        yield _port(port)


def _own(config):
    return config["cluster"][config["task"]["type"]][int(config["task"]["index"])]


def _port(port):
    if not 0 < port < 2**16:
        return Finding(f"Port {port}", "error", "is none", "choose one from 1024 to 65535")
    with socket.socket() as probe:
        # As TensorFlow's server: what waits for an old connection to be forgotten is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
            probe.listen(1)
        except OSError as error:
            return Finding(
                f"Port {port}",
                "error",
                f"cannot be listened on ({error.strerror})",
                f"ss -ltnp 'sport = :{port}'  # shows who has it; end that, or choose another",
            )
    return Finding(f"Port {port}", "ok", "free")
