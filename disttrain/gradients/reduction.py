"""From each replica's gradients to those of the global batch: sum, mean or Adasum.

How tensors travel is the replication's. Here is decided which travel together, in which dtype, and
what a sparse gradient looks like on the way.
"""

import tensorflow as tf

from disttrain.gradients import sparse

REDUCTIONS = ("mean", "sum", "adasum")

#: How gradients are grouped where the user does not say.
_GROUPS, _LEAST_BYTES = 4, 2**20

COMPRESSIONS = {None: None, "fp16": tf.float16, "bf16": tf.bfloat16}


class Reduction:
    """Reduces lists of gradients over replicas.

    Args:
        kind: `"mean"`, `"sum"` or `"adasum"`.
        compression: `None`, `"fp16"` or `"bf16"`: the dtype in which float32 and float64 gradients
            travel. They are added in it, too; the caller divides what would overflow.
        groups: In how many groups the gradients travel. A group starts when its last gradient is
            there, so several overlap with the backward pass; each costs a start of its own. `None`
            takes up to four, of a mebibyte or more each.
        sparse_as_dense: Whether `tf.IndexedSlices` are made dense first. That moves whole tables,
            but costs less where most rows have a gradient.

    Raises:
        ValueError: An argument is unknown, or does not go with Adasum.
    """

    def __init__(self, kind="mean", compression=None, groups=None, sparse_as_dense=False):
        if kind not in REDUCTIONS:
            raise ValueError(
                f"unknown reduction {kind!r}; choose one of {', '.join(map(repr, REDUCTIONS))}"
            )
        if compression not in COMPRESSIONS:
            raise ValueError(f"unknown compression {compression!r}; choose None, 'fp16' or 'bf16'")
        is_number = isinstance(groups, (int, float)) and not isinstance(groups, bool)
        if groups is not None and not (is_number and int(groups) == groups and groups >= 1):
            raise ValueError(
                "groups must be a whole number from 1, in how many groups the gradients travel, or "
                f"None, not {groups!r}"
            )
        if kind == "adasum" and compression is not None:
            raise ValueError(
                f"Adasum looks at angles between gradients, which compression={compression!r} "
                "would bend; leave the compression out"
            )
        self.kind = kind
        self.compression = compression
        self.groups = None if groups is None else int(groups)
        self.sparse_as_dense = bool(sparse_as_dense)

    def prepare(self, gradients):
        """Brings gradients into the form in which they are added up on a replica.

        Args:
            gradients: Dense tensors and `tf.IndexedSlices`.

        Returns:
            The same gradients; slices hold each row once, or have become dense.

        Raises:
            ValueError: A gradient is sparse and the reduction is Adasum.
        """
        prepared = []
        for gradient in gradients:
            if not sparse.is_sparse(gradient):
                prepared.append(tf.convert_to_tensor(gradient))
            elif self.sparse_as_dense:
                prepared.append(sparse.to_dense(gradient))
            elif self.kind == "adasum":
                raise ValueError(
                    "Adasum does not take sparse gradients; set sparse_as_dense=True, or use "
                    "reduction='mean'"
                )
            else:
                prepared.append(sparse.without_repeats(gradient))
        return prepared

    def __call__(self, replication, gradients, extras=()):
        """Reduces gradients; in replica context.

        Args:
            replication: A `disttrain.replication.Replication`.
            gradients: What `prepare` returned.
            extras: float32 scalars to sum, which travel with the first group uncompressed.

        Returns:
            `(gradients, extras)`: the sums, or Adasum of the gradients; lists.
        """
        results = list(gradients)
        dense = [i for i, g in enumerate(gradients) if not sparse.is_sparse(g)]
        for i, gradient in enumerate(gradients):
            if sparse.is_sparse(gradient) and replication.replicas > 1:
                results[i] = self._gathered(replication, gradient, f"sparse.{i}")
        if self.kind == "adasum" and replication.replicas > 1:
            for i in dense:
                results[i] = _adasum(replication, gradients[i], f"adasum.{i}")
            return results, replication.reduce_sum(list(extras), "extras")
        extras = list(extras)
        for number, places in enumerate(_partition([gradients[i] for i in dense], self.groups)):
            places = [dense[place] for place in places]
            travelling = [self._compressed(gradients[i]) for i in places]
            sent = extras if number == 0 else []
            sums = replication.reduce_sum([*travelling, *sent], f"gradients.{number}")
            if number == 0:
                extras = sums[len(travelling) :]
            for i, total in zip(places, sums, strict=False):
                results[i] = tf.cast(total, gradients[i].dtype)
        if not dense:
            extras = replication.reduce_sum(extras, "extras")
        return results, extras

    def uses_16_bits(self, gradients):
        """Whether some gradients travel, and are added, as float16 or bfloat16.

        Args:
            gradients: As for `prepare`.
        """
        return self.compression is not None or any(
            gradient.dtype in (tf.float16, tf.bfloat16) for gradient in gradients
        )

    def _compressed(self, gradient):
        dtype = COMPRESSIONS[self.compression]
        if dtype is None or gradient.dtype not in (tf.float32, tf.float64):
            return gradient
        return tf.cast(gradient, dtype)

    def _gathered(self, replication, gradient, name):
        values = replication.gather(self._compressed(gradient.values), f"{name}.values")
        indices = replication.gather(gradient.indices, f"{name}.indices")
        values = tf.cast(values, gradient.dtype)
        return sparse.without_repeats(
            tf.IndexedSlices(values, indices, dense_shape=gradient.dense_shape)
        )


def _partition(tensors, groups):
    """Splits tensors into groups of about equal bytes, those of the last layers first.

    The backward pass finishes the last layers first, so their group can leave while it goes on.
    """
    order = range(len(tensors) - 1, -1, -1)
    sizes = [tensor.dtype.size * (tensor.shape.num_elements() or 1) for tensor in tensors]
    if groups is None:
        groups = max(1, min(_GROUPS, sum(sizes) // _LEAST_BYTES))
    share = sum(sizes) / groups
    result, current, taken = [], [], 0
    for i in order:
        current.append(i)
        taken += sizes[i]
        if taken >= share * (len(result) + 1) and len(result) < groups - 1:
            result.append(current)
            current = []
    return result + ([current] if current else [])


def _adasum(replication, gradient, name):
    """Adasum of one tensor over all replicas, in pairs.

    Maleki et al. 2020, "Scaling Distributed Training with Adaptive Summation", equation 6: parallel
    gradients are averaged, orthogonal ones added.
    """
    gathered = replication.gather(gradient[None], name)
    level = tf.unstack(gathered, num=replication.replicas)
    while len(level) > 1:
        pairs = [_adasum_pair(a, b) for a, b in zip(level[0::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def _adasum_pair(a, b):
    dtype = a.dtype
    a64, b64 = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
    dot = tf.reduce_sum(a64 * b64)
    of_a = 1 - tf.math.divide_no_nan(dot, 2 * tf.reduce_sum(tf.square(a64)))
    of_b = 1 - tf.math.divide_no_nan(dot, 2 * tf.reduce_sum(tf.square(b64)))
    # A NaN must come through, so that the step is skipped.
    return tf.cast(of_a * a64 + of_b * b64, dtype)
