"""Tests that compare every replication with one device."""


def all_checks():
    """All checks by name; imports TensorFlow."""
    from tests.distributed import (
        checkpoint_checks,
        checks,
        custom_checks,
        experiment_checks,
        feeding_checks,
        gradient_checks,
        horovod_checks,
        telemetry_checks,
    )

    modules = (
        checks,
        feeding_checks,
        gradient_checks,
        custom_checks,
        horovod_checks,
        telemetry_checks,
        checkpoint_checks,
        experiment_checks,
    )
    return {name: check for module in modules for name, check in module.CHECKS.items()}
