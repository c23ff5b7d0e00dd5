"""What has to happen before the first tensor, and so when disttrain is imported.

TensorFlow lets a process become a worker only before its first tensor, and the optimizer or the
dataset that a user makes before the trainer are tensors. So `import disttrain` starts the worker
where `TF_CONFIG` names several, and waits there until the others have started too. The same goes
for the logical CPU devices of as many mirrored replicas as `DISTTRAIN_REPLICAS` says, and for the
threads of Horovod's ranks.
"""

import os

from disttrain.tf_config import check_tf_config, workers

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


def divide():
    """Makes the devices that `DISTTRAIN_REPLICAS` asks for: that many GPUs, else logical CPUs.

    Raises:
        ValueError: It is no number, or there are fewer GPUs.
        RuntimeError: TensorFlow was in use before disttrain was imported.
    """
    text = os.environ["DISTTRAIN_REPLICAS"]
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"DISTTRAIN_REPLICAS must be a number of replicas from 1, not {text!r}")
    count = int(text)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus and len(gpus) < count:
        raise ValueError(
            f"DISTTRAIN_REPLICAS={count} asks for a GPU for each replica, and there are "
            f"{len(gpus)}; ask for fewer, or set CUDA_VISIBLE_DEVICES=-1 to train on the CPU"
        )
    try:
        if gpus:
            tf.config.set_visible_devices(gpus[:count], "GPU")
        else:
            cpu = tf.config.list_physical_devices("CPU")[0]
            devices = [tf.config.LogicalDeviceConfiguration()] * count
            tf.config.set_logical_device_configuration(cpu, devices)
    except RuntimeError as error:
        raise RuntimeError(
            "TensorFlow was in use before disttrain could divide the CPU among "
            f"DISTTRAIN_REPLICAS={count}; import disttrain before the first tensor, variable or "
            "dataset is made"
        ) from error


def share_cores():
    """Gives Horovod's ranks of one host threads for their part of its cores, not each for all.

    Nothing changes where `TF_NUM_INTRAOP_THREADS` is set, or where a launcher has given each rank
    cores of its own.
    """
    ranks = int(os.environ["HOROVOD_LOCAL_SIZE"])
    cores = os.cpu_count()
    if ranks > 1 and len(os.sched_getaffinity(0)) == cores:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, cores // ranks)))


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
