"""Tests that compare every replication with one device."""


def all_checks():
    """All checks by name; imports TensorFlow."""
    from tests.distributed import checks, gradient_checks, telemetry_checks

    return {**checks.CHECKS, **gradient_checks.CHECKS, **telemetry_checks.CHECKS}
