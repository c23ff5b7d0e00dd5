"""Steps of the user's own, computed under every replication; see `checks.py`."""

import keras
import numpy as np

import disttrain
from tests._support import custom_models as models
from tests.distributed.checks import flat

#: The last batch has 5 examples, and where one example is left, all replicas but one have none.
ROWS, EPOCHS = 21, 2
ROWS_LEFT_ONE = 17


def gan(replication, folder):
    """Interrupted and resumed, with the records of both optimizers."""
    trainer = None
    for epochs in (1, EPOCHS):
        trainer = disttrain.Trainer(
            models.GAN,
            step=models.GANStep(),
            optimizer=models.gan_optimizers(),
            replication=replication,
            checkpoint=disttrain.Checkpoint(f"{folder}/checkpoint"),
            logdir=f"{folder}/run",
        )
        history = trainer.fit(models.batches(ROWS), epochs=epochs, verbose=0).history
    optimizers = trainer.optimizer.inner
    return {
        "weights": flat(trainer.model.trainable_variables),
        "generator": flat(optimizers["generator"].variables),
        "discriminator": flat(optimizers["discriminator"].variables),
        "losses": [history["generator_loss"], history["discriminator_loss"]],
    }


def distillation(replication, folder):
    trainer = disttrain.Trainer(
        models.Distiller,
        step=models.DistillStep(),
        optimizer=keras.optimizers.Adam(0.05),
        metrics=["accuracy"],
        replication=replication,
    )
    history = trainer.fit(models.labelled(ROWS), epochs=EPOCHS, verbose=0).history
    return {
        "weights": flat(trainer.model.student.variables),
        "accuracy": history["accuracy"],
        "evaluation": list(trainer.evaluate(models.labelled(ROWS)).values()),
    }


def contrast(replication, folder):
    trainer = disttrain.Trainer(
        models.Encoder,
        step=models.ContrastStep(),
        optimizer=keras.optimizers.SGD(0.5),
        replication=replication,
    )
    trainer.fit(models.views(ROWS_LEFT_ONE), epochs=EPOCHS, verbose=0)
    found = trainer.evaluate(models.views(ROWS_LEFT_ONE))
    return {"weights": flat(trainer.model.variables), "evaluation": np.asarray(found["loss"])}


def follows(replication, folder):
    trainer = disttrain.Trainer(
        models.Follows,
        step=models.FollowStep(),
        optimizer=keras.optimizers.Adam(0.05),
        replication=replication,
    )
    trainer.fit(models.labelled(ROWS_LEFT_ONE), epochs=EPOCHS, verbose=0)
    return {"weights": flat(trainer.model.variables)}


CHECKS = {"gan": gan, "distillation": distillation, "contrast": contrast, "follows": follows}
