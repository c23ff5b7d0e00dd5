"""Several optimizers, each with a name and its own variables, behind the face of one.

`DistributedOptimizer` reduces, checks and unscales all gradients together; each optimizer then
clips and applies its own.
"""

import keras
import tensorflow as tf

from disttrain.gradients import clipping
from disttrain.gradients.clip_each import ClipEach
from disttrain.optimizers import fused, taking_over
from disttrain.optimizers.distributed import DistributedOptimizer

#: Settings of an optimizer that concern the whole step, to what does the same for the trainer.
_OF_THE_STEP = {
    "gradient_accumulation_steps": "Trainer(accumulate_steps=...)",
    "loss_scale_factor": "Trainer(loss_scale=...)",
    "ema_overwrite_frequency": "use_ema=True alone, which overwrites the weights after training",
}


@keras.saving.register_keras_serializable("disttrain")
class NamedOptimizers(keras.optimizers.Optimizer):
    """Optimizers that update together, each its own variables.

    `trainer.optimizer.inner["generator"]` is the optimizer with this name.

    Args:
        optimizers: A dictionary from name to `keras.optimizers.Optimizer`.
        owners: The name of the optimizer for each variable that `build` gets, in order.
        name: Name of the whole.

    Raises:
        ValueError: There are no optimizers, or one has a setting that concerns the whole step.
    """

    #: Keras saves each optimizer by itself, because they are in an attribute.
    state_is_in_parts = True

    def __init__(self, optimizers, owners=None, name=None):
        _check(optimizers)
        super().__init__(learning_rate=0.0, name=name)
        self.names = list(optimizers)
        self.optimizers = list(optimizers.values())
        self.owners = owners
        self._owner_of = {}
        # All count the same steps, and none of the learning rates is that of the others.
        self._variables.clear()
        self._iterations = self.optimizers[0]._iterations
        self._learning_rate = None

    def __getitem__(self, name):
        if name not in self.names:
            raise KeyError(f"there is no optimizer {name!r}; there are {self.names}")
        return self.optimizers[self.names.index(name)]

    @property
    def variables(self):
        """The variables of all optimizers, in order."""
        return [variable for optimizer in self.optimizers for variable in optimizer.variables]

    @property
    def learning_rate(self):
        """Each optimizer has its own; there is none for all.

        Raises:
            AttributeError: Always.
        """
        raise AttributeError(self._no_rate())

    @learning_rate.setter
    def learning_rate(self, value):
        raise AttributeError(self._no_rate())

    def _no_rate(self):
        names = getattr(self, "names", [])
        first = names[0] if names else "NAME"
        return (
            f"the optimizers {names} have a learning rate each; read or set "
            f"trainer.optimizer.inner[{first!r}].learning_rate"
        )

    def owner_of(self, variable):
        """The name of the optimizer that updates a variable."""
        return self._owner_of[self._var_key(variable)]

    def build(self, variables):
        """Creates the slots of all optimizers.

        Args:
            variables: The variables of all, a list of `keras.Variable`.

        Raises:
            ValueError: `owners` is missing, or does not fit the variables.
        """
        if self.built:
            return
        variables = list(variables)
        if self.owners is None or len(self.owners) != len(variables):
            given = "no names" if self.owners is None else f"{len(self.owners)} names"
            raise ValueError(
                f"owners has {given} for {len(variables)} variables; give the name of an "
                "optimizer for each variable"
            )
        for place, (variable, owner) in enumerate(zip(variables, self.owners, strict=True)):
            self._owner_of[self._var_key(variable)] = owner
            self._trainable_variables_indices[self._var_key(variable)] = place
        for name, optimizer in zip(self.names, self.optimizers, strict=True):
            optimizer.build([v for v in variables if self.owner_of(v) == name])
            taking_over.load_what_came_before_build(optimizer)
        self._trainable_variables = variables
        self.built = True

    def apply(self, grads, trainable_variables=None, own=None):
        """Lets each optimizer make its update.

        Args:
            grads: Gradients, dense or `IndexedSlices`.
            trainable_variables: Their variables; by default those it was built with.
            own: Gives the `tf.Variable` of this replica for a `keras.Variable`, which allows one
                operation for an update where there is one; or `None`.
        """
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        of_each = {name: ([], []) for name in self.names}
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            gradients, variables = of_each[self.owner_of(variable)]
            gradients.append(gradient)
            variables.append(variable)
        for name, optimizer in zip(self.names, self.optimizers, strict=True):
            gradients, variables = of_each[name]
            update = None if own is None else fused.find(optimizer, variables)
            if update is None:
                optimizer.apply(gradients, variables)
            else:
                one = tf.constant(1.0)
                update.apply(gradients, tf.ones([len(gradients)]), one, own)

    def update_step(self, gradient, variable, learning_rate):
        """Left to the optimizer of the variable; `apply` does not call it here."""
        self[self.owner_of(variable)].update_step(gradient, variable, learning_rate)

    def finalize_variable_values(self, var_list):
        """As Keras does it, on each optimizer."""
        for name, optimizer in zip(self.names, self.optimizers, strict=True):
            optimizer.finalize_variable_values([v for v in var_list if self.owner_of(v) == name])

    def set_weights(self, weights):
        """Sets `variables` to the values given in the same order."""
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def save_own_variables(self, store):
        """Saves nothing; see `state_is_in_parts`."""

    def load_own_variables(self, store):
        """Loads nothing; see `state_is_in_parts`."""

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        optimizers = zip(self.names, self.optimizers, strict=True)
        return {
            "name": self.name,
            "optimizers": {name: serialize(optimizer) for name, optimizer in optimizers},
            "owners": self.owners,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        made = {
            name: keras.saving.deserialize_keras_object(one, custom_objects=custom_objects)
            for name, one in config.pop("optimizers").items()
        }
        return cls(made, **config)


def _check(optimizers):
    if not optimizers:
        raise ValueError("there are no optimizers; give a dictionary from name to optimizer")
    seen = {}
    for name, optimizer in optimizers.items():
        if id(optimizer) in seen:
            raise ValueError(
                f"the optimizers {seen[id(optimizer)]!r} and {name!r} are the same object; give "
                "each its own, because an optimizer counts its own steps"
            )
        seen[id(optimizer)] = name
        if hasattr(optimizer, "optimizers") or getattr(optimizer, "two_gradients", False):
            raise ValueError(
                f"the optimizer {name!r} is a {type(optimizer).__name__}, which cannot be one of "
                "several; give a plain optimizer for each name"
            )
        for setting, instead in _OF_THE_STEP.items():
            value = getattr(optimizer, setting, None)
            if value is not None:
                raise ValueError(
                    f"the optimizer {name!r} has {setting}={value!r}, which would act on it alone; "
                    f"all optimizers update together, so use {instead}"
                )


def wrapped(optimizers, replication, settings):
    """Named optimizers in a wrapper that belongs to the replication, in its scope.

    Args:
        optimizers: A dictionary from name to a Keras optimizer, its name or its configuration.
        replication: A `disttrain.replication.Replication`.
        settings: Arguments of `DistributedOptimizer`. The clip acts on the gradients of each
            optimizer by itself.

    Raises:
        TypeError: One is no Keras optimizer.
        ValueError: As for `NamedOptimizers`, or a clip is set twice.
    """
    made, clips = {}, {}
    for name, optimizer in optimizers.items():
        with replication.scope():
            if isinstance(optimizer, (str, dict)):
                optimizer = keras.optimizers.get(optimizer)
        wrappers = (DistributedOptimizer, keras.optimizers.LossScaleOptimizer)
        if isinstance(optimizer, wrappers) or not isinstance(optimizer, keras.optimizers.Optimizer):
            raise TypeError(
                f"the optimizer {name!r} must be a keras.optimizers.Optimizer or its name, not "
                f"{optimizer!r}; the trainer wraps it itself, and loss_scale= of the Trainer "
                "scales the losses"
            )
        made[name] = optimizer
    _check(made)
    for name, optimizer in made.items():
        made[name] = replication.adopt(optimizer)
        own, common = clipping.take_over(made[name]), settings.get("clip")
        if own is not None and common is not None:
            raise ValueError(
                f"both the optimizer {name!r} ({own!r}) and the trainer (clip={common!r}) clip; "
                "set only one, otherwise gradients would be clipped twice"
            )
        clips[name] = own or common
    clip = ClipEach(clips) if any(clips.values()) else None
    with replication.scope():
        inner = NamedOptimizers(made)
        return DistributedOptimizer(inner, replication=replication, **{**settings, "clip": clip})
