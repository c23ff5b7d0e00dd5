"""Feeds of Python iterables: generators, which can be read once, and objects such as a PyTorch
`DataLoader`, which are read again in each epoch.

Their order is their own: a process cannot find a place in it but by reading up to it.
"""

import itertools
import weakref

from disttrain.data.elements import Elements
from disttrain.data.feed import from_batches

_SAME = (
    "The training resumes with data from a {0}, whose position cannot be restored: its present "
    "pass is read again up to where the training was. The training is the same only if the {0} "
    "yields the same batches in each pass and in each program; a PyDataset or a tf.data.Dataset "
    "that is shuffled with a seed can be resumed exactly."
)

#: Generators to the batches that were peeked at and not read yet.
_peeked = weakref.WeakKeyDictionary()


def from_iterable(data, steps, training, topology, class_weights=None):
    """The `Feed` of an iterable; for the arguments see `disttrain.data.make_feed`."""
    source = type(data).__name__
    one_pass = hasattr(data, "__next__")
    reader = _OnePass(data) if one_pass else _Passes(data)
    peeked = reader.peek(2)
    if not peeked:
        raise ValueError(f"the {source} is empty: it gave no batch")
    elements = Elements(peeked, source, class_weights)
    dataset = elements.dataset(reader.batches)

    def read(epoch, taken):
        return dataset.skip(taken) if taken else dataset

    return from_batches(
        read,
        elements.spec,
        reader.length,
        topology,
        steps,
        training,
        one_pass=one_pass,
        not_resumable=_SAME.format(source),
    )


class _OnePass:
    """An iterator, which stays where it is from call to call.

    Args:
        iterator: A Python iterator.
    """

    length = None

    def __init__(self, iterator):
        self._iterator = iterator
        try:
            self._first = _peeked.setdefault(iterator, [])
        except (
            TypeError
        ):  # Python's own iterators, such as those of lists, allow no weak reference.
            self._first = []

    def peek(self, count):
        """The next batches, which are read again."""
        self._first += itertools.islice(self._iterator, count - len(self._first))
        return self._first[:count]

    def batches(self):
        """What is left."""
        while self._first:
            yield self._first.pop(0)
        # Not `yield from`, which would close a generator that is read on later.
        for batch in self._iterator:  # noqa: UP028
            yield batch


class _Passes:
    """An iterable that is read from its beginning in each pass.

    Args:
        iterable: The object.
    """

    def __init__(self, iterable):
        self._iterable = iterable
        self.length = _length(iterable)

    def peek(self, count):
        """The first batches."""
        return list(itertools.islice(iter(self._iterable), count))

    def batches(self):
        """One pass."""
        return iter(self._iterable)


def _length(iterable):
    """`len` of an object, or `None`; PyTorch's loaders raise a TypeError where they have none."""
    try:
        return len(iterable)
    except (TypeError, NotImplementedError):
        return None
