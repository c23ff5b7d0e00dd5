"""How long epochs and trainings are: what the user asks for, Keras's limits, and where data end."""

import dataclasses
import warnings

import keras


def limit_epochs(epochs):
    """The epochs of a training, or `keras.config.max_epochs()` if those are fewer."""
    most = _limit("max_epochs")
    if not most or epochs <= most:
        return epochs
    warnings.warn(f"keras.config.max_epochs() limits epochs={epochs} to {most}.", stacklevel=2)
    return most


def check_steps(steps, name):
    """Checks what a user gives as a number of steps.

    Args:
        steps: `None` for the whole data, or a number.
        name: The argument's name.

    Returns:
        `None`, or the number.

    Raises:
        ValueError: It is not a whole number from 1.
    """
    if steps is None:
        return None
    if isinstance(steps, bool) or int(steps) != steps or steps < 1:
        raise ValueError(f"{name} must be None or a whole number of at least 1, not {steps!r}")
    return int(steps)


def limit_steps(feed_of, steps):
    """A feed of at most `keras.config.max_steps_per_epoch()` steps an epoch.

    Args:
        feed_of: A function of a number of steps, or `None`, that returns a `Feed`.
        steps: What the user asks for.
    """
    most = _limit("max_steps_per_epoch")
    if not most or (steps is not None and steps <= most):
        return feed_of(steps)
    feed = feed_of(most)
    if steps is None and feed.is_finite and feed.length <= most:
        return dataclasses.replace(feed, steps=feed.length, endless=False)
    warnings.warn(
        f"keras.config.max_steps_per_epoch() limits an epoch to {most} steps.", stacklevel=2
    )
    return feed


def warn_of_the_end(done, feed):
    """Warns that the data of an epoch, a validation or a prediction have ended early.

    Args:
        done: Batches that there were.
        feed: The `Feed`.
    """
    name, wanted = feed.steps_name, feed.steps
    more = f"{name} * epochs" if name == "steps_per_epoch" else name
    warnings.warn(
        f"The data ended after {done} of {name}={wanted} batches, and what is missing is left out. "
        f"Provide at least {more} batches, for example with dataset.repeat(), or leave out {name}.",
        stacklevel=2,
    )


def _limit(name):
    # The last Keras for Python 3.10 may not have it.
    return getattr(keras.config, name, lambda: None)()


def check_passes(feed, times, what):
    """Refuses to read data several times that can be read only once.

    Args:
        feed: A `Feed`.
        times: How often it is to be read; with a number of steps, from where it was left.
        what: What reads the feed, such as `"fit with several epochs"`, for the error message.

    Raises:
        ValueError: It cannot be read so often.
    """
    if feed.one_pass and feed.steps is None and times > 1:
        raise ValueError(
            f"{what} reads the data {times} times, but a generator can be read only once. Give "
            f"{feed.steps_name}, and a generator that yields enough batches, or use a "
            "keras.utils.PyDataset or tf.data.Dataset.from_generator."
        )
