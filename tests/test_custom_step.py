"""A step of the user's own trains as the same loop by hand on one device."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import disttrain
from tensorboard_plugin import metadata
from tests._support import custom_models as models
from tests._support.custom_models import distiller, gan_trainer
from tests.distributed.checks import flat
from tests.telemetry.test_recorder import events

ROWS, EPOCHS = 21, 2


@pytest.fixture(
    # The checks of `tests/distributed` show one replica and two.
    params=[*(pytest.param(n, marks=pytest.mark.exhaustive) for n in (1, 2)), 3],
    ids="{} replicas".format,
)
def replication(request, mirrored):
    return "single" if request.param == 1 else mirrored(request.param)


@pytest.fixture(params=[pytest.param(1, marks=pytest.mark.exhaustive), 2], ids="{} replicas".format)
def one_or_two(request, mirrored):
    return "single" if request.param == 1 else mirrored(request.param)


def close(ours, theirs, **tolerance):
    np.testing.assert_allclose(ours, theirs, **{"rtol": 1e-5, "atol": 1e-6, **tolerance})


@pytest.mark.graph
def test_a_gan_trains_as_by_hand_whatever_the_replicas(replication):
    model, optimizers, expected = models.gan_by_hand(ROWS, EPOCHS)
    trainer = gan_trainer(replication=replication)
    history = trainer.fit(models.batches(ROWS), epochs=EPOCHS, verbose=0).history
    close(flat(trainer.model.trainable_variables), flat(model.trainable_variables))
    close(history["generator_loss"], expected["generator"])
    close(history["discriminator_loss"], expected["discriminator"])
    close(history["loss"], np.add(expected["generator"], expected["discriminator"]))
    for name, optimizer in optimizers.items():
        close(flat(trainer.optimizer.inner[name].variables), flat(optimizer.variables))
    assert trainer.optimizer.clip_frequency() > 0


@pytest.mark.graph
def test_a_student_trains_as_by_hand_whatever_the_replicas(replication):
    model, accuracy = models.distilled_by_hand(ROWS, EPOCHS)
    trainer = distiller(replication=replication, metrics=["accuracy"])
    history = trainer.fit(models.labelled(ROWS), epochs=EPOCHS, verbose=0).history
    close(flat(trainer.model.student.variables), flat(model.student.variables))
    close(flat(trainer.model.teacher.variables), flat(model.teacher.variables))
    close(history["accuracy"][-1], accuracy)
    assert "student_loss" not in history
    x = models.data(ROWS)[0]
    close(trainer.predict(x), model(x), atol=1e-5)


@pytest.mark.graph
@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_steps": 2, "steps_per_execution": 3, "loss_scale": 64.0},
        {"jit_compile": True},
        pytest.param({"accumulate_steps": 2}, marks=pytest.mark.exhaustive),
        pytest.param({"steps_per_execution": 3}, marks=pytest.mark.exhaustive),
        pytest.param({"loss_scale": 64.0}, marks=pytest.mark.exhaustive),
    ],
    ids=lambda options: "-".join(options),
)
def test_what_the_trainer_does_for_its_own_step_it_does_for_this(options):
    size = models.BATCH // options.get("accumulate_steps", 1)
    model, _, _ = models.gan_by_hand(ROWS, EPOCHS)
    trainer = gan_trainer(**options)
    trainer.fit(models.batches(ROWS, size), epochs=EPOCHS, verbose=0)
    close(flat(trainer.model.trainable_variables), flat(model.trainable_variables), atol=1e-5)


@pytest.mark.graph
def test_evaluate_gives_each_loss_over_all_examples(one_or_two):
    trainer = gan_trainer(replication=one_or_two)
    found = trainer.evaluate(models.batches(ROWS))
    losses = models.GANStep().losses(models.GAN(), models.data(ROWS), False)
    close(found["generator_loss"], np.mean(losses["generator"]))
    close(found["discriminator_loss"], np.mean(losses["discriminator"]))
    close(found["loss"], found["generator_loss"] + found["discriminator_loss"])


@pytest.mark.graph
def test_evaluate_is_no_training():
    class Drops(models.Distiller):
        def __init__(self):
            super().__init__()
            self.drop = keras.layers.Dropout(0.5)

        def call(self, inputs, training=None):
            return self.student(self.drop(inputs, training=training))

    trainer = disttrain.Trainer(
        Drops, step=models.DistillStep(), replication="single", metrics=["accuracy"]
    )
    first = trainer.evaluate(models.labelled(ROWS))
    assert trainer.evaluate(models.labelled(ROWS)) == first
    trainer.fit(models.labelled(ROWS), verbose=0, validation_data=models.labelled(ROWS))


@pytest.mark.graph
def test_replicas_draw_their_own_random_numbers_from_the_models_generator(mirrored):
    class Noisy(models.GAN):
        def __init__(self):
            super().__init__()
            self.seeds = keras.random.SeedGenerator(3)
            self.drawn = self.add_weight(shape=(4,), trainable=False, name="drawn")

    class Draws(models.GANStep):
        def losses(self, model, batch, training):
            model.drawn.assign(keras.random.normal((4,), seed=model.seeds))
            return super().losses(model, batch, training)

    trainer = disttrain.Trainer(
        Noisy, step=Draws(), optimizer=models.gan_optimizers(), replication=mirrored(2)
    )
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append([value.numpy() for value in trainer.model.drawn.value.values])

    trainer.fit(models.batches(16), verbose=0, callbacks=[Watch()])
    drawn = {tuple(values) for step in seen for values in step}
    assert len(drawn) == 4, "two steps on two replicas"


@pytest.mark.graph
def test_one_gradient_that_is_not_finite_keeps_all_optimizers_from_updating(one_or_two):
    x, noise = models.data(16)
    noise[-1] = np.nan
    trainer = gan_trainer(replication=one_or_two)
    examples = tf.data.Dataset.from_tensor_slices((x, noise)).batch(8)
    trainer.fit(examples, verbose=0)
    assert np.isfinite(flat(trainer.model.variables)).all()
    for optimizer in trainer.optimizer.inner.optimizers:
        assert int(optimizer.iterations.numpy()) == 1


@pytest.mark.graph
def test_a_resumed_training_has_the_bits_of_one_that_was_not_interrupted(tmp_path):
    def trained(epochs, name):
        checkpoint = disttrain.Checkpoint(str(tmp_path / name))
        trainer = gan_trainer(checkpoint=checkpoint)
        trainer.fit(models.batches(ROWS), epochs=epochs, verbose=0)
        return flat([*trainer.model.variables, *trainer.optimizer.variables])

    whole = trained(2, "whole")
    trained(1, "parts")
    np.testing.assert_array_equal(trained(2, "parts"), whole)


@pytest.mark.graph
def test_a_run_records_all_variables_with_the_slots_of_their_optimizer(tmp_path):
    trainer = gan_trainer(
        logdir=str(tmp_path), telemetry=disttrain.Telemetry(every=1, histograms_every=2)
    )
    trainer.fit(models.batches(16), epochs=2, verbose=0)
    found = events(tmp_path)
    described = next(
        metadata.decode(content) for tag, _, content, _ in found if tag == f"{metadata.LAYERS}/0"
    )
    trained = trainer.model.trainable_variables
    assert [one["path"] for one in described.variables] == [v.path for v in trained]
    slots = [sorted(one["slots"]) for one in described.variables]
    assert slots == [["momentum", "velocity"]] * 4 + [["momentum"]] * 4
    values = np.stack([array for tag, _, _, array in found if tag.startswith(metadata.LAYERS)])
    assert values.shape[:2] == (4, 8)
    moved = values[:, :, described.columns.index("update_norm")]
    assert (moved > 0).all()
    written = {}
    for tag, _, _, array in found:
        if array.ndim == 0:
            written.setdefault(tag, []).append(float(array))
    assert {"generator_loss", "discriminator_loss", "loss"} <= set(written)
    assert written["learning_rate/discriminator"] == pytest.approx([0.1] * 2)
    assert written["learning_rate/generator"][1] < 0.05
    assert "learning_rate" not in written, "there is none for all"


@pytest.mark.graph
def test_the_block_at_the_start_names_each_optimizer(capsys):
    gan_trainer().fit(models.batches(8), verbose=2)
    shown = capsys.readouterr().out
    assert "generator: Adam, discriminator: SGD" in shown
    assert "several, one in each optimizer" in shown
    assert "nan" not in shown


@pytest.mark.graph
def test_learning_rates_are_set_for_each_optimizer():
    optimizers = {**models.gan_optimizers(), "generator": keras.optimizers.Adam(0.1)}
    trainer = gan_trainer(optimizer=optimizers)
    with pytest.raises(AttributeError, match=r"inner\['generator'\]\.learning_rate"):
        trainer.optimizer.learning_rate = 0.5
    trainer.optimizer.inner["discriminator"].learning_rate = 0.0
    trainer.optimizer.inner["generator"].learning_rate = 0.0
    before = flat(trainer.model.trainable_variables)
    trainer.fit(models.batches(16), verbose=0)
    np.testing.assert_array_equal(flat(trainer.model.trainable_variables), before)


@pytest.mark.graph
def test_a_plateau_in_one_optimizer_is_lowered_and_saved(tmp_path):
    def make():
        plateau = disttrain.schedules.Plateau(0.1)
        optimizers = {**models.gan_optimizers(), "discriminator": keras.optimizers.SGD(plateau)}
        checkpoint = disttrain.Checkpoint(str(tmp_path))
        return gan_trainer(optimizer=optimizers, checkpoint=checkpoint), plateau

    lower = disttrain.schedules.ReduceOnPlateau(
        "discriminator_loss", 0.25, patience=1, min_delta=1e9
    )
    trainer, plateau = make()
    trainer.fit(models.batches(16), epochs=2, verbose=0, callbacks=[lower])
    assert float(plateau.factor.numpy()) == 0.25
    trainer, resumed = make()
    trainer.fit(models.batches(16), epochs=2, verbose=0)
    assert float(resumed.factor.numpy()) == 0.25


@pytest.mark.graph
def test_data_without_targets_need_no_tuple():
    class Reconstruct(disttrain.CustomStep):
        def losses(self, model, batch, training):
            (x,) = batch
            return tf.reduce_mean(tf.square(model(x, training=training) - x), axis=-1)

    def autoencoder():
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])

    trainer = disttrain.Trainer(autoencoder, step=Reconstruct(), replication="single")
    x = np.ones((10, 4), np.float32)
    losses = trainer.fit(x, batch_size=4, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    outputs = trainer.predict(x)
    close(trainer.evaluate(x)["loss"], np.mean((outputs - x) ** 2))
    assert trainer.lr_range(x, batch_size=4, steps=10).losses.size
    trainer.switch_optimizer(keras.optimizers.SGD(0.1))
    trainer.fit(x, batch_size=4, verbose=0)


@pytest.mark.graph
@pytest.mark.parametrize(
    "rows", [pytest.param(21, marks=pytest.mark.exhaustive), 17], ids="{} rows".format
)
def test_a_contrastive_loss_sees_the_examples_of_all_replicas(replication, rows):
    """The last batch has 5 examples, or one, which leaves replicas without any."""
    model = models.contrasted_by_hand(rows, EPOCHS)
    trainer = disttrain.Trainer(
        models.Encoder,
        step=models.ContrastStep(),
        optimizer=keras.optimizers.SGD(0.5),
        replication=replication,
    )
    trainer.fit(models.views(rows), epochs=EPOCHS, verbose=0)
    close(flat(trainer.model.variables), flat(model.variables), atol=1e-5)


@pytest.mark.graph
def test_a_target_network_follows_after_each_update(replication):
    model = models.followed_by_hand(17, EPOCHS)
    trainer = disttrain.Trainer(
        models.Follows,
        step=models.FollowStep(),
        optimizer=keras.optimizers.Adam(0.05),
        replication=replication,
    )
    trainer.fit(models.labelled(17), epochs=EPOCHS, verbose=0)
    close(flat(trainer.model.online.variables), flat(model.online.variables), atol=1e-5)
    close(flat(trainer.model.target.variables), flat(model.target.variables), atol=1e-5)


@pytest.mark.graph
def test_a_skipped_step_is_no_update_to_follow():
    x, y, weight = next(iter(models.labelled(8)))
    x = np.array(x)
    x[0] = np.nan
    trainer = disttrain.Trainer(models.Follows, step=models.FollowStep(), replication="single")
    before = flat(trainer.model.variables)
    step = tf.data.Dataset.from_tensor_slices((x, y, weight)).batch(8)
    with pytest.raises(RuntimeError, match="NaN or infinite"):
        trainer.fit(step, verbose=0)
    np.testing.assert_array_equal(flat(trainer.model.variables), before)


@pytest.mark.unit
def test_gather_outside_of_losses_is_refused():
    with pytest.raises(RuntimeError, match=r"gather works in CustomStep\.losses"):
        models.ContrastStep().gather(tf.ones((2, 2)))
