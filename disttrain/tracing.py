"""Traces methods: each object's for itself."""

import functools

import tensorflow as tf


def traced(method, name=None, **options):
    """A method as a `tf.function` of its object alone.

    TensorFlow counts traces by the code that is traced, and would take that of many short trainings
    for a function that is traced anew with each call.

    Args:
        method: A bound method, or another function.
        name: What profiles show; by default the method's name.
        **options: More of `tf.function`'s; AutoGraph is off.

    Returns:
        The `tf.function`.
    """
    own = functools.partial(method)
    own.__name__ = name or method.__name__
    return tf.function(own, autograph=False, **options)
