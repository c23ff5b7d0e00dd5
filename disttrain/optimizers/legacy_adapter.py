"""What the adapters of `legacy.py`, `legacy_core.py` and `addons.py` have in common.

An adapter is a Keras 3 optimizer that owns the step count, the learning rate and the clips, and
leaves the update to an object of another API. That object's `tf.Variable`s become visible as Keras
variables, so that saving, checkpoints and telemetry find them.
"""

import contextlib

import keras
import tensorflow as tf

from disttrain.optimizers.legacy_import import tf_keras

#: Arguments that Keras takes care of, for adapters of every kind.
KERAS_ARGUMENTS = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")


class Adapter(keras.optimizers.Optimizer):
    """A Keras 3 optimizer around an object of another API.

    Args:
        wrapped: The object that updates variables.
        learning_rate: A float, a Keras 3 schedule, a function without arguments, or `None` where
            the object has no single learning rate.
        **options: `name`, `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`.
    """

    #: It is made anew in another scope, for its variables are not Keras's alone.
    wraps_another_api = True

    def __init__(self, wrapped, learning_rate, **options):
        has_rate = learning_rate is not None
        super().__init__(learning_rate=learning_rate if has_rate else 1.0, **options)
        # Keras and TensorFlow would track its variables a second time as an ordinary attribute.
        self.__dict__["wrapped"] = wrapped
        self.__dict__["_has_rate"] = has_rate

    @property
    def learning_rate(self):
        """Learning rate of the next update; 1 where the optimizer has none."""
        return self._get_current_learning_rate()

    @learning_rate.setter
    def learning_rate(self, value):
        if not self._has_rate:
            raise ValueError(
                f"{type(self.wrapped).__name__} has no learning rate that could be set to {value!r}"
            )
        keras.optimizers.Optimizer.learning_rate.fset(self, value)

    def build(self, variables):
        """Creates the state of the wrapped optimizer.

        Args:
            variables: The trainable variables, a list of `keras.Variable`.
        """
        if self.built:
            return
        variables = list(variables)
        super().build(variables)
        with tf.init_scope(), self._scope():
            slots, others = self._create_state([variable.value for variable in variables])
        for name, entries in slots.items():
            self._add_slot(name, variables, entries)
        for name, entry in others.items():
            name = name.replace("/", "_")
            setattr(self, f"_state_{name}", self._adopt(entry, name))

    def _create_state(self, values):
        """Creates all state for the variables `values`, a list of `tf.Variable`.

        Returns:
            `(slots, others)`: a dictionary from slot name to a list with a `tf.Variable` or `None`
            for each of `values`, and one from name to `tf.Variable` for the rest.
        """
        raise NotImplementedError

    def _scope(self):
        if self._distribution_strategy.num_replicas_in_sync == 1 or tf.distribute.has_strategy():
            return contextlib.nullcontext()
        return self._distribution_strategy.scope()

    def _add_slot(self, name, variables, entries):
        adopted = [
            entry if entry is None else self._adopt(entry, f"{_flat(variable)}_{name}")
            for variable, entry in zip(variables, entries, strict=True)
        ]
        setattr(self, f"_slot_{name}", adopted)

    def _adopt(self, variable, name):
        """Shows a `tf.Variable` as a Keras variable, which shares its value."""
        with keras.name_scope(self.name):
            adopted = keras.Variable(
                variable, dtype=variable.dtype.base_dtype.name, trainable=False, name=name
            )
        self._track_variable(adopted)
        return adopted

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Not for adapters: weight decay is the wrapped optimizer's own.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"weight decay is done by {type(self.wrapped).__name__} itself; use its own argument, "
            "such as exclude_from_weight_decay=['bias']"
        )

    def load_own_variables(self, store):
        if len(store.keys()) != len(self.variables):
            raise ValueError(
                f"the saved state of the optimizer {self.name!r} has {len(store.keys())} variables "
                f"where it now has {len(self.variables)}; build it with the same arguments and "
                "model before loading"
            )
        super().load_own_variables(store)

    def get_config(self):
        config = super().get_config()
        kept = {key: config[key] for key in ("name", "learning_rate", *KERAS_ARGUMENTS)}
        return {**kept, "has_learning_rate": self._has_rate}

    def __repr__(self):
        return f"<{type(self).__name__} of {type(self.wrapped).__name__}>"


def settings(config, custom_objects=None):
    """Separates the adapter's own part of a configuration.

    Args:
        config: What `get_config` returned; `learning_rate` may be an object instead.
        custom_objects: As for Keras.

    Returns:
        `(learning_rate, options)`; the options fit `Adapter`'s.
    """
    rate = config.get("learning_rate") if config["has_learning_rate"] else None
    if isinstance(rate, dict):
        rate = keras.saving.deserialize_keras_object(rate, custom_objects=custom_objects)
    return rate, {key: config.get(key) for key in ("name", *KERAS_ARGUMENTS)}


def take_over_clips(optimizer):
    """Takes the clips away from an optimizer, for Keras or disttrain to do them.

    Args:
        optimizer: A legacy optimizer.

    Returns:
        A dictionary of the clips that were set.
    """
    clips = {}
    for name in ("clipnorm", "clipvalue", "global_clipnorm"):
        limit = getattr(optimizer, name, None)
        if limit is not None:
            clips[name] = limit
            setattr(optimizer, name, None)
    return clips


def class_name(kind):
    """The name by which `find_class` finds an optimizer's class.

    A class of the user's is registered with Keras, unless it is already.
    """
    if kind.__module__.startswith("tf_keras."):
        return f"tf_keras>{kind.__name__}"
    if keras.saving.get_registered_name(kind) == kind.__name__:
        name = f"{kind.__module__}.{kind.__qualname__}"
        keras.saving.register_keras_serializable("legacy", name)(kind)
    return keras.saving.get_registered_name(kind)


def find_class(name, custom_objects=None):
    """The class that `class_name` named.

    Raises:
        ValueError: It is not known in this process.
    """
    if name.startswith("tf_keras>"):
        return getattr(tf_keras().optimizers.legacy, name.removeprefix("tf_keras>"))
    short = name.rpartition(">")[2].rpartition(".")[2]
    for key in (name, short):
        kind = keras.saving.get_registered_object(key, custom_objects)
        if kind is not None:
            return kind
    raise ValueError(
        f"the class of the saved optimizer, {name!r}, is not known here; load the model with "
        f"custom_objects={{{short!r}: {short}}}, or decorate the class with "
        "@keras.saving.register_keras_serializable() and import it before loading"
    )


def find_variables(thing, known, skip=(), depth=4):
    """Searches an object's attributes for `tf.Variable`s.

    Args:
        thing: An object, a list, a tuple or a dictionary.
        known: `id`s of variables and other objects to leave out; the found variables are added.
        skip: Names of attributes to leave out.
        depth: How many objects or containers deep to look.

    Returns:
        A dictionary from a name such as `"moments_0"` to `tf.Variable`.
    """
    if isinstance(thing, keras.Variable):
        thing = thing.value
    if isinstance(thing, tf.Variable):
        if id(thing) in known:
            return {}
        known.add(id(thing))
        return {"": thing}
    if depth == 0:
        return {}
    found = {}
    for key, value in _children(thing):
        if key not in skip and id(value) not in known:
            for name, variable in find_variables(value, known, (), depth - 1).items():
                found["_".join(filter(None, (key, name)))] = variable
    return found


def _children(thing):
    if isinstance(thing, dict):
        return [
            (key if isinstance(key, str) else str(i), value)
            for i, (key, value) in enumerate(list(thing.items()))
        ]
    if isinstance(thing, (list, tuple)):
        return [(str(i), value) for i, value in enumerate(list(thing))]
    module = type(thing).__module__.partition(".")[0]
    if module in ("builtins", "numpy", "tensorflow", "keras") or not hasattr(thing, "__dict__"):
        return []
    return [
        (name.strip("_"), value)
        for name, value in list(vars(thing).items())
        if not name.startswith("_self_")
    ]


def _flat(variable):
    return variable.path.replace("/", "_")
