"""`disttrain.experiments.lr_range`; the range test itself is in `disttrain.range_test`."""


def lr_range(
    trainer,
    x,
    y=None,
    *,
    low=1e-7,
    high=10.0,
    steps=100,
    smoothing=0.9,
    explosion=4.0,
    batch_size=None,
    sample_weight=None,
    class_weight=None,
    steps_per_epoch=None,
    shuffle=True,
):
    """Tries ever higher learning rates on a few batches, and suggests one.

    (Smith 2017, "Cyclical learning rates for training neural networks", section 3.3.) The rate
    rises by the same factor in each step. Weights, the optimizer's state, metrics and seeds are
    then put back to the last bit, and nothing is recorded in the run. It works under every
    replication, called by every process, and gives all of them the same. A shuffled
    `tf.data.Dataset` is moved on by one pass; one that is repeated for ever, by what was read.

    Three rates are looked at, and the lowest is suggested: where the smoothed loss falls fastest;
    a tenth of where it is lowest; and the last one before the health rules object, if they do. Each
    record is judged as if training went on like that.

    Args:
        trainer: A `disttrain.Trainer`.
        x: As for `Trainer.fit`.
        y: As for `Trainer.fit`.
        low: The first learning rate.
        high: The last one.
        steps: How many are tried, from 10; one batch each, or `accumulate_steps` of them.
        smoothing: Of the bias-corrected exponential average of the losses, from 0 to below 1.
        explosion: The test ends when the smoothed loss is not finite, or above its minimum by
            `explosion - 1` times the minimum or the fall until then, whichever is larger.
        batch_size: As for `Trainer.fit`.
        sample_weight: As for `Trainer.fit`.
        class_weight: As for `Trainer.fit`.
        steps_per_epoch: As for `Trainer.fit`.
        shuffle: As for `Trainer.fit`.

    Returns:
        A `disttrain.range_test.RateRange`.

    Raises:
        ValueError: An argument is outside of its range, the optimizer has no learning rate, or the
            data do not fit.
    """
    return trainer.lr_range(
        x,
        y,
        low=low,
        high=high,
        steps=steps,
        smoothing=smoothing,
        explosion=explosion,
        batch_size=batch_size,
        sample_weight=sample_weight,
        class_weight=class_weight,
        steps_per_epoch=steps_per_epoch,
        shuffle=shuffle,
    )
