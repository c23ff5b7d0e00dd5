"""What is trained: a model with its losses, metrics and optimizer, built in the replicas' scope."""

import contextlib
import numbers
import threading

import keras
import tensorflow as tf

from disttrain import added_losses, layer_metrics, layers
from disttrain.compiled_metrics import CompiledMetrics
from disttrain.data import irregular
from disttrain.keras_loss_scaling import unscaled
from disttrain.losses import Losses
from disttrain.metric_results import named_results
from disttrain.optimizers import taking_over, wrapping
from disttrain.replication import active, adoption

_OWN_STEPS = ("train_step", "test_step", "predict_step", "compute_metrics")


class Task:
    """A model and everything that has variables beside it.

    Attributes:
        needs_targets: Whether the data have to be `(x, y)`.

    Args:
        build_model: A function that returns a `keras.Model`.
        optimizer: A `DistributedOptimizer`.
        loss: As `disttrain.losses.Losses` takes it.
        metrics: Metrics, their names, or a function that returns them.
        replication: A `Replication`.
        precision: Name of the dtype policy under which the model is built, or `None`.
        loss_weights: As `disttrain.losses.Losses` takes it.
        weighted_metrics: As `metrics`, for metrics that count the sample weights.

    Raises:
        TypeError: `build_model` is no function, or returns no model.
        ValueError: The model overrides a step that disttrain replaces.
    """

    needs_targets = True

    def __init__(
        self,
        build_model,
        optimizer,
        loss,
        metrics,
        replication,
        precision=None,
        *,
        loss_weights=None,
        weighted_metrics=None,
    ):
        if isinstance(build_model, keras.Model) or not callable(build_model):
            raise TypeError(
                "build_model must be a function that returns a keras.Model, for the model is built "
                f"inside of the replicas' scope; not {build_model!r}"
            )
        self.replication = replication
        self.optimizer = optimizer
        self._loss, self._loss_weights = loss, loss_weights
        self.losses = None
        with replication.scope(), _dtype_policy(precision):
            self.model = build_model()
            if not isinstance(self.model, keras.Model):
                found = type(self.model).__name__
                raise TypeError(f"build_model must return a keras.Model, not {found}")
            wrapping.scale_loss_of(self.model, optimizer)
            self._compile(
                _fresh_metrics(metrics, replication), _fresh_metrics(weighted_metrics, replication)
            )
        self._compiled_metrics = None
        if self.metrics is not None:
            self._compiled_metrics = CompiledMetrics(self.metrics, replication)
        self.layer_metrics = []
        self._inputs = self._sums = None
        self._thread = threading.local()
        self.takes_training = getattr(self.model, "_call_has_training_arg", True)

    def _compile(self, metrics, weighted_metrics):
        _check_steps(self.model)
        self._check_loss()
        weights = self._loss_weights
        self.model.compile(
            optimizer=self.optimizer,
            loss=self._loss,
            loss_weights=float(weights) if _is_number(weights) else weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=False,
            auto_scale_loss=False,
        )

    @property
    def trained_variables(self):
        """The variables that the optimizer updates, in the order of the model."""
        return self.model.trainable_variables

    @property
    def metrics(self):
        """The compiled metrics, or `None`."""
        return self.model._compile_metrics

    @property
    def metric_variables(self):
        """The states of all metrics, those of layers last."""
        metrics = [] if self.metrics is None else [self.metrics]
        return [v for metric in [*metrics, *self.layer_metrics] for v in metric.variables]

    @property
    def overrides_compute_loss(self):
        """Whether the model computes its loss by itself."""
        return type(self.model).compute_loss is not keras.Model.compute_loss

    def _check_loss(self):
        if self._loss is None and not self.overrides_compute_loss:
            raise ValueError("give a loss, such as keras.losses.MeanSquaredError()")

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
        self._inputs = spec[0]
        with self.replication.scope():
            if not self.built:
                self._build_model(spec)
            # What is frozen now may be trained later.
            if training and not self.optimizer.built and self.model.trainable_variables:
                taking_over.check_exclusions(self.optimizer.inner, self.model)
                self._build_optimizer()

    def _build_model(self, spec):
        outputs = self._call_symbolically(spec)
        if len(spec) > 1:
            names = getattr(self.model, "output_names", None)
            names = names or [f"output_{i}" for i in range(len(keras.tree.flatten(outputs)))]
            losses = self._build_losses(spec, outputs, names)
            self._build_metrics(losses.targets(symbolic(spec[1])), outputs)
            self.losses = losses

    def _call_symbolically(self, spec):
        _check_rank(self.model, spec[0])
        _check_batch_size(self.model, self.replication)
        outputs = self.model(symbolic(spec[0]))
        self._after_first_call()
        return outputs

    def _after_first_call(self):
        if self.replication.replicas > 1:
            layers.synchronize(self.model)
        self._find_layer_metrics()

    def _build_metrics(self, targets, outputs):
        if self.metrics is not None:
            self._compiled_metrics.build(targets, outputs)

    def _build_optimizer(self):
        self.optimizer.build(self.model.trainable_variables)

    def _build_losses(self, spec, outputs, names):
        if not self.overrides_compute_loss:
            return Losses(self._loss, outputs, names, self._loss_weights)
        if self._loss is not None and len(names) > 1:
            # super().compute_loss makes a metric for each output, when it is first called.
            batch = tuple(symbolic(one) for one in spec)
            self.model._symbolic_build(data_batch=(*batch, None)[:3])
        return Losses(None, outputs, names, required=False)

    def losses_that_are_sums(self, number):
        """Which of the model's added losses are sums over examples, a list of so many booleans."""
        if self._sums is None:
            regularizers = sum(v.regularizer is not None for v in self.model.trainable_variables)
            found = None
            if number > regularizers:
                found = added_losses.find_sums(self.model, self._inputs)
            self._sums = found or [False] * number
        return self._sums if len(self._sums) == number else [False] * number

    def _find_layer_metrics(self):
        self.layer_metrics = layer_metrics.find(self.model)
        if self.replication.replicas > 1:
            layer_metrics.weigh_single_numbers(self.layer_metrics)

    def call(self, x, training, rows=None):
        """The model's outputs for a part of a batch.

        Args:
            x: Inputs.
            training: Whether layers behave as in training.
            rows: The `disttrain.losses.Rows` of this replica, or `None` where all examples count.
        """
        with self.in_step(rows), irregular.readable_errors(x, "the model"):
            options = {"training": training} if self.takes_training else {}
            outputs = self.model(x, **options)
        # Where replicas are threads, the next one to run calls the same layers.
        self._thread.added = list(self.model.losses)
        return outputs

    def added_losses(self):
        """What layers have added in the last `call` of this replica, and regularizers' losses."""
        return self._thread.added

    @contextlib.contextmanager
    def in_step(self, rows=None, gathers=False):
        """Lets layers and their metrics that are called inside count this replica's examples.

        Args:
            rows: As for `call`.
            gathers: Whether a step of the user may gather examples.
        """
        present = share = keep = None
        if rows is not None and rows.may_borrow:
            present = tf.cast(rows.local > 0, tf.float32)
        if rows is not None and self.layer_metrics and self.replication.replicas > 1:
            share = rows.local * self.replication.replicas / rows.total
            keep = rows.local > 0 if rows.may_borrow else None
        counting = layer_metrics.counting(self.layer_metrics, share, keep)
        own = rows.local if gathers else None
        with active.activate(self.replication, present, own), counting, unscaled():
            yield

    def update_metrics(self, y, y_pred, sample_weight, rows):
        """Adds a part of a batch to the sums of the compiled metrics."""
        if self.metrics is not None:
            self._compiled_metrics.update(
                self.losses.targets(y), y_pred, self.losses.sample_weights(sample_weight), rows
            )

    def reset_metrics(self):
        """Sets the sums of all metrics back to zero."""
        for metric in self._all_metrics():
            metric.reset_state()

    def metric_results(self):
        """The metrics over all replicas, name to number or array. Called by every process."""
        metrics = self._all_metrics()
        return named_results(metrics, self.replication.metric_results(metrics)) if metrics else {}

    def _all_metrics(self):
        compiled = [] if self.metrics is None or not self.metrics.built else [self.metrics]
        return [*compiled, *self.layer_metrics]

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
        """Floating variables that a step may move apart on replicas, such as moving averages."""
        # tf.distribute itself averages, on each assignment, what asks for it. Horovod does not.
        apart = ("none",) if hasattr(self.replication, "strategy") else ("none", "mean")
        return [
            variable
            for variable in self.model.non_trainable_variables
            if tf.as_dtype(variable.dtype).is_floating
            and variable.aggregation in apart
            and not getattr(variable, "equal_on_replicas", False)
            and not self.optimizer.is_local(variable)
        ]


def _is_number(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def symbolic(spec):
    def symbolic(leaf):
        options = {}
        if isinstance(leaf, tf.SparseTensorSpec):
            options["sparse"] = True
        elif isinstance(leaf, tf.RaggedTensorSpec):
            options = {"ragged": True, "ragged_rank": leaf.ragged_rank}
        shape = (None, *leaf.shape[1:])
        return keras.KerasTensor(shape, dtype=leaf.dtype.name, **options)

    return keras.tree.map_structure(symbolic, spec)


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


def _check_steps(model):
    for name in _OWN_STEPS:
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ValueError(
                f"{type(model).__name__} overrides {name}, which disttrain.Trainer would not call; "
                "compute the losses in a disttrain.CustomStep and give it as Trainer(step=...), or "
                "compile the model with optimizer=disttrain.DistributedOptimizer(...) and use "
                "Model.fit"
            )


def _fresh_metrics(metrics, replication):
    """Metrics whose variables belong to the current scope."""
    if callable(metrics) and not isinstance(metrics, (keras.metrics.Metric, type)):
        # Made in the scope, they need not know how to be made anew.
        return metrics()
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
