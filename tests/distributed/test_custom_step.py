"""A step of the user's own gives under every replication what a loop on one device gives."""

import numpy as np
import pytest

from tests._support import custom_models as models
from tests.distributed import checks, custom_checks

pytestmark = pytest.mark.processes

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def expected():
    """Check to its values in plain Keras on one device."""
    gan, optimizers, losses = models.gan_by_hand(custom_checks.ROWS, custom_checks.EPOCHS)
    distilled, accuracy = models.distilled_by_hand(custom_checks.ROWS, custom_checks.EPOCHS)
    contrasted = models.contrasted_by_hand(custom_checks.ROWS_LEFT_ONE, custom_checks.EPOCHS)
    followed = models.followed_by_hand(custom_checks.ROWS_LEFT_ONE, custom_checks.EPOCHS)
    return {
        "gan": {
            "weights": checks.flat(gan.trainable_variables),
            "losses": [losses["generator"], losses["discriminator"]],
            **{name: checks.flat(one.variables) for name, one in optimizers.items()},
        },
        "distillation": {
            "weights": checks.flat(distilled.student.variables),
            "accuracy": accuracy,
        },
        "contrast": {"weights": checks.flat(contrasted.variables)},
        "follows": {"weights": checks.flat(followed.variables)},
    }


@pytest.mark.parametrize("name", list(custom_checks.CHECKS))
def test_a_custom_step_on_one_device_is_the_loop_by_hand(alone, expected, name):
    for key, value in expected[name].items():
        found = alone(name, key)
        np.testing.assert_allclose(found[-1] if key == "accuracy" else found, value, **CLOSE)


@pytest.mark.parametrize("name", list(custom_checks.CHECKS))
def test_a_custom_step_gives_the_same_on_all_replicas(outcome, alone, expected, name):
    keys = [*expected[name]]
    keys += ["evaluation"] if name in ("distillation", "contrast") else []
    for key in keys:
        for found in outcome.every(name, key):
            np.testing.assert_allclose(found, alone(name, key), **CLOSE)


@pytest.mark.parametrize("name", list(custom_checks.CHECKS))
def test_a_custom_step_keeps_all_processes_equal(outcome, name):
    chief, *others = outcome.every(name, "weights")
    for other in others:
        np.testing.assert_array_equal(other, chief)
