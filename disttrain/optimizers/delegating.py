"""What every optimizer around another one shows of the one inside.

`keras.optimizers.Optimizer` keeps variables, a learning rate and settings of its own. Whatever of
that an optimizer around another one neither hands on nor refuses would act on its own, unused copy.
`tests/optimizers/test_delegating.py` lists all of it.
"""

import keras


def of_inner(name):
    """A property that is the attribute of that name of the inner optimizer."""

    def read(self):
        return getattr(self.inner, name)

    def write(self, value):
        # Keras's constructor sets its defaults before there is an inner optimizer.
        if "inner" in vars(self):
            setattr(self.inner, name, value)

    return property(read, write, doc=f"`{name}` of the inner optimizer.")


def refused(name, instead):
    """A property that is `None`, because the wrapper does by an argument what Keras does by it.

    Args:
        name: The attribute's name.
        instead: The argument, as a user writes it.
    """

    def write(self, value):
        if value is not None:
            raise ValueError(
                f"{name}={value!r} cannot be set on a {type(self).__name__}; make it with {instead}"
            )

    return property(lambda self: None, write, doc=f"`None`; see the argument `{instead}`.")


class DelegatingOptimizer(keras.optimizers.Optimizer):
    """A Keras optimizer around another one, its attribute `inner`."""

    weight_decay = of_inner("weight_decay")
    use_ema = of_inner("use_ema")
    ema_momentum = of_inner("ema_momentum")
    _model_variables_moving_average = of_inner("_model_variables_moving_average")
    _trainable_variables_indices = of_inner("_trainable_variables_indices")
    _iterations = of_inner("_iterations")
    _learning_rate = of_inner("_learning_rate")

    def __init__(self, name=None):
        super().__init__(learning_rate=0.0, name=name)
        self._state = []

    @property
    def variables(self):
        """The wrapper's own state, then the variables of the inner optimizer."""
        return [*self._state, *self.inner.variables]

    @property
    def iterations(self):
        """Number of updates that were applied; skipped steps do not count."""
        return self.inner.iterations

    @property
    def learning_rate(self):
        """Learning rate of the inner optimizer's next update."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner.learning_rate = value

    @property
    def optimizers(self):
        """The optimizers in a `keras.optimizers.MultiOptimizer` inside, which has no learning rate.

        Keras's callbacks set and log the learning rate of each.

        Raises:
            AttributeError: The inner optimizer is no such optimizer.
        """
        return self.inner.optimizers

    @property
    def two_gradients(self):
        """Whether a step needs a second gradient at perturbed weights; see `SAM`."""
        return getattr(self.inner, "two_gradients", False)

    def add_variable(self, *args, **kwargs):
        """As Keras does it; the variable becomes part of the wrapper's own state."""
        variable = super().add_variable(*args, **kwargs)
        self._state.append(variable)
        return variable

    def update_step(self, gradient, variable, learning_rate):
        """Left to the inner optimizer; `apply` does not call it here."""
        self.inner.update_step(gradient, variable, learning_rate)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """As Keras does it, on the inner optimizer, or on each one in a `MultiOptimizer`."""
        for one in [self.inner, *getattr(self.inner, "optimizers", ())]:
            one.exclude_from_weight_decay(var_list, var_names)

    def finalize_variable_values(self, var_list):
        """As Keras does it, on the inner optimizer."""
        self.inner.finalize_variable_values(var_list)

    def set_weights(self, weights):
        """Sets `variables`, the inner optimizer's included.

        Args:
            weights: An array for each of `variables`, in the same order.

        Raises:
            ValueError: The optimizer is not built, or a number or a shape differs.
        """
        if not self.built:
            raise ValueError(
                f"the optimizer {self.name!r} has no slots to set yet; call "
                "build(model.trainable_variables) before set_weights(weights)"
            )
        variables, weights = self.variables, list(weights)
        if len(weights) != len(variables):
            raise ValueError(
                f"set_weights got {len(weights)} arrays, but the optimizer {self.name!r} has "
                f"{len(variables)} variables; give one array for each of optimizer.variables"
            )
        for variable, weight in zip(variables, weights, strict=True):
            if tuple(variable.shape) != tuple(weight.shape):
                raise ValueError(
                    f"set_weights got an array of shape {tuple(weight.shape)} for "
                    f"{variable.path!r}, which has shape {tuple(variable.shape)}"
                )
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)
