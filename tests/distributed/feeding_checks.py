"""How data reach the trainer: what is computed under every replication; see `checks.py`."""

import warnings

import keras
import numpy as np
import tensorflow as tf

import disttrain
from tests.distributed import checks


class Batches(keras.utils.PyDataset):
    """Batches of 8 of 37 examples, read by threads."""

    def __init__(self):
        super().__init__(workers=2)
        self.x, self.y = checks.data(37)

    def __len__(self):
        return 5

    def __getitem__(self, number):
        rows = slice(number * checks.BATCH, (number + 1) * checks.BATCH)
        return self.x[rows], self.y[rows]


class Note(keras.callbacks.Callback):
    """Notes the numbers of batches."""

    def __init__(self):
        super().__init__()
        self.losses, self.rows = [], []

    def on_test_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])

    def on_predict_batch_end(self, batch, logs=None):
        self.rows.append(len(logs["outputs"]))


def in_scope(replication, folder):
    """A trainer that finds its replication in a scope, and all that it is fed and reports."""
    with replication.scope(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The data ended")
        made = disttrain.Trainer(
            checks.build,
            optimizer=checks.make_optimizer("sgd"),
            loss=checks.loss(),
            metrics=["accuracy"],
        )
        options = {"epochs": 3, "steps_per_epoch": 3, "class_weight": {0: 3.0, 2: 0.5}}
        # 3 + 2 batches of one pass, and 3 of the next.
        history = made.fit(Batches(), validation_data=Batches(), verbose=0, **options).history
        note = Note()
        evaluation = made.evaluate(Batches(), callbacks=[note], return_dict=False)
        x, y = checks.data(9, seed=3)
        by_hand = [made.train_on_batch(x, y), made.test_on_batch(x, y)]
        outputs = made.predict(Batches(), callbacks=[note])
    return {
        "replicas": made.replication.replicas,
        "iterations": made.optimizer.iterations.numpy(),
        "weights": checks.flat(made.model.trainable_variables),
        "history": [history[name] for name in ("loss", "accuracy", "val_loss", "val_accuracy")],
        "evaluation": evaluation,
        "losses of batches": note.losses,
        "rows of batches": note.rows,
        "by hand": by_hand,
        "outputs": outputs,
    }


def different_lengths(replication, folder):
    """Outputs of batches of sequences of 2 and of 5 steps."""
    rng = np.random.default_rng(0)
    data = [rng.standard_normal((rows, steps, 6)).astype("f4") for rows, steps in [(5, 2), (3, 5)]]
    model = lambda: keras.Sequential(  # noqa: E731
        [keras.Input((None, 6)), keras.layers.Dense(2, kernel_initializer="ones")]
    )
    outputs = checks.trainer(replication, model).predict(data_of(data), steps=2)
    return {
        "ragged": isinstance(outputs, tf.RaggedTensor),
        "values": outputs.flat_values,
        "lengths": outputs.row_lengths(),
    }


def data_of(batches):
    """A generator of batches."""
    yield from batches


def different_generators(replication, folder):
    """Each process yields other batches, as generators without a seed do."""
    x, y = checks.data(40, seed=replication.topology.process)
    batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    made, errors = checks.trainer(replication), []
    for work in (
        lambda: made.fit(data_of(batches), verbose=0),
        lambda: made.evaluate(data_of(batches)),
        lambda: made.predict(data_of(batches)),
        lambda: made.train_on_batch(*batches[0]),
    ):
        try:
            work()
            errors.append("")
        except RuntimeError as error:
            errors.append(str(error))
    return {"errors": np.asarray(errors)}


CHECKS = {
    "in-scope": in_scope,
    "different-lengths": different_lengths,
    "different-generators": different_generators,
}
