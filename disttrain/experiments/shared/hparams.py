"""A run in TensorBoard's HParams page: its hyperparameters, when it began, and how it ended.

A session is a run, a group the runs of one optimizer with several seeds. The summaries are the
plugin's own; they stand in files of their own beside the trainer's.
"""

import math
import numbers
import time

from tensorboard.compat.proto import event_pb2
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from disttrain.telemetry.recorder import EventFile


def write_start(folder, group, values):
    """Says what a run is; before its trainer opens its own file, for readers go by their order.

    Args:
        folder: The run's directory.
        group: Name of the group of runs that differ by their seed alone.
        values: Name of a hyperparameter to a number, text or truth value; others as their text.
    """
    plain = {str(name): _plain(value) for name, value in values.items() if value is not None}
    _write(folder, summary_v2.hparams_pb(plain, trial_id=group))


def write_end(folder, success):
    """Says that a run has ended, and whether it came to its end."""
    status = api_pb2.STATUS_SUCCESS if success else api_pb2.STATUS_FAILURE
    ended = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
    data = plugin_data_pb2.HParamsPluginData(session_end_info=ended)
    _write(folder, summary_v2._summary_pb(metadata.SESSION_END_INFO_TAG, data))


def of_optimizer(name, optimizer):
    """What the page shows of an optimizer: its name and class, and the numbers of its settings."""
    shown = {"optimizer": name, "class": type(optimizer).__name__}
    try:
        config = optimizer.get_config()
    except (NotImplementedError, TypeError, ValueError):
        return shown
    for key, value in config.items():
        if isinstance(value, dict) and "class_name" in value:
            value = value["class_name"]
        if key != "name" and isinstance(value, (bool, numbers.Real, str)):
            shown[key] = value
    return shown


def _plain(value):
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Real) and math.isfinite(value):
        return float(value)
    return str(value)


def _write(folder, summary):
    file = EventFile(folder)
    event = event_pb2.Event(summary=summary, wall_time=time.time(), step=0)
    file.write(event.SerializeToString())
    file.close()
