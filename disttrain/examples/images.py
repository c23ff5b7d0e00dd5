"""Trains a small convolutional network on images, under any replication.

python -m disttrain.examples.images --replication mirrored --replicas 2 --logdir runs/images
"""

import math

import keras

from disttrain.examples import common, datasets


def build_model(shape, classes=10):
    """A convolutional network, of 94,314 parameters for images of 8 x 8 x 1.

    Args:
        shape: `(height, width, channels)` of the images.
        classes: Number of classes.
    """

    def build():
        return keras.Sequential(
            [
                keras.layers.Input(shape),
                keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_1"),
                keras.layers.Conv2D(32, 3, padding="same", activation="relu", name="conv_2"),
                keras.layers.MaxPooling2D(),
                keras.layers.Conv2D(64, 3, padding="same", activation="relu", name="conv_3"),
                keras.layers.GlobalAveragePooling2D() if shape[0] > 16 else keras.layers.Flatten(),
                keras.layers.Dense(64, activation="relu", name="hidden"),
                keras.layers.Dense(classes, name="logits"),
            ],
            name="images",
        )

    return build


def schedule(peak, steps):
    """Warms up over a tenth of the steps, then decays to 0 along a cosine."""
    warmup = max(1, steps // 10)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=peak / 10,
        decay_steps=max(1, steps - warmup),
        warmup_target=peak,
        warmup_steps=warmup,
    )


def main(arguments=None):
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--dataset", default="digits", choices=datasets.NAMES)
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the IDX files")
    options = parser.parse_args(arguments)
    replication = common.replication(options)
    try:
        train, validation = common.one_after_the_other(
            replication, lambda: datasets.load(options.dataset, options.data_dir)
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"disttrain: {error}") from None

    epochs = options.epochs or (15 if options.dataset == "digits" else 5)
    steps = epochs * math.ceil(len(train[0]) / options.batch)
    trainer = common.trainer(
        options,
        replication,
        build_model(train[0].shape[1:]),
        schedule(options.learning_rate or 3e-3, steps),
        metrics=["accuracy"],
    )
    if replication.is_chief:
        print(
            f"{options.dataset}: {len(train[0]):,} images to train on, {len(validation[0]):,} to "
            f"validate; {common.count(replication)}, global batch "
            f"{options.batch}",
            flush=True,
        )
    trainer.fit(
        *train,
        batch_size=options.batch,
        epochs=epochs,
        validation_data=validation,
        validation_batch_size=256,
    )
    result = trainer.evaluate(*validation, batch_size=256)
    if replication.is_chief:
        print(
            f"Validation accuracy {result['accuracy']:.2%}, loss {result['loss']:.4f}"
            + (f"; the run is in {options.logdir}" if options.logdir else ""),
            flush=True,
        )


if __name__ == "__main__":
    main()
