"""Optimizers of the old API on Keras 3 models: `from_legacy`.

Two kinds are taken: subclasses of Keras 2's optimizer (`add_slot`, `_resource_apply_dense`), which
`LegacyOptimizer` adapts, and objects of TensorFlow Core's style, which `legacy_core.py` adapts.
"""

import keras
import tensorflow as tf

from disttrain.optimizers import legacy_adapter
from disttrain.optimizers.legacy_adapter import Adapter, find_variables
from disttrain.optimizers.legacy_core import CoreOptimizer
from disttrain.optimizers.legacy_import import import_legacy
from disttrain.optimizers.legacy_schedules import as_keras_3, at_step, is_legacy_schedule

__all__ = ["LegacyOptimizer", "from_legacy", "import_legacy"]

_API = ("add_slot", "_create_slots", "_resource_apply_dense", "_set_hyper", "apply_gradients")

#: What Keras 2's optimizer keeps, but for state that a subclass adds.
_OWN = ("_hyper", "_slots", "_weights", "_iterations", "_deferred_slot_restorations")
_OWN = tuple(name.strip("_") for name in _OWN)


def from_legacy(optimizer, *, name=None):
    """Makes a Keras 3 optimizer of one that was written for another API.

    Keras 3 clips the gradient and holds the step count and the learning rate; the update itself is
    the given object's own code, unchanged. Set the learning rate on what is returned, not on
    `optimizer`.

    - **A subclass of Keras 2's optimizer**, `tf_keras.optimizers.legacy.Optimizer`. If its module
      says `tf.keras.optimizers.legacy.Optimizer`, import that with
      `disttrain.optimizers.legacy.import_legacy`, and it need not be changed.
    - **Any object with `apply_gradients(grads, vars)`** that updates `tf.Variable`s, as in
      TensorFlow's guides, or with `apply_gradients(grads_and_vars)`, as Keras's optimizers have
      it. Its state is found among its attributes. An attribute `learning_rate` or `lr` that is a
      number or a variable becomes the optimizer's. It is called once with gradients of 1 when it
      is built, so that it creates its state, which then is set back; an object that has a method
      `build(vars)` is asked to do so instead. What it changes in a step must be `tf.Variable`s:
      Python numbers do not change inside of a `tf.function`.

    To have it saved with a model it needs `get_config`; to have it loaded in another process, its
    class has to be given in `custom_objects` or registered with Keras.

    Args:
        optimizer: The object, which has made no step yet.
        name: Name of the optimizer.

    Returns:
        A `keras.optimizers.Optimizer`.

    Raises:
        TypeError: `optimizer` is neither of these.
        ValueError: It has state already.
    """
    if isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"{optimizer!r} is a Keras 3 optimizer already; use it as it is, without from_legacy"
        )
    if isinstance(optimizer, type):
        raise TypeError(
            f"from_legacy takes an optimizer, not the class {optimizer.__name__}; call it: "
            f"from_legacy({optimizer.__name__}(...))"
        )
    if is_legacy(optimizer):
        return LegacyOptimizer(optimizer, name=name)
    if callable(getattr(optimizer, "apply_gradients", None)):
        return CoreOptimizer(optimizer, name=name)
    raise TypeError(
        "from_legacy takes a tf_keras.optimizers.legacy.Optimizer or an object with a method "
        f"apply_gradients(grads, vars) or apply_gradients(grads_and_vars), not {optimizer!r}"
    )


def is_legacy(optimizer):
    """Whether an object is an optimizer of Keras 2's old API."""
    return all(hasattr(type(optimizer), name) for name in _API)


@keras.saving.register_keras_serializable("disttrain")
class LegacyOptimizer(Adapter):
    """A Keras 3 optimizer around an optimizer of Keras 2's old API.

    Args:
        optimizer: A `tf_keras.optimizers.legacy.Optimizer` that has made no step yet. Its own clips
            are taken over, and its own aggregation over replicas is switched off: gradients reach
            it reduced.
        learning_rate: A number, a schedule, or a function without arguments; by default the
            optimizer's own.
        **options: `name`, `clipnorm`, `clipvalue`, `global_clipnorm`, `loss_scale_factor`.

    Raises:
        ValueError: The optimizer has state already, or an unknown option is given.
    """

    def __init__(self, optimizer, learning_rate=None, **options):
        for part in parts(optimizer):
            if part._slots or part._hypers_created:
                raise ValueError(
                    f"{type(part).__name__} has state already, for other variables or of another "
                    "optimizer; hand in a new one"
                )
        options = {key: value for key, value in options.items() if value is not None}
        options = {**legacy_adapter.take_over_clips(optimizer), **options}
        options.setdefault("name", optimizer._name)
        rated = _with_learning_rate(optimizer)
        if rated is not None:
            rate = rated._hyper["learning_rate"] if learning_rate is None else learning_rate
            learning_rate = as_keras_3(rate)
        elif learning_rate is not None:
            raise ValueError(
                f"{type(optimizer).__name__} has no learning rate that could be set to "
                f"{learning_rate!r}"
            )
        if rated is not None:
            rated._hyper["learning_rate"] = 0.0  # For get_config, until there is a true one.
        settings = self._describe(optimizer)
        super().__init__(optimizer, learning_rate, **options)
        self.__dict__["_settings"] = settings
        if rated is not None:
            rated._hyper["learning_rate"] = self._rate
        count = optimizer._iterations
        if count is not None:
            self._iterations.assign(count.numpy())
            optimizer._weights.remove(count)
            optimizer._iterations = None
        # One step count, which the optimizer advances; what it adds up itself may depend on it.
        optimizer.iterations = self._iterations.value
        for part in parts(optimizer):
            part._aggregate_gradients = _reduced_already
            if self._distribution_strategy.num_replicas_in_sync > 1:
                part._distribution_strategy = self._distribution_strategy
            for key, value in part._hyper.items():
                part._hyper[key] = at_step(value, lambda part=part: part.iterations)

    def _describe(self, optimizer):
        """The optimizer's class and configuration, or `None` where it does not tell."""
        kind = type(optimizer)
        base = [base for base in kind.__mro__ if "add_slot" in vars(base)][-1]
        tells = kind.get_config is not base.get_config or kind.__init__ is base.__init__
        functions = [
            value
            for part in parts(optimizer)
            for value in part._hyper.values()
            if callable(value) and not is_legacy_schedule(value)
        ]
        if not tells or functions:
            return None
        config = tf.nest.map_structure(_plain, optimizer.get_config())
        return {"class_name": legacy_adapter.class_name(kind), "config": config}

    def _rate(self):
        return tf.convert_to_tensor(self.learning_rate)

    def _create_state(self, values):
        self._create_weights(values)
        known = {id(value) for value in [*values, *parts(self.wrapped), self._iterations.value]}
        slots, others = {}, {}
        for part in parts(self.wrapped):
            for name in part.get_slot_names():
                entries = slots.setdefault(name, [None] * len(values))
                for i, value in enumerate(values):
                    slot = _slot(part, value, name)
                    if slot is not None:
                        known.add(id(slot))
                        entries[i] = slot
        for i, part in enumerate(parts(self.wrapped)):
            for name, variable in find_variables(part, known, _OWN).items():
                others[name if i == 0 else f"{name}_{i}"] = variable
        return slots, others

    def _create_weights(self, values):
        self.wrapped._create_all_weights(values)

    def apply(self, grads, trainable_variables=None):
        """Makes one update, of which the wrapped optimizer counts the step.

        Args:
            grads: Gradients; dense tensors, `IndexedSlices` or `None`.
            trainable_variables: Their variables; by default those the optimizer was built with.

        Raises:
            ValueError: The variables are unknown, or every gradient is `None`.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "the optimizer does not know its variables yet: hand them to apply(grads, "
                    "variables) or call build(variables) first"
                )
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(f"there are {len(grads)} gradients for {len(variables)} variables")
        if not self.built:
            self.build(variables)
        self._check_variables_are_known(variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        if self.loss_scale_factor is not None:
            grads = [grad / self.loss_scale_factor for grad in grads]
        self._backend_apply_gradients(grads, variables)
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        values = [getattr(variable, "value", variable) for variable in trainable_variables]
        pairs = list(zip(grads, values, strict=True))
        # Under a strategy's own Model.fit Keras sums here; DistributedOptimizer has done so before.
        self.wrapped.apply_gradients(self._all_reduce_sum_gradients(pairs))

    def get_config(self):
        """Configuration: the class and the arguments that the optimizer was wrapped with.

        Raises:
            ValueError: The optimizer's class does not define `get_config`, or a hyperparameter
                other than the learning rate is a function.
        """
        if self._settings is None:
            raise ValueError(
                f"{type(self.wrapped).__name__} has no complete configuration, which saving a "
                "model and moving an optimizer into a strategy's scope need; define get_config and "
                "have no functions as hyperparameters, or make the optimizer in the scope and save "
                "weights alone"
            )
        return {**super().get_config(), "optimizer": self._settings}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        rate, options = legacy_adapter.settings(config, custom_objects)
        described = config["optimizer"]
        kind = legacy_adapter.find_class(described["class_name"], custom_objects)
        optimizer = kind.from_config(dict(described["config"]))
        return cls(optimizer, rate, **options)


def parts(optimizer):
    """An optimizer and the legacy optimizers that it wraps, depth first."""
    found = [optimizer]
    for value in list(vars(optimizer).values()):
        for inner in tf.nest.flatten(value) if isinstance(value, (list, dict)) else [value]:
            if is_legacy(inner):
                found += [part for part in parts(inner) if part not in found]
    return found


def _with_learning_rate(optimizer):
    """The one part that has a learning rate, or `None` where there are none or several."""
    rated = [part for part in parts(optimizer) if "learning_rate" in part._hyper]
    return rated[0] if len(rated) == 1 else None


def _reduced_already(grads_and_vars):
    return grads_and_vars


def _slot(part, value, name):
    try:
        return part.get_slot(value, name)
    except KeyError:
        return None


def _plain(value):
    """A hyperparameter as JSON takes it."""
    if hasattr(value, "numpy"):
        value = value.numpy()
    return value.tolist() if hasattr(value, "tolist") else value
