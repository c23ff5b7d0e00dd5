"""A small GAN and a distillation with their steps, and the same by hand in plain Keras."""

import keras
import numpy as np
import tensorflow as tf

import disttrain

FEATURES, NOISE, BATCH = 5, 3, 8
CLIP = 0.3


def data(rows, seed=0):
    rng = np.random.default_rng(seed)
    real = 1 + rng.standard_normal((rows, FEATURES))
    return real.astype(np.float32), rng.standard_normal((rows, NOISE)).astype(np.float32)


def batches(rows, batch=BATCH):
    return tf.data.Dataset.from_tensor_slices(data(rows)).batch(batch)


def _dense(units, seed, activation=None, **options):
    initializer = keras.initializers.GlorotUniform(seed)
    return keras.layers.Dense(units, activation, kernel_initializer=initializer, **options)


class GAN(keras.Model):
    """Has no `call`: no one output is that of the model."""

    def __init__(self):
        super().__init__()
        noise, features = keras.Input((NOISE,)), keras.Input((FEATURES,))
        self.generator = keras.Sequential([noise, _dense(7, 1, "tanh"), _dense(FEATURES, 2)])
        self.discriminator = keras.Sequential([features, _dense(6, 3, "tanh"), _dense(1, 4)])


class GANStep(disttrain.CustomStep):
    def variables(self, model):
        return {
            "generator": model.generator.trainable_variables,
            "discriminator": model.discriminator.trainable_variables,
        }

    def losses(self, model, batch, training):
        real, noise = batch
        fake = model.generator(noise, training=training)
        of_fake = model.discriminator(fake, training=training)[:, 0]
        of_real = model.discriminator(real, training=training)[:, 0]
        return {
            "discriminator": tf.nn.softplus(-of_real) + tf.nn.softplus(of_fake),
            "generator": tf.nn.softplus(-of_fake),
        }


def gan_optimizers():
    """A schedule and a clip in one, slots of other kinds in the other."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 4, 0.8)
    return {
        "generator": keras.optimizers.Adam(rate),
        "discriminator": keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=CLIP),
    }


def gan_by_hand(rows, epochs):
    """Weights, and mean losses of each epoch, of a loop on one device without disttrain."""
    model, step, optimizers = GAN(), GANStep(), gan_optimizers()
    history = {"generator": [], "discriminator": []}
    for _ in range(epochs):
        sums = dict.fromkeys(history, 0.0)
        for batch in batches(rows):
            with tf.GradientTape(persistent=True) as tape:
                losses = step.losses(model, batch, True)
                means = {name: tf.reduce_mean(loss) for name, loss in losses.items()}
            variables = step.variables(model)
            found = {name: tape.gradient(means[name], variables[name]) for name in means}
            for name, optimizer in optimizers.items():
                optimizer.apply(found[name], variables[name])
                sums[name] += float(tf.reduce_sum(losses[name]))
        for name, value in sums.items():
            history[name].append(value / rows)
    return model, optimizers, history


class Distiller(keras.Model):
    """A student that learns from a teacher; the model's output is the student's."""

    def __init__(self):
        super().__init__()
        self.teacher = keras.Sequential(
            [keras.Input((FEATURES,)), _dense(9, 5, "tanh"), _dense(3, 6)]
        )
        self.teacher.trainable = False
        self.student = keras.Sequential([keras.Input((FEATURES,)), _dense(3, 7)])

    def call(self, inputs, training=None):
        return self.student(inputs, training=training)


class DistillStep(disttrain.CustomStep):
    def variables(self, model):
        return model.student.trainable_variables

    def losses(self, model, batch, training):
        x, y, weight = batch
        soft = tf.nn.softmax(model.teacher(x, training=False))
        scores = model(x, training=training)
        hard = keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True)
        losses = 0.5 * hard * weight + 0.5 * keras.losses.kl_divergence(soft, tf.nn.softmax(scores))
        return losses, scores


def labelled(rows, batch=BATCH):
    rng = np.random.default_rng(1)
    weights = rng.uniform(0.5, 2, rows).astype(np.float32)
    labels = rng.integers(0, 3, rows).astype(np.int32)
    return tf.data.Dataset.from_tensor_slices((data(rows)[0], labels, weights)).batch(batch)


class Encoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.encode = keras.Sequential([keras.Input((NOISE,)), _dense(4, 8, "tanh"), _dense(4, 9)])

    def call(self, inputs):
        return self.encode(inputs)


class ContrastStep(disttrain.CustomStep):
    """Of all examples in the global batch, the other view of an example is to be the nearest."""

    def losses(self, model, batch, training):
        ((left, right),) = batch
        everyone, places = self.gather(model(right))
        return self.contrasted(model(left), everyone, places)

    @staticmethod
    def contrasted(left, everyone, places):
        scores = tf.matmul(left, everyone, transpose_b=True)
        return keras.losses.sparse_categorical_crossentropy(places, scores, from_logits=True)


def views(rows, batch=BATCH):
    pair = tuple(data(rows, seed)[1] for seed in (2, 3))
    return tf.data.Dataset.from_tensor_slices((pair,)).batch(batch)


def contrasted_by_hand(rows, epochs):
    model, optimizer = Encoder(), keras.optimizers.SGD(0.5)
    for _ in range(epochs):
        for ((left, right),) in views(rows):
            with tf.GradientTape() as tape:
                places = tf.range(tf.shape(left)[0])
                loss = tf.reduce_mean(ContrastStep.contrasted(model(left), model(right), places))
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
    return model


class Follows(keras.Model):
    """A network that is to agree with a slow copy of itself, and with the targets."""

    def __init__(self):
        super().__init__()
        self.online = keras.Sequential([keras.Input((FEATURES,)), _dense(3, 10)])
        self.target = keras.Sequential([keras.Input((FEATURES,)), _dense(3, 11)])
        self.target.trainable = False


class FollowStep(disttrain.CustomStep):
    def variables(self, model):
        return model.online.trainable_variables

    def losses(self, model, batch, training):
        x, y, _ = batch
        scores = model.online(x, training=training)
        apart = tf.reduce_mean(tf.square(scores - model.target(x, training=False)), axis=-1)
        return apart + keras.losses.sparse_categorical_crossentropy(y, scores, from_logits=True)

    def after_update(self, model):
        for target, online in zip(model.target.variables, model.online.variables, strict=True):
            target.assign(0.75 * target + 0.25 * online)


def followed_by_hand(rows, epochs):
    model, step, optimizer = Follows(), FollowStep(), keras.optimizers.Adam(0.05)
    for _ in range(epochs):
        for batch in labelled(rows):
            with tf.GradientTape() as tape:
                mean = tf.reduce_mean(step.losses(model, batch, True))
            optimizer.apply(tape.gradient(mean, step.variables(model)), step.variables(model))
            step.after_update(model)
    return model


def distilled_by_hand(rows, epochs):
    """Student's weights and the accuracy of the last epoch on one device without disttrain."""
    model, step, optimizer = Distiller(), DistillStep(), keras.optimizers.Adam(0.05)
    for _ in range(epochs):
        accuracy = keras.metrics.SparseCategoricalAccuracy()
        for batch in labelled(rows):
            with tf.GradientTape() as tape:
                losses, scores = step.losses(model, batch, True)
                mean = tf.reduce_mean(losses)
            accuracy.update_state(batch[1], scores)
            variables = model.student.trainable_variables
            optimizer.apply(tape.gradient(mean, variables), variables)
    return model, float(accuracy.result())


def gan_trainer(**options):
    options = {"step": GANStep(), "optimizer": gan_optimizers(), **options}
    return disttrain.Trainer(GAN, **{"replication": "single", **options})


def distiller(**options):
    options = {"step": DistillStep(), "optimizer": keras.optimizers.Adam(0.05), **options}
    return disttrain.Trainer(Distiller, **{"replication": "single", **options})
