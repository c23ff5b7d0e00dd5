"""What a step of the user's own must not do is an error that says what to do."""

import keras
import pytest
import tensorflow as tf

import disttrain
from tests._support import custom_models as models
from tests._support.custom_models import distiller, gan_trainer


class Steps:
    """Steps that return something wrong, by name."""

    class Scalar(models.DistillStep):
        def losses(self, model, batch, training):
            return tf.reduce_mean(super().losses(model, batch, training)[0])

    class Matrix(models.DistillStep):
        def losses(self, model, batch, training):
            return model(batch[0])

    class TooMany(models.DistillStep):
        def losses(self, model, batch, training):
            return tf.tile(super().losses(model, batch, training)[0], [2])

    class Whole(models.DistillStep):
        def losses(self, model, batch, training):
            return batch[1]

    class Named(models.DistillStep):
        def losses(self, model, batch, training):
            return {"loss": super().losses(model, batch, training)[0]}

    class Triple(models.DistillStep):
        def losses(self, model, batch, training):
            return (*super().losses(model, batch, training), None)

    class Nothing(models.DistillStep):
        def losses(self, model, batch, training):
            return None

    class Constant(models.DistillStep):
        def losses(self, model, batch, training):
            return tf.stop_gradient(super().losses(model, batch, training)[0])

    class NoOutputs(models.DistillStep):
        def losses(self, model, batch, training):
            return super().losses(model, batch, training)[0]

    class Frozen(models.DistillStep):
        def variables(self, model):
            return model.teacher.variables

    class Empty(models.DistillStep):
        def variables(self, model):
            return []

    class Foreign(models.DistillStep):
        def variables(self, model):
            return [keras.Variable(0.0, name="foreign")]


@pytest.mark.graph
@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("Scalar", ValueError, r"Scalar\.losses returned a single number.*reduction=None"),
        ("Matrix", ValueError, r"shape \(None, 3\) for n examples.*axis=-1"),
        ("TooMany", ValueError, r"TooMany\.losses returned another number of values.*for each ex"),
        ("Whole", TypeError, "dtype int32; use floats"),
        ("Named", TypeError, r"a dictionary with \['loss'\], and there is one optimizer"),
        ("Triple", TypeError, "not a tuple of 3"),
        ("Nothing", TypeError, "a tensor with one value for each example, not None"),
        ("Constant", ValueError, "depends on none of its variables .*without stop_gradient"),
        ("NoOutputs", ValueError, r"NoOutputs\.losses return a tuple \(losses, outputs\)"),
        ("Frozen", ValueError, "which is not trainable; list variables from"),
        ("Empty", ValueError, "returned no variable: these layers are not built yet"),
        ("Foreign", ValueError, "'foreign', which is not the model's"),
    ],
)
def test_a_step_that_returns_something_wrong_is_named_with_what_to_return(name, error, message):
    metrics = ["accuracy"] if name == "NoOutputs" else None
    trainer = distiller(step=getattr(Steps, name)(), metrics=metrics)
    with pytest.raises(error, match=message):
        trainer.fit(models.labelled(13), verbose=0)


@pytest.mark.graph
@pytest.mark.parametrize(
    ("variables", "losses", "message"),
    [
        (lambda found: {"generator": found["generator"]}, None, r"variables returned entries for"),
        (lambda found: found["generator"], None, "must return a dictionary with a list of variab"),
        (
            lambda found: {**found, "generator": found["discriminator"]},
            None,
            "which 'generator' has already",
        ),
        (None, lambda found: {**found, "critic": found["generator"]}, "use the same names"),
        (None, lambda found: found["generator"], "must return a dictionary with a tensor"),
        (
            None,
            lambda found: {**found, "generator": tf.reduce_mean(found["generator"])},
            "a single number for 'generator'",
        ),
        (
            None,
            lambda found: {**found, "generator": tf.stop_gradient(found["generator"])},
            "the loss of 'generator' depends on none",
        ),
    ],
)
def test_wrong_structures_for_several_optimizers_are_named(variables, losses, message):
    class Wrong(models.GANStep):
        def variables(self, model):
            found = super().variables(model)
            return variables(found) if variables else found

        def losses(self, model, batch, training):
            found = super().losses(model, batch, training)
            return losses(found) if losses else found

    with pytest.raises((TypeError, ValueError), match=message):
        gan_trainer(step=Wrong()).fit(models.batches(16), verbose=0)


class Holds(models.GANStep):
    def __init__(self):
        self.parts = {"seed": [keras.random.SeedGenerator(1)]}


class NoVariables(disttrain.CustomStep):
    losses = models.GANStep.losses


@pytest.mark.unit
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"step": models.GANStep}, TypeError, r"an object of a class that derives from"),
        ({"step": models.GAN.__init__}, TypeError, r"derives from disttrain\.CustomStep"),
        ({"loss": "mse"}, ValueError, r"both step=GANStep\(\) and loss='mse' are set"),
        ({"step": disttrain.CustomStep()}, ValueError, r"has to define losses"),
        ({"step": NoVariables()}, ValueError, r"NoVariables has to define variables"),
        ({"step": None}, ValueError, r"several optimizers, \['discriminator', 'generator'\]"),
        ({"optimizer": {}}, ValueError, r"there are no optimizers"),
        ({"optimizer": {"a": 7}}, TypeError, r"the optimizer 'a' must be a keras\.optimizers"),
        (
            {"clip": disttrain.ClipByGlobalNorm(1.0)},
            ValueError,
            r"both the optimizer 'discriminator' .* and the trainer .* clip",
        ),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        gan_trainer(**options)


@pytest.mark.unit
def test_a_step_that_holds_what_belongs_to_the_model_is_refused():
    with pytest.raises(ValueError, match=r"Holds\.parts is a SeedGenerator; make it an attribute"):
        gan_trainer(step=Holds())


@pytest.mark.graph
def test_a_model_without_a_call_has_no_outputs_to_predict_or_compare():
    with pytest.raises(ValueError, match=r"GAN has no call\(inputs\), which predict needs"):
        gan_trainer().predict(models.data(8)[0])
    with pytest.raises(ValueError, match=r"GAN has no call\(inputs\); define it, or leave metr"):
        gan_trainer(metrics=["accuracy"]).evaluate(*models.data(8))

    class Unbuilt(models.GAN):
        def __init__(self):
            super().__init__()
            self.generator = keras.Sequential([keras.layers.Dense(models.FEATURES)])

    trainer = disttrain.Trainer(
        Unbuilt, step=models.GANStep(), optimizer=models.gan_optimizers(), replication="single"
    )
    with pytest.raises(ValueError, match=r"Unbuilt has layers without variables yet, and no call"):
        trainer.fit(models.batches(8), verbose=0)


@pytest.mark.graph
def test_several_optimizers_cannot_be_switched_or_searched_for_one_rate():
    trainer = gan_trainer()
    with pytest.raises(ValueError, match="switch_optimizer works with one optimizer"):
        trainer.switch_optimizer(keras.optimizers.SGD(0.1))
    with pytest.raises(ValueError, match="no learning rate of its own"):
        trainer.fit(*models.data(8), learning_rate="auto", verbose=0)
