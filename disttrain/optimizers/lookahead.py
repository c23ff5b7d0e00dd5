"""Lookahead: slow weights that follow the weights of any optimizer.

For an exponential moving average of the weights, which training does not come back to, Keras has
`use_ema=True` on every optimizer.
"""

import keras
import tensorflow as tf

from disttrain.optimizers.wrapper import OptimizerWrapper


@keras.saving.register_keras_serializable("disttrain")
class Lookahead(OptimizerWrapper):
    """Every few steps goes back part of the way to where it was.

    Zhang et al. 2019, "Lookahead optimizer: k steps forward, 1 step back", algorithm 1: after each
    `sync_period` updates of the fast weights `w` by the inner optimizer,

    ```
    slow = slow + slow_step * (w - slow)
    w = slow
    ```

    The slow weights begin as the weights are before the first update. The inner optimizer's slots
    stay as they are at a synchronisation. Between two of them the model holds the fast weights; the
    paper evaluates the slow ones, so let epochs end at a multiple of `sync_period`.

    Args:
        inner: A `keras.optimizers.Optimizer`, its configuration, or its name.
        sync_period: Updates between two synchronisations, k in the paper.
        slow_step: Step size of the slow weights, alpha in the paper, above 0 and at most 1.
        name: Name of the optimizer.

    Raises:
        TypeError: `inner` is no Keras optimizer.
        ValueError: `sync_period` is no whole number from 1, or `slow_step` is out of range.
    """

    def __init__(self, inner, sync_period=6, slow_step=0.5, name=None):
        if isinstance(sync_period, bool) or not isinstance(sync_period, int) or sync_period < 1:
            raise ValueError(
                f"Lookahead needs a whole number of updates from 1 as sync_period, not "
                f"{sync_period!r}; 5 to 10 are usual"
            )
        if isinstance(slow_step, bool) or not 0 < slow_step <= 1:
            raise ValueError(
                f"Lookahead needs a slow_step above 0 and at most 1, not {slow_step!r}"
            )
        super().__init__(inner, name=name)
        self.sync_period = sync_period
        self.slow_step = float(slow_step)

    def _build_state(self, variables):
        self._slow_weights = [
            self.add_variable_from_reference(variable, name="slow") for variable in variables
        ]

    def _apply(self, gradients, variables):
        # At build the weights may not be there yet, for they are loaded or broadcast later.
        self._if(self.iterations == 0, self._begin)
        super()._apply(gradients, variables)
        self._if(self.iterations % self.sync_period == 0, self._synchronise)

    def _if(self, predicate, function):
        # Replicas assign their own copies, all the same, so no replica has to meet another here.
        def branch():
            for variable, slow in zip(self._trainable_variables, self._slow_weights, strict=True):
                function(variable, slow)
            return tf.constant(0)

        tf.cond(tf.convert_to_tensor(predicate), branch, lambda: tf.constant(0))

    def _begin(self, variable, slow):
        slow.assign(variable.value)

    def _synchronise(self, variable, slow):
        step = tf.cast(self.slow_step, slow.dtype)
        moved = slow.value + step * (tf.convert_to_tensor(variable.value) - slow.value)
        if variable.constraint is not None:
            moved = variable.constraint(moved)
        slow.assign(moved)
        variable.assign(moved)

    def get_config(self):
        return {
            **super().get_config(),
            "sync_period": self.sync_period,
            "slow_step": self.slow_step,
        }
