"""Goes on with another optimizer in mid-training: Adam to begin with, then momentum.

python -m disttrain.examples.switch_optimizer
"""

import keras

from disttrain.examples import lessons


class Switch(keras.callbacks.Callback):
    """Switches the trainer's optimizer at the beginning of an epoch."""

    def __init__(self, trainer, optimizer, epoch):
        super().__init__()
        self.trainer, self.optimizer, self.epoch = trainer, optimizer, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            # The weights stay. What Adam keeps is a mean of gradients, and momentum a step, so
            # it begins anew, under a short warmup. From Adam to AdamW slots would go over.
            self.trainer.switch_optimizer(self.optimizer, warmup_steps=10)


def main(arguments=None):
    lesson = lessons.Lesson(__doc__, arguments, epochs=12)
    half = lesson.epochs // 2
    trainer = lesson.trainer(lessons.dense, keras.optimizers.Adam(1e-3))
    switch = Switch(trainer, keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), half)
    history = trainer.fit(
        *lesson.train,
        batch_size=32,
        epochs=lesson.epochs,
        validation_data=lesson.validation,
        verbose=0,
        callbacks=[switch],
    ).history

    def line(epoch):
        loss, accuracy = history["val_loss"][epoch], history["val_accuracy"][epoch]
        return f"validation loss {loss:.4f}, accuracy {accuracy:.2%}"

    lesson.say(
        f"After {half} epochs of Adam:     {line(half - 1)}",
        f"One epoch of momentum later: {line(half)}",
        f"After {lesson.epochs - half} epochs of it:       {line(-1)}",
        f"The optimizer is now {trainer.optimizer.inner.name}, "
        f"with {int(trainer.optimizer.iterations)} steps of its own",
    )
    return {
        "before": history["val_loss"][half - 1],
        "after": history["val_loss"][half],
        "end": history["val_loss"][-1],
        "steps": int(trainer.optimizer.iterations),
        "accuracy": history["val_accuracy"][-1],
    }


if __name__ == "__main__":
    main()
