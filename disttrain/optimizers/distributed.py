"""The contract of a step, written once: reduce, check, unscale, clip, apply.

`Trainer`, `Model.fit` and hand-written loops all pass through `DistributedOptimizer`. How replicas
speak to each other is the replication's; what the inner optimizer does with a gradient is its own.
"""

import dataclasses
import functools
import warnings

import keras
import tensorflow as tf

from disttrain import replication as replication_module
from disttrain.gradients import clipping, loss_scale
from disttrain.gradients.norms import norms_and_finite

REDUCTIONS = ("mean", "sum")


@dataclasses.dataclass(frozen=True)
class Step:
    """What one step knows when it has applied, or skipped, its update.

    Attributes:
        variables: The trainable variables that had a gradient.
        gradients: Their reduced, unscaled gradients before clipping, dense.
        norms: The gradients' L2 norms, float32 of shape `[len(variables)]`.
        finite: Boolean scalar; `False` where the step was skipped.
        clip_factor: float32 scalar.
        loss_scale: float32 scalar, 1 without loss scaling.
        learning_rate: float32 scalar.
        extras: The reduced extras of the step, a list of float32 scalars.
    """

    variables: list
    gradients: list
    norms: tf.Tensor
    finite: tf.Tensor
    clip_factor: tf.Tensor
    loss_scale: tf.Tensor
    learning_rate: tf.Tensor
    extras: list


@keras.saving.register_keras_serializable("disttrain")
class DistributedOptimizer(keras.optimizers.Optimizer):
    """Wraps a Keras optimizer so that all replicas make the same, right update.

    Each step: the gradients are summed over all replicas; if one element of the sum is not finite
    the step is skipped on every replica, and neither `iterations` nor the schedule advances; else
    they are divided by the loss scale, clipped, and handed to the inner optimizer.

    With `reduction="mean"` the reduced gradient is the mean of the replicas' gradients, so each
    replica's loss should be the mean over its own examples. `Model.fit` does that by itself. In a
    hand-written loop call `loss = optimizer.scale_loss(loss)` before the gradient where the loss
    comes from a Keras loss object under `tf.distribute` (Keras divides it by the number of
    replicas, `scale_loss` undoes that) or where there is a loss scale; without both it may be left
    out. With `reduction="sum"` the gradients are added as they are.

    Args:
        inner: A `keras.optimizers.Optimizer`, its configuration, or its name. Its own `clipnorm`,
            `clipvalue`, `global_clipnorm` and `loss_scale_factor` are taken over and cleared, for
            Keras would apply them before the reduction. A `LossScaleOptimizer` is unwrapped.
        clip: A `disttrain.gradients.clipping.Clip`, or `None`.
        loss_scale: `None`, a number, `"dynamic"` or a `disttrain.DynamicLossScale`.
        reduction: `"mean"` or `"sum"`.
        replication: As for `disttrain.Trainer`. `"auto"` takes the strategy in whose scope it is
            built, else Horovod where its launcher started the process, else one replica.
        name: Name of the optimizer.

    Raises:
        TypeError: `inner` or `clip` is something else.
        ValueError: Both `inner` and the arguments clip or scale, or `reduction` is unknown.
    """

    def __init__(
        self,
        inner,
        *,
        clip=None,
        loss_scale=None,
        reduction="mean",
        replication="auto",
        name=None,
    ):
        inner = keras.optimizers.get(inner) if isinstance(inner, (str, dict)) else inner
        inner, clip, scale = _take_over(inner, clip, loss_scale)
        if reduction not in REDUCTIONS:
            raise ValueError(
                f"unknown reduction {reduction!r}; choose one of {', '.join(map(repr, REDUCTIONS))}"
            )
        super().__init__(learning_rate=0.0, name=name or f"distributed_{inner.name}")
        self.inner = inner
        self.clip = clip
        self.loss_scale = scale
        self.reduction = reduction
        self._wanted_replication = replication
        self._replication = None
        self._state = []
        self._warned = False
        # Callbacks such as SwapEMAWeights look for these on the optimizer of the model.
        self.use_ema = inner.use_ema
        self.ema_momentum = inner.ema_momentum
        self.ema_overwrite_frequency = inner.ema_overwrite_frequency
        # Gradients arrive reduced; Keras would sum them over the replicas once more.
        inner._all_reduce_sum_gradients = _already_reduced
        # Keras only warns where a saved state does not fit, and goes on without it.
        inner.load_own_variables = functools.partial(_load_or_raise, inner)

    @property
    def replication(self):
        """The `Replication` that reduces the gradients."""
        if self._replication is None:
            wanted = self._wanted_replication
            self._replication = (
                replication_module.current()
                if wanted == "auto"
                else replication_module.resolve(wanted)
            )
        return self._replication

    @property
    def variables(self):
        """State of the loss scale, then the variables of the inner optimizer."""
        return [*self._state, *self.inner.variables]

    @property
    def iterations(self):
        """Number of updates that were applied; skipped steps do not count."""
        return self.inner.iterations

    @property
    def learning_rate(self):
        """Learning rate of the next update."""
        return self.inner.learning_rate

    @learning_rate.setter
    def learning_rate(self, value):
        self.inner.learning_rate = value

    def build(self, variables):
        """Creates the slots of the inner optimizer and the state of the loss scale.

        Args:
            variables: The trainable variables, a list of `keras.Variable`.
        """
        if self.built:
            return
        if not self.inner.built:
            self.inner.build(variables)
        self._build_loss_scale()
        self._trainable_variables = list(variables)
        if self.use_ema:
            self._model_variables_moving_average = self.inner._model_variables_moving_average
        self.built = True

    def _build_loss_scale(self):
        if self.loss_scale is not None and not self._state:
            with tf.init_scope():
                self.loss_scale.build(self._add_state)

    def _add_state(self, name, dtype, value):
        variable = self.add_variable(
            shape=(), dtype=dtype, initializer=keras.initializers.Constant(value), name=name
        )
        self._state.append(variable)
        return variable

    def current_loss_scale(self):
        """The factor on the loss, a float32 scalar; 1 without loss scaling."""
        if self.loss_scale is None:
            return tf.constant(1.0)
        # Before `build` a traced function would keep a constant for ever.
        self._build_loss_scale()
        return tf.convert_to_tensor(self.loss_scale.value.value)

    def scale_loss(self, loss):
        """Multiplies a replica's loss as `apply` expects it.

        Args:
            loss: A replica's loss, a floating scalar, as Keras's loss objects return it.

        Returns:
            The loss times the loss scale and, for `reduction="mean"` under `tf.distribute`, times
            the number of replicas by which Keras has divided it.
        """
        factor = self.current_loss_scale()
        if self.reduction == "mean" and tf.distribute.has_strategy():
            factor *= tf.distribute.get_strategy().num_replicas_in_sync
        return loss * tf.cast(factor, loss.dtype)

    def apply(self, grads, trainable_variables=None):
        """Reduces the gradients over all replicas and makes one update.

        Args:
            grads: This replica's gradients of the scaled loss; dense tensors, `IndexedSlices` or
                `None`. Called in replica context by every replica.
            trainable_variables: Their variables; by default those the optimizer was built with.

        Raises:
            ValueError: Every gradient is `None`, or their number does not fit the variables.
        """
        if trainable_variables is None:
            if not self.built:
                raise ValueError(
                    "the optimizer does not know its variables yet: hand them to apply(grads, "
                    "variables) or call build(variables) first"
                )
            trainable_variables = self._trainable_variables
        replicas = self.replication.replicas if self.reduction == "mean" else 1
        self.apply_shares(list(grads), list(trainable_variables), divisor=replicas)

    def apply_shares(self, grads, variables, divisor=1, extras=(), observer=None):
        """Sums each replica's share of the gradients, and makes one update.

        Args:
            grads: This replica's share of the gradients of the scaled loss.
            variables: Their variables.
            divisor: A Python number by which the sum is divided.
            extras: float32 scalars to sum over the replicas with the same communication.
            observer: An object with `before(variables)` and `after(state, step)`, called on the
                first replica of a process around the update; see `disttrain.telemetry`.

        Returns:
            `(sums, finite)`: the reduced extras, a list, and whether the update was applied.
        """
        if len(grads) != len(variables):
            raise ValueError(f"there are {len(grads)} gradients for {len(variables)} variables")
        if not self.built:
            with tf.init_scope():
                self.build(variables)
        gradients, variables = self._without_none(grads, variables)
        gradients = [tf.convert_to_tensor(g) for g in gradients]  # sums duplicate slices
        extras = list(extras)

        reduced = self.replication.reduce_sum([*gradients, *extras], "gradients")
        gradients, sums = reduced[: len(gradients)], reduced[len(gradients) :]
        norms, finite = norms_and_finite(gradients)

        scale = self.current_loss_scale()
        if self.loss_scale is not None or divisor != 1:
            inverse = 1.0 / (scale * divisor)
            gradients = [g * tf.cast(inverse, g.dtype) for g in gradients]
            norms *= inverse
        clipped, factor = gradients, tf.constant(1.0)
        if self.clip is not None:
            clipped, factor = self.clip(gradients, norms)
            factor = tf.where(finite, factor, 1.0)

        if not self.replication.is_first_local_replica():
            observer = None
        rate = tf.cast(tf.convert_to_tensor(self.inner.learning_rate), tf.float32)
        state = observer.before(variables) if observer else None
        self.replication.cond(finite, lambda: self._update(clipped, variables), self._skip)
        if observer:
            step = Step(variables, gradients, norms, finite, factor, scale, rate, sums)
            observer.after(state, step)
        return sums, finite

    def _update(self, gradients, variables):
        self.inner.apply(gradients, variables)
        if self.loss_scale is not None:
            self.loss_scale.after_finite()

    def _skip(self):
        if self.loss_scale is not None:
            self.loss_scale.after_overflow()

    def _without_none(self, gradients, variables):
        missing = [v.path for g, v in zip(gradients, variables, strict=True) if g is None]
        if len(missing) == len(variables):
            raise ValueError(
                f"no variable has a gradient ({_some(missing)}); does the loss depend on the model?"
            )
        if missing and not self._warned:
            self._warned = True
            warnings.warn(
                f"{len(missing)} of {len(variables)} trainable variables have no gradient and will "
                f"not be trained: {_some(missing)}",
                stacklevel=4,
            )
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        return [g for g, _ in pairs], [v for _, v in pairs]

    def update_step(self, gradient, variable, learning_rate):
        """Left to the inner optimizer; `apply` does not call it here."""
        self.inner.update_step(gradient, variable, learning_rate)

    def finalize_variable_values(self, var_list):
        self.inner.finalize_variable_values(var_list)

    def save_own_variables(self, store):
        # Keras saves `inner` by itself, as it is an attribute.
        for variable in self._state:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store):
        _same_variables(self, self._state, store)
        for variable in self._state:
            variable.assign(store[variable.name])

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "inner": serialize(self.inner),
            "clip": serialize(self.clip) if self.clip else None,
            "loss_scale": serialize(self.loss_scale) if self.loss_scale else None,
            "reduction": self.reduction,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("inner", "clip", "loss_scale"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return cls(config.pop("inner"), **config)


def _already_reduced(grads_and_vars):
    return grads_and_vars


def _same_variables(optimizer, variables, store):
    if len(store.keys()) != len(variables):
        raise ValueError(
            f"the saved state of the optimizer {optimizer.name!r} has {len(store.keys())} "
            f"variables where it now has {len(variables)}; build it with the same inner optimizer, "
            "loss scale and model before loading"
        )


def _load_or_raise(optimizer, store):
    _same_variables(optimizer, optimizer.variables, store)
    type(optimizer).load_own_variables(optimizer, store)


def _some(names, most=5):
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _take_over(inner, clip, scale):
    """Separates what Keras would do before the reduction from the optimizer itself."""
    if isinstance(inner, DistributedOptimizer):
        raise TypeError("the optimizer is a DistributedOptimizer already; wrap the inner one once")
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        if scale is not None:
            raise ValueError(
                "the optimizer is a LossScaleOptimizer and loss_scale is given too; give one"
            )
        scale = loss_scale.DynamicLossScale(
            inner.initial_scale, growth_interval=inner.dynamic_growth_steps
        )
        inner = inner.inner_optimizer
    if not isinstance(inner, keras.optimizers.Optimizer):
        raise TypeError(
            f"the optimizer must be a keras.optimizers.Optimizer or its name, not {inner!r}"
        )
    if clip is not None and not isinstance(clip, clipping.Clip):
        raise TypeError(
            f"clip must be a clip such as disttrain.ClipByGlobalNorm(1.0), not {clip!r}"
        )
    if inner.gradient_accumulation_steps:
        raise ValueError(
            f"the optimizer has gradient_accumulation_steps={inner.gradient_accumulation_steps}, "
            "which Keras cannot do on several replicas; use a larger global batch"
        )
    own_clip = clipping.take_over(inner) if clip is None else _named(inner, clipping_names=True)
    if clip is not None and own_clip:
        raise ValueError(
            f"the optimizer has {own_clip} and clip={clip!r} is given too; give one of them, for "
            "twice is wrong"
        )
    own_scale = _named(inner, clipping_names=False)
    if scale is not None and own_scale:
        raise ValueError(
            f"the optimizer has {own_scale} and loss_scale={scale!r} is given too; give one of them"
        )
    if own_scale:
        scale, inner.loss_scale_factor = inner.loss_scale_factor, None
    return inner, clip if clip is not None else own_clip, loss_scale.resolve(scale)


def _named(optimizer, clipping_names):
    names = (
        ("clipnorm", "global_clipnorm", "clipvalue") if clipping_names else ("loss_scale_factor",)
    )
    for name in names:
        if getattr(optimizer, name, None) is not None:
            return f"{name}={getattr(optimizer, name)!r}"
    return None
