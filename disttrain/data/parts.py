"""Cuts global batches into the parts of a process's replicas, and checks that they can be cut."""

import keras
import tensorflow as tf

#: Marks errors that the input pipeline raises for the user.
SMALL_BATCH = "is smaller than the number of replicas"


def split(batch, topology, static_rows):
    """Cuts the rows of this process's replicas out of a global batch."""
    leaves = keras.tree.flatten(batch)
    total = _rows(leaves[0]) if static_rows is None else static_rows
    places, counts = _places(total, topology, may_be_empty=static_rows is None)
    parts = [
        keras.tree.map_structure(lambda leaf, a=start, b=stop: _slice(leaf, a, b), batch)
        for start, stop in places
    ]
    return _element(parts, counts, total, leaves, topology)


def split_rows(rows, take, topology):
    """What `split` would make of a global batch of which only this process's rows are taken.

    Args:
        rows: The numbers of the batch's rows, int64 `[rows]`.
        take: A function of such numbers that returns the rows.
        topology: The process's `disttrain.replication.Topology`.
    """
    total = tf.shape(rows)[0]
    places, counts = _places(total, topology, may_be_empty=True)
    first = [] if topology.processes == 1 else keras.tree.flatten(take(rows[:1]))
    parts = [take(rows[start:stop]) for start, stop in places]
    return _element(parts, counts, total, first, topology)


def _rows(leaf):
    """The rows of a dense, ragged or sparse tensor, an int32 scalar."""
    if isinstance(leaf, tf.RaggedTensor):
        return tf.cast(leaf.nrows(), tf.int32)
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    return tf.shape(leaf)[0]


def _slice(leaf, start, stop):
    """Rows of a dense, ragged or sparse tensor."""
    if not isinstance(leaf, tf.SparseTensor):
        return leaf[start:stop]
    rest = leaf.dense_shape[1:]
    size = tf.concat([tf.cast([stop - start], tf.int64), rest], 0)
    begin = tf.concat([tf.cast([start], tf.int64), tf.zeros_like(rest)], 0)
    cut = tf.sparse.slice(leaf, begin, size)
    # A slice does not know its own shape.
    cut = tf.SparseTensor(cut.indices, cut.values, size)
    cut.set_shape([None, *leaf.shape[1:]])
    return cut


def _places(total, topology, may_be_empty):
    """Where the parts of this process begin and end, and how many rows of each count."""
    places, counts = [], []
    for local in range(topology.local_replicas):
        index = topology.first_replica + local
        start = total * index // topology.replicas
        stop = total * (index + 1) // topology.replicas
        counts.append(stop - start)
        if may_be_empty:
            # A replica without rows borrows one, which then weighs nothing.
            start = tf.minimum(start, total - 1)
            stop = tf.maximum(stop, start + 1)
        places.append((start, stop))
    return places, counts


def _element(parts, counts, total, leaves, topology):
    return {
        "parts": tuple(parts),
        "rows": tf.cast(tf.stack(counts), tf.float32),
        "total": tf.cast(total, tf.float32),
        "fingerprint": _fingerprint(leaves, topology),
    }


def whole(element):
    """What `split` would make of an element of the user's dataset for a single replica.

    A step calls it, for the call of a mapped function alone would cost 50 microseconds a batch.
    """
    batch = as_tuple(element if type(element) is tuple else (element,))
    rows = static_batch(batch)
    if rows is None:
        rows = _rows(keras.tree.flatten(batch)[0])
    rows = tf.cast(rows, tf.float32)
    return {
        "parts": (batch,),
        "rows": rows[None],
        "total": rows,
        "fingerprint": tf.constant(0.0),
    }


def cut(topology, rows):
    """`split` as a step calls it, on elements of the user's dataset that have so many rows.

    For the reason of `whole`; and the slices of the rows are no copies.
    """

    def divide(element):
        # A GPU gets its own part alone.
        with tf.device("CPU:0"):
            batch = as_tuple(element if type(element) is tuple else (element,))
            return split(batch, topology, rows)

    return divide


def already(element):
    """An element that the dataset has split."""
    return element


def spec(element_spec, replicas):
    """The structure of a part, of `tf.TensorSpec`, from that of a dataset's elements.

    Args:
        element_spec: The dataset's.
        replicas: How many share the rows of an element, where a step makes parts of it by `whole`
            or `cut`; `None` where the dataset has split it.
    """
    if replicas is None:
        return element_spec["parts"][0]

    def of_a_part(leaf):
        shape = leaf.shape
        if shape.rank and shape[0] is not None:
            shape = [shape[0] // replicas, *shape[1:]]
        if isinstance(leaf, tf.SparseTensorSpec):
            return tf.SparseTensorSpec(shape, leaf.dtype)
        if isinstance(leaf, tf.RaggedTensorSpec):
            return tf.RaggedTensorSpec(
                shape, leaf.dtype, leaf.ragged_rank, row_splits_dtype=leaf.row_splits_dtype
            )
        return tf.TensorSpec(shape, leaf.dtype)

    whole = as_tuple(element_spec if type(element_spec) is tuple else (element_spec,))
    return tf.nest.map_structure(of_a_part, whole)


def nothing(spec):
    """An element without rows that count, of the structure that `split` has given others."""

    def zeros(leaf):
        return tf.zeros([size or 1 for size in leaf.shape], leaf.dtype)

    return {
        "parts": tf.nest.map_structure(zeros, spec["parts"]),
        "rows": tf.zeros(spec["rows"].shape),
        "total": tf.constant(-1.0),
        "fingerprint": tf.constant(0.0),
    }


def _fingerprint(leaves, topology):
    if topology.processes == 1:
        return tf.constant(0.0)
    # One row tells shuffled batches apart; whole numbers below 1021 add up exactly in float32.
    first = [
        tf.io.serialize_tensor(tensor)
        for leaf in leaves
        for tensor in tf.nest.flatten(_slice(leaf, 0, 1), expand_composites=True)
    ]
    return tf.cast(tf.strings.to_hash_bucket_fast(tf.strings.join(first), 1021), tf.float32)


def check_batched(spec, topology, training, dense=False):
    """Checks that leaves share a batch axis; returns its static size where replicas divide it.

    Args:
        spec: The `element_spec` of a dataset.
        topology: The process's `disttrain.replication.Topology`.
        training: Whether a batch must fill every replica.
        dense: Whether ragged and sparse tensors are refused.

    Raises:
        TypeError: There is something that cannot be cut.
        ValueError: The dataset is not batched, or the batch too small.
    """
    sizes = set()
    for path, leaf in keras.tree.flatten_with_path(spec):
        cut = (tf.TensorSpec, *(() if dense else (tf.RaggedTensorSpec, tf.SparseTensorSpec)))
        if not isinstance(leaf, cut):
            raise TypeError(
                f"{'/'.join(map(str, path))} of the dataset is a {type(leaf).__name__}; make it a "
                "dense tensor, with to_tensor() or tf.sparse.to_dense, before batching"
            )
        if leaf.shape.rank == 0:
            raise ValueError(
                f"the dataset is not batched: an element is {spec}; call "
                "dataset.batch(global batch size)"
            )
        sizes.add(None if leaf.shape.rank is None else leaf.shape[0])
    if len(sizes - {None}) > 1:
        raise ValueError(
            f"the dataset is not batched, or its parts differ in their first axis: {spec}; call "
            "dataset.batch(global batch size)"
        )
    size = sizes.pop() if len(sizes) == 1 else None
    if training and size is not None and size < topology.replicas:
        raise ValueError(small(size, topology))
    return size if size is not None and size % topology.replicas == 0 else None


def static_batch(batch):
    """The size of the batch axis, where tensors or their specifications tell."""
    shape = keras.tree.flatten(batch)[0].shape
    return None if shape.rank is None else shape[0]


def check_first(index, element, topology):
    """The element, which is refused if it is the first and leaves a replica without rows."""
    rows = tf.reduce_sum(element["rows"]) if topology.processes == 1 else element["total"]
    message = f"a global batch {SMALL_BATCH} ({topology.replicas}): its rows are"
    check = tf.debugging.Assert((index > 0) | (rows >= topology.replicas), [message, rows])
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, element)


def small(size, topology):
    """Says that a global batch is too small."""
    return (
        f"a global batch of {size} {SMALL_BATCH} ({topology.replicas}), so some would never train; "
        "use a batch of at least that size, or fewer replicas"
    )


def as_tuple(element):
    """The elements of a dataset as `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    if len(element) > 3:
        raise ValueError(
            f"the dataset yields {len(element)} parts; it should yield (x, y) or "
            "(x, y, sample_weight), with several inputs in a dictionary or tuple of their own"
        )
    return tuple(element)
