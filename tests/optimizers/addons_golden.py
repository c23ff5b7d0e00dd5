"""What every optimizer of TensorFlow Addons 0.23.0 gives on TensorFlow 2.15.

`addons_golden.json` holds the numbers. They were made by this file with TensorFlow 2.15.1, its own
Keras 2.15, and Addons 0.23.0, on one CPU:

    python3.11 -m venv tf215
    tf215/bin/pip install tensorflow-cpu==2.15.1 tensorflow-addons==0.23.0
    tf215/bin/python tests/optimizers/addons_golden.py

Each case makes five steps on two variables, a kernel and a table, with fixed gradients; in a sparse
case the table's gradients are `IndexedSlices` with a repeated row. All numbers are multiples of
1/64, so that they can be split over replicas without rounding.
"""

import dataclasses
import json
import pathlib

import numpy as np

STEPS = 5
FILE = pathlib.Path(__file__).with_suffix(".json")
ROWS = [0, 2, 2]


@dataclasses.dataclass(frozen=True)
class Part:
    """An object to make: a schedule, an inner optimizer, or the optimizer itself."""

    name: str
    arguments: dict = dataclasses.field(default_factory=dict)


def decay(rate=0.1):
    return Part(
        "ExponentialDecay", {"initial_learning_rate": rate, "decay_steps": 2, "decay_rate": 0.5}
    )


def cyclical(name):
    rates = {"initial_learning_rate": 0.01, "maximal_learning_rate": 0.1, "step_size": 2.0}
    return Part(name, rates)


MOMENTUM = Part("SGD", {"learning_rate": 0.1, "momentum": 0.9})

#: Every optimizer with its defaults for all but the learning rate, and what changes its formulas.
CASES = {
    "AdaBelief": Part("AdaBelief", {"learning_rate": 0.05}),
    "AdaBelief-warmup": Part(
        "AdaBelief",
        {
            "learning_rate": 0.05,
            "rectify": False,
            "amsgrad": True,
            "weight_decay": 0.1,
            "total_steps": 10,
            "warmup_proportion": 0.3,
            "min_lr": 0.01,
        },
    ),
    "AdamW": Part("AdamW", {"learning_rate": 0.05, "weight_decay": 0.1}),
    "AdamW-exclude": Part(
        "AdamW",
        {
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "amsgrad": True,
            "exclude_from_weight_decay": ["table"],
        },
    ),
    "AdamW-schedules": Part("AdamW", {"learning_rate": decay(), "weight_decay": decay(0.2)}),
    "COCOB": Part("COCOB"),
    "ConditionalGradient": Part("ConditionalGradient", {"learning_rate": 0.9, "lambda_": 2.0}),
    "ConditionalGradient-nuclear": Part(
        "ConditionalGradient", {"learning_rate": 0.9, "lambda_": 2.0, "ord": "nuclear"}
    ),
    "LAMB": Part("LAMB", {"learning_rate": 0.05, "weight_decay": 0.1}),
    "LAMB-exclude": Part(
        "LAMB",
        {
            "learning_rate": 0.05,
            "weight_decay": 0.1,
            "exclude_from_weight_decay": ["kernel:0$"],
            "exclude_from_layer_adaptation": ["table"],
        },
    ),
    "LAMB-schedule": Part("LAMB", {"learning_rate": decay()}),
    "LAMB-decay": Part("LAMB", {"learning_rate": 0.1, "decay": 0.5}),
    "LAMB-clip": Part("LAMB", {"learning_rate": 0.1, "clipnorm": 0.5}),
    "LazyAdam": Part("LazyAdam", {"learning_rate": 0.05}),
    "Lookahead": Part("Lookahead", {"optimizer": MOMENTUM, "sync_period": 2}),
    "Lookahead-ranger": Part(
        "Lookahead",
        {"optimizer": Part("RectifiedAdam", {"learning_rate": decay()}), "sync_period": 3},
    ),
    "MovingAverage": Part("MovingAverage", {"optimizer": MOMENTUM, "average_decay": 0.5}),
    "MovingAverage-dynamic": Part(
        "MovingAverage",
        {
            "optimizer": Part("Adam", {"learning_rate": 0.05}),
            "start_step": 2,
            "dynamic_decay": True,
        },
    ),
    "MultiOptimizer": Part(
        "MultiOptimizer",
        {
            "optimizers_and_layers": [
                (MOMENTUM, ["kernel"]),
                (Part("LAMB", {"learning_rate": decay()}), ["table"]),
            ]
        },
    ),
    "NovoGrad": Part("NovoGrad", {"learning_rate": 0.05}),
    "NovoGrad-averaging": Part(
        "NovoGrad",
        {"learning_rate": 0.05, "weight_decay": 0.1, "grad_averaging": True, "amsgrad": True},
    ),
    "ProximalAdagrad": Part("ProximalAdagrad", {"learning_rate": 0.05}),
    "ProximalAdagrad-l1": Part(
        "ProximalAdagrad",
        {
            "learning_rate": 0.05,
            "l1_regularization_strength": 0.1,
            "l2_regularization_strength": 0.1,
        },
    ),
    "RectifiedAdam": Part("RectifiedAdam", {"learning_rate": 0.05}),
    "RectifiedAdam-threshold": Part(
        "RectifiedAdam",
        {"learning_rate": 0.05, "beta_2": 0.8, "sma_threshold": 4.05, "weight_decay": 0.1},
    ),
    "SGDW": Part("SGDW", {"learning_rate": 0.1, "weight_decay": 0.05, "momentum": 0.9}),
    "SGDW-cyclical": Part(
        "SGDW",
        {"learning_rate": cyclical("Triangular2CyclicalLearningRate"), "weight_decay": 0.05},
    ),
    "SWA": Part("SWA", {"optimizer": MOMENTUM, "start_averaging": 1, "average_period": 2}),
    "Yogi": Part("Yogi", {"learning_rate": 0.05}),
    "Yogi-tanh": Part(
        "Yogi", {"learning_rate": 0.05, "activation": "tanh", "l1_regularization_strength": 0.1}
    ),
}

#: Addons' COCOB refuses sparse gradients.
SPARSE_CASES = [case for case in CASES if "-" not in case and case != "COCOB"]


def start():
    """First values of the kernel and the table."""
    rng = np.random.default_rng(0)
    return [_sixty_fourths(rng, (3, 2)), _sixty_fourths(rng, (4, 2))]


def gradients(step, sparse=False):
    """Gradients of the kernel and the table, or of the table's `ROWS`, in a step from 0."""
    rng = np.random.default_rng(1 + step)
    return [_sixty_fourths(rng, (3, 2)), _sixty_fourths(rng, (len(ROWS) if sparse else 4, 2))]


def _sixty_fourths(rng, shape):
    return (rng.integers(-96, 97, shape) / 64).astype(np.float32)


def golden():
    """Case -> what it gives: `"first"` and `"last"` values, and `"slots"` by name."""
    return json.loads(FILE.read_text())


def make_golden():
    """Runs all cases with the installed TensorFlow and Addons, and writes the file."""
    import tensorflow as tf
    import tensorflow_addons as tfa

    if not tf.__version__.startswith("2.15."):
        raise RuntimeError(f"the golden numbers are those of TensorFlow 2.15, not {tf.__version__}")
    legacy = tf.keras.optimizers.legacy

    def make(value):
        if isinstance(value, list):
            return [make(entry) for entry in value]
        if not isinstance(value, Part):
            return value
        arguments = {key: make(entry) for key, entry in value.arguments.items()}
        if value.name == "MultiOptimizer":
            specs = [
                {"optimizer": make(inner), "weights": [f"{name}:0" for name in names]}
                for inner, names in value.arguments["optimizers_and_layers"]
            ]
            return tfa.optimizers.MultiOptimizer(optimizer_specs=specs)
        for home in (tfa.optimizers, legacy, tf.keras.optimizers.schedules):
            if hasattr(home, value.name):
                return getattr(home, value.name)(**arguments)
        raise ValueError(value.name)

    def parts(optimizer):
        inner = [getattr(optimizer, "_optimizer", None)]
        inner += [spec["optimizer"] for spec in getattr(optimizer, "optimizer_specs", [])]
        return [optimizer, *(part for part in inner if part is not None)]

    def slots(optimizer, variables):
        found = {}
        for part in parts(optimizer):
            for name in part.get_slot_names():
                for i, variable in enumerate(variables):
                    try:
                        value = part.get_slot(variable, name).numpy().tolist()
                    except KeyError:
                        continue
                    found.setdefault(name, [None] * len(variables))[i] = value
        return found

    def run(case, sparse):
        optimizer = make(case)
        names = ("kernel", "table")
        variables = [tf.Variable(v, name=n) for v, n in zip(start(), names, strict=True)]
        result = {}
        for step in range(STEPS):
            kernel, table = map(tf.constant, gradients(step, sparse))
            if sparse:
                table = tf.IndexedSlices(table, tf.constant(ROWS), tf.constant([4, 2]))
            optimizer.apply_gradients(zip([kernel, table], variables, strict=True))
            values = [variable.numpy().tolist() for variable in variables]
            result["last" if step == STEPS - 1 else "first" if step == 0 else "middle"] = values
        del result["middle"]
        return {**result, "slots": slots(optimizer, variables)}

    results = {case: run(CASES[case], sparse=False) for case in CASES}
    results |= {f"{case}-sparse": run(CASES[case], sparse=True) for case in SPARSE_CASES}
    lines = [f"{json.dumps(case)}: {json.dumps(result)}" for case, result in results.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    make_golden()
