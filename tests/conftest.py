"""TensorFlow for the tests that run in this process: quiet, and with four logical CPU devices."""

import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.pop("TF_CONFIG", None)

import pytest

pytest_plugins = [
    "tests._support.background_jobs",
    "tests._support.layers",
    "tests._support.durations",
    "tests._support.global_state_guard",
]

DEVICES = 4


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Looks through no objects while they are made; what collection makes stays to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session")
def logical_devices():
    """Names of the four logical CPU devices."""
    import tensorflow as tf

    if len(tf.config.list_logical_devices("CPU")) < DEVICES:
        raise RuntimeError("TensorFlow was started before its devices could be set")
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture
def own_path(monkeypatch):
    """A `sys.path` for the test alone; to load a program adds the directory where it is."""
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="module", autouse=True)
def frozen_heap():
    """What outlives a module stays: to look through a million objects again and again is slow."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def mirrored(logical_devices):
    """Makes a mirrored replication of n replicas."""
    from disttrain.replication.tf_distribute import mirrored

    return lambda replicas: mirrored(logical_devices[:replicas])


@pytest.fixture(
    # Two show nothing that three do not.
    params=[1, pytest.param(2, marks=pytest.mark.exhaustive), 3],
    ids="{} replicas".format,
)
def replication(request, mirrored):
    """One replica, two, and three whose last part of 10 examples in batches of 4 is uneven."""
    return "single" if request.param == 1 else mirrored(request.param)


@pytest.fixture(params=[1, 2], ids="{} replicas".format)
def one_or_two(request, mirrored):
    return "single" if request.param == 1 else mirrored(2)


def pytest_collection_modifyitems(items):
    """Sets the devices before the first test that needs TensorFlow; only then is it imported."""
    needs = [item for item in items if "logical_devices" in getattr(item, "fixturenames", ())]
    if needs:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * DEVICES
        )


def pytest_collection_finish(session):
    """Compiles the operations, if that is to be done, before a test is watched."""
    if "tensorflow" in sys.modules and not session.config.option.collectonly:
        from disttrain import kernels

        kernels.load()
