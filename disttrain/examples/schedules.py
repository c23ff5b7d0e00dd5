"""Learning rate schedules: the same training under several, and their rates.

python -m disttrain.examples.schedules
"""

import math

import keras

from disttrain import schedules
from disttrain.examples import lessons

BATCH, PEAK = 64, 0.3


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=6)
    steps = lesson.epochs * math.ceil(len(lesson.train[0]) / BATCH)
    warmup = max(1, steps // 10)
    cosine = keras.optimizers.schedules.CosineDecay(PEAK, steps - warmup)
    tried = {
        "constant": PEAK,
        "warmup, cosine": schedules.Warmup(cosine, warmup),
        "one cycle": schedules.OneCycle(PEAK, steps),
        "inverse root": schedules.InverseSqrt(PEAK, warmup),
        "two in a row": schedules.Sequence([PEAK, PEAK / 10], [2 * steps // 3]),
    }
    shown = [0, warmup, steps // 2, steps - 1]
    found = {}
    heads = "  ".join(f"{f'step {step}':>8s}" for step in shown)
    lesson.say(f"{'Rates at':16s}{heads:41s}Validation loss, accuracy")
    for name, schedule in tried.items():
        optimizer = keras.optimizers.SGD(schedule)
        trainer = lesson.trainer(lessons.dense, optimizer)
        trainer.fit(*lesson.train, batch_size=BATCH, epochs=lesson.epochs, verbose=0)
        result = trainer.evaluate(*lesson.validation, batch_size=256)
        rates = [float(schedule(step)) if callable(schedule) else schedule for step in shown]
        found[name] = result["accuracy"]
        lesson.say(
            f"{name:16s}{'  '.join(f'{rate:8.2g}' for rate in rates):41s}"
            f"{result['loss']:.4f}  {result['accuracy']:.2%}"
        )
    return found


if __name__ == "__main__":
    main()
