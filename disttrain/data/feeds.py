"""Makes the feeds of one trainer, for training, validation and prediction."""

import itertools

import keras

from disttrain.batches import let_go
from disttrain.data.feed import has_no_end, make_feed, pipeline_errors


class Feeds:
    """Makes `Feed`s for a replication.

    Args:
        replication: A `disttrain.replication.Replication`.
        seed: Seed of the order of arrays.
    """

    def __init__(self, replication, seed):
        self._replication = replication
        self._seed = seed

    def of(self, x, y, sample_weight, batch_size, steps, shuffle=False, training=False):
        """A feed; for the arguments see `make_feed`."""
        return make_feed(
            x,
            self._replication.topology,
            y=y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=self._seed,
            steps=steps,
            training=training,
            all_gather=self._replication.all_gather,
        )

    def trial(self, x, y, sample_weight, batch_size, steps, shuffle):
        """A feed of the training's data for a range test, which ends with them if they end."""
        steps = steps if callable(x) or has_no_end(x) else None
        return self.of(x, y, sample_weight, batch_size, steps, shuffle=shuffle, training=True)

    def validation(self, data, batch_size, steps):
        """A feed of what a user gives as `validation_data`."""
        if isinstance(data, (tuple, list)):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
            return self.of(x, y, sample_weight, batch_size, steps)
        return self.of(data, None, None, None, steps)


def elements(feed):
    """The elements of one pass.

    Args:
        feed: A `Feed`.

    Raises:
        ValueError: There is none.
    """
    iterator = iter(feed.dataset(0))
    none = True
    try:
        with pipeline_errors():
            for element in itertools.islice(iterator, feed.steps if feed.endless else None):
                none = False
                yield element
    finally:
        held = [iterator]
        del iterator
        let_go(held)
    if none:
        raise ValueError("the dataset gave no batch; is it empty?")
