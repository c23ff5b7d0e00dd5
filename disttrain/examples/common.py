"""The options that all examples share."""

import argparse

import keras
import tensorflow as tf

import disttrain


def parser(description):
    """An `argparse.ArgumentParser` with the options that all examples share."""
    options = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    options.add_argument(
        "--replication",
        default="auto",
        choices=disttrain.replication.NAMES,
        help="how replicas are run",
    )
    options.add_argument(
        "--replicas",
        type=positive,
        default=1,
        metavar="N",
        help="with mirrored: logical CPU devices to use",
    )
    options.add_argument("--epochs", type=positive, metavar="N", help="passes over the data")
    options.add_argument(
        "--batch", type=positive, default=64, metavar="N", help="global batch size"
    )
    options.add_argument("--optimizer", default="adam", help="name of a Keras optimizer")
    options.add_argument("--learning-rate", type=float, metavar="RATE", help="peak learning rate")
    options.add_argument(
        "--every", type=positive, default=1, metavar="N", help="record every N steps"
    )
    options.add_argument("--logdir", metavar="DIR", help="where the run is written")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the run")
    return options


def positive(text):
    """A whole number from 1, as the type of an option."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text!r}")
    return number


def optimizer(options, schedule):
    """Makes the optimizer that the options name, with a schedule as its learning rate.

    Raises:
        SystemExit: Keras has no optimizer of this name.
    """
    try:
        made = keras.optimizers.get(options.optimizer)
    except ValueError as error:
        raise SystemExit(
            f"disttrain: unknown --optimizer {options.optimizer!r} ({error})"
        ) from None
    made.learning_rate = schedule
    return made


def replication(options):
    """Makes the replicas that the options ask for; before any tensor.

    Raises:
        SystemExit: The options contradict each other.
    """
    if options.replicas > 1:
        if options.replication not in ("auto", "mirrored"):
            raise SystemExit(
                f"--replicas goes with --replication mirrored, not {options.replication}; other "
                "replications take their number from the launcher"
            )
        options.replication = "mirrored"
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * options.replicas
        )
    try:
        return disttrain.replication.resolve(options.replication)
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"disttrain: {error}") from None


def trainer(options, replication, build_model, schedule, metrics=None):
    """Makes the trainer of a classifier as the options ask for it.

    Args:
        options: The parsed options.
        replication: What `replication(options)` returned.
        build_model: A function that returns a model with logits as its outputs.
        schedule: The learning rate.
        metrics: As for `disttrain.Trainer`.

    Raises:
        SystemExit: The options cannot be followed; the log directory cannot be written, say.
    """
    made = optimizer(options, schedule)
    try:
        return disttrain.Trainer(
            build_model,
            optimizer=made,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=metrics,
            replication=replication,
            clip=disttrain.ClipByGlobalNorm(1.0),
            telemetry=disttrain.Telemetry(every=options.every),
            logdir=options.logdir,
            seed=options.seed,
        )
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"disttrain: {error}") from None


def count(replication):
    """Says how many replicas there are, and of which kind."""
    plural = "" if replication.replicas == 1 else "s"
    return f"{replication.replicas} replica{plural} ({replication.name})"


def one_after_the_other(replication, load):
    """Calls `load()` on the chief first, so that only one process downloads."""
    if replication.is_chief:
        data = load()
    replication.any(False)
    return data if replication.is_chief else load()
