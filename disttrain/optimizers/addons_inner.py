"""The optimizers inside of Addons' wrapping ones, and the variables that each of them trains."""

import inspect

import keras

from disttrain.optimizers.legacy import LegacyOptimizer, is_legacy
from disttrain.optimizers.legacy_import import tf_keras

KERAS_2 = ("Adadelta", "Adagrad", "Adam", "Adamax", "Ftrl", "Nadam", "RMSprop", "SGD")

#: What Keras 3's configurations hold and Keras 2's optimizers lack, with what means "off".
_OFF = {
    "weight_decay": None,
    "use_ema": False,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
_IGNORED = ("ema_momentum", "ema_overwrite_frequency")


def as_inner(optimizer):
    """Makes an adapter of whatever names or is an inner optimizer.

    Args:
        optimizer: A `LegacyOptimizer` or `AddonsOptimizer`, a name, a Keras configuration, a
            Keras 3 optimizer that Keras 2 has too, or a `tf_keras.optimizers.legacy.Optimizer`.

    Returns:
        A `LegacyOptimizer` without state.

    Raises:
        TypeError: It is something else.
        ValueError: The name is unknown, or the optimizer has state, clips, or settings that Keras 2
            does not know.
    """
    inner = _adapter(optimizer)
    if inner.built:
        raise ValueError(f"the inner optimizer {inner.name!r} has state already; hand in a new one")
    if "_is_inner" in vars(inner):
        raise ValueError(
            f"the inner optimizer {inner.name!r} is inside of another one; hand in a new one"
        )
    vars(inner)["_is_inner"] = True
    # Its state is saved as part of the outer one's.
    vars(inner)["save_own_variables"] = vars(inner)["load_own_variables"] = lambda store: None
    for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
        if getattr(inner, clip) is not None:
            raise ValueError(
                f"the inner optimizer has {clip}={getattr(inner, clip)!r}, which Addons would pass "
                f"over; give {clip} to the outer one"
            )
    return inner


def _adapter(optimizer):
    if isinstance(optimizer, str):
        return _by_name(optimizer, {})
    if isinstance(optimizer, dict):
        name = optimizer.get("class_name")
        if name in KERAS_2 and optimizer.get("registered_name") in (None, name):
            return _by_name(name, optimizer.get("config", {}))
        return _adapter(keras.saving.deserialize_keras_object(optimizer))
    if isinstance(optimizer, LegacyOptimizer):
        return optimizer
    if any(type(optimizer) is getattr(keras.optimizers, name) for name in KERAS_2):
        return _by_name(type(optimizer).__name__, optimizer.get_config())
    if is_legacy(optimizer):
        return LegacyOptimizer(optimizer)
    raise TypeError(
        "an inner optimizer must be made by from_addons, or be a name, a Keras configuration, a "
        f"Keras 3 optimizer such as {', '.join(KERAS_2)}, or a tf_keras.optimizers.legacy."
        f"Optimizer, not {optimizer!r}"
    )


def _by_name(name, config):
    from disttrain.optimizers.addons import OPTIMIZERS, from_addons

    if name in OPTIMIZERS:
        return from_addons(name, **config)
    known = {known.lower(): known for known in KERAS_2}
    if name.lower() not in known:
        raise ValueError(
            f"unknown inner optimizer {name!r}; choose one of Keras 2's {', '.join(KERAS_2)}, or "
            f"of Addons' {', '.join(OPTIMIZERS)}"
        )
    kind = getattr(tf_keras().optimizers.legacy, known[name.lower()])
    accepted = set(inspect.signature(kind).parameters) | {
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
    }
    config = {key: value for key, value in config.items() if key not in _IGNORED}
    for key, off in _OFF.items():
        if config.get(key, off) == off:
            config.pop(key, None)
    unknown = {key: value for key, value in config.items() if key not in accepted}
    if unknown:
        raise ValueError(
            f"Keras 2's {known[name.lower()]} does not know "
            f"{', '.join(f'{key}={value!r}' for key, value in unknown.items())}; leave that out"
        )
    rate = config.pop("learning_rate", None)
    return LegacyOptimizer(kind(**config), rate)


class Assignment:
    """Which optimizer of a `MultiOptimizer` trains which variables.

    Attributes:
        specs: What Addons' `MultiOptimizer` takes as `optimizer_specs`.
    """

    def __init__(self, pairs):
        self._pairs = pairs
        self.specs = [{"optimizer": inner.wrapped, "weights": []} for inner, _ in pairs]

    @property
    def optimizers(self):
        """The adapters of the optimizers, a list."""
        return [inner for inner, _ in self._pairs]

    @classmethod
    def of(cls, pairs):
        """Reads pairs of an optimizer and layers.

        Raises:
            TypeError: A pair is something else.
        """
        if isinstance(pairs, cls):
            return pairs
        try:
            pairs = [(inner, layers) for inner, layers in pairs]
        except (TypeError, ValueError):
            raise TypeError(
                f"optimizers_and_layers must be pairs of an optimizer and layers, not {pairs!r}"
            ) from None
        made = []
        for inner, layers in pairs:
            layers = list(layers) if isinstance(layers, (list, tuple)) else [layers]
            for layer in layers:
                if not isinstance(layer, (str, keras.Layer)):
                    raise TypeError(
                        f"a MultiOptimizer's layers must be Keras layers, or names of layers or "
                        f"paths of variables, not {layer!r}"
                    )
            made.append((as_inner(inner), layers))
        return cls(made)

    def create_weights(self, multi, variables):
        """Creates each optimizer's state for its own variables.

        Args:
            multi: Addons' `MultiOptimizer`.
            variables: All trainable variables, a list of `keras.Variable`.

        Raises:
            ValueError: A variable belongs to two optimizers, a name to no variable, or two
                variables have one name, by which Addons tells them apart.
        """
        names = [variable.value.name for variable in variables]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(
                f"MultiOptimizer tells variables apart by name, and there are two {min(twice)!r}"
            )
        taken = {}
        for (inner, layers), spec in zip(self._pairs, multi.optimizer_specs, strict=True):
            for layer in layers:
                own = [variable for variable in variables if _belongs(variable, layer)]
                if not own:
                    raise ValueError(
                        f"MultiOptimizer has an optimizer for {_name(layer)!r}, but no trainable "
                        f"variable belongs to it; there are {', '.join(v.path for v in variables)}"
                    )
                for variable in own:
                    if taken.setdefault(id(variable), inner) is not inner:
                        raise ValueError(
                            f"MultiOptimizer has two optimizers for {variable.path!r}; name it once"
                        )
            values = [v.value for v in variables if taken.get(id(v)) is inner]
            spec["weights"] = [value.name for value in values]
            inner.wrapped._create_all_weights(values)

    def own_variables(self):
        """Step counts and learning rates of the optimizers, a dictionary by name."""
        found = {}
        for i, (inner, _) in enumerate(self._pairs):
            found[f"iteration_{i}"] = inner._iterations.value
            if isinstance(inner._learning_rate, keras.Variable):
                found[f"learning_rate_{i}"] = inner._learning_rate.value
        return found

    def get_config(self):
        return {
            "pairs": [
                [keras.saving.serialize_keras_object(inner), [_name(layer) for layer in layers]]
                for inner, layers in self._pairs
            ]
        }


def _belongs(variable, layer):
    if isinstance(layer, str):
        return variable.path == layer or f"/{layer}/" in f"/{variable.path}/"
    return any(variable is own for own in layer.trainable_variables)


def _name(layer):
    return layer if isinstance(layer, str) else layer.name
