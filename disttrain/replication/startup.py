"""Joins the cluster of `TF_CONFIG` when disttrain is imported.

TensorFlow lets a process become a worker only before its first tensor, and the optimizer or the
dataset that a user makes before the trainer are tensors. So `import disttrain` starts the worker
where `TF_CONFIG` names several, and waits there until the others have started too.
"""

import os

from disttrain.replication.tf_config import check_tf_config, workers

_started = {}


def join():
    """Starts the worker if this process is one; what goes wrong is kept for `strategy` to raise."""
    text = os.environ.get("TF_CONFIG", "")
    if workers(text) < 2 or "HOROVOD_RANK" in os.environ:
        return
    try:
        check_tf_config(text)
    except ValueError:
        return  # Whoever asks for the replication is told.
    try:
        _started["strategy"] = _create()
    except Exception as error:
        _started["error"] = error


def strategy():
    """The `MultiWorkerMirroredStrategy` of this process.

    Raises:
        RuntimeError: TensorFlow was in use before disttrain was imported, or the worker could not
            be started.
    """
    if "strategy" not in _started:
        try:
            if "error" in _started:
                raise _started.pop("error")
            _started["strategy"] = _create()
        except RuntimeError as error:
            if "program startup" not in str(error):
                raise
            raise RuntimeError(
                "TensorFlow was in use before this process could join the cluster of TF_CONFIG; "
                "set it before Python starts, and import disttrain before the first tensor, "
                "variable or dataset is made"
            ) from error
    return _started["strategy"]


def _create():
    import tensorflow as tf

    return tf.distribute.MultiWorkerMirroredStrategy()
