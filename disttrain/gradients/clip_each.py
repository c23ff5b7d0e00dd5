"""A clip for several optimizers, which acts on the gradients of each by itself."""

import keras
import tensorflow as tf

from disttrain.gradients.clipping import Clip, global_norm


@keras.saving.register_keras_serializable("disttrain")
class ClipEach(Clip):
    """Clips the gradients of each of several optimizers as if there were no others.

    Args:
        clips: A dictionary from the name of an optimizer to its `Clip`, or to `None`. A clip that
            is given twice is copied, because some keep state.

    Raises:
        TypeError: One is no clip.
        ValueError: Some act before the reduction and some after it.
    """

    def __init__(self, clips):
        for name, clip in clips.items():
            if clip is not None and not isinstance(clip, Clip):
                raise TypeError(
                    "clip must be a clip such as disttrain.ClipByGlobalNorm(1.0), not "
                    f"{clip!r} for {name!r}"
                )
        self.clips = {
            name: None if clip is None else type(clip).from_config(clip.get_config())
            for name, clip in clips.items()
        }
        before = {clip.before_reduce for clip in self.clips.values() if clip is not None}
        if len(before) > 1:
            raise ValueError(
                f"the clips {self.clips} act partly before the reduction and partly after it; set "
                "before_reduce alike for all"
            )
        super().__init__(before.pop() if before else False)
        self._optimizers = None

    def bind(self, optimizer):
        """Takes the owners of the variables from a `NamedOptimizers`."""
        self._optimizers = optimizer

    def build(self, add_variable):
        for name, clip in self.clips.items():
            if clip is not None:
                clip.build(lambda what, *rest, name=name: add_variable(f"{name}_{what}", *rest))

    def __call__(self, gradients, norms, variables):
        result, clipped, factors = list(gradients), [], []
        for name, clip in self.clips.items():
            places = [i for i, v in enumerate(variables) if self._optimizers.owner_of(v) == name]
            if not places:
                continue
            own = tf.gather(norms, places)
            factor = tf.constant(1.0)
            if clip is not None:
                own_gradients = [gradients[i] for i in places]
                made, factor = clip(own_gradients, own, [variables[i] for i in places])
                for place, gradient in zip(places, made, strict=True):
                    result[place] = gradient
            factors.append(factor)
            clipped.append(factor * global_norm(own))
        whole = tf.math.divide_no_nan(global_norm(tf.stack(clipped)), global_norm(norms))
        untouched = tf.reduce_all(tf.stack(factors) == 1.0)
        return result, tf.where(untouched, 1.0, whole)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {"clips": {n: None if c is None else serialize(c) for n, c in self.clips.items()}}

    @classmethod
    def from_config(cls, config):
        def made(one):
            return keras.saving.deserialize_keras_object(one) if isinstance(one, dict) else one

        return cls({name: made(clip) for name, clip in config["clips"].items()})

    def __hash__(self):
        return hash((type(self), *self.clips.items()))

    def __repr__(self):
        return f"ClipEach({self.clips!r})"
