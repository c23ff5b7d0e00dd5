"""What is trained: a model with its losses, metrics and optimizer, built in the replicas' scope."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from disttrain.losses import Losses
from disttrain.optimizers import taking_over, wrapping
from disttrain.replication import active, adoption

_OWN_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")


class Task:
    """A model and everything that has variables beside it.

    Args:
        build_model: A function that returns a `keras.Model`.
        optimizer: A `DistributedOptimizer`.
        loss: As `disttrain.losses.Losses` takes it.
        metrics: Metrics, their names, or a function that returns them.
        replication: A `Replication`.
        precision: Name of the dtype policy under which the model is built, or `None`.

    Raises:
        TypeError: `build_model` is no function, or returns no model.
        ValueError: The model overrides a step that disttrain replaces.
    """

    def __init__(self, build_model, optimizer, loss, metrics, replication, precision=None):
        if isinstance(build_model, keras.Model) or not callable(build_model):
            raise TypeError(
                "build_model must be a function that returns a keras.Model, for the model is built "
                f"inside of the replicas' scope; not {build_model!r}"
            )
        self.replication = replication
        self.optimizer = optimizer
        self._loss = loss
        self.losses = None
        with replication.scope(), _dtype_policy(precision):
            self.model = build_model()
            _check_model(self.model)
            wrapping.scale_loss_of(self.model, optimizer)
            self.model.compile(
                optimizer=optimizer,
                loss=loss,
                metrics=_fresh_metrics(metrics, replication),
                jit_compile=False,
                auto_scale_loss=False,
            )
        self.takes_training = getattr(self.model, "_call_has_training_arg", True)

    @property
    def metrics(self):
        """The compiled metrics, or `None`."""
        return self.model._compile_metrics

    @property
    def built(self):
        """Whether `build` has run."""
        return self.losses is not None

    def build(self, spec, training=True):
        """Creates all variables for data of the given structure.

        Args:
            spec: One part of a batch, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as
                `tf.TensorSpec`.
            training: Whether the optimizer is built too.

        Raises:
            ValueError: The data do not fit the model.
        """
        x = _symbolic(spec[0])
        with self.replication.scope():
            if not self.built:
                _check_rank(self.model, spec[0])
                _check_batch_size(self.model, self.replication)
                outputs = self.model(x)
                if len(spec) > 1:
                    names = getattr(self.model, "output_names", None)
                    names = names or [
                        f"output_{i}" for i in range(len(keras.tree.flatten(outputs)))
                    ]
                    losses = Losses(self._loss, outputs, names)
                    if self.metrics is not None and not self.metrics.built:
                        self.metrics.build(_symbolic(spec[1]), outputs)
                    self.losses = losses
            if training and not self.optimizer.built:
                if not self.model.trainable_variables:
                    raise ValueError("the model has no trainable variables")
                taking_over.check_exclusions(self.optimizer.inner, self.model)
                self.optimizer.build(self.model.trainable_variables)

    def call(self, x, training, present=None):
        """The model's outputs for a part of a batch; for `present` see `replication.active`."""
        with active.activate(self.replication, present):
            if self.takes_training:
                return self.model(x, training=training)
            return self.model(x)

    def update_metrics(self, x, y, y_pred, sample_weight):
        """Adds a part of a batch to the metrics' sums."""
        if self.metrics is not None:
            self.metrics.update_state(y, y_pred, sample_weight=sample_weight)

    def reset_metrics(self):
        """Sets the metrics' sums back to zero."""
        if self.metrics is not None:
            self.metrics.reset_state()

    def metric_results(self):
        """The metrics over all replicas, name to number or array. Called by every process."""
        if self.metrics is None or not self.metrics.built:
            return {}
        results = self.replication.metric_results([self.metrics])[0]
        return {name: _plain(value) for name, value in results.items()}

    def spread_seeds(self):
        """Gives each replica random numbers of its own, for dropout above all.

        Keras starts the seed generators of all replicas alike, so that they would drop the same
        units.
        """
        states = [
            variable
            for variable in self.model.non_trainable_variables
            if variable.name == "seed_generator_state"
        ]
        if self.replication.replicas == 1 or not states:
            return

        def on_replica(part):
            for state in states:
                offset = self.replication.replica_index() * 1_000_003
                state.assign(state.value + tf.constant([offset, 0], state.value.dtype))

        parts = [tf.constant(0)] * self.replication.topology.local_replicas
        self.replication.run(on_replica, parts)

    def state_to_average(self):
        """Variables that replicas move apart: float state such as BatchNormalization's means."""
        return [
            variable
            for variable in self.model.non_trainable_variables
            if tf.as_dtype(variable.dtype).is_floating
            and variable.aggregation == "none"
            and not getattr(variable, "equal_on_replicas", False)
        ]


def _plain(value):
    value = np.asarray(value)
    return float(value) if value.ndim == 0 else value


def _symbolic(spec):
    return keras.tree.map_structure(
        lambda leaf: keras.KerasTensor((None, *leaf.shape[1:]), dtype=leaf.dtype.name), spec
    )


def _check_rank(model, spec):
    """Tells data without a batch axis from a model with other inputs."""
    inputs = getattr(model, "inputs", None)
    leaves = keras.tree.flatten(spec)
    if not inputs or len(inputs) != len(leaves):
        return
    for expected, leaf in zip(inputs, leaves, strict=True):
        if leaf.shape.rank == len(expected.shape) - 1 and tuple(leaf.shape) == expected.shape[1:]:
            raise ValueError(
                f"the dataset is not batched: the model takes {tuple(expected.shape)} and an "
                f"element is {tuple(leaf.shape)}; call dataset.batch(global batch size)"
            )


def _check_batch_size(model, replication):
    """Refuses a fixed batch size where each replica sees a part of the batch."""
    for one in getattr(model, "inputs", None) or ():
        if replication.replicas > 1 and one.shape[0] is not None:
            raise ValueError(
                f"the model's input {one.name!r} has the fixed shape {tuple(one.shape)}, but each "
                f"of {replication.replicas} replicas sees a part of the batch; leave the batch "
                "size open, with keras.Input(shape), or use one replica, as a stateful layer needs"
            )


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(f"build_model must return a keras.Model, not {type(model).__name__}")
    for name in _OWN_STEPS:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"{type(model).__name__} overrides {name}, which disttrain.Trainer would not call; "
                "compile it with optimizer=disttrain.DistributedOptimizer(...) and use Model.fit"
            )


def _fresh_metrics(metrics, replication):
    """Metrics whose variables belong to the current scope."""
    if callable(metrics) and not isinstance(metrics, (keras.metrics.Metric, type)):
        metrics = metrics()
    if replication.topology.local_replicas == 1 and not tf.distribute.has_strategy():
        return metrics

    def renew(metric):
        return adoption.copy_metric(metric) if isinstance(metric, keras.metrics.Metric) else metric

    return None if metrics is None else keras.tree.map_structure(renew, metrics)


@contextlib.contextmanager
def _dtype_policy(name):
    if name is None:
        yield
        return
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
