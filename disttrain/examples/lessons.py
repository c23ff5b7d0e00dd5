"""What the short examples share: their few options, the digits, a small model, a trainer."""

import argparse

import keras

import disttrain
from disttrain.examples import common, datasets

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Lesson:
    """A short example that runs.

    Args:
        description: One sentence.
        arguments: The command line's arguments, by default those of the process.
        epochs: Epochs of each training, unless `--epochs` says otherwise.
        records: Whether it writes a run, so that there is an option `--logdir`.

    Attributes:
        replication: The `disttrain.replication.Replication`.
        epochs: Epochs of each training.
        seed: Seed of each training.
        logdir: What `--logdir` says, or `None`.
        train: `(x, y)`: images float32 `[1437, 8, 8, 1]`, labels int32 `[1437]`.
        validation: The same of the other 360.
    """

    def __init__(self, description, arguments=None, epochs=8, records=False):
        parser = argparse.ArgumentParser(
            description=description.partition("\n")[0],
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        add = parser.add_argument
        choices = disttrain.replication.NAMES
        add("--replication", default="auto", choices=choices, help="how replicas are run")
        replicas = "with mirrored: logical CPU devices to use"
        add("--replicas", type=common.positive, default=1, metavar="N", help=replicas)
        add("--epochs", type=common.positive, default=epochs, metavar="N", help="of each training")
        add("--seed", type=int, default=0, metavar="N", help="of each training")
        if records:
            add(
                "--logdir",
                metavar="DIR",
                help="where runs are written; by default nowhere for long",
            )
        options = parser.parse_args(arguments)
        self.replication = common.replication(options)
        self.epochs, self.seed = options.epochs, options.seed
        self.logdir = getattr(options, "logdir", None)
        try:
            self.train, self.validation = datasets.load("digits")
        except RuntimeError as error:
            raise SystemExit(f"disttrain: {error}") from None

    def trainer(self, build_model, optimizer, **options):
        """A `disttrain.Trainer` of a classifier."""
        options = {"loss": CROSSENTROPY, "metrics": ["accuracy"], "seed": self.seed, **options}
        return disttrain.Trainer(
            build_model, optimizer=optimizer, replication=self.replication, **options
        )

    def say(self, *lines):
        """Prints lines, on the chief alone."""
        if self.replication.is_chief:
            print(*lines, sep="\n", flush=True)


def dense():
    """A small network for the digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu", name="hidden"),
            keras.layers.Dense(10, name="logits"),
        ],
        name="dense",
    )
