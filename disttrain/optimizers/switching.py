"""Going on with another optimizer in the middle of a training."""

import keras

from disttrain.optimizers.slots import find_slots

#: What slots mean, by the optimizer whose rule fills them; equal names say nothing: SGD's momentum
#: is a step, with the learning rate in it and the other sign, where Adam's is a mean gradient.
_MEAN, _SQUARES = "mean gradient", "mean squared gradient"
_MEANINGS = {
    keras.optimizers.Adam: {"momentum": _MEAN, "velocity": _SQUARES},
    keras.optimizers.Nadam: {"momentum": _MEAN, "velocity": _SQUARES},
    keras.optimizers.Lamb: {"momentum": _MEAN, "velocity": _SQUARES},
    keras.optimizers.Adamax: {"momentum": _MEAN},
    keras.optimizers.Lion: {"momentum": _MEAN},
    keras.optimizers.RMSprop: {"velocity": _SQUARES},
}


@keras.saving.register_keras_serializable("disttrain")
class Continued(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that goes on from another step, after a warmup.

    At step s it is `rate(s + offset) * min(1, (s - origin + 1) / (warmup_steps + 1))`.

    Args:
        rate: A schedule or a number.
        offset: Steps that went before the optimizer's own count began.
        warmup_steps: Steps of the warmup.
        origin: The optimizer's own count when the warmup begins.
    """

    def __init__(self, rate, offset=0, warmup_steps=0, origin=0):
        self.rate = rate
        self.offset = int(offset)
        self.warmup_steps = int(warmup_steps)
        self.origin = int(origin)

    def __call__(self, step):
        rate = self.rate(step + self.offset) if callable(self.rate) else self.rate
        since = keras.ops.cast(step - self.origin, "float32")
        risen = (since + 1.0) / (self.warmup_steps + 1.0)
        return keras.ops.cast(rate, "float32") * keras.ops.minimum(risen, 1.0)

    def get_config(self):
        return {
            "rate": keras.saving.serialize_keras_object(self.rate),
            "offset": self.offset,
            "warmup_steps": self.warmup_steps,
            "origin": self.origin,
        }

    @classmethod
    def from_config(cls, config):
        rate = keras.saving.deserialize_keras_object(config["rate"])
        return cls(rate, config["offset"], config["warmup_steps"], config["origin"])


def carry_over(before, after, variables, slots=True, warmup_steps=0):
    """Builds the new optimizer and gives it what the old one has learnt; in the replicas' scope.

    Args:
        before: The built `DistributedOptimizer` of until now.
        after: The new one.
        variables: What is trained from now on; slots of variables that were not trained before
            begin anew.
        slots: Whether slots go over. Those of a variable do if there is one of the same meaning
            and shape for each: bias corrections are wrong for some that were filled without others.
        warmup_steps: As for `disttrain.Trainer.switch_optimizer`.

    Raises:
        ValueError: `warmup_steps` is below 0.
    """
    if isinstance(warmup_steps, bool) or int(warmup_steps) != warmup_steps or warmup_steps < 0:
        raise ValueError(f"warmup_steps must be a whole number from 0, not {warmup_steps!r}")
    after.build(variables)
    filled = True
    pairs = zip(
        find_slots(before.inner, variables), find_slots(after.inner, variables), strict=True
    )
    for old, new in pairs:
        sources = {_meaning(before.inner, name): slot for name, slot in old.items()}
        found = [(slot, sources.get(_meaning(after.inner, name))) for name, slot in new.items()]
        if slots and all(one is not None and one.shape == slot.shape for slot, one in found):
            for slot, one in found:
                slot.assign(one.numpy())
        else:
            filled = False
    done = int(before.iterations.numpy())
    inner = after.inner
    if filled:
        inner.iterations.assign(done)
    offset, origin = (0, done) if filled else (done, 0)
    if after.loss_scale is not None and before.loss_scale is not None:
        after.loss_scale.value.assign(before.loss_scale.value.numpy())
    rate = inner._learning_rate
    if warmup_steps == 0 and (offset == 0 or isinstance(rate, keras.Variable)):
        return
    if isinstance(rate, keras.Variable):
        rate = float(rate.numpy())
    inner.learning_rate = Continued(rate, offset, warmup_steps, origin)


def _meaning(optimizer, name):
    """What a slot of this name holds, so that equal meanings can be handed over."""
    rule = optimizer
    while hasattr(rule, "inner"):
        rule = rule.inner
    for cls in type(rule).__mro__:
        if name in _MEANINGS.get(cls, ()):
            return _MEANINGS[cls][name]
    return type(rule), name
