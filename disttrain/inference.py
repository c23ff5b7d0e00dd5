"""`evaluate` and `predict`, which `Trainer` inherits."""

import contextlib

import keras

from disttrain import callbacks as callbacks_module
from disttrain import on_batch
from disttrain.progress import BatchProgress
from disttrain.trainer_method import trainer_method


class InferenceMethods:
    """What a trainer does without gradients."""

    @trainer_method
    def evaluate(
        self,
        x,
        y=None,
        *,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=True,
    ):
        """Computes the loss and the metrics over all examples.

        Args:
            x: As for `fit`.
            y: Targets, where `x` is arrays.
            batch_size: Global batch size for arrays, 32 by default.
            verbose: `"auto"` shows a progress bar on a terminal, 1 a line with the results as well,
                2 that line alone, 0 nothing.
            sample_weight: Weights for arrays.
            steps: Steps; by default the whole dataset. Where the data end before, they are
                evaluated with a warning.
            callbacks: Keras callbacks, with the running numbers in `on_test_batch_end`. Under
                several processes the numbers are read about 50 times an evaluation. Those that
                write files run on the chief alone.
            return_dict: Whether a dictionary is returned, else a list as in Keras.

        Returns:
            A dictionary: `"loss"`, each output's loss where there are several, and each metric.
            With `return_dict=False` a list of them, or the loss alone where there is nothing else.

        Raises:
            ValueError: The data do not fit, see the message.
            TypeError: The data are of no known kind.
            RuntimeError: The processes have read different batches.
        """
        feed = self._feeds.of(x, y, sample_weight, batch_size, steps)
        self._prepare(feed, training=False, targets=True)
        with self._around("Evaluation", feed, verbose, callbacks) as (listed, progress):
            logs = self._eval_loop.evaluate(feed, listed, progress)
        return logs if return_dict else on_batch.as_list(self._task, logs)

    @trainer_method
    def predict(self, x, *, batch_size=None, verbose="auto", steps=None, callbacks=None):
        """Computes the model's outputs for all examples.

        Args:
            x: As for `fit`; targets in a dataset are passed over.
            batch_size: Global batch size for arrays, 32 by default.
            verbose: As for `evaluate`.
            steps: As for `evaluate`.
            callbacks: Keras callbacks, with the outputs of each global batch in
                `on_predict_batch_end`. Those that write files run on the chief alone.

        Returns:
            NumPy arrays in the model's structure, in the order of the examples, on every process. A
            `tf.RaggedTensor` where examples of different batches have outputs of different shapes.

        Raises:
            ValueError: The data do not fit, see the message.
            TypeError: The data are of no known kind.
            RuntimeError: The processes have read different batches.
        """
        feed = self._feeds.of(x, None, None, batch_size, steps)
        if not feed.shared:
            raise ValueError(
                "predict puts outputs into the order of the examples, so every process has to read "
                "all of them; give a dataset or arrays, not a function of an InputContext"
            )
        self._prepare(feed, training=False)
        with self._around("Prediction", feed, verbose, callbacks) as (listed, progress):
            return self._eval_loop.predict(feed, listed, progress)

    @contextlib.contextmanager
    def _around(self, label, feed, verbose, callbacks):
        """The callbacks of this process and its progress, while an evaluation lasts."""
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"verbose must be 'auto', 0, 1 or 2, not {verbose!r}")
        chief = self.replication.is_chief
        listed = callbacks
        if not isinstance(callbacks, keras.callbacks.CallbackList):
            chosen = callbacks_module.on_this_process(callbacks, chief)
            listed = keras.callbacks.CallbackList(
                chosen, model=self.model, verbose=verbose, epochs=1, steps=feed.steps
            )
        progress = BatchProgress(label, feed.steps, verbose) if chief else None
        try:
            yield listed, progress
        finally:
            if progress is not None:
                progress.close()
