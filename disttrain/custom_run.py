"""Runs a `CustomStep` on every replica: its variables, its losses, its gradients.

The rest of a step is that of `train_step.py` and `eval_step.py`.
"""

import keras
import tensorflow as tf

from disttrain import custom_checks as checks
from disttrain.custom_step import CustomStep
from disttrain.eval_step import EvaluateStep
from disttrain.losses import Rows
from disttrain.optimizers.named import NamedOptimizers
from disttrain.task import Task, symbolic
from disttrain.train_step import TrainStep


class Terms:
    """The names of the losses; see `disttrain.losses.Losses.names`.

    Args:
        names: The names of several optimizers, or `None` for one.
    """

    def __init__(self, names):
        self.names = [f"{name}_loss" for name in names or ()]

    def targets(self, y):
        """The targets as they come."""
        return y

    def sample_weights(self, sample_weight):
        """The sample weights as they come."""
        return sample_weight


class CustomTrainStep(TrainStep):
    """Trains on the losses of a `CustomStep`; the arguments are those of `TrainStep`."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.execute = checks.readable_errors(self.execute)

    def _forward_backward(self, batch, local, total, scale):
        task = self._task
        of_each = task.variables_of_each()
        with tf.GradientTape(persistent=len(of_each) > 1) as tape:
            rows = Rows(local, total, self._may_be_empty)
            shares, outputs = task.shares(batch, rows, training=True)
            scaled = [share * scale for share in shares]
        found = {}
        for name, loss, variables in zip(task.names, scaled, of_each, strict=True):
            gradients = tape.gradient(loss, variables)
            checks.has_gradients(gradients, variables, name)
            found |= {id(v): g for v, g in zip(variables, gradients, strict=True)}
        return tf.add_n(shares), shares, [found[id(v)] for v in self.variables], outputs

    def _after_apply(self, finite):
        update = self._task.after_update
        if update is not None:
            self._task.replication.cond(finite, update, lambda: None)


class CustomEvaluateStep(EvaluateStep):
    """Adds the losses of a `CustomStep`; the arguments are those of `EvaluateStep`."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.execute = checks.readable_errors(self.execute)

    def _losses_and_outputs(self, batch, rows):
        shares, outputs = self._task.shares(batch, rows, training=False)
        return tf.add_n(shares), shares, outputs


class CustomTask(Task):
    """A model with a step of the user's own.

    Args:
        step: A `disttrain.CustomStep`.
        *arguments: As for `Task`.
    """

    needs_targets = False

    def __init__(self, step, *arguments, **options):
        self._step = step
        super().__init__(*arguments, **options)

    def _compile(self, metrics, weighted_metrics):
        # A model with its own train_step often has a `compile` with other arguments.
        keras.Model.compile(
            self.model,
            optimizer=self.optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            jit_compile=False,
            auto_scale_loss=False,
        )

    @property
    def names(self):
        """The names of the optimizers; `[None]` where there is one without a name."""
        inner = self.optimizer.inner
        return inner.names if isinstance(inner, NamedOptimizers) else [None]

    @property
    def after_update(self):
        """The step's `after_update` as a function without arguments, or `None` without one."""
        if type(self._step).after_update is CustomStep.after_update:
            return None
        return lambda: self._step.after_update(self.model)

    def variables_of_each(self):
        """What each optimizer updates, a list of lists in the order of `names`."""
        return checks.variables(self._step, self.model, self.names)

    @property
    def trained_variables(self):
        return [variable for variable, _ in self._owned()]

    def _owned(self):
        """`(variable, name of its optimizer)` in the order of the model."""
        owner_of = {}
        for name, variables in zip(self.names, self.variables_of_each(), strict=True):
            owner_of |= {id(variable): name for variable in variables}
        trainable = self.model.trainable_variables
        return [(v, owner_of[id(v)]) for v in trainable if id(v) in owner_of]

    def _build_model(self, spec):
        compares = self.metrics is not None and not self.metrics.built and len(spec) > 1
        # A step may call the model, or parts of it, with other inputs than x.
        if compares or not checks.is_built(self.model):
            checks.has_outputs(self.model, compares)
            outputs = self._call_symbolically(spec)
            if compares:
                self._build_metrics(symbolic(spec[1]), outputs)
        else:
            self._after_first_call()
        self.losses = Terms([name for name in self.names if name is not None])

    def _build_optimizer(self):
        owned = self._owned()
        if self.names != [None]:
            self.optimizer.inner.owners = [name for _, name in owned]
        self.optimizer.build([variable for variable, _ in owned])

    def call(self, x, training, rows=None):
        checks.can_predict(self.model)
        return super().call(x, training, rows)

    def update_metrics(self, y, y_pred, sample_weight, rows):
        if self.metrics is not None:
            checks.can_compare(self._step, y, y_pred)
            super().update_metrics(y, y_pred, sample_weight, rows)

    def shares(self, batch, rows, training):
        """This replica's share of each loss of the global batch; in replica context.

        Args:
            batch: This replica's part of a batch.
            rows: A `disttrain.losses.Rows`.
            training: Whether this is a training step.

        Returns:
            `(shares, outputs)`: a list of float32 scalars, and what the step has returned beside
            the losses, or `None`.
        """
        with self.in_step(rows, gathers=True):
            found = self._step.losses(self.model, batch, training)
        losses, outputs = checks.losses(self._step, found, self.names, batch)
        here = tf.cast(rows.local > 0, tf.float32)
        return [tf.reduce_sum(loss) * here / rows.total for loss in losses], outputs


def train_step_of(task):
    """The class of a task's training step."""
    return CustomTrainStep if isinstance(task, CustomTask) else TrainStep


def evaluate_step_of(task):
    """The class of a task's step without gradients."""
    return CustomEvaluateStep if isinstance(task, CustomTask) else EvaluateStep
