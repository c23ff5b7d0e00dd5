"""Names of what metrics return."""

import numpy as np


def named_results(metrics, results):
    """The results of metrics as Keras's logs have them.

    Args:
        metrics: A list of `keras.metrics.Metric`.
        results: What each of them has returned: a number, an array, or a dictionary of these, which
            may hold further dictionaries.

    Returns:
        A dictionary of floats and NumPy arrays; a dictionary among the results gives its own names.
    """
    found = {}
    for metric, result in zip(metrics, results, strict=True):
        found.update(_flat(metric.name, result))
    return found


def _flat(name, result):
    if isinstance(result, dict):
        found = {}
        for key, value in result.items():
            found.update(_flat(key, value))
        return found
    value = np.asarray(result)
    return {name: float(value) if value.ndim == 0 else value}
