"""Optimizers in the style of TensorFlow Core: any object with `apply_gradients`."""

import contextlib
import inspect

import keras
import tensorflow as tf

from disttrain.optimizers import legacy_adapter
from disttrain.optimizers.legacy_adapter import Adapter, find_variables
from disttrain.optimizers.legacy_schedules import as_keras_3


@keras.saving.register_keras_serializable("disttrain")
class CoreOptimizer(Adapter):
    """A Keras 3 optimizer around an object that updates `tf.Variable`s itself.

    The object sees dense gradients, and runs once for all replicas of a process: what it computes
    from their common gradients is assigned on each.

    Args:
        optimizer: An object with `apply_gradients(grads, vars)` or
            `apply_gradients(grads_and_vars)`, and perhaps `build(vars)`.
        learning_rate: A number, a schedule, or a function without arguments; by default the
            object's own.
        **options: `name`, `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`.
    """

    def __init__(self, optimizer, learning_rate=None, **options):
        attribute = _rate_attribute(optimizer)
        if attribute is not None:
            rate = getattr(optimizer, attribute) if learning_rate is None else learning_rate
            learning_rate = as_keras_3(rate)
        elif learning_rate is not None:
            raise ValueError(
                f"{type(optimizer).__name__} has no attribute learning_rate that could be set to "
                f"{learning_rate!r}"
            )
        options = {key: value for key, value in options.items() if value is not None}
        super().__init__(optimizer, learning_rate, **options)
        self.__dict__["_rate_attribute"] = attribute

    def _create_state(self, values):
        known = {id(value) for value in values}
        if self._rate_attribute:
            # Its place is taken by the learning rate of this optimizer.
            known.add(id(getattr(self.wrapped, self._rate_attribute)))
        if callable(getattr(self.wrapped, "build", None)):
            self.wrapped.build(values)
        else:
            self._rehearse(values)
        slots = {}
        for name, entries in list(vars(self.wrapped).items()):
            entries = list(entries.values()) if isinstance(entries, dict) else entries
            if isinstance(entries, (list, tuple)) and _fit(entries, values, known):
                slots[name.strip("_")] = list(entries)
                known.update(id(entry) for entry in entries)
        return slots, find_variables(self.wrapped, known)

    def _rehearse(self, values):
        """Makes one update for the object to create its state, and takes the update back."""
        before = [(value, value.numpy()) for value in values]
        found = find_variables(self.wrapped, {id(value) for value in values})
        before += [(variable, variable.numpy()) for variable in found.values()]
        numbers = _numbers(self.wrapped)

        def create(next_creator, **arguments):
            variable = next_creator(**arguments)
            before.append((variable, variable.numpy()))
            return variable

        with tf.variable_creator_scope(create):
            self._call([tf.ones_like(value) for value in values], values)
        for variable, value in before:
            variable.assign(value)
        for name, number in numbers.items():
            setattr(self.wrapped, name, number)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        values = [getattr(variable, "value", variable) for variable in trainable_variables]
        pairs = list(zip(grads, values, strict=True))
        grads = [tf.convert_to_tensor(g) for g, _ in self._all_reduce_sum_gradients(pairs)]

        def update(strategy, grads, rate):
            # All replicas have the same gradients by now.
            shared = [strategy.experimental_local_results(grad)[0] for grad in grads]
            self._update(shared, values, strategy.experimental_local_results(rate)[0])

        tf.__internal__.distribute.interim.maybe_merge_call(
            update, tf.distribute.get_strategy(), grads, tf.convert_to_tensor(learning_rate)
        )

    def _call(self, grads, values):
        if _takes_pairs(self.wrapped.apply_gradients):
            self.wrapped.apply_gradients(list(zip(grads, values, strict=True)))
        else:
            self.wrapped.apply_gradients(grads, values)

    def _update(self, grads, values, rate):
        numbers = _numbers(self.wrapped)
        with self._with_rate(rate):
            self._call(grads, values)
        changed = {
            name: number
            for name, number in _numbers(self.wrapped).items()
            if numbers.get(name) != number
        }
        if changed and not tf.executing_eagerly():
            name, number = next(iter(changed.items()))
            raise RuntimeError(
                f"{type(self.wrapped).__name__} changes its attribute {name} from "
                f"{numbers.get(name)!r} to {number!r} in a step; inside of a tf.function that "
                "happens only once, when it is traced. Make it a tf.Variable and use assign_add"
            )

    @contextlib.contextmanager
    def _with_rate(self, rate):
        if self._rate_attribute is None:
            yield
            return
        own = getattr(self.wrapped, self._rate_attribute)
        if hasattr(own, "dtype"):
            rate = tf.cast(rate, own.dtype)
        setattr(self.wrapped, self._rate_attribute, rate)
        try:
            yield
        finally:
            setattr(self.wrapped, self._rate_attribute, own)

    def get_config(self):
        """Configuration: the object's class and its own configuration.

        Raises:
            ValueError: The object does not define `get_config`.
        """
        if not hasattr(self.wrapped, "get_config"):
            raise ValueError(
                f"{type(self.wrapped).__name__} does not define get_config, which saving a model "
                "and moving an optimizer into a strategy's scope need; define it, or build the "
                "optimizer in the scope and save weights alone"
            )
        described = {
            "class_name": legacy_adapter.class_name(type(self.wrapped)),
            "config": self.wrapped.get_config(),
        }
        return {**super().get_config(), "optimizer": described}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        rate, options = legacy_adapter.settings(config, custom_objects)
        kind = legacy_adapter.find_class(config["optimizer"]["class_name"], custom_objects)
        arguments = dict(config["optimizer"]["config"])
        make = getattr(kind, "from_config", None)
        optimizer = make(arguments) if make else kind(**arguments)
        return cls(optimizer, rate, **options)


def _takes_pairs(apply_gradients):
    """Whether a method takes `(grads_and_vars, ...)`, not `(grads, vars)`."""
    parameters = list(inspect.signature(apply_gradients).parameters.values())
    positional = [
        one
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]
    several = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    return len(positional) == 1 and not several


def _rate_attribute(optimizer):
    """Name of the attribute that is a learning rate and can be replaced, or `None`."""
    for name in ("learning_rate", "lr"):
        value = getattr(optimizer, name, None)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number or isinstance(value, (tf.Variable, tf.Tensor, keras.Variable)):
            return name if name in vars(optimizer) else None
    return None


def _numbers(optimizer):
    """Python numbers among an object's attributes; flags are not numbers."""
    return {
        name: value
        for name, value in vars(optimizer).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _fit(entries, values, known):
    return len(entries) == len(values) and all(
        isinstance(entry, tf.Variable) and id(entry) not in known for entry in entries
    )
