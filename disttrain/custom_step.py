"""`CustomStep`: a training step of the user's own, for models that one loss cannot describe.

A user derives from it and hands it to `Trainer(step=...)`. What runs it on every replica is
`custom_run.py`.
"""

import keras
import tensorflow as tf

from disttrain.replication import active


class CustomStep:
    """Computes the losses of a model that the ordinary step cannot train.

    For GANs, distillation, contrastive learning and other models that would need their own
    `train_step`. The step computes losses, and the `Trainer` does the rest as for its own step: it
    divides by the examples of the global batch, reduces the gradients over all replicas, checks
    that they are finite, unscales, clips and applies them.

    ```python
    class GAN(disttrain.CustomStep):
        def variables(self, model):
            return {
                "generator": model.generator.trainable_variables,
                "discriminator": model.discriminator.trainable_variables,
            }

        def losses(self, model, batch, training):
            images, noise = batch
            real = model.discriminator(images, training=training)[:, 0]
            fake = model.discriminator(model.generator(noise, training=training))[:, 0]
            return {
                "generator": keras.ops.softplus(-fake),
                "discriminator": keras.ops.softplus(-real) + keras.ops.softplus(fake),
            }

    trainer = disttrain.Trainer(
        build_gan,
        step=GAN(),
        optimizer={
            "generator": keras.optimizers.Adam(1e-4, beta_1=0.5),
            "discriminator": keras.optimizers.Adam(4e-4, beta_1=0.5),
        },
    )
    ```

    All losses are computed at the same weights, and all optimizers update together: if one gradient
    is not finite, no optimizer makes an update. The forward pass runs once for all losses.

    The model holds all state: layers, variables, and a `keras.random.SeedGenerator` for random
    numbers, which then differ on each replica, as those of `Dropout` do. Noise that comes with the
    data is the same under every replication.

    A replica sees its own examples only. Where the loss of an example depends on other examples, as
    in contrastive learning, `gather` returns those of all replicas.

    Losses that layers add, such as those of regularizers, are not included. Add
    `keras.ops.sum(model.losses)` to the loss that they belong to.
    """

    def variables(self, model: keras.Model) -> list | dict:
        """Returns what each optimizer updates.

        Args:
            model: The model that `build_model` returned, with its variables.

        Returns:
            With one optimizer a list of trainable variables of the model, by default all of them.
            With several a dictionary from the name of each optimizer to such a list; no variable
            may be in two lists.
        """
        return model.trainable_variables

    def losses(self, model: keras.Model, batch: tuple, training: bool) -> tf.Tensor | dict | tuple:
        """Computes the losses of this replica's part of a batch; in a `tf.function`.

        Args:
            model: The model.
            batch: A tuple as the dataset yields it, `(x,)`, `(x, y)` or `(x, y, sample_weight)`;
                here with this replica's examples only.
            training: Whether this is a training step; `False` in `evaluate`.

        Returns:
            A loss for each optimizer: with one optimizer a tensor, with several a dictionary with
            the names of the optimizers. A loss has one value for each example, shape `[rows]`. The
            trainer takes the mean over the examples of the global batch, so that a smaller last
            batch counts right. A single number is refused, because nothing shows whether it is a
            sum, a mean, or a mean that Keras has divided by the number of replicas already. Use
            the functions in `keras.losses`, or a loss object with `reduction=None`.

            A tuple of these losses and of the model's outputs lets `Trainer(metrics=...)` compare
            the outputs with `y`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has to define losses(self, model, batch, training)"
        )

    def after_update(self, model: keras.Model) -> None:
        """Changes variables that follow the weights, such as those of a target network.

        It is called on every replica after each update, and not after a step that was skipped. The
        weights are equal on all replicas then, so what is computed from them alone is, too.

        ```python
        def after_update(self, model):
            for target, online in zip(model.target.variables, model.online.variables):
                target.assign(0.99 * target + 0.01 * online)
        ```

        Args:
            model: The model.
        """

    def gather(self, tensor: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the examples of all replicas; for `losses`, where every replica calls it.

        ```python
        def losses(self, model, batch, training):
            left, right = (model(view, training=training) for view in batch)
            everyone, places = self.gather(right)
            return keras.losses.sparse_categorical_crossentropy(
                places, left @ keras.ops.transpose(everyone), from_logits=True
            )
        ```

        Gradients flow to the replica from which an example came. It costs a gather in the forward
        pass, and a reduction of the gathered size in the backward pass.

        Args:
            tensor: A floating tensor of shape `[rows, ...]` with this replica's examples, such as
                embeddings.

        Returns:
            `(everyone, places)`: the examples of the global batch in their order, a tensor of shape
            `[examples, ...]`; and the place of each of this replica's rows in it, int32 `[rows]`.

        Raises:
            RuntimeError: It is called outside of `losses`.
        """
        replication, rows, number = active.next_gather()
        tensor = tf.convert_to_tensor(tensor)
        if replication.replicas == 1:
            return tensor, tf.range(tf.shape(tensor)[0])
        return _gathered(tensor, rows, replication, f"custom_step.{number}")


def _gathered(tensor, rows, replication, name):
    """`CustomStep.gather` on several replicas, some of which may have no examples."""
    own = tf.cast(rows, tf.int32)
    counts = tf.cast(replication.gather(rows[None], f"{name}.counts"), tf.int32)
    first = tf.reduce_sum(counts[: replication.replica_index()])

    @tf.custom_gradient
    def gather(tensor):
        def gradient(upstream):
            (total,) = replication.reduce_sum([upstream], f"{name}.gradient")
            missing = tf.shape(tensor)[0] - own
            rest = [[0, 0]] * (tensor.shape.rank - 1)
            return tf.pad(total[first : first + own], [[0, missing], *rest])

        return replication.gather(tensor[:own], f"{name}.examples"), gradient

    places = first + tf.range(tf.shape(tensor)[0])
    # A replica without examples computes on a row that belongs to another.
    return gather(tensor), tf.minimum(places, tf.reduce_sum(counts) - 1)
