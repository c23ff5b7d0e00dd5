"""LARS for large batches: half of the data in each step.

python -m disttrain.examples.large_batch --replication mirrored --replicas 2
"""

import keras

from disttrain import schedules
from disttrain.examples import lessons
from disttrain.optimizers import LARS

BATCH = 720


def deep():
    """A network whose layers need steps of different sizes: its input is not normalised."""
    layers = [keras.layers.Dense(64, "relu", name=f"hidden_{i}") for i in range(4)]
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Rescaling(16.0),
            *layers,
            keras.layers.Dense(10, name="logits"),
        ]
    )


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=25)
    steps = lesson.epochs * 2

    def schedule(peak):
        # Large rates need a warmup, and a decay.
        decay = keras.optimizers.schedules.CosineDecay(peak, steps - steps // 5)
        return schedules.Warmup(decay, steps // 5)

    optimizers = {
        "SGD, rate 0.03": keras.optimizers.SGD(schedule(0.03), momentum=0.9),
        "SGD, rate 0.1": keras.optimizers.SGD(schedule(0.1), momentum=0.9),
        "LARS, rate 4": LARS(schedule(4.0), momentum=0.9),
    }
    accuracies = {}
    lesson.say(f"Batches of {BATCH} of {len(lesson.train[0])} images, {steps} steps:")
    for name, optimizer in optimizers.items():
        trainer = lesson.trainer(deep, optimizer)
        trainer.fit(*lesson.train, batch_size=BATCH, epochs=lesson.epochs, verbose=0)
        result = trainer.evaluate(*lesson.validation, batch_size=256)
        accuracies[name] = result["accuracy"]
        lesson.say(f"  {name:15s} validation accuracy {result['accuracy']:.2%}")
    return accuracies


if __name__ == "__main__":
    main()
