"""The contract of a step, written once: reduce, check, unscale, clip, apply.

`Trainer`, `Model.fit` and hand-written loops all pass through `DistributedOptimizer`. How replicas
speak to each other is the replication's; what the inner optimizer does with a gradient is its own.
"""

import copy
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from disttrain import from_horovod
from disttrain import replication as replication_module
from disttrain.gradients import loss_scale as loss_scale_module
from disttrain.gradients import overwriting, sparse
from disttrain.gradients.accumulation import Accumulator
from disttrain.gradients.path import GradientPath
from disttrain.gradients.reduction import Reduction
from disttrain.optimizers import keras_loss_scale, own_state, skips, taking_over
from disttrain.optimizers.delegating import DelegatingOptimizer, refused
from disttrain.optimizers.local_variables import LocalVariables
from disttrain.optimizers.missing import MissingGradients, some
from disttrain.optimizers.outcome import Outcome
from disttrain.replication import adoption


@keras.saving.register_keras_serializable("disttrain")
class DistributedOptimizer(DelegatingOptimizer):
    """Wraps a Keras optimizer so that all replicas make the same, right update.

    Each step: the gradients are summed over all replicas; if one element of the sum is not finite
    the step is skipped on every replica, and neither `iterations` nor the schedule advances; else
    they are divided by the loss scale, clipped, and handed to the inner optimizer.

    With `reduction="mean"` the reduced gradient is the mean of the replicas' gradients, so each
    replica's loss should be the mean over its own examples. `Model.fit` does that by itself. In a
    hand-written loop call `loss = optimizer.scale_loss(loss)` before the gradient where the loss
    comes from a Keras loss object under `tf.distribute` (Keras divides it by the number of
    replicas, `scale_loss` undoes that) or where there is a loss scale; without both it may be left
    out. With `reduction="sum"` the gradients are added as they are, and with `"adasum"` as Maleki
    et al. 2020 do it: both expect of the loss what `"mean"` does.

    Args:
        inner: A `keras.optimizers.Optimizer`, its configuration, its name, or what
            `disttrain.optimizers.from_legacy` takes. Its own `clipnorm`,
            `clipvalue`, `global_clipnorm`, `loss_scale_factor` and `gradient_accumulation_steps`
            are taken over and cleared, for Keras would apply them before the reduction. A
            `LossScaleOptimizer` is unwrapped.
        clip: A `disttrain.gradients.clipping.Clip`, or `None`.
        loss_scale: `None`, a number, `"dynamic"` or a `disttrain.DynamicLossScale`. In a model with
            the dtype policy `mixed_float16`, `Model.compile` turns `None` into `"dynamic"`, unless
            it is called with `auto_scale_loss=False`, and so does `disttrain.Trainer`.
        accumulate_steps: Gradients of so many calls of `apply` are averaged before one update.
        reduction: `"mean"`, `"sum"` or `"adasum"`.
        compression: `None`, `"fp16"` or `"bf16"`: the dtype in which gradients travel.
        groups: In how many groups the gradients travel; more overlap with the backward pass.
            `None` takes up to four, of a mebibyte or more each.
        sparse_as_dense: Whether sparse gradients are made dense before they travel.
        local_variables: Variables, layers, or patterns of variables' paths such as `"*/adapter/*"`,
            that each replica keeps for itself: they are trained with the mean gradient of this
            replica's examples, which is neither reduced nor clipped, and are not broadcast.
        max_skipped: After so many skipped steps in a row an error names the variables whose
            gradients were not finite, as soon as `check_skipped` looks; `None` never stops.
        replication: As for `disttrain.Trainer`. `"auto"` takes the strategy in whose scope it is
            built, else Horovod where its launcher started the process, else one replica.
        name: Name of the optimizer.
        **unknown: Refused; for those of Horovod the error says what to use here.

    Raises:
        TypeError: `inner`, `clip` or an entry of `local_variables` is something else, or there is
            no such argument.
        ValueError: Both `inner` and the arguments clip, scale or accumulate, or an argument is
            unknown or does not go with another.
    """

    clipnorm = refused("clipnorm", "clip=disttrain.ClipByNorm(...)")
    global_clipnorm = refused("global_clipnorm", "clip=disttrain.ClipByGlobalNorm(...)")
    clipvalue = refused("clipvalue", "clip=disttrain.ClipByValue(...)")
    loss_scale_factor = refused("loss_scale_factor", "loss_scale=...")
    gradient_accumulation_steps = refused("gradient_accumulation_steps", "accumulate_steps=...")

    def __init__(
        self,
        inner,
        *,
        clip=None,
        loss_scale=None,
        accumulate_steps=1,
        reduction="mean",
        compression=None,
        groups=None,
        sparse_as_dense=False,
        local_variables=(),
        max_skipped=skips.MOST,
        replication="auto",
        name=None,
        **unknown,
    ):
        from_horovod.refuse(unknown)
        inner = keras.optimizers.get(inner) if isinstance(inner, (str, dict)) else inner
        if isinstance(inner, DistributedOptimizer):
            raise TypeError("the optimizer is a DistributedOptimizer already; wrap the inner one")
        inner, clip, scale, accumulate_steps = taking_over.separate(
            inner, clip, loss_scale, accumulate_steps
        )
        skips.check(max_skipped)
        super().__init__(name or f"distributed_{inner.name}")
        taking_over.move_into_scope(inner, self._distribution_strategy)
        self.inner = inner
        # Their state belongs to this optimizer; the user may give the same objects to another.
        self.clip = copy.copy(clip)
        self.loss_scale = copy.copy(scale)
        self.reduction = Reduction(reduction, compression, groups, sparse_as_dense)
        self.accumulator = Accumulator(accumulate_steps)
        self.accumulate_steps = self.accumulator.steps
        self.max_skipped = max_skipped
        self._local = LocalVariables(local_variables)
        self.local_variables = self._local.entries
        if self.two_gradients and (self.accumulate_steps > 1 or self.local_variables):
            given = "local_variables" if self.local_variables else f"{accumulate_steps=}"
            raise ValueError(
                f"{inner.name!r} takes two gradients of each batch, which does not go with {given}"
            )
        self._path = GradientPath(self.reduction, self.clip, self.is_local)
        self._outcome = Outcome(self)
        self._wanted_replication = replication
        self._replication = None
        #: What records the steps of `apply`, if anything; see `disttrain.callbacks`.
        self.observer = None
        self._scale_is_built = False
        self.missing = MissingGradients()
        self._loaded = None
        # Not as an attribute that Keras tracks, because they are not the optimizer's.
        self.__dict__["_shown_variables"] = {}
        self.ema_overwrite_frequency = taking_over.ema_overwrite_frequency(inner)
        taking_over.silence(inner)

    @property
    def replication(self):
        """The `Replication` that reduces the gradients."""
        if self._replication is None:
            wanted = self._wanted_replication
            if wanted != "auto":
                self._replication = replication_module.resolve(wanted)
            elif tf.distribute.has_strategy():
                self._replication = replication_module.current()
            else:
                # Whoever asks may stand outside of the scope in which the optimizer was made.
                with self._distribution_strategy.scope():
                    self._replication = replication_module.current()
        return self._replication

    @property
    def built_with(self):
        """The trainable variables that it was built with, in order."""
        return self._trainable_variables

    def rewrapped(self, inner, replication):
        """A new wrapper with the same settings around another optimizer.

        Args:
            inner: A Keras optimizer.
            replication: As for the constructor.
        """
        settings = self._own_config()
        del settings["name"]
        settings |= {
            "clip": self.clip,
            "loss_scale": self.loss_scale,
            "local_variables": self.local_variables,
        }
        made = type(self)(inner, replication=replication, **settings)
        # Taken from the first inner optimizer, so the new one's configuration lacks it.
        made.ema_overwrite_frequency = made.ema_overwrite_frequency or self.ema_overwrite_frequency
        return made

    def clone(self):
        """A new optimizer with the same settings and without state, for another model.

        An optimizer keeps slots for the variables of one model, so each further model, such as
        that of the next fold of a cross validation, needs its own.

        Returns:
            A `DistributedOptimizer`, made in the same `tf.distribute` scope. The learning rate of
            the inner optimizer is the present one.

        Raises:
            ValueError: The inner optimizer has settings that belong to its model's variables.
        """
        with self._distribution_strategy.scope():
            inner = adoption.copy_optimizer(self.inner)
            return self.rewrapped(inner, self._wanted_replication)

    def build(self, variables):
        """Creates the slots of the inner optimizer and the wrapper's own state.

        Args:
            variables: The trainable variables, a list of `keras.Variable`.

        Raises:
            ValueError: An entry of `local_variables` means none of them, or the inner optimizer
                belongs to another model or to another scope.
        """
        if self.built:
            return
        variables = self._as_keras(variables)
        self._local.check(variables)
        taking_over.check_belongs(self.inner, variables, self._distribution_strategy)
        if not self.inner.built:
            taking_over.build(self.inner, variables)
            self.inner.was_merged = taking_over.MERGED in (self._loaded or ())
            taking_over.load_what_came_before_build(self.inner)
        self._build_loss_scale()
        if self.clip is not None:
            self.clip.bind(self.inner)
            self.clip.build(self._add_state)
        self._outcome.build(self._add_state, variables)
        if self.accumulate_steps > 1:
            self.accumulator.build(self._add_state, self._add_like, variables)
        self._trainable_variables = list(variables)
        self.built = True
        if self._loaded is not None:
            store, self._loaded = self._loaded, None
            self.load_own_variables(store)

    def use_loss_scale(self, loss_scale):
        """Scales the loss from now on, unless it is scaled already.

        Args:
            loss_scale: A number, `"dynamic"` or a `disttrain.DynamicLossScale`.
        """
        if self.loss_scale is None:
            self.loss_scale = loss_scale_module.resolve(loss_scale)
            if self.built:
                self._build_loss_scale()

    def _build_loss_scale(self):
        if self.loss_scale is not None and not self._scale_is_built:
            self._scale_is_built = True
            with tf.init_scope():
                self.loss_scale.build(self._add_state)

    def _add_state(self, name, dtype, value, shape=()):
        return self.add_variable(
            shape=shape, dtype=dtype, initializer=keras.initializers.Constant(value), name=name
        )

    def _add_like(self, reference, name):
        return self.add_variable_from_reference(reference, name=name)

    def current_loss_scale(self):
        """The factor on the loss, a float32 scalar; 1 without loss scaling."""
        if self.loss_scale is None:
            return tf.constant(1.0)
        # Before `build` a traced function would keep a constant for ever.
        self._build_loss_scale()
        return tf.convert_to_tensor(self.loss_scale.value.value)

    def clip_frequency(self):
        """The part of the applied steps that the clip has changed, a float; 0 without a clip."""
        applied = int(self.iterations.numpy())
        if self.clip is None or not self.built or applied == 0:
            return 0.0
        return self._outcome.clipped_steps() / applied

    def scale_loss(self, loss):
        """Multiplies a replica's loss as `apply` expects it.

        Args:
            loss: A replica's loss, a scalar, as Keras's loss objects return it.

        Returns:
            The loss times the loss scale and, under `tf.distribute`, times the number of replicas
            by which Keras has divided it.
        """
        loss = tf.convert_to_tensor(loss)
        if not loss.dtype.is_floating:
            loss = tf.cast(loss, keras.config.floatx())
        scale, replicas = tf.cast(self.current_loss_scale(), loss.dtype), 1.0
        if tf.distribute.has_strategy():
            replicas = float(tf.distribute.get_strategy().num_replicas_in_sync)
        if self.observer is not None:
            self.observer.note("loss", tf.cast(loss, tf.float32) * replicas)
        if loss.dtype == tf.float64:
            # Keras divides by the number in float32, here too.
            replicas = 1.0 / float(np.float32(1.0 / replicas))
        return loss * (scale * tf.constant(replicas, loss.dtype))

    def apply(self, grads, trainable_variables=None, recompute=None):
        """Reduces the gradients over all replicas and makes one update.

        With `accumulate_steps=k` only each k-th call does that; the others add the gradients up on
        their replica.

        Args:
            grads: This replica's gradients of the scaled loss; dense tensors, `IndexedSlices` or
                `None`. Called in replica context by every replica.
            trainable_variables: Their variables; by default those the optimizer was built with.
            recompute: For an inner optimizer with `two_gradients`: a function without arguments
                that returns the gradients of the same batch at the weights of then.

        Raises:
            ValueError: Every gradient is `None`, their number does not fit the variables, a
                variable is not one that the optimizer was built with, or `recompute` is missing.
        """
        grads = list(grads)
        if not grads:
            return  # As Keras does it.
        variables = self._variables_or_built(trainable_variables)
        recompute = self.missing.leave_out_of(recompute, variables)
        gradients, variables = self.missing.leave_out(grads, variables)
        if self.accumulate_steps == 1:
            self._apply_means(gradients, variables, recompute)
            return
        # Keras ends an epoch of unknown length by a step without data. It must add nothing, not
        # even gradients that do not depend on data.
        after = [sparse.values_of(gradient) for gradient in gradients]
        count = self.accumulate(gradients, variables, after=after)
        self.replication.cond(
            count >= self.accumulate_steps, lambda: self._apply_accumulated(variables), _nothing
        )

    def flush(self, trainable_variables=None):
        """Applies what `apply` has accumulated, if there is anything; in replica context.

        Args:
            trainable_variables: The variables that have gradients; by default all.
        """
        if self.accumulate_steps == 1 or not self.built:
            return
        variables = self._variables_or_built(trainable_variables)
        self.replication.cond(
            self.accumulator.pending() > 0,
            lambda: self._apply_accumulated(variables),
            _nothing,
        )

    def _apply_accumulated(self, variables):
        gradients, _ = self.accumulator.take(variables)
        self._apply_means(gradients, variables)

    def _apply_means(self, gradients, variables, recompute=None):
        replicas = self.replication.replicas
        divisor = replicas if self.reduction.kind == "mean" else 1
        observer, extras = self.observer, []
        if observer is not None:
            loss, examples = observer.noted("loss"), observer.noted("examples")
            extras = [loss / replicas, examples * self.accumulate_steps]
        self.apply_shares(
            gradients,
            variables,
            divisor=divisor,
            extras=extras,
            observer=observer,
            own_loss=loss if observer is not None else None,
            recompute=recompute,
        )

    def accumulate(self, gradients, variables, weight=1.0, after=()):
        """Adds a micro-batch's gradients on this replica; see `Accumulator.add`."""
        variables = self._as_keras(variables)
        self._build_if_needed(variables)
        return self.accumulator.add(gradients, variables, weight, after)

    def apply_shares(
        self,
        grads,
        variables,
        divisor=1,
        extras=(),
        observer=None,
        own_loss=None,
        share_to_mean=1.0,
        recompute=None,
        alone=False,
    ):
        """Sums each replica's share of the gradients, and makes one update.

        Args:
            grads: This replica's share of the gradients of the scaled loss.
            variables: Their variables.
            divisor: A Python number by which the sum is divided.
            extras: float32 scalars to sum over the replicas with the same communication.
            observer: A `disttrain.telemetry.observer.Observer` that records the step, or `None`.
                The extras then begin with this replica's share of the loss, and its examples.
            own_loss: With an observer: mean loss of this replica's examples, a float32 scalar.
            share_to_mean: What turns a share into the mean over this replica's examples, a scalar;
                clips before the reduction, `"sum"` and `"adasum"` look at means.
            recompute: As for `apply`; it returns shares.
            alone: Whether nothing else in the graph uses slots of the optimizer, which makes
                many of them quicker to hand over.

        Returns:
            `(sums, finite)`: the reduced extras, a list, and whether the update was applied.

        Raises:
            ValueError: As for `apply`.
        """
        variables = self._as_keras(variables)
        self._build_if_needed(variables)
        recompute = self.missing.leave_out_of(recompute, variables)
        grads, variables = self.missing.leave_out(grads, variables)
        recompute = overwriting.without(recompute, variables)
        grads, variables, values, targets = overwriting.separate(grads, variables)
        scale = self.current_loss_scale()
        local = record = counts = None
        if observer is not None:
            # A step without data, see `apply`, is none.
            with tf.control_dependencies([sparse.values_of(gradient) for gradient in grads]):
                record, counts = observer.begin()
            to_mean = share_to_mean / scale
            local = observer.arrived(record, grads, variables, to_mean, own_loss, extras[1])
        settings = {
            "scale": scale if self.loss_scale is not None else None,
            "divisor": divisor,
            "share_to_mean": share_to_mean,
        }
        if self.two_gradients:
            reduced = self._second(grads, variables, extras, recompute, settings)
        else:
            reduced = self._path(self.replication, grads, variables, extras, **settings)
        if targets:
            values, finite = overwriting.largest(self.replication, values, targets, self.is_local)
            reduced = dataclasses.replace(reduced, finite=reduced.finite & finite)
            self._outcome.overwrite(targets, values, reduced.finite)
        if observer is None:
            self._outcome.decide(reduced, variables, alone)
        else:
            # A MultiOptimizer has several.
            rate = getattr(self.inner, "learning_rate", float("nan"))
            facts = {
                "loss": reduced.extras[0],
                "examples": reduced.extras[1],
                "loss_scale": scale,
                "learning_rate": tf.cast(tf.convert_to_tensor(rate), tf.float32),
                **observer.reduced(local, reduced.gradients),
            }
            due = {"record": record, "with_histograms": counts}
            self._outcome.decide_and_record(reduced, variables, observer, due, facts, alone)
        if tf.executing_eagerly() and not tf.distribute.has_strategy():
            self.check_skipped()
        return reduced.extras, reduced.finite

    def _second(self, grads, variables, extras, recompute, settings):
        """The reduced gradients at the weights to which the first gradients have led."""
        if recompute is None:
            raise ValueError(
                f"{self.inner.name!r} takes two gradients of each batch: hand in recompute, a "
                "function that returns the gradients at the weights of then, or use "
                "disttrain.Trainer"
            )
        first, extras, finite = self._path.reduce(
            self.replication, grads, variables, extras, settings["divisor"]
        )
        saved = self.inner.perturb(first, variables, finite)
        second = recompute()
        self.inner.restore(variables, saved)
        reduced = self._path(self.replication, second, variables, [], **settings)
        return dataclasses.replace(reduced, finite=reduced.finite & finite, extras=extras)

    def check_skipped(self):
        """Raises an error if too many steps in a row were skipped; see `max_skipped`.

        It waits for the device. `disttrain.Trainer` calls it about fifty times an epoch,
        `Model.fit` at its end, and `TelemetryCallback` and `BroadcastVariables` after each epoch.
        Call it now and then in a loop of your own whose steps run in a `tf.function`.

        Raises:
            RuntimeError: With the variables whose gradients were not finite.
        """
        self._outcome.skips.raise_if_too_many()

    def finalize_variable_values(self, var_list):
        """As Keras does it, on the inner optimizer; called at the end of `Model.fit`."""
        super().finalize_variable_values(var_list)
        self.check_skipped()

    def is_local(self, variable):
        """Whether each replica keeps this variable for itself."""
        return variable in self._local

    def to_broadcast(self, variables):
        """Those of `variables` that all replicas share.

        Args:
            variables: Variables of the model or of the optimizer, a list.
        """
        return self._local.without(variables, self.inner)

    def _variables_or_built(self, variables):
        if variables is not None:
            return self._as_keras(variables)
        if not self.built:
            raise ValueError(
                "the optimizer does not know its variables yet: hand them to apply(grads, "
                "variables) or call build(variables) first"
            )
        return self._trainable_variables

    def _as_keras(self, variables):
        """The variables, with a `keras.Variable` of the same value for each `tf.Variable`."""
        return [v if isinstance(v, keras.Variable) else self._shown(v) for v in variables]

    def _shown(self, variable):
        key = self._var_key(variable)
        if key not in self._shown_variables:
            name = variable.name.partition(":")[0].replace("/", "_")
            with tf.init_scope():
                self._shown_variables[key] = keras.Variable(
                    variable, dtype=variable.dtype.base_dtype.name, name=name
                )
        return self._shown_variables[key]

    def _build_if_needed(self, variables):
        if not self.built:
            with tf.init_scope():
                self.build(variables)
        known = {id(v) for v in self._trainable_variables}
        unknown = [getattr(v, "path", v.name) for v in variables if id(v) not in known]
        if unknown:
            raise ValueError(
                f"the optimizer {self.name!r} was not built with {some(unknown)}; for another "
                "model use optimizer.clone(), and build one with all variables that are to be "
                "trained"
            )

    def save_own_variables(self, store):
        # Keras saves `inner` by itself, as it is an attribute.
        own_state.save(store, self._state, self.accumulator)
        if self.built and taking_over.has_lora(self.built_with):
            store[taking_over.MERGED] = np.ones((), np.int8)

    def load_own_variables(self, store):
        if not self.built:
            self._loaded = taking_over.kept(store)
            return
        merged = taking_over.MERGED in list(store.keys())
        self.was_merged = self.inner.was_merged = merged
        own_state.load(self, self._state, store)

    def get_config(self):
        inner = taking_over.serialized(self.inner, self.ema_overwrite_frequency)
        return {**self._own_config(), "inner": inner}

    def _own_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "clip": serialize(self.clip) if self.clip else None,
            "loss_scale": serialize(self.loss_scale) if self.loss_scale else None,
            "accumulate_steps": self.accumulate_steps,
            "reduction": self.reduction.kind,
            "compression": self.reduction.compression,
            "groups": self.reduction.groups,
            "sparse_as_dense": self.reduction.sparse_as_dense,
            "local_variables": self._local.get_config(),
            "max_skipped": self.max_skipped,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for key in ("inner", "clip", "loss_scale"):
            if isinstance(config.get(key), dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects=custom_objects
                )
        return cls(config.pop("inner"), **config)


keras_loss_scale.replace_around(DistributedOptimizer)


def _nothing(*args):
    return None
