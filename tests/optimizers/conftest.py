"""Which way an update goes: by one operation, or by Keras."""

import pytest


@pytest.fixture
def compiled_operations():
    """Skips a test where there are none."""
    from disttrain import kernels

    if kernels.load() is None:
        pytest.skip("there is no C++ compiler")


@pytest.fixture
def found(monkeypatch):
    """What `fused.find` has returned so far, a list."""
    from disttrain.optimizers import fused

    find, results = fused.find, []

    def noting(*args):
        results.append(find(*args))
        return results[-1]

    monkeypatch.setattr(fused, "find", noting)
    return results


@pytest.fixture
def updated_at_once(found):
    """Fails a test in which Keras has made an update, for it would compare Keras with Keras."""
    yield
    assert found
    assert None not in found


@pytest.fixture
def updated_by_keras(found):
    yield
    assert found
    assert set(found) == {None}
