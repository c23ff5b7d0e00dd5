"""The optimizers of TensorFlow Addons 0.23.0 on Keras 3 models: `from_addons`.

Addons is imported when the first of them is made, with `legacy_import.py`: in Addons' own modules
`tf.keras` means `tf_keras`, and everywhere else it goes on meaning Keras 3, always.
"""

import importlib.metadata
import importlib.util
import inspect
import sys
import types
import warnings

import keras
import tensorflow as tf

from disttrain.optimizers import legacy_adapter
from disttrain.optimizers.addons_inner import Assignment, as_inner
from disttrain.optimizers.legacy import LegacyOptimizer, parts
from disttrain.optimizers.legacy_import import import_legacy
from disttrain.optimizers.legacy_schedules import (
    LegacySchedule,
    as_keras_3,
    is_legacy_schedule,
)

OPTIMIZERS = (
    "AdaBelief",
    "AdamW",
    "COCOB",
    "ConditionalGradient",
    "LAMB",
    "LazyAdam",
    "Lookahead",
    "MovingAverage",
    "MultiOptimizer",
    "NovoGrad",
    "ProximalAdagrad",
    "RectifiedAdam",
    "SGDW",
    "SWA",
    "Yogi",
)
SCHEDULES = (
    "CyclicalLearningRate",
    "ExponentialCyclicalLearningRate",
    "Triangular2CyclicalLearningRate",
    "TriangularCyclicalLearningRate",
)

_INSTALL = "run pip install 'disttrain[addons]'"


def from_addons(name, **arguments):
    """Makes a Keras 3 optimizer, or schedule, of one of TensorFlow Addons.

    The arguments are those of Addons, with these additions:

    - `learning_rate` may be a number, a schedule of Keras 3, of `tf_keras` or of Addons, or a
      function without arguments; so may `weight_decay` where Addons takes schedules for it. For
      `Lookahead`, `MovingAverage` and `SWA` it is the inner optimizer's. `COCOB` has none, and
      `MultiOptimizer` leaves them to its optimizers.
    - `clipnorm`, `clipvalue` and `global_clipnorm` are Keras 3's, so that
      `disttrain.DistributedOptimizer` can clip after the reduction.
    - `optimizer`, for `Lookahead`, `MovingAverage` and `SWA`: what `from_addons` returned, a name
      (`"LAMB"`, or one of Keras 2 such as `"SGD"`), a Keras configuration, a Keras 3 optimizer that
      Keras 2 has as well, or a `tf_keras.optimizers.legacy.Optimizer`.
    - `optimizers_and_layers`, for `MultiOptimizer`: pairs of such an optimizer and a layer, the
      name of a layer, the path of a variable, or a list of them. Variables that no pair names are
      not trained.

    What `apply_gradients` of `AdamW` and `SGDW` takes as `decay_var_list` has no place in
    `apply(grads, variables)`; use `exclude_from_weight_decay=[...]`, regular expressions for
    variables' paths, instead.

    Args:
        name: The class's name in `tfa.optimizers`, such as `"LAMB"`.
        **arguments: Its arguments.

    Returns:
        An `AddonsOptimizer`; for Addons' cyclical learning rates a Keras 3 schedule.

    Raises:
        ValueError: The name is unknown, or an argument has a wrong value.
        TypeError: An argument is unknown or has a wrong type.
        RuntimeError: TensorFlow Addons, tf-keras or the right typeguard is not installed.
    """
    if name in SCHEDULES:
        return LegacySchedule(getattr(import_addons().optimizers, name)(**arguments))
    if name not in OPTIMIZERS:
        raise ValueError(
            f"unknown Addons optimizer {name!r}; choose one of {', '.join(OPTIMIZERS)}, or a "
            f"schedule: {', '.join(SCHEDULES)}"
        )
    import_addons()
    return AddonsOptimizer(name, arguments)


def import_addons():
    """The `tensorflow_addons` package, in which `tf.keras` means `tf_keras`.

    Raises:
        RuntimeError: It, tf-keras or the right typeguard is not installed.
    """
    for module, package in (
        ("tensorflow_addons", "TensorFlow Addons"),
        ("tf_keras", "tf-keras, which TensorFlow Addons needs,"),
        ("typeguard", "typeguard, which TensorFlow Addons needs,"),
    ):
        if importlib.util.find_spec(module) is None:
            raise RuntimeError(f"{package} is not installed; {_INSTALL}")
    version = importlib.metadata.version("typeguard")
    if int(version.partition(".")[0]) >= 3:
        raise RuntimeError(f"TensorFlow Addons needs typeguard below 3, not {version}; {_INSTALL}")
    if "tensorflow_addons" in sys.modules:
        return import_legacy("tensorflow_addons")
    with warnings.catch_warnings():
        # It warns that it is no longer developed, and was not tested with this TensorFlow.
        warnings.simplefilter("ignore")
        return import_legacy("tensorflow_addons")


@keras.saving.register_keras_serializable("disttrain")
class AddonsOptimizer(LegacyOptimizer):
    """A Keras 3 optimizer around one of TensorFlow Addons; see `from_addons`.

    Its slots have Addons' names: `m` and `v` for `LAMB`, `slow` for `Lookahead`, `average` for
    `MovingAverage` and `SWA`.

    Args:
        addons: The class's name in `tfa.optimizers`.
        arguments: A dictionary of arguments; see `from_addons`.
    """

    def __init__(self, addons, arguments):
        arguments = dict(arguments)
        self.__dict__["_addons"] = addons
        self.__dict__["_assignment"] = None
        options = {
            key: arguments.pop(key)
            for key in ("name", *legacy_adapter.KERAS_ARGUMENTS)
            if key in arguments
        }
        rate = arguments.pop("lr", None)
        rate = arguments.pop("learning_rate", rate)
        arguments = {key: _schedule_or_same(value) for key, value in arguments.items()}
        if "optimizer" in arguments:
            arguments["optimizer"] = inner = as_inner(arguments["optimizer"])
            if rate is None and inner._has_rate:
                rate = inner._learning_rate
        if "optimizers_and_layers" in arguments:
            self.__dict__["_assignment"] = Assignment.of(arguments["optimizers_and_layers"])
            arguments["optimizers_and_layers"] = self._assignment
        # In a dictionary Keras would find the inner optimizer, and save it by itself as well.
        self.__dict__["_arguments"] = types.SimpleNamespace(**arguments)
        super().__init__(_make(addons, arguments, rate), rate, **options)
        for part in parts(self.wrapped):
            for choice in ("_do_use_weight_decay", "_do_layer_adaptation"):
                if hasattr(part, choice):
                    setattr(part, choice, _by_container(getattr(part, choice)))

    def _describe(self, optimizer):
        return None  # `get_config` has the arguments.

    def _create_weights(self, values):
        super()._create_weights(values)
        if self._assignment is not None:
            self._assignment.create_weights(self.wrapped, self._trainable_variables)

    def _create_state(self, values):
        slots, others = super()._create_state(values)
        if self._assignment is not None:
            others.update(self._assignment.own_variables())
        return slots, others

    @property
    def optimizers(self):
        """The optimizers of a `MultiOptimizer`, each with its learning rate.

        Raises:
            AttributeError: It is another optimizer.
        """
        if self._assignment is None:
            raise AttributeError(f"{self._addons} holds no optimizers with rates of their own")
        return self._assignment.optimizers

    def assign_average_vars(self, variables):
        """Sets variables to their averages; for `MovingAverage` and `SWA`.

        Args:
            variables: Trainable variables, a list of `keras.Variable`.

        Raises:
            ValueError: The optimizer keeps no averages, or has none of these variables yet.
        """
        self._check_averages(variables)
        with self._scope():
            self.wrapped.assign_average_vars([variable.value for variable in variables])

    def swap_weights(self):
        """Swaps all trainable variables with their averages; for `MovingAverage`.

        Raises:
            ValueError: The optimizer keeps no averages, or is not built.
        """
        self._check_averages(self._trainable_variables, "swap_weights")
        if self._distribution_strategy.num_replicas_in_sync == 1:
            self.wrapped._swap_weights()
        else:
            with self._scope():
                self.wrapped.swap_weights()

    def _check_averages(self, variables, method="assign_average_vars"):
        if not hasattr(self.wrapped, method):
            raise ValueError(
                f"{self._addons} has no {method}; MovingAverage has it"
                + (", and SWA" if method == "assign_average_vars" else "")
            )
        if not self.built:
            raise ValueError(f"{method} needs averages: build the optimizer or make a step first")
        self._check_variables_are_known(variables)

    def get_config(self):
        """Configuration: the name, and the arguments with the current learning rate."""
        config = legacy_adapter.Adapter.get_config(self)
        arguments = {key: _serialize(value) for key, value in vars(self._arguments).items()}
        return {**config, "addons": self._addons, "arguments": arguments}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        import_addons()
        rate, options = legacy_adapter.settings(config, custom_objects)
        arguments = {
            key: _deserialize(value, custom_objects) for key, value in config["arguments"].items()
        }
        options = {**options, "learning_rate": rate}
        arguments |= {key: value for key, value in options.items() if value is not None}
        return cls(config["addons"], arguments)


def _make(addons, arguments, rate):
    kind = getattr(import_addons().optimizers, addons)
    arguments = dict(arguments)
    if "learning_rate" in inspect.signature(kind).parameters and rate is not None:
        # Addons checks the type; the true one is the adapter's, and read from there at each step.
        arguments["learning_rate"] = 0.001
    if "optimizer" in arguments:
        arguments["optimizer"] = arguments["optimizer"].wrapped
    if "optimizers_and_layers" in arguments:
        arguments["optimizer_specs"] = arguments.pop("optimizers_and_layers").specs
    return kind(**arguments)


def _by_container(choice):
    """Asks about a replica's variable as about the one that all replicas share.

    Addons looks for a variable's name or identity, which are others on a replica, so that under
    `MirroredStrategy` it decays no weights at all once some are excluded.
    """

    def choose(variable):
        for thing in (variable, getattr(variable, "handle", None)):
            container = getattr(thing, "_distributed_container", None)
            if container is not None:
                return choice(container())
        return choice(variable)

    return choose


def _schedule_or_same(value):
    is_schedule = isinstance(value, keras.optimizers.schedules.LearningRateSchedule)
    return as_keras_3(value) if is_schedule or is_legacy_schedule(value) else value


def _serialize(value):
    if isinstance(value, Assignment):
        return value.get_config()
    if isinstance(value, (tf.Tensor, tf.Variable)):
        return value.numpy().tolist()
    return keras.saving.serialize_keras_object(value)


def _deserialize(value, custom_objects):
    if isinstance(value, dict) and "pairs" in value:
        return value["pairs"]
    return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)
