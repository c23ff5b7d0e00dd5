"""Gathers tensors of any length in a loop, where TensorFlow's collectives cannot.

A collective keeps the shape that it had first until the function ends, so in a loop whose turns
have tensors of other lengths it fails. Here all that travels has one shape.
"""

import tensorflow as tf

#: Rows of each replica that travel at once; what is missing of the last ones is padded.
ROWS = 512


def gather(strategy, tensor):
    """The tensors of all replicas, one behind the other, as `ReplicaContext.all_gather` has them.

    Args:
        strategy: The `tf.distribute.Strategy`, in whose cross-replica context this is called.
        tensor: Each replica's, of shape `[rows, ...]`; rows may differ between replicas and turns.

    Returns:
        A tensor of shape `[sum of rows, ...]`.
    """
    own = strategy.experimental_local_results(tensor)
    replicas = strategy.num_replicas_in_sync
    if len(own) == replicas:
        return tf.concat(own, axis=0)
    rest = own[0].shape[1:]

    def of_all(values):
        shared = strategy.experimental_distribute_values_from_function(
            lambda context: values[context.replica_id_in_sync_group % len(own)]
        )
        return strategy.gather(shared, axis=0)

    lengths = of_all([tf.shape(one)[:1] for one in own])
    pieces = tf.maximum(1, -(-tf.reduce_max(lengths) // ROWS))
    padded = [
        tf.pad(one, [[0, pieces * ROWS - tf.shape(one)[0]], *[[0, 0]] * rest.rank]) for one in own
    ]

    def piece(number, found):
        parts = [one[number * ROWS : (number + 1) * ROWS] for one in padded]
        gathered = of_all([tf.ensure_shape(part, [ROWS, *rest]) for part in parts])
        return number + 1, found.write(number, gathered)

    found = tf.TensorArray(own[0].dtype, pieces, element_shape=[replicas * ROWS, *rest])
    _, found = tf.while_loop(
        lambda number, _: number < pieces, piece, (tf.constant(0), found), parallel_iterations=1
    )
    # From [pieces, replicas, ROWS, ...] to all rows of each replica.
    stacked = tf.reshape(found.stack(), [pieces, replicas, ROWS, *rest])
    order = [1, 0, *range(2, 3 + rest.rank)]
    of_each = tf.reshape(tf.transpose(stacked, order), [replicas, pieces * ROWS, *rest])
    return tf.concat([of_each[i, : lengths[i]] for i in range(replicas)], axis=0)
