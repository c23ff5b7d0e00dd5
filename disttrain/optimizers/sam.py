"""SAM: descends by the gradient at the worst weights nearby, which takes two gradients a step.

Whoever makes the step asks the optimizer whether `two_gradients` is true, and then

1. computes the gradient and reduces it over all replicas,
2. calls `saved = optimizer.perturb(gradients, variables, finite)`,
3. computes the gradient of the same batch again,
4. calls `optimizer.restore(variables, saved)`,
5. reduces, checks, unscales, clips and applies the second gradient as any other.

`DistributedOptimizer` does so, and `step` here does it on one device.
"""

import keras
import tensorflow as tf

from disttrain.gradients.norms import norms_and_finite
from disttrain.optimizers.wrapper import OptimizerWrapper

#: Added to the weights' size for adaptive SAM, so that weights at 0 are perturbed, too.
_ADAPTIVE_ETA = 0.01


@keras.saving.register_keras_serializable("disttrain")
class SAM(OptimizerWrapper):
    """Sharpness-aware minimization around any Keras optimizer.

    Foret et al. 2021, "Sharpness-aware minimization for efficiently improving generalization",
    algorithm 1: the inner optimizer gets the gradient at `w + e`, where, for the gradient `g` at
    `w` and L2 norms over all variables together,

    ```
    e = rho * g / |g|                            equation 2, with p = 2
    e = rho * T**2 * g / |T * g|, T = |w| + eta  adaptive
    ```

    The adaptive form is ASAM: Kwon et al. 2021, "ASAM: adaptive sharpness-aware minimization for
    scale-invariant learning of deep neural networks", equation 7, with eta = 0.01 for all
    variables; its `rho` is larger, 0.5 to 2.

    `g` is the gradient of the *global* batch, reduced over all replicas, so that every replica
    perturbs alike and the result does not depend on their number. The paper's own runs are m-SAM:
    each device perturbs by the gradient of its own m examples, which saves one reduction and, in
    its section 4.1, generalises somewhat better for small m.

    The loss and the metrics that are reported are those at `w`. The step costs two forward and
    backward passes and two reductions. A first gradient that is not finite leaves the weights
    where they are, and the step is skipped.

    Args:
        inner: A `keras.optimizers.Optimizer`, its configuration, or its name.
        rho: Radius of the neighbourhood, above 0.
        adaptive: Whether the neighbourhood grows with the weights.
        name: Name of the optimizer.

    Attributes:
        two_gradients: `True`.

    Raises:
        TypeError: `inner` is no Keras optimizer.
        ValueError: `rho` is not a finite number above 0, or `inner` holds another `SAM`.
    """

    def __init__(self, inner, rho=0.05, adaptive=False, name=None):
        if isinstance(rho, bool) or not 0 < rho < float("inf"):
            raise ValueError(
                f"SAM needs a finite rho above 0, not {rho!r}; use the inner optimizer by itself "
                "to turn it off"
            )
        super().__init__(inner, name=name)
        if super().two_gradients:
            raise ValueError("there is a SAM in the inner optimizer already; wrap it once")
        self.rho = float(rho)
        self.adaptive = bool(adaptive)
        self._was_perturbed = False

    @property
    def two_gradients(self):
        """Whether a step needs a second gradient at perturbed weights."""
        return True

    def perturb(self, gradients, variables, finite=None):
        """Moves the weights to where the second gradient is to be taken; in replica context.

        Args:
            gradients: The reduced gradients of the global batch, equal on all replicas; dense or
                `IndexedSlices`. A common factor, such as a loss scale, makes no difference.
            variables: Their variables.
            finite: Boolean scalar: whether all gradients are finite; looked up where it is `None`.
                If not, the weights stay.

        Returns:
            What `restore` wants: the weights as they were, a list of tensors.
        """
        self._was_perturbed = True
        saved = [tf.identity(variable.value) for variable in variables]
        gradients = [tf.cast(tf.convert_to_tensor(g), tf.float32) for g in gradients]
        if finite is None:
            finite = norms_and_finite(gradients)[1]
        sizes = [1.0] * len(saved)
        if self.adaptive:
            sizes = [tf.abs(tf.cast(weight, tf.float32)) + _ADAPTIVE_ETA for weight in saved]
        uphill = [size * g for size, g in zip(sizes, gradients, strict=True)]
        # Squares of what a loss scale has made very large, or its lack very small, are no floats.
        largest = tf.reduce_max([tf.reduce_max(tf.abs(u)) for u in uphill])
        uphill = [tf.math.divide_no_nan(u, largest) for u in uphill]
        norm = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(u)) for u in uphill]))
        # A gradient of 0 points nowhere.
        radius = tf.math.divide_no_nan(self.rho, norm)
        for variable, weight, size, u in zip(variables, saved, sizes, uphill, strict=True):
            moved = weight + tf.cast(radius * size * u, weight.dtype)
            variable.assign(tf.where(finite, moved, weight))
        return saved

    def restore(self, variables, saved):
        """Puts the weights back, bit for bit; in replica context.

        Args:
            variables: The variables that were perturbed.
            saved: What `perturb` returned.
        """
        for variable, weight in zip(variables, saved, strict=True):
            variable.assign(weight)

    def _apply(self, gradients, variables):
        if not self._was_perturbed:
            raise RuntimeError(
                "SAM was handed gradients without having perturbed the weights, and would do "
                "nothing else than the optimizer inside; use disttrain.Trainer, or see "
                "disttrain.optimizers.sam for loops of your own (Model.fit computes one gradient "
                "alone)"
            )
        super()._apply(gradients, variables)

    def get_config(self):
        return {**super().get_config(), "rho": self.rho, "adaptive": self.adaptive}


def step(optimizer, compute, variables):
    """One step of a hand-written loop on one device, with an optimizer that takes two gradients.

    ```python
    def compute():
        with tf.GradientTape() as tape:
            loss = loss_function(y, model(x, training=True))
        return tape.gradient(loss, model.trainable_variables)

    sam.step(optimizer, compute, model.trainable_variables)
    ```

    Args:
        optimizer: A `SAM`, or a wrapper around one.
        compute: A function without arguments that returns the gradients of one batch at the
            present weights. It is called twice.
        variables: The variables of the gradients.

    Returns:
        A boolean scalar: whether both gradients were finite and the update was applied.

    Raises:
        ValueError: Called on one of several replicas, or the optimizer takes one gradient.
    """
    if not getattr(optimizer, "two_gradients", False):
        raise ValueError(f"{type(optimizer).__name__} takes one gradient; call its apply")
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        raise ValueError(
            "sam.step does not reduce gradients over replicas; use disttrain.DistributedOptimizer"
        )
    variables = list(variables)
    if not optimizer.built:
        with tf.init_scope():
            optimizer.build(variables)
    first = list(compute())
    first_is_finite = norms_and_finite(first)[1]
    saved = optimizer.perturb(first, variables, first_is_finite)
    second = list(compute())
    optimizer.restore(variables, saved)
    finite = first_is_finite & norms_and_finite(second)[1]

    def update():
        optimizer.apply(second, variables)
        return True

    return tf.cond(finite, update, lambda: False)
