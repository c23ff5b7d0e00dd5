"""Trains Keras 3 models on many replicas with TensorFlow and shows what the optimizer does.

The public names are imported when they are first used, so that `import disttrain` is quick.
"""

import importlib
import os
import sys

_HOMES = {
    "Trainer": "disttrain.trainer",
    "Telemetry": "disttrain.telemetry",
    "Checkpoint": "disttrain.checkpoints",
    "CustomStep": "disttrain.custom_step",
    "DistributedOptimizer": "disttrain.optimizers.distributed",
    "allgather_object": "disttrain.replication.object_collectives",
    "broadcast_object": "disttrain.replication.object_collectives",
    "ClipByGlobalNorm": "disttrain.gradients.clipping",
    "ClipByNorm": "disttrain.gradients.clipping",
    "ClipByValue": "disttrain.gradients.clipping",
    "AdaptiveClip": "disttrain.gradients.clipping",
    "AutoClip": "disttrain.gradients.clipping",
    "DynamicLossScale": "disttrain.gradients.loss_scale",
}
_MODULES = (
    "callbacks",
    "checkpoints",
    "data",
    "experiments",
    "gradients",
    "layers",
    "optimizers",
    "replication",
    "schedules",
    "telemetry",
)

__all__ = sorted([*_HOMES, *_MODULES])
__version__ = "0.1.0"


def __getattr__(name):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return importlib.import_module(f"disttrain.{name}")
    raise AttributeError(importlib.import_module("disttrain.from_horovod").missing(name, __name__))


def __dir__():
    return sorted([*globals(), *__all__])


importlib.import_module("disttrain.registration").register_with_keras()

if os.path.basename(sys.argv[0]) != "disttrain":
    if os.environ.get("TF_CONFIG"):
        importlib.import_module("disttrain.replication.startup").join()
    if os.environ.get("DISTTRAIN_REPLICAS"):
        importlib.import_module("disttrain.replication.startup").divide()
    if os.environ.get("HOROVOD_LOCAL_SIZE"):
        importlib.import_module("disttrain.replication.startup").share_cores()
