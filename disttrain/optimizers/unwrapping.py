"""Takes a `DistributedOptimizer` off a model for as long as the model is saved for others."""

import contextlib
import json

import keras

from disttrain.gradients import clipping
from disttrain.optimizers.distributed import DistributedOptimizer

#: Keras's own names of the clips that it has, too.
_CLIPS = {
    clipping.ClipByGlobalNorm: "global_clipnorm",
    clipping.ClipByNorm: "clipnorm",
    clipping.ClipByValue: "clipvalue",
}


@contextlib.contextmanager
def without_wrapper(model):
    """Gives a model the inner optimizer, with Keras's own clip and loss scale; or none.

    Args:
        model: A `keras.Model`; one with another optimizer stays as it is.
    """
    outer = getattr(model, "optimizer", None)
    if not isinstance(outer, DistributedOptimizer):
        yield
        return
    config, compiled = model._compile_config, model.compiled
    with _as_keras_has_it(outer) as inner:
        settings = {**config.config, "optimizer": inner}
        try:
            if is_of_keras(inner):
                model.optimizer = _scaled(outer, inner) if _scales(model) else inner
                model._compile_config = type(config)(**settings)
            else:
                model.optimizer, model.compiled = None, False
            yield
        finally:
            model.optimizer, model._compile_config, model.compiled = outer, config, compiled


def is_of_keras(optimizer):
    """Whether an optimizer's configuration names nothing of disttrain's."""
    try:
        config = keras.saving.serialize_keras_object(optimizer)
        text = json.dumps(config, default=str)
    except (TypeError, ValueError):
        return False
    # Keras refuses to load the code of a lambda.
    return '"disttrain' not in text and "__lambda__" not in text


@contextlib.contextmanager
def _as_keras_has_it(outer):
    """The inner optimizer with the settings that its wrapper has taken over."""
    inner, changed = outer.inner, {}
    clip = _CLIPS.get(type(outer.clip))
    if clip is not None and not outer.clip.before_reduce:
        changed[clip] = outer.clip.limit
    changed["ema_overwrite_frequency"] = outer.ema_overwrite_frequency
    before = {name: getattr(inner, name) for name in changed}
    try:
        for name, value in changed.items():
            setattr(inner, name, value)
        yield inner
    finally:
        for name, value in before.items():
            setattr(inner, name, value)


def _scales(model):
    """Whether Keras puts the optimizer into a `LossScaleOptimizer` when the model is loaded."""
    return model.dtype_policy.name == "mixed_float16"


def _scaled(outer, inner):
    """Keras's `LossScaleOptimizer`, with the state that it would have."""
    scale, options = outer.loss_scale, {}
    if hasattr(scale, "growth_interval"):
        options["dynamic_growth_steps"] = scale.growth_interval
    made = keras.optimizers.LossScaleOptimizer(inner, **options)
    if inner.built:
        inner.build = lambda variables: None
        try:
            with outer._distribution_strategy.scope():
                made.build(outer.built_with)
        finally:
            del inner.build
        made.dynamic_scale.assign(float(outer.current_loss_scale()))
    return made
