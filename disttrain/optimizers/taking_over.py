"""What `DistributedOptimizer` takes over from the optimizer that it wraps.

Keras clips, scales and accumulates inside of an optimizer, on each replica before the sum. Each of
these settings moves to the wrapper, which does it in the right order, and is cleared on the inner
optimizer; a setting on both sides is an error, for twice is wrong.
"""

import functools
import warnings

import keras

from disttrain.gradients import clipping, loss_scale
from disttrain.optimizers.legacy import from_legacy
from disttrain.optimizers.missing import some
from disttrain.replication import adoption

#: Key in a wrapper's saved state: some variables were LoRA's, which Keras merges into others.
MERGED = "merged_lora"


def separate(inner, clip, scale, accumulate_steps):
    """Separates an optimizer from what Keras would do before the reduction.

    Args:
        inner: A Keras optimizer; its settings are cleared.
        clip: The clip asked for, or `None`.
        scale: The loss scale asked for, as `disttrain.gradients.loss_scale.resolve` takes it.
        accumulate_steps: The micro-batches asked for; 1 for none.

    Returns:
        `(inner, clip, loss_scale, accumulate_steps)`.

    Raises:
        TypeError: `inner` is no Keras optimizer, or `clip` no clip.
        ValueError: A setting stands on both sides.
    """
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
        if isinstance(inner, type) or not callable(getattr(inner, "apply_gradients", None)):
            raise TypeError(
                "optimizer must be a keras.optimizers.Optimizer, its name, or an object with "
                f"apply_gradients, such as an optimizer of the old API, not {inner!r}"
            )
        inner = from_legacy(inner)
    if clip is not None and not isinstance(clip, clipping.Clip):
        raise TypeError(
            f"clip must be a clip such as disttrain.ClipByGlobalNorm(1.0), not {clip!r}"
        )

    for part in getattr(inner, "optimizers", ()):
        _plain(part)
    _only_one(inner, ("clipnorm", "global_clipnorm", "clipvalue"), "clip", clip)
    clip = clipping.take_over(inner) if clip is None else clip
    _only_one(inner, ("loss_scale_factor",), "loss_scale", scale)
    if inner.loss_scale_factor is not None:
        scale, inner.loss_scale_factor = inner.loss_scale_factor, None
    given = None if accumulate_steps == 1 else accumulate_steps
    _only_one(inner, ("gradient_accumulation_steps",), "accumulate_steps", given)
    if inner.gradient_accumulation_steps:
        if inner.built:
            raise ValueError(
                "the optimizer has accumulators of its own already; hand in one that is not built"
            )
        accumulate_steps, inner.gradient_accumulation_steps = (
            inner.gradient_accumulation_steps,
            None,
        )
    return inner, clip, loss_scale.resolve(scale), accumulate_steps


def move_into_scope(inner, strategy):
    """Moves an optimizer into the scope in which its wrapper is made, where that is possible."""
    every = adoption.parts(inner)
    if strategy.num_replicas_in_sync > 1 and not any(
        one.built or getattr(one, "wraps_another_api", False) for one in every
    ):
        adoption.move_into_scope(inner, strategy, type(strategy).__name__)


def check_belongs(inner, variables, strategy):
    """Raises a `ValueError` if an optimizer belongs to other variables, or to another scope."""
    for one in adoption.parts(inner):
        replicas = {one._distribution_strategy.num_replicas_in_sync, strategy.num_replicas_in_sync}
        if one._distribution_strategy is not strategy and replicas != {1}:
            raise ValueError(
                f"the optimizer {one.name!r} belongs to another tf.distribute scope than its "
                "DistributedOptimizer; make both in one scope, and one for each Trainer"
            )
    if not inner.built:
        return
    known = inner._trainable_variables_indices
    unknown = [v.path for v in variables if inner._var_key(v) not in known]
    if unknown:
        raise ValueError(
            f"the optimizer {inner.name!r} was built for the variables of another model, and has "
            f"no slots for {some(unknown)}; make an optimizer for each model, by "
            "DistributedOptimizer.clone() (trainer.optimizer.clone()) or in a function"
        )


def build(inner, variables):
    """Builds an optimizer.

    Raises:
        ValueError: It begins with the variables' values, which they do not have yet.
    """
    try:
        inner.build(variables)
    except ValueError as error:
        if all(bool(variable.value.is_initialized()) for variable in variables):
            raise
        raise ValueError(
            f"{type(inner).__name__} begins with the model's weights, which have no values yet "
            "while a step is traced; give the model an Input, or call it once, before fit"
        ) from error


def check_exclusions(inner, model):
    """Raises a `ValueError` if variables of another model are excluded from weight decay."""
    for one in adoption.parts(inner):
        excluded = getattr(one, "_exclude_from_weight_decay", ())
        missing = set(excluded) - {one._var_key(variable) for variable in model.variables}
        if missing:
            raise ValueError(
                f"the optimizer {one.name!r} excludes variables of another model from weight "
                f"decay, {len(missing)} of them; name those of the trainer's model by "
                "exclude_from_weight_decay(var_names=['bias', ...])"
            )


def ema_overwrite_frequency(inner):
    """Takes over how often the weights become their average; Keras does it where replicas part."""
    frequency, inner.ema_overwrite_frequency = inner.ema_overwrite_frequency, None
    return frequency


def serialized(inner, ema_overwrite_frequency):
    """The configuration of an optimizer as it was before `ema_overwrite_frequency` was taken."""
    inner.ema_overwrite_frequency = ema_overwrite_frequency
    try:
        return keras.saving.serialize_keras_object(inner)
    finally:
        inner.ema_overwrite_frequency = None


def silence(inner):
    """Keeps Keras from summing what is reduced, and from passing over a wrong saved state."""
    for optimizer in (inner, *getattr(inner, "optimizers", ())):
        optimizer._all_reduce_sum_gradients = _already_reduced
        if getattr(optimizer, "state_is_in_parts", False):
            continue
        optimizer.load_own_variables = functools.partial(_load_or_raise, optimizer)


def same_variables(optimizer, variables, store):
    """Whether a saved state fits.

    Returns:
        `False`, with a warning, where Keras has merged LoRA weights, so that slots of theirs have
        no place.

    Raises:
        ValueError: It has another number of variables.
    """
    keys = set(store.keys()) - {MERGED}
    merged = getattr(optimizer, "was_merged", False)
    if len(keys) == len(variables) and not (merged and _other_shapes(variables, store)):
        return True
    difference = (
        f"the saved state of the optimizer {optimizer.name!r} has {len(keys)} variables where it "
        f"now has {len(variables)}"
    )
    if merged:
        warnings.warn(
            f"{difference}, because Keras merges LoRA weights when it saves a model; the optimizer "
            "begins without state",
            stacklevel=2,
        )
        return False
    raise ValueError(
        f"{difference}; build it with the same inner optimizer, loss scale and model before loading"
    )


def _other_shapes(variables, store):
    """Whether a variable has another shape than what is saved under its place."""
    return any(
        str(i) in store.keys() and tuple(store[str(i)].shape) != tuple(variable.shape)  # noqa: SIM118
        for i, variable in enumerate(variables)
    )


def has_lora(variables):
    """Whether there are variables of Keras's low-rank adaptation among the trained ones."""
    return any(variable.name.startswith("lora_") for variable in variables)


def _only_one(inner, names, argument, value):
    for name in names:
        own = getattr(inner, name, None)
        if own is not None and value is not None:
            raise ValueError(
                f"the optimizer has {name}={own!r} and {argument}={value!r} is given too; give one "
                "of them, for twice is wrong"
            )


def _plain(part):
    """Refuses settings of an optimizer in a `MultiOptimizer` that would act on one replica."""
    names = ("clipnorm", "global_clipnorm", "clipvalue", "ema_overwrite_frequency")
    for name in (*names, "gradient_accumulation_steps"):
        own = getattr(part, name, None)
        if own is not None:
            raise ValueError(
                f"{part.name!r} in the MultiOptimizer has {name}={own!r}, which Keras would apply "
                "on each replica by itself; set what goes for all variables on the wrapper instead"
            )


def _already_reduced(grads_and_vars):
    return grads_and_vars


def kept(store):
    """The arrays of a saved state, which is closed once it has been read."""
    return {key: store[key][()] for key in store.keys()}  # noqa: SIM118 - a group of HDF5


def _load_or_raise(optimizer, store):
    if not optimizer.built:
        # Kept until the slots exist, which takes the variables that the model trains.
        optimizer.loaded_before_build = kept(store)
        return
    if same_variables(optimizer, optimizer.variables, store):
        type(optimizer).load_own_variables(optimizer, store)


def load_what_came_before_build(optimizer):
    """Gives a newly built optimizer the state that was loaded before it had slots.

    Raises:
        ValueError: It does not fit.
    """
    store = getattr(optimizer, "loaded_before_build", None)
    if store is not None:
        del optimizer.loaded_before_build
        if same_variables(optimizer, optimizer.variables, store):
            type(optimizer).load_own_variables(optimizer, store)
