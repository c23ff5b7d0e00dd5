"""A GAN draws digits: two networks, two losses, two optimizers, one step.

python -m disttrain.examples.gan
"""

import keras
import numpy as np
import tensorflow as tf

import disttrain
from disttrain.examples import lessons

NOISE = 16


class GAN(keras.Model):
    """A generator that draws images from noise, and a discriminator that scores images."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential(
            [
                keras.Input((NOISE,)),
                keras.layers.Dense(128, "relu"),
                keras.layers.Dense(64, "sigmoid"),
                keras.layers.Reshape((8, 8, 1)),
            ],
            name="generator",
        )
        self.discriminator = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(128, "leaky_relu"),
                keras.layers.Dense(1),
            ],
            name="discriminator",
        )

    def call(self, noise):
        return self.generator(noise)


class GANStep(disttrain.CustomStep):
    def variables(self, model):
        return {
            "generator": model.generator.trainable_variables,
            "discriminator": model.discriminator.trainable_variables,
        }

    def losses(self, model, batch, training):
        images, noise = batch
        fakes = model.generator(noise, training=training)
        # One value for each example; the trainer takes the mean over the global batch.
        real = model.discriminator(images, training=training)[:, 0]
        fake = model.discriminator(fakes, training=training)[:, 0]
        return {
            "generator": keras.ops.softplus(-fake),
            "discriminator": keras.ops.softplus(-real) + keras.ops.softplus(fake),
        }


def noise(count, seed):
    """Comes with the data, so that it is the same on any number of replicas."""
    return np.random.default_rng(seed).standard_normal((count, NOISE)).astype(np.float32)


def distance(images, others):
    """How far the mean images are apart, root mean square."""
    return float(np.sqrt(np.mean((images.mean(axis=0) - others.mean(axis=0)) ** 2)))


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=20)
    images, _ = lesson.train
    optimizers = {
        "generator": keras.optimizers.Adam(1e-3, beta_1=0.5),
        "discriminator": keras.optimizers.Adam(1e-3, beta_1=0.5),
    }
    trainer = lesson.trainer(GAN, optimizers, step=GANStep(), loss=None, metrics=None)
    pairs = tf.data.Dataset.from_tensor_slices((images, noise(len(images), lesson.seed)))
    pairs = pairs.shuffle(len(images), seed=lesson.seed).batch(64)
    fresh = noise(500, lesson.seed + 1)
    before = distance(trainer.predict(fresh, batch_size=100), images)
    history = trainer.fit(pairs, epochs=lesson.epochs, verbose=0).history
    after = distance(trainer.predict(fresh, batch_size=100), images)
    lesson.say(
        *(f"{name}: {history[name][0]:.2f}, then {history[name][-1]:.2f}" for name in history),
        f"The mean of drawn images is {before:.3f} from that of real ones, then {after:.3f}",
    )
    return {"before": before, "after": after, "loss": history["generator_loss"][-1]}


if __name__ == "__main__":
    main()
