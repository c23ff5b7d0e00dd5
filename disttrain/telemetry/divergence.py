"""Finds out when replicas that should hold the same weights do not.

Each replica hashes the bits of its own weights; a few bytes a variable travel. Only where hashes
differ are values compared. What should be equal on all replicas, the caller knows.
"""

import warnings

import numpy as np
import tensorflow as tf

from disttrain.replication.base import by_dtype

#: Largest relative difference that is taken for rounding; other dtypes have none. Replicas add
#: the same reduced gradient, so processors that round differently, or sums in no fixed order, pull
#: a weight apart by one unit in the last place now and then: a random walk, of a thousand units in
#: a million steps. 16 bits round equal updates to one coarse grid, and the distance stays at a few.
TOLERANCES = {
    "float64": 1024 * 2.0**-52,
    "float32": 1024 * 2.0**-23,
    "float16": 8 * 2.0**-10,
    "bfloat16": 8 * 2.0**-7,
}

#: 32-bit words that are hashed at a time, so that memory does not grow with the variable.
_WORDS = 2**18

#: Variables that are hashed together. TensorFlow's graph optimizer takes time with the square of
#: an operation's inputs, seconds for a thousand of them.
_TOGETHER = 64

#: Elements, over all replicas, that are compared at a time.
_COMPARED = 2**22

#: Odd, and 5 modulo 8: its powers take longest to come back to 1 (Knuth's, TAOCP 3.3.4).
_FACTOR = 6364136223846793005


class DivergenceCheck:
    """Compares the weights of all replicas every so many steps.

    Args:
        replication: A `Replication`.
        variables: `keras.Variable`s that have equal values on all replicas, in the same order on
            all processes: trainable variables, and slots of the optimizer. What replicas move apart
            by design does not belong here: `local_variables` of a `DistributedOptimizer` with their
            slots, statistics of BatchNormalization, seeds, sums of metrics, and the sums of
            gradient accumulation.
        every: Steps between checks.

    Raises:
        ValueError: `every` is not a whole number from 1.
    """

    def __init__(self, replication, variables, every):
        if isinstance(every, bool) or int(every) != every or every < 1:
            raise ValueError(f"every must be a whole number from 1, not {every!r}")
        self._replication = replication
        self._variables = list(variables)
        self._every = int(every)
        self._parts = [tf.constant(0)] * replication.topology.local_replicas
        self._weights = None
        self._hashes = None
        self._readers = {}
        self._checked = False
        self._warned = False

    def due(self, first_step, last_step):
        """Whether to check after an execution of these steps; equal on processes in step.

        It is once one of them is a multiple of `every`, and after the first execution of all: what
        was never made equal should not take `every` steps to be found.

        Args:
            first_step: Number of the execution's first step, counted from 1.
            last_step: Number of its last step.
        """
        return not self._checked or last_step // self._every > (first_step - 1) // self._every

    def check(self, step):
        """Raises if replicas differ. Called on the host by every process at the same steps.

        Differences no larger than `TOLERANCES` are named once, in a warning of the chief. Zeros of
        different sign are equal, and so are NaN on all replicas, whatever their bits.

        Args:
            step: Number of the last step done.

        Raises:
            RuntimeError: A variable differs by more than rounding; raised on every process.
        """
        self._checked = True
        if self._replication.replicas == 1 or not self._variables:
            return
        hashes = self._hash()
        differing = np.flatnonzero((hashes != hashes[0]).any(axis=0))
        rounded = {}
        for index in differing:
            variable = self._variables[index]
            differences = self._compare(variable)
            tolerance = TOLERANCES.get(_dtype(variable).name, 0.0)
            if differences.max() > tolerance:
                raise RuntimeError(
                    self._message(step, index, len(differing), differences, tolerance)
                )
            if differences.max() > 0:
                rounded[variable.path] = differences.max()
        if rounded and not self._warned:
            self._warned = True
            if self._replication.is_chief:
                self._warn(step, rounded)

    def _hash(self):
        """Hashes of all variables, int64 `[replicas, variables]`, on every process."""
        if self._hashes is None:
            # An argument, for as a constant the weights might be copied for each variable.
            self._weights = tf.constant(_odd_weights(_WORDS))
            self._hashes = self._traced(
                lambda part, weights: bit_hashes([v.value for v in self._variables], weights),
                tf.TensorSpec([_WORDS], tf.int64),
            )
        local = np.stack([hashes.numpy() for hashes in self._hashes(self._weights)])
        return self._gather(local)

    def _compare(self, variable):
        """How far each replica's values are from those of replica 0, float64 `[replicas]`.

        The largest absolute difference of an element, relative to the element on replica 0 or,
        where that is more, to the variable's root mean square, on the first replica that has one.
        Infinite where one of the two elements is finite and the other not.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            squares = sum(
                np.square(p, dtype=np.float64).sum(axis=1) for p in self._pieces(variable)
            )
            squares = self._gather(squares)
            squares = squares[np.isfinite(squares) & (squares > 0)]
            rms = np.sqrt(squares[:1].sum() / _size(variable))
            differences = np.zeros(self._replication.replicas)
            for piece in self._pieces(variable):
                everyone = self._gather(piece)
                differences = np.maximum(differences, _difference(everyone, rms))
        # Processors may round these, too, and all processes have to decide alike.
        return self._replication.all_gather(differences)[0]

    def _pieces(self, variable):
        """Yields the values of local replicas piece by piece, `[local replicas, elements]`."""
        size = max(1, _COMPARED // self._replication.replicas)
        exact = _dtype(variable).name in ("float32", "float16", "bfloat16")

        def on_replica(part, start):
            values = tf.reshape(variable.value, [-1])[start : start + size]
            return tf.cast(values, tf.float32 if exact else tf.float64)

        read = self._readers.get(id(variable))
        if read is None:
            read = self._traced(on_replica, tf.TensorSpec([], tf.int64))
            self._readers[id(variable)] = read
        for start in range(0, _size(variable), size):
            local = read(tf.constant(start, tf.int64))
            yield np.stack([values.numpy() for values in local])

    def _traced(self, function, spec):
        """`function(part, argument)` on every local replica, traced once for a `TensorSpec`."""
        run = tf.function(
            lambda argument: self._replication.run(function, self._parts, (argument,)),
            autograph=False,
        )
        # A concrete function, for TensorFlow warns of functions that are traced for one call only.
        return run.get_concrete_function(spec)

    def _gather(self, local):
        """Gathers `[local replicas, ...]` of all processes to `[replicas, ...]`."""
        gathered = self._replication.all_gather(local)
        return gathered.reshape(self._replication.replicas, *local.shape[1:])

    def _message(self, step, index, differing, differences, tolerance):
        variable, largest = self._variables[index], differences.max()
        replicas = _listed(np.flatnonzero(differences > tolerance))
        size = "are finite on one of them only"
        if np.isfinite(largest):
            size = f"are {largest:.2g} of their size apart, where rounding explains {tolerance:.2g}"
        return (
            f"replicas hold different weights after step {step}: {variable.path!r} on {replicas} "
            f"is not that of replica 0; elements {size} ({differing} of {len(self._variables)} "
            "variables differ). Usual causes: processes that did not begin with equal weights "
            "(with Model.fit under Horovod, add disttrain.callbacks.BroadcastVariables()); a "
            "callback that assigns or loads weights on one process only; an update that draws "
            "random numbers from different seeds, or reads something else that differs, such as "
            "the learning rate; operations that are not deterministic "
            "(tf.config.experimental.enable_op_determinism()). Weights that are meant to differ "
            "belong in DistributedOptimizer(local_variables=...)"
        )

    def _warn(self, step, rounded):
        path = next(iter(rounded))
        more = f" and {len(rounded) - 1} more" if len(rounded) > 1 else ""
        warnings.warn(
            f"replicas round differently: after step {step}, elements of {path!r}{more} are up to "
            f"{max(rounded.values()):.2g} of their size apart, as processors of different kinds "
            "or operations that are not deterministic leave them; training goes on. Each later "
            "check sends these variables between the processes, so check seldom",
            stacklevel=3,
        )


def bit_hashes(values, weights):
    """Hashes of tensors' bits in which their order counts.

    Each 32-bit word, or shorter element, is multiplied by an odd 64-bit weight of its place, and
    the products are added modulo 2^64 (multilinear hashing, Carter and Wegman 1979). A change of
    one word always shows, for an odd factor loses no bit of it; changes of several cancel out about
    once in 2^32 times at worst, when all are in the highest bit. Integers add up to the same in any
    order, so that threads do not matter.

    Args:
        values: Tensors, or variables, of static shapes and any numeric or boolean dtypes.
        weights: int64 `[words]`, odd. So many words are hashed at a time.

    Returns:
        int64 `[len(values)]`.
    """
    places, hashes = [], []
    vector = tf.constant([-1])
    for group in _groups(values, weights.shape[0]):
        flat = [tf.reshape(values[i], vector) for i in group]
        hashes.append(_hash_together(flat, weights) if len(flat) > 1 else _hash(*flat, weights))
        places += group
    return tf.gather(tf.concat(hashes, 0), np.argsort(places))


def _groups(values, most):
    """Places of values of one dtype with no more than `most` words together; longer ones alone."""
    groups = []
    for places in by_dtype(values):
        room = -1
        for place in places:
            words = _word_count(values[place])
            if words > room or len(groups[-1]) == _TOGETHER:
                groups.append([])
                room = most
            groups[-1].append(place)
            room -= words
    return groups


def _hash_together(flat, weights):
    """Hashes of vectors that have a weight for each word, int64 `[len(flat)]`.

    A model has thousands of small variables, and each operation takes its time.
    """
    ends = np.cumsum([_word_count(tensor) for tensor in flat])
    words = _words(tf.concat(flat, 0))
    sums = tf.cumsum(words * weights[: ends[-1]])
    sums = tf.gather(tf.concat([tf.zeros([1], tf.int64), sums], 0), [0, *ends])
    return sums[1:] - sums[:-1]


def _hash(flat, weights):
    """The hash of one vector, int64 `[1]`; piece by piece, so that memory does not grow with it."""
    piece = weights.shape[0] // _words_each(flat)
    pieces = -(-flat.shape[0] // piece)

    def add(i, total):
        words = _words(flat[i * piece : (i + 1) * piece])
        own = tf.reduce_sum(words * weights[: tf.size(words)], keepdims=True)
        return i + 1, total * tf.constant(_FACTOR, tf.int64) + own

    start = (tf.constant(0), tf.zeros([1], tf.int64))
    if pieces <= 1:
        return add(*start)[1]
    return tf.while_loop(lambda i, total: i < pieces, add, start, parallel_iterations=1)[1]


def _words(flat):
    """A vector's bits as int64 `[words]`, of 32 bits or shorter."""
    if flat.dtype == tf.bool:
        flat = tf.cast(flat, tf.int8)
    bits = {1: tf.int8, 2: tf.int16}.get(flat.dtype.size, tf.int32)
    # On a GPU, 32-bit integers are reshaped and sliced on the host, the others on the device.
    return tf.reshape(tf.cast(tf.bitcast(flat, bits), tf.int64), [-1])


def _words_each(tensor):
    return max(1, tensor.dtype.size // 4)


def _word_count(tensor):
    return tensor.shape.num_elements() * _words_each(tensor)


def _odd_weights(count):
    """Odd int64 `[count]` that look random and are the same everywhere (SplitMix64)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) | np.uint64(1)).view(np.int64)


def _difference(values, rms):
    """The largest difference of each row of `values` from the first, `[rows]`."""
    values = values.astype(np.float64)
    first = values[:1]
    equal = (values == first) | (np.isnan(values) & np.isnan(first))
    scale = np.maximum(np.abs(first), rms)
    relative = np.abs(values - first) / np.where(scale > 0, scale, 1.0)
    relative = np.where(np.isfinite(values) & np.isfinite(first), relative, np.inf)
    return np.where(equal, 0.0, relative).max(axis=1, initial=0.0)


def _listed(replicas, most=8):
    """`"replica 1"`, `"replicas 1 and 3"`, `"replicas 1, 2, 3, ... (63 in all)"`."""
    names = [str(replica) for replica in replicas]
    if len(names) == 1:
        return f"replica {names[0]}"
    if len(names) > most:
        return f"replicas {', '.join(names[:most])}, ... ({len(names)} in all)"
    return f"replicas {', '.join(names[:-1])} and {names[-1]}"


def _dtype(variable):
    return tf.as_dtype(variable.dtype)


def _size(variable):
    return int(np.prod(variable.shape))
