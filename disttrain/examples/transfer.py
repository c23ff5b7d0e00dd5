"""Transfer learning with a learning rate of its own for each layer.

python -m disttrain.examples.transfer

A network learns the digits 0 to 4; then few images of 5 to 9 have to do. Its lower layers know much
already, and should move less than the new head.
"""

import keras

from disttrain.examples import lessons
from disttrain.optimizers import Group, Grouped, layer_decay

FEW = 20


def network():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="edges"),
            keras.layers.Conv2D(32, 3, activation="relu", name="parts"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, name="head"),
        ],
        name="transfer",
    )


def of_classes(data, low, most=None):
    """The images of five digits from `low` on, with labels from 0 to 4."""
    x, y = data
    chosen = (y >= low) & (y < low + 5)
    return x[chosen][:most], y[chosen][:most] - low


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=10)
    first = lesson.trainer(network, keras.optimizers.Adam(3e-3))
    first.fit(*of_classes(lesson.train, 0), batch_size=32, epochs=lesson.epochs, verbose=0)
    known = first.evaluate(*of_classes(lesson.validation, 0), batch_size=256)["accuracy"]
    learnt = first.model.get_weights()
    lesson.say(f"Digits 0 to 4: validation accuracy {known:.2%}")

    few, validation = of_classes(lesson.train, 5, FEW), of_classes(lesson.validation, 5)
    optimizer = keras.optimizers.Adam
    tried = {
        "from the beginning": (False, lambda: optimizer(3e-3)),
        "all layers alike": (True, lambda: optimizer(3e-3)),
        "rates fall with depth": (
            True,
            lambda: Grouped(optimizer(3e-3), layer_decay(["*edges/*", "*parts/*", "*head/*"], 0.3)),
        ),
        "the head alone": (
            True,
            lambda: Grouped(optimizer(3e-3), [Group(("*edges/*", "*parts/*"), frozen=True)]),
        ),
    }
    found = {"known": known}
    lesson.say(f"{FEW} images of the digits 5 to 9:")
    for name, (transferred, make) in tried.items():
        trainer = lesson.trainer(network, make())
        if transferred:
            # All but the head.
            trainer.model.set_weights([*learnt[:4], *trainer.model.get_weights()[4:]])
        before = trainer.model.get_weights()[0]
        trainer.fit(*few, batch_size=20, epochs=lesson.epochs, verbose=0)
        accuracy = trainer.evaluate(*validation, batch_size=256)["accuracy"]
        moved = float(abs(trainer.model.get_weights()[0] - before).max())
        found[name] = (accuracy, moved)
        lesson.say(
            f"  {name:22s} validation accuracy {accuracy:.2%}; weights of the lowest layer moved "
            f"by up to {moved:.2g}"
        )
    return found


if __name__ == "__main__":
    main()
