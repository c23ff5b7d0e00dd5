"""LARS: momentum with a learning rate of its own for each layer, for very large batches."""

import re

import keras
import tensorflow as tf

#: Biases, and the scales and shifts of normalisation layers.
EXCLUDED = ("bias$", "(^|/)(beta|gamma|scale)$")


@keras.saving.register_keras_serializable("disttrain")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling.

    You, Gitman and Ginsburg 2017, "Large batch training of convolutional networks", algorithm 1,
    for a variable `w` with gradient `g`, slot `v`, and learning rate `lr`:

    ```
    ratio = trust * |w| / (|g| + weight_decay * |w| + epsilon)     equation 6
    v = momentum * v + lr * ratio * (g + weight_decay * w)
    w = w - v                                                       or, with nesterov,
    w = w - (momentum * v + lr * ratio * (g + weight_decay * w))
    ```

    Norms are L2 norms of a whole variable, in float32. Where `|w|` or the denominator is 0 the
    ratio is 1, so that weights at 0 can move. Excluded variables have no ratio and no weight decay.
    Unlike Keras's own, the weight decay is part of the gradient and of the ratio.

    The gradient that counts is the whole batch's, so the optimizer belongs into a
    `disttrain.DistributedOptimizer` (`disttrain.Trainer` sees to that): by itself under
    `tf.distribute` it gets the sum that Keras makes. Sparse gradients are made dense, for weight
    decay moves all rows.

    Args:
        learning_rate: The global rate: a number, a schedule, or a function without arguments. The
            ratio makes steps small, so it is large: 1 to 30 with a warmup, in the paper.
        momentum: From 0, below 1.
        weight_decay: From 0.
        trust: The trust coefficient, eta in the paper, above 0.
        epsilon: Added to the denominator, from 0.
        nesterov: Whether to look ahead along the momentum.
        exclude: Regular expressions; a variable in whose path one is found is excluded.
        name: Name of the optimizer.
        **options: Other options of every Keras optimizer.

    Raises:
        ValueError: An argument is outside of its range.
    """

    def __init__(
        self,
        learning_rate=1.0,
        momentum=0.9,
        weight_decay=0.0,
        trust=0.001,
        epsilon=0.0,
        nesterov=False,
        exclude=EXCLUDED,
        name="lars",
        **options,
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"LARS needs a momentum from 0 and below 1, not {momentum!r}")
        for argument, value in (("weight_decay", weight_decay), ("epsilon", epsilon)):
            if not 0 <= (value or 0) < float("inf"):
                raise ValueError(f"LARS needs a finite {argument} from 0, not {value!r}")
        if not 0 < trust < float("inf"):
            raise ValueError(f"LARS needs a finite trust coefficient above 0, not {trust!r}")
        if isinstance(exclude, str):
            raise ValueError(
                f"LARS takes a list of regular expressions as exclude, not {exclude!r}; write "
                f"[{exclude!r}]"
            )
        super().__init__(learning_rate, weight_decay=weight_decay or 0.0, name=name, **options)
        self.momentum = float(momentum)
        self.trust = float(trust)
        self.epsilon = float(epsilon)
        self.nesterov = bool(nesterov)
        self.exclude = tuple(exclude)
        self._patterns = [re.compile(pattern) for pattern in self.exclude]

    def build(self, variables):
        """Creates the momentum of each variable.

        Args:
            variables: The trainable variables, a list of `keras.Variable`.
        """
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")
        self._is_excluded = [self._excludes(variable.path) for variable in variables]

    def _excludes(self, path):
        return any(pattern.search(path) for pattern in self._patterns)

    def _apply_weight_decay(self, variables):
        """Nothing: weight decay is part of the gradient and the ratio."""

    def update_step(self, gradient, variable, learning_rate):
        """Updates a variable and its momentum.

        Args:
            gradient: The gradient of the global batch, dense or `IndexedSlices`.
            variable: The variable.
            learning_rate: The global rate, a scalar.
        """
        dtype = variable.dtype
        index = self._get_variable_index(variable)
        weight = tf.convert_to_tensor(variable)
        gradient = tf.cast(tf.convert_to_tensor(gradient), dtype)
        rate = tf.cast(tf.convert_to_tensor(learning_rate), tf.float32)
        if not self._is_excluded[index]:
            decay = self.weight_decay if self._use_weight_decay(variable) else 0.0
            rate *= self._ratio(weight, gradient, decay)
            if decay:
                gradient += tf.cast(decay, dtype) * weight
        step = tf.cast(rate, dtype) * gradient
        velocity = self.momentums[index]
        moved = tf.cast(self.momentum, dtype) * tf.convert_to_tensor(velocity) + step
        self.assign(velocity, moved)
        if self.nesterov:
            moved = tf.cast(self.momentum, dtype) * moved + step
        self.assign_sub(variable, moved)

    def _ratio(self, weight, gradient, decay):
        weight_norm = _norm(weight)
        gradient_norm = _norm(gradient)
        below = gradient_norm + decay * weight_norm + self.epsilon
        defined = (weight_norm > 0) & (below > 0)
        return tf.where(defined, self.trust * weight_norm / below, 1.0)

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "trust": self.trust,
            "epsilon": self.epsilon,
            "nesterov": self.nesterov,
            "exclude": list(self.exclude),
        }


def _norm(tensor):
    return tf.sqrt(tf.reduce_sum(tf.square(tf.cast(tensor, tf.float32))))
