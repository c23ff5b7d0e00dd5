"""Goes through a feed over the epochs, and knows where it is.

The order of batches is a function of the seed, the pass and the number of the batch, so the place
is three numbers. An iterator's own state is not used: TensorFlow's does not always give the same
order back (`shuffle(...).prefetch(...).repeat()` across the end of a pass), cannot be taken of
generators, and holds whole shuffle buffers.
"""

import dataclasses
import threading

#: Seconds that the end of an iterator may take.
_LONG = 0.05


@dataclasses.dataclass(frozen=True)
class Place:
    """A place in the data.

    Attributes:
        passes: Iterators made so far; the last one may be used up.
        epoch: The epoch for which the last one was made.
        taken: Batches taken from it.
    """

    passes: int = 0
    epoch: int = 0
    taken: int = 0


class Batches:
    """The iterators of one call of `fit`.

    Args:
        feed: A `disttrain.data.Feed`.

    Attributes:
        feed: The same.
        iterator: The present iterator; `None` before the first epoch.
    """

    def __init__(self, feed):
        self.feed = feed
        self.iterator = None
        self._passes = self._epoch = self._taken = 0
        self._used_up = self._begun = False

    @property
    def place(self):
        """The `Place` before the next batch."""
        return Place(self._passes, self._epoch, self._taken)

    def begin(self, epoch):
        """Begins an epoch: a new pass, unless one iterator goes on over the epochs."""
        if not self._begun:
            # As Keras does: one call for the time before the first epoch.
            self.feed.end_epoch()
            self._begun = True
        self.feed.begin_epoch()
        used_up = self._used_up or (self.feed.is_finite and self._taken >= self.feed.length)
        if self.iterator is None or not self.feed.endless or used_up:
            self._make(epoch)

    def end(self):
        """Ends an epoch."""
        self.feed.end_epoch()

    def steps(self, done):
        """The steps of the present epoch, of which some are done; `None` if not known."""
        feed = self.feed
        if not feed.endless or not feed.is_finite:
            return feed.steps
        return min(feed.steps, done + max(feed.length - self._taken, 0))

    def restart(self, epoch):
        """Begins another pass in an epoch without a batch, because a pass ended with the last one.

        Returns:
            Whether there is another pass; a pass of which nothing was read is empty.
        """
        if not self.feed.endless or self.feed.one_pass or self._taken == 0:
            return False
        self._make(epoch)
        return True

    def ran_out(self):
        """Notes that the present pass has ended within an epoch."""
        self._used_up = True

    def close(self):
        """Drops the present iterator, if there is one."""
        if self.iterator is not None:
            held, self.iterator = [self.iterator], None
            let_go(held)

    def took(self, count):
        """Notes that so many batches were taken from `iterator`."""
        self._taken += count

    def go_to(self, place, within_epoch, epochs=0):
        """Goes to a place in the data of another process, which has read the same feed.

        Args:
            place: A `Place`.
            within_epoch: Whether the pass of that place goes on; else the next epoch begins one.
            epochs: Epochs that are done, whose hooks are called again.
        """
        self.feed.end_epoch()
        self._begun = True
        for _ in range(epochs):
            self.feed.begin_epoch()
            self.feed.end_epoch()
        if within_epoch:
            self.feed.begin_epoch()
        goes_on = place.passes > 0 and (within_epoch or self.feed.endless)
        self._passes = place.passes - 1 if goes_on else place.passes
        if not self.feed.numbered:
            pass_over(self.feed.dataset(place.epoch), self._passes)
        if goes_on:
            self._make(place.epoch, place.taken)

    def _make(self, epoch, taken=0):
        self.close()
        self.iterator = iter(self.feed.dataset(epoch, taken))
        self._passes += 1
        self._epoch, self._taken, self._used_up = epoch, taken, False


def let_go(held):
    """Empties a list of iterators that nobody else holds, and does not wait if that takes long.

    The end of an iterator wakes the thread that tunes its parallelism, and waits for it. TensorFlow
    marks that thread's order to end only after it has woken it, so that about one time in six it
    goes back to sleep: for as long again as the iterator has lived, up to a minute.
    """
    thread = threading.Thread(target=held.clear, name="disttrain-iterator", daemon=True)
    thread.start()
    # What it read is closed by then: a cache's file, say, that the next iterator opens.
    thread.join(_LONG)


def pass_over(dataset, passes):
    """Moves a dataset's shuffles on by so many passes, without reading an element."""
    for _ in range(passes):
        iter(dataset)
