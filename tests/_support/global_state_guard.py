"""No test changes for those after it what the whole process shares."""

import logging
import os
import signal
import sys

import pytest

#: Which disttrain or a test may set; Python sets the others itself.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

#: What no import sets, and what no call of a library does, as `horovod.init` sets variables.
_OURS = ("$DISTTRAIN_", "$HOROVOD_RANK", "$HOROVOD_SIZE", "$TF_CONFIG", "$SLURM_")


def shared():
    """What the process shares, by name; that of Keras and TensorFlow once they are imported."""
    found = {
        "the working directory": os.getcwd(),
        "sys.path": list(sys.path),
        **{f"${name}": value for name, value in os.environ.items()},
        **{f"the handler of {s.name}": signal.getsignal(s) for s in _SIGNALS},
        **{
            f"the level of the logger {name or 'root'!r}": logging.getLogger(name).level
            for name in ("", "tensorflow", "tensorboard", "disttrain")
        },
    }
    # Set by pytest itself as tests begin and end.
    found.pop("$PYTEST_CURRENT_TEST", None)
    if "keras" in sys.modules:
        keras = sys.modules["keras"]
        found["Keras's floatx"] = keras.config.floatx()
        found["Keras's dtype policy"] = keras.config.dtype_policy().name
    if "tensorflow" in sys.modules:
        tf = sys.modules["tensorflow"]
        found["whether functions run eagerly"] = tf.config.functions_run_eagerly()
        found["TensorFlow's strategy"] = type(tf.distribute.get_strategy()).__name__
    return found


def difference(before, after):
    """A sentence for each thing that is not as it was; what an import has added is not one."""
    names = [*before, *(n for n in after if n not in before and n.startswith(_OURS))]
    return [
        f"{name} was {before.get(name)!r} and is {after.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]


@pytest.fixture(autouse=True)
def unchanged():
    """Fails after a test that has left something changed."""
    before = shared()
    yield
    left = difference(before, shared())
    assert not left, "the test has left what others see: " + "; ".join(left)
