"""Settings by layer: learning rates, weight decay and freezing for groups of variables.

A group is named by the paths of its variables, so a configuration says all of it and no variable
has to exist yet.
"""

import dataclasses
import fnmatch
import math
import re

import keras

from disttrain.optimizers.wrapper import OptimizerWrapper, innermost

_MOST_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Group:
    """What is different for the variables that a pattern names.

    Attributes:
        pattern: A pattern of whole variable paths, or a tuple of them, with `*`, `?` and `[]` as in
            `fnmatch`; `*` also stands for slashes: `"encoder/*"`, `"*/bias"`. Some models put their
            own name in front, numbered where they were given none: `"*encoder/*"` finds both.
        learning_rate: What the optimizer's learning rate is multiplied by, above 0.
        weight_decay: `None` for the optimizer's own, `False` for none, or a number from 0 in its
            place. The decay of a step is this times the variable's own learning rate.
        frozen: Whether the variables, and their slots, stay as they are.
        regex: Whether the pattern is a regular expression for the whole path.

    Raises:
        ValueError: An attribute is outside of its range.
    """

    pattern: str | tuple
    learning_rate: float = 1.0
    weight_decay: float | bool | None = None
    frozen: bool = False
    regex: bool = False

    def __post_init__(self):
        if isinstance(self.pattern, list):
            object.__setattr__(self, "pattern", tuple(self.pattern))
        if not self.patterns or not all(p and isinstance(p, str) for p in self.patterns):
            raise ValueError(
                f"a Group needs a pattern of variable paths such as 'encoder/*', not "
                f"{self.pattern!r}"
            )
        if not _number(self.learning_rate) or self.learning_rate <= 0:
            raise ValueError(
                f"a Group's learning_rate multiplies the optimizer's and must be above 0, not "
                f"{self.learning_rate!r}; use frozen=True to keep variables as they are"
            )
        own = self.weight_decay is None or self.weight_decay is False
        if not own and (not _number(self.weight_decay) or self.weight_decay < 0):
            raise ValueError(
                "a Group's weight_decay is None for the optimizer's own, False for none, or a "
                f"number from 0, not {self.weight_decay!r}"
            )
        if self.regex:
            for pattern in self.patterns:
                re.compile(pattern)

    @property
    def patterns(self):
        """All patterns, a tuple."""
        return self.pattern if isinstance(self.pattern, tuple) else (self.pattern,)

    def unmatched(self, paths):
        """The patterns that match none of the paths, a list."""
        return [p for p in self.patterns if not any(self._match(p, path) for path in paths)]

    def matches(self, path):
        """Whether a variable of this path belongs to the group."""
        return any(self._match(pattern, path) for pattern in self.patterns)

    def _match(self, pattern, path):
        if self.regex:
            return re.fullmatch(pattern, path) is not None
        return fnmatch.fnmatchcase(path, pattern)


def layer_decay(layers, decay, top=1.0):
    """Groups whose learning rates fall from the last layer to the first.

    The last layer's rate is multiplied by `top`, the one before by `top * decay`, and so on.
    Howard and Ruder 2018, "Universal language model fine-tuning for text classification", section
    3.2 (discriminative fine-tuning), where `decay` is 1 / 2.6.

    Args:
        layers: A built `keras.Model`, whose layers with weights are taken in their order, each
            as one whole; or patterns of variable paths from the input to the output, each a string
            or a list of strings. The name of the model does not matter, but those of the layers do:
            name them where the model is built again, as `Trainer` does, for Keras numbers others.
        decay: Above 0 and at most 1.
        top: Multiplier of the last layer, above 0.

    Returns:
        A list of `Group`.

    Raises:
        ValueError: `decay` is out of range, or there is no layer with weights.
    """
    if not _number(decay) or not 0 < decay <= 1:
        raise ValueError(f"layer_decay needs a decay above 0 and at most 1, not {decay!r}")
    regex = isinstance(layers, keras.Model)
    layers = _patterns_of_layers(layers) if regex else list(layers)
    if not layers:
        raise ValueError(
            "layer_decay found no layer with trainable variables; build the model first, or give "
            "patterns of variable paths"
        )
    last = len(layers) - 1
    return [
        Group(layer, learning_rate=top * decay ** (last - i), regex=regex)
        for i, layer in enumerate(layers)
    ]


def _patterns_of_layers(model):
    """Regular expressions for each layer's variables, with or without the model's name in front."""
    prefix = f"{model.name}/"
    layers = [[v.path.removeprefix(prefix) for v in x.trainable_variables] for x in model.layers]
    return [[f"(?:.*/)?{re.escape(path)}" for path in layer] for layer in layers if layer]


@keras.saving.register_keras_serializable("disttrain")
class Grouped(OptimizerWrapper):
    """A Keras optimizer with its own learning rate, weight decay or rest for groups of variables.

    ```python
    Grouped(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01),
        [
            Group("backbone/*", learning_rate=0.1),
            Group("*/bias", weight_decay=False),
            Group("backbone/stem/*", frozen=True),
        ],
    )
    ```

    A variable that several groups match belongs to the last of them, with all of its settings; one
    that none matches is trained as by the optimizer itself. The learning rate that callbacks and
    TensorBoard show is the optimizer's, before multipliers.

    Gradients of frozen variables are still computed, reduced and counted in the norm that a clip
    looks at. Set `layer.trainable = False` before training to save that, too; such a variable is
    not among those that patterns are compared with.

    Args:
        inner: A `keras.optimizers.Optimizer`, its configuration, or its name.
        groups: A list of `Group`.
        name: Name of the optimizer.

    Raises:
        TypeError: `inner` is no Keras optimizer, or an element of `groups` no `Group`.
        ValueError: There are no groups, or the optimizer applies weight decay by a rule of its own
            and a group wants another amount; in `build`: a pattern matches no variable, or all
            variables are frozen.
    """

    def __init__(self, inner, groups, name=None):
        super().__init__(inner, name=name)
        groups = [Group(**group) if isinstance(group, dict) else group for group in groups]
        for group in groups:
            if not isinstance(group, Group):
                raise TypeError(
                    f"Grouped takes a list of disttrain.optimizers.Group, not {group!r}"
                )
        if not groups:
            raise ValueError("Grouped needs at least one Group; without any, leave it out")
        self.groups = tuple(groups)
        self._group_of = {}
        self._base = innermost(self.inner)
        self._hook()

    def _hook(self):
        """Puts the groups' settings where the innermost optimizer uses a rate or a decay."""
        base = self._base
        if isinstance(getattr(base.update_step, "__self__", None), Grouped):
            raise ValueError(
                f"the optimizer {base.name!r} is in a Grouped already; put all groups into one list"
            )
        keras_rule = keras.optimizers.Optimizer._apply_weight_decay
        for group in self.groups:
            if type(base)._apply_weight_decay is not keras_rule and group.weight_decay:
                raise ValueError(
                    f"{type(base).__name__} applies weight decay by a rule of its own, so "
                    f"weight_decay={group.weight_decay!r} of the group {group.pattern!r} has no "
                    "meaning there; only None and False do"
                )
        base.update_step = self._update_at_own_rate
        base._apply_weight_decay = self._apply_own_weight_decay
        base._use_weight_decay = self._has_weight_decay

    def group_of(self, variable):
        """The `Group` that a variable belongs to, or `None`."""
        return self._group_of.get(self._var_key(variable))

    def _build_state(self, variables):
        paths = [variable.path for variable in variables]
        for group in self.groups:
            for pattern in group.unmatched(paths):
                raise ValueError(
                    f"the pattern {pattern!r} of a Group matches no trainable variable; their "
                    f"paths are {_some(paths)}"
                )
        for variable in variables:
            for group in self.groups:
                if group.matches(variable.path):
                    self._group_of[self._var_key(variable)] = group
        if all(self._is_frozen(variable) for variable in variables):
            raise ValueError(
                f"all {len(variables)} trainable variables are frozen by {self.groups!r}; leave "
                "some to train"
            )

    def _is_frozen(self, variable):
        group = self.group_of(variable)
        return group is not None and group.frozen

    def _thawed(self, values, variables):
        pairs = [(x, v) for x, v in zip(values, variables, strict=True) if not self._is_frozen(v)]
        return [x for x, _ in pairs], [v for _, v in pairs]

    def _apply(self, gradients, variables):
        gradients, variables = self._thawed(gradients, variables)
        if any(gradient is not None for gradient in gradients):
            self.inner.apply(gradients, variables)
        else:
            self._iterations.assign_add(1)

    def perturb(self, gradients, variables, finite=None):
        """Perturbs the variables that are not frozen; see `SAM.perturb`."""
        return self.inner.perturb(*self._thawed(gradients, variables), finite)

    def restore(self, variables, saved):
        """See `SAM.restore`."""
        self.inner.restore([v for v in variables if not self._is_frozen(v)], saved)

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable at its group's learning rate."""
        self._update_at_own_rate(gradient, variable, learning_rate)

    def _update_at_own_rate(self, gradient, variable, learning_rate):
        group = self.group_of(variable)
        if group is not None and group.learning_rate != 1:
            learning_rate = keras.ops.multiply(learning_rate, group.learning_rate)
        type(self._base).update_step(self._base, gradient, variable, learning_rate)

    def _has_weight_decay(self, variable):
        group = self.group_of(variable)
        if group is not None and group.weight_decay is not None and not group.weight_decay:
            return False
        return type(self._base)._use_weight_decay(self._base, variable)

    def _apply_own_weight_decay(self, variables):
        """Applies the optimizer's rule once for each pair of learning rate and weight decay."""
        members = {}
        for variable in variables:
            group = self.group_of(variable)
            key = (group.learning_rate, group.weight_decay or None) if group else (1.0, None)
            members.setdefault(key, []).append(variable)
        for (rate, decay), group in members.items():
            type(self._base)._apply_weight_decay(_View(self._base, rate, decay), group)

    def get_config(self):
        return {
            **super().get_config(),
            "groups": [dataclasses.asdict(group) for group in self.groups],
        }


class _View:
    """An optimizer seen with another learning rate and weight decay.

    Keras's rule for weight decay reads both from the optimizer. Under `tf.distribute` it does so
    later, when the replicas have met, so they cannot be set and set back around the call.
    """

    def __init__(self, optimizer, rate, decay):
        self._optimizer = optimizer
        self._rate = rate
        self._decay = decay

    @property
    def learning_rate(self):
        return keras.ops.multiply(self._optimizer.learning_rate, self._rate)

    @property
    def weight_decay(self):
        return self._optimizer.weight_decay if self._decay is None else self._decay

    def __getattr__(self, name):
        return getattr(self._optimizer, name)


def _number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _some(paths):
    shown = ", ".join(repr(path) for path in paths[:_MOST_SHOWN])
    more = len(paths) - _MOST_SHOWN
    return shown if more <= 0 else f"{shown} and {more} more"
