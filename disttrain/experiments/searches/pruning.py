"""Ends a trial as soon as the health rules say that its training is broken."""

import keras

from disttrain.experiments.shared import runs


class HealthPruner(keras.callbacks.Callback):
    """Stops a training with the first finding of the gravest kind.

    These are NaN and infinities in weights or gradients, gradients that explode, and whatever else
    `tensorboard_plugin.health` calls an error. Warnings and notes stop nothing.

    Args:
        trainer: The `Trainer`, with telemetry and a log directory.
    """

    def __init__(self, trainer):
        super().__init__()
        self._trainer = trainer
        self._found = None

    def on_train_batch_begin(self, batch, logs=None):
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()

    def verdict(self):
        """`(state, reason)` of a trial that was pruned, else `None`."""
        self._look()  # The last findings come when the training is over.
        return (runs.PRUNED, self._found.message) if self._found is not None else None

    def _look(self):
        if self._found is None:
            errors = [found for found in self._trainer.findings if found.severity == "error"]
            if errors:
                self._found = errors[0]
                self._trainer.model.stop_training = True
