"""Lets a training that knows only whole epochs be measured slice by slice.

One call of `Trainer.fit` or `Model.fit` for each slice would count what begins and ends a call with
every slice. So the training runs on a thread and rests between slices; only one thread works at a
time.
"""

import threading

import keras


class Slices(keras.callbacks.Callback):
    """A training that goes on by so many steps at each call, and rests in between.

    Use it as a context manager: what is left of the training ends with it.

    Args:
        train: A function that takes a Keras callback and trains one long epoch with it. It runs on
            a thread of its own, so it should build the model too, for Keras keeps settings by
            thread.

    Attributes:
        steps: Steps that were asked for so far.
    """

    def __init__(self, train):
        super().__init__()
        self._train = train
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._may_go = threading.Semaphore(0)
        self._rests = threading.Semaphore(0)
        self.steps = 0
        self._ending = False
        self._error = None

    def __call__(self, steps):
        """Makes steps, and returns when they are done.

        Raises:
            RuntimeError: The training has come to its end.
        """
        self.steps += steps
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._may_go.release()
        self._rests.acquire()
        if self._error is not None:
            raise self._error

    def on_train_batch_begin(self, batch, logs=None):
        # A loop that makes several steps at once counts them here, too.
        if batch >= self.steps:
            self._rests.release()
            self._may_go.acquire()
        if self._ending:
            # Keras goes on to the end of the epoch, which will not come.
            if self.model.stop_training:
                raise _Ending
            self.model.stop_training = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ending = True
        if self._thread.ident is not None:
            self._may_go.release()
            self._thread.join()

    def _run(self):
        try:
            self._train(self)
            if not self._ending:
                raise RuntimeError(f"the training ended before its step {self.steps}")
        except _Ending:
            pass
        except BaseException as error:  # It is raised where the slice was asked for.
            self._error = error
        finally:
            self._rests.release()


class _Ending(Exception):
    """Ends a training in the middle of its epoch."""
