"""A comparison of optimizers on several replicas; `test_experiments.py` compares the results."""

import os
import pathlib

import keras
import numpy as np

from disttrain.experiments import compare, search
from disttrain.experiments.shared import runs
from tests.distributed import checks


def comparison(replication, folder):
    """Two optimizers, one of which diverges, with two seeds; and who wrote what."""
    directory = os.path.join(folder, "comparison")
    written = []
    write, runs.write_json = (
        runs.write_json,
        lambda path, content: (
            written.append(path),
            write(path, content),
        ),
    )
    try:
        found = compare(
            checks.build,
            checks.data(41),
            {"good": lambda: keras.optimizers.SGD(0.1), "wild": lambda: keras.optimizers.SGD(3e38)},
            2,
            loss=checks.loss(),
            metrics=["accuracy"],
            epochs=2,
            batch_size=checks.BATCH,
            validation_data=checks.data(20, seed=1),
            replication=replication,
            directory=directory,
            verbose=0,
        )
    finally:
        runs.write_json = write
    replication.any(False)
    events = pathlib.Path(directory).glob("runs/*/seed-*/events*")
    return {
        "text": str(found),
        "states": [record["state"] for record in found.runs],
        "losses": np.asarray([found.curves("good", name) for name in ("loss", "val_loss")]),
        "steps": [record["steps"] for record in found.runs if record["optimizer"] == "good"],
        "seconds": [record["training_seconds"] for record in found.runs],
        "process": os.getpid(),
        "writers": sorted({int(path.name.split(".")[-2]) for path in events}),
        "written": len(written),
        "page": os.path.exists(os.path.join(directory, "index.html")),
    }


def searching(replication, folder):
    """Three trials of a grid, one of which has no finite loss."""
    found = search(
        checks.build,
        checks.data(41),
        {"learning_rate": [0.1, 0.01, 3e38]},
        optimizer=keras.optimizers.SGD,
        method="grid",
        loss=checks.loss(),
        epochs=2,
        batch_size=checks.BATCH,
        validation_data=checks.data(20, seed=1),
        replication=replication,
        directory=os.path.join(folder, "search"),
        verbose=0,
    )
    return {
        "states": [trial["state"] for trial in found.trials],
        "values": [trial["value"] for trial in found.trials if trial["value"] is not None],
        "best": found.best["number"],
    }


CHECKS = {"comparison": comparison, "search": searching}
