"""The first model: build, fit, evaluate, predict.

python -m disttrain.examples.first_model --replication mirrored --replicas 2
"""

import keras

from disttrain.examples import lessons


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=10)
    x, y = lesson.validation

    # A function that builds the model, for it is built where the replicas are.
    trainer = lesson.trainer(lessons.dense, keras.optimizers.Adam(3e-3))
    history = trainer.fit(
        *lesson.train,
        batch_size=32,  # of all replicas together
        epochs=lesson.epochs,
        validation_data=(x, y),
        verbose=0,
    )
    result = trainer.evaluate(x, y, batch_size=256)
    guesses = trainer.predict(x[:10], batch_size=10).argmax(axis=1)

    losses = ", ".join(f"{loss:.3f}" for loss in history.history["val_loss"])
    lesson.say(
        f"Validation loss after each epoch: {losses}",
        f"Validation accuracy {result['accuracy']:.2%}",
        f"The first ten images are {' '.join(map(str, y[:10]))}",
        f"and were taken for        {' '.join(map(str, guesses))}",
    )
    return {"accuracy": result["accuracy"], "losses": history.history["val_loss"]}


if __name__ == "__main__":
    main()
