"""What a test leaves behind is noticed, and what it puts back is not."""

import logging
import os
import signal
import sys

import keras
import pytest
import tensorflow as tf

from tests._support.global_state_guard import difference, shared

pytestmark = pytest.mark.unit

CHANGES = {
    "the working directory": lambda m, folder: m.chdir(folder),
    "sys.path": lambda m, folder: m.setattr(sys, "path", [*sys.path, str(folder)]),
    "$HOME": lambda m, folder: m.setenv("HOME", str(folder)),
    "$DISTTRAIN_NEW": lambda m, _: m.setenv("DISTTRAIN_NEW", "1"),
    "the level of the logger 'tensorflow'": lambda m, _: m.setattr(
        logging.getLogger("tensorflow"), "level", logging.CRITICAL
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_told_until_it_is_undone(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", os.sep)
    before = shared()
    with monkeypatch.context() as patch:
        CHANGES[name](patch, tmp_path)
        (told,) = difference(before, shared())
    assert told.startswith(f"{name} was ")
    assert difference(before, shared()) == []


def test_what_is_set_in_python_keras_and_tensorflow_is_told():
    before = shared()
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.config.set_floatx("float64")
    tf.config.run_functions_eagerly(True)
    try:
        with tf.distribute.OneDeviceStrategy("CPU:0").scope():
            told = difference(before, shared())
    finally:
        signal.signal(signal.SIGTERM, handler)
        keras.config.set_floatx("float32")
        keras.config.set_dtype_policy(policy)
        tf.config.run_functions_eagerly(False)
    assert [line.partition(" was ")[0] for line in told] == [
        "the handler of SIGTERM",
        "Keras's floatx",
        "Keras's dtype policy",
        "whether functions run eagerly",
        "TensorFlow's strategy",
    ]
    assert difference(before, shared()) == []


def test_what_an_import_adds_is_no_change(monkeypatch):
    before = shared()
    monkeypatch.setenv("KMP_NEW", "1")
    assert difference(before, shared()) == []
