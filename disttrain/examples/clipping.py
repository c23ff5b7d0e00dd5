"""Clipping saves a recurrent network that explodes without it.

python -m disttrain.examples.clipping
"""

import math

import keras

import disttrain
from disttrain.examples import lessons


def recurrent():
    """Reads an image pixel by pixel. Its state grows a little with each, and so do gradients."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Reshape((64, 1)),
            keras.layers.SimpleRNN(
                32,
                activation="relu",
                recurrent_initializer=keras.initializers.Orthogonal(1.2),
                name="recurrent",
            ),
            keras.layers.Dense(10, name="logits"),
        ]
    )


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=6)
    found = {}
    for name, clip in {
        "without a clip": None,
        "clipped to 1": disttrain.ClipByGlobalNorm(1.0),
    }.items():
        trainer = lesson.trainer(recurrent, keras.optimizers.SGD(0.03, momentum=0.9), clip=clip)
        try:
            history = trainer.fit(*lesson.train, batch_size=64, epochs=lesson.epochs, verbose=0)
        except RuntimeError as error:
            lesson.say(f"{name}: stopped, {error}")
            found[name] = math.nan
            continue
        losses = history.history["loss"]
        found[name] = losses[-1]
        clipped = trainer.optimizer.clip_frequency()
        lesson.say(
            f"{name}: loss after each epoch {', '.join(f'{loss:.3g}' for loss in losses)}; "
            f"{clipped:.0%} of the steps were clipped"
        )
    return found


if __name__ == "__main__":
    main()
