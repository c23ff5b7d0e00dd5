"""What metrics return, as logs have it."""

import keras
import numpy as np
import pytest

from disttrain.metric_results import named_results


@pytest.mark.unit
def test_dictionaries_give_names_and_numbers_become_floats():
    metrics = [keras.metrics.Mean(name=name) for name in ("a", "b", "c")]
    vector = np.asarray([0.5, 1.5], np.float32)
    results = [np.float32(2), vector, {"x": {"y": np.float32(3), "z": vector}}]
    found = named_results(metrics, results)
    assert list(found) == ["a", "b", "y", "z"]
    assert (found["a"], found["y"]) == (2.0, 3.0)
    assert type(found["a"]) is float
    np.testing.assert_array_equal(found["b"], vector)
