"""Keras callbacks under several processes: which of them run where."""

import keras

#: These write files or speak to a server; on other processes than the chief they would do it again.
_WRITERS = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


def on_this_process(callbacks, is_chief):
    """The callbacks that this process runs: all on the chief, elsewhere those that write nothing.

    Args:
        callbacks: `None`, a callback, or a list of them.
        is_chief: Whether this process writes files.

    Raises:
        TypeError: One of them is no `keras.callbacks.Callback`.
    """
    listed = keras.tree.flatten(callbacks) if callbacks is not None else []
    for callback in listed:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TypeError(f"callbacks must be keras.callbacks.Callback objects, not {callback!r}")
    return [callback for callback in listed if is_chief or not isinstance(callback, _WRITERS)]


def restores(callbacks):
    """Whether a callback may replace the weights when training begins."""
    return any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks)


def watch_batches(callbacks):
    """Whether a callback looks at single batches."""
    base = keras.callbacks.Callback
    return any(
        type(callback).on_train_batch_end is not base.on_train_batch_end
        or type(callback).on_batch_end is not base.on_batch_end
        or _lambda_watches(callback)
        for callback in callbacks
    )


def _lambda_watches(callback):
    # LambdaCallback sets its functions on the instance.
    return "on_train_batch_end" in vars(callback)
