"""A small student learns from a large teacher, on images most of which have no label.

python -m disttrain.examples.distillation
"""

import keras
import numpy as np

import disttrain
from disttrain.examples import lessons

LABELLED, TEMPERATURE = 60, 2.0


def student():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="student",
    )


class Distiller(keras.Model):
    """Both networks; the output is the student's."""

    def __init__(self, teacher_weights):
        super().__init__()
        self.student, self.teacher = student(), lessons.dense()
        self.teacher.set_weights(teacher_weights)
        self.teacher.trainable = False

    def call(self, images, training=None):
        return self.student(images, training=training)


class DistillationStep(disttrain.CustomStep):
    """After Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network"."""

    def variables(self, model):
        return model.student.trainable_variables

    def losses(self, model, batch, training):
        images, labels, has_label = batch
        logits = model(images, training=training)
        soft = keras.ops.softmax(model.teacher(images, training=False) / TEMPERATURE)
        # One value for each example; the trainer takes the mean over the global batch.
        from_teacher = keras.losses.categorical_crossentropy(
            soft, logits / TEMPERATURE, from_logits=True
        )
        from_label = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        losses = TEMPERATURE**2 * from_teacher + has_label * from_label
        # The trainer compares the outputs with y for its metrics.
        return losses, logits


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=20)
    images, labels = lesson.train

    def accuracy(trainer):
        predicted = trainer.predict(lesson.validation[0], batch_size=120).argmax(axis=-1)
        return float(np.mean(predicted == lesson.validation[1]))

    teacher = lesson.trainer(lessons.dense, keras.optimizers.Adam(3e-3))
    teacher.fit(images, labels, batch_size=64, epochs=lesson.epochs, verbose=0)

    alone = lesson.trainer(student, keras.optimizers.Adam(1e-2))
    few = images[:LABELLED], labels[:LABELLED]
    alone.fit(*few, batch_size=20, epochs=lesson.epochs, verbose=0)

    weights = teacher.model.get_weights()
    distilled = lesson.trainer(
        lambda: Distiller(weights),
        keras.optimizers.Adam(1e-2),
        step=DistillationStep(),
        loss=None,
    )
    has_label = (np.arange(len(images)) < LABELLED).astype(np.float32)
    distilled.fit(
        images, labels, sample_weight=has_label, batch_size=64, epochs=lesson.epochs, verbose=0
    )
    found = {"teacher": teacher, f"{LABELLED} labels": alone, "distilled": distilled}
    found = {name: accuracy(trainer) for name, trainer in found.items()}
    lesson.say(*(f"{name}: validation accuracy {value:.2%}" for name, value in found.items()))
    return found


if __name__ == "__main__":
    main()
