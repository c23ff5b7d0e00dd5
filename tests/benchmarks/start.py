"""How long it takes until training begins, each time in a fresh process.

Modules are compiled already, as those of an installed package are.
"""

import subprocess
import sys
import time

import numpy as np

from tests.benchmarks import harness
from tests.benchmarks.report import Figure

#: Goals: seconds of an import beyond what it must load, and of the first step beside `Model.fit`.
IMPORT, FIRST_STEP = 0.050, 1.0

_TIMED = "{before}; import time; began = time.perf_counter(); {what}; print({seconds})"
_SECONDS = "time.perf_counter() - began"

#: What is imported, what is there before: nothing, or all that a training needs anyway; its goal.
_IMPORTS = {
    "import disttrain": ("pass", "import disttrain", IMPORT),
    "import disttrain, after TensorFlow and Keras": (
        "import tensorflow, keras; keras.Sequential, keras.optimizers.Adam",
        "import disttrain",
        IMPORT,
    ),
    "disttrain.Trainer, after TensorFlow and Keras": (
        "import tensorflow, keras; keras.Sequential, keras.optimizers.Adam",
        "import disttrain; disttrain.Trainer",
        None,
    ),
}

#: The 20 x 256 network on one batch; prints a line when the first step is done.
_PROGRAM = """
import keras, numpy as np, tensorflow as tf
width, layers = {width}, {layers}
def build():
    hidden = [keras.layers.Dense(width, activation="relu") for _ in range(layers)]
    return keras.Sequential([keras.layers.Input((width,)), *hidden, keras.layers.Dense(10)])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(64, width)).astype("float32"), rng.integers(0, 10, 64, "int32")
data = tf.data.Dataset.from_tensors((x, y))
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam()
{train}
print("first step", flush=True)
"""
_TRAIN = {
    "Model.fit": """
model = build()
model.compile(optimizer, loss)
model.fit(data, shuffle=False, verbose=0)
""",
    "disttrain": """
import disttrain
trainer = disttrain.Trainer(build, optimizer=optimizer, loss=loss, replication="single")
trainer.fit(data, verbose=0)
""",
}


def start(settings):
    """Seconds of an import, and the time to the first step relative to `Model.fit`."""
    rounds = 1 if settings.quick else max(3, settings.rounds // 8)
    unmeasured = 0 if settings.quick else 1
    for name, (before, what, goal) in _IMPORTS.items():
        program = _TIMED.format(before=before, what=what, seconds=_SECONDS)
        samples = [float(_output(program)) for _ in range(unmeasured + rounds)][unmeasured:]
        yield Figure("start", "seconds", name, harness.summarize(samples), goal)
    yield _first_step(settings, unmeasured, rounds)


def _first_step(settings, unmeasured, rounds):
    size = {"width": 8, "layers": 2} if settings.quick else {"width": 256, "layers": 20}
    rng = np.random.default_rng(settings.seed)
    seconds = {name: [] for name in _TRAIN}
    for _ in range(unmeasured + rounds):
        for name in rng.permutation(list(_TRAIN)):
            seconds[name].append(_until_line(_PROGRAM.format(train=_TRAIN[name], **size)))
    own, other = (np.asarray(seconds[name][unmeasured:]) for name in ("disttrain", "Model.fit"))
    details = {"seconds": float(np.median(own)), "baseline_seconds": float(np.median(other))}
    summary = harness.summarize(own / other)
    return Figure("start", "first step", "disttrain / Model.fit", summary, FIRST_STEP, details)


def _output(program):
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.splitlines()[-1]


def _until_line(program):
    """Seconds from the start of a process until it says that the first step is done."""
    began = time.perf_counter()
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        seconds = time.perf_counter() - began
        process.stdout.read()
    if said.strip() != "first step" or process.returncode:
        raise RuntimeError(f"the program ended with {process.returncode} and said {said!r}")
    return seconds
