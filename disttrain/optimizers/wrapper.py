"""What optimizers that wrap another share: one set of settings, one state, one sum of gradients.

`SAM`, `Lookahead` and `Grouped` build on it. A wrapper has no learning rate, step count, clip or
loss scale of its own: it shows those of the optimizer inside, so that whoever reads or clears them
on the wrapper, `DistributedOptimizer` above all, means the inner ones.
"""

import keras

from disttrain.optimizers.delegating import DelegatingOptimizer, of_inner
from disttrain.optimizers.distributed import DistributedOptimizer


class OptimizerWrapper(DelegatingOptimizer):
    """A Keras optimizer around another one.

    Args:
        inner: A `keras.optimizers.Optimizer` that has not built its slots yet, its configuration,
            or its name.
        name: Name of the optimizer.

    Raises:
        TypeError: `inner` is no such optimizer, or one that has to stand outside of this one.
        ValueError: `inner` has built its slots, or was made in the scope of another strategy.
    """

    clipnorm = of_inner("clipnorm")
    global_clipnorm = of_inner("global_clipnorm")
    clipvalue = of_inner("clipvalue")
    loss_scale_factor = of_inner("loss_scale_factor")
    gradient_accumulation_steps = of_inner("gradient_accumulation_steps")
    ema_overwrite_frequency = of_inner("ema_overwrite_frequency")

    def __init__(self, inner, name=None):
        inner = keras.optimizers.get(inner) if isinstance(inner, (str, dict)) else inner
        owner = type(self).__name__
        _check_inner(inner, owner)
        super().__init__(name)
        if inner._distribution_strategy is not self._distribution_strategy:
            raise ValueError(
                f"the optimizer {inner.name!r} was made in another tf.distribute scope than the "
                f"{owner} around it; make both in the same scope"
            )
        self.inner = inner
        # Whoever keeps the wrapper from summing over replicas means the optimizer inside, too.
        inner._all_reduce_sum_gradients = lambda pairs: self._all_reduce_sum_gradients(pairs)
        # Keras also visits the inner optimizer, whose state is saved as part of the wrapper's.
        inner.save_own_variables = inner.load_own_variables = lambda store: None

    def perturb(self, gradients, variables, finite=None):
        """Left to the inner optimizer; see `SAM.perturb`."""
        return self.inner.perturb(gradients, variables, finite)

    def restore(self, variables, saved):
        """Left to the inner optimizer; see `SAM.restore`."""
        self.inner.restore(variables, saved)

    def build(self, variables):
        """Creates the slots of the inner optimizer and the wrapper's own.

        Args:
            variables: The trainable variables, a list of `keras.Variable`.

        Raises:
            ValueError: The inner optimizer accumulates gradients, which Keras does inside of it.
        """
        if self.built:
            return
        if self.gradient_accumulation_steps:
            raise ValueError(
                f"the optimizer in {type(self).__name__} has gradient_accumulation_steps="
                f"{self.gradient_accumulation_steps}, and would take steps that the wrapper does "
                "not see; use disttrain.DistributedOptimizer(..., accumulate_steps=...) around it"
            )
        variables = list(variables)
        self.inner.build(variables)
        self._build_state(variables)
        self._trainable_variables = variables
        self.built = True

    def _build_state(self, variables):
        """Makes the wrapper's own variables, with `add_variable`."""

    def apply(self, grads, trainable_variables=None):
        """Makes one update.

        Args:
            grads: Gradients, dense, `IndexedSlices` or `None`.
            trainable_variables: Their variables; by default those the optimizer was built with.

        Raises:
            ValueError: Their numbers differ, or the variables are not known.
        """
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "the optimizer does not know its variables yet: hand them to apply(grads, "
                    "variables) or call build(variables) first"
                )
            trainable_variables = self._trainable_variables
        grads, variables = list(grads), list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(f"there are {len(grads)} gradients for {len(variables)} variables")
        if not self.built:
            self.build(variables)
        self._apply(grads, variables)

    def _apply(self, gradients, variables):
        self.inner.apply(gradients, variables)

    def get_config(self):
        return {"name": self.name, "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the optimizer again.

        Args:
            config: What `get_config` returned. A `"learning_rate"` in it, a number, a schedule or a
                function, takes the place of the inner optimizer's.
            custom_objects: As in Keras.
        """
        config = dict(config)
        inner = config.pop("inner")
        rate = config.pop("learning_rate", None)
        if isinstance(inner, dict):
            if rate is not None:
                inner = {**inner, "config": {**inner["config"], "learning_rate": rate}}
            inner = keras.saving.deserialize_keras_object(inner, custom_objects=custom_objects)
        return cls(inner, **config)


def innermost(optimizer):
    """The optimizer inside of all wrappers."""
    while isinstance(optimizer, OptimizerWrapper):
        optimizer = optimizer.inner
    return optimizer


def _check_inner(inner, owner):
    outer = (DistributedOptimizer, keras.optimizers.LossScaleOptimizer)
    if isinstance(inner, outer):
        name = type(inner).__name__
        raise TypeError(
            f"a {name} has to stand outside: {name}({owner}(...)), not {owner}({name}(...))"
        )
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise TypeError(
            f"{owner} wraps a keras.optimizers.Optimizer or its name, not {inner!r}; give one such "
            "as keras.optimizers.SGD(0.1)"
        )
    if inner.built:
        raise ValueError(
            f"the optimizer {inner.name!r} has built its slots already; give {owner} a new one"
        )
