"""The loss of a global batch, written as a sum of shares that replicas can compute alone.

Keras divides a loss by what it sees: the examples, the unmasked elements or the sample weights of
one replica. A mean of such means weighs uneven parts wrongly. Here each replica divides what it
sums by what all replicas see, so that the shares add up to the loss of one device with the whole
batch. A loss that returns no value for each example, or one that depends on other examples, is
computed from the examples of all replicas.
Terms, names and shapes follow `keras.losses`.
"""

import dataclasses
import itertools
import numbers

import keras
import tensorflow as tf

from disttrain.global_batch import GlobalBatch
from disttrain.loss_reduction import (
    common,
    depends_on_data,
    divisor_of,
    join_masks,
    match_ranks,
    size_of,
    weigh,
    widened,
)
from disttrain.output_structure import OutputStructure
from disttrain.shape_probe import mixes_examples, returned_shape

_REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum")


@dataclasses.dataclass(frozen=True)
class Rows:
    """How many examples there are.

    Attributes:
        local: float32 scalar, examples of this replica; 0 where it only takes part.
        total: float32 scalar, examples of the global batch.
        may_borrow: Whether `local` may be 0, so that the tensors hold an example of another
            replica.
    """

    local: tf.Tensor
    total: tf.Tensor
    may_borrow: bool = True


@dataclasses.dataclass(frozen=True)
class _Term:
    name: str
    output: int
    loss: keras.losses.Loss
    weight: float


class Losses:
    """The losses of a model's outputs.

    Args:
        loss: A Keras loss, its name, a function `(y_true, y_pred)`, or a list or dictionary of them
            that has the structure of the outputs or is keyed by their names.
        outputs: The model's symbolic outputs.
        output_names: Names of the outputs, in order.
        weights: A number for each loss, in such a structure, or `None`.
        required: Whether at least one output must have a loss.

    Raises:
        ValueError: The structure of `loss` does not fit the outputs, or a loss has no reduction.
        TypeError: Something is no loss, or replaces `keras.losses.Loss.__call__`.
    """

    def __init__(self, loss, outputs, output_names, weights=None, required=True):
        self._outputs = OutputStructure(outputs, output_names)
        self._terms = _terms(loss, weights, outputs, self._outputs)
        if required and not self._terms:
            raise ValueError("no output has a loss; give loss= at least one that is not None")
        self._present = [term.output for term in self._terms]
        self._by_example = {}
        self._calls = itertools.count()

    @property
    def names(self):
        """Names of the terms, such as `"digit_loss"`; empty where there is only one."""
        return [f"{term.name}_loss" for term in self._terms] if len(self._terms) > 1 else []

    def targets(self, y):
        """The targets in the structure of the outputs, `None` where an output has none."""
        entries = self._outputs.entries(y, "the targets y", present=self._present)
        return self._outputs.pack(entries)

    def sample_weights(self, sample_weight):
        """The sample weights in the structure of the outputs; `None` if there are none."""
        if sample_weight is None:
            return None
        entries = self._outputs.entries(
            sample_weight, "sample_weight", repeat=True, present=self._present
        )
        return self._outputs.pack(entries)

    def __call__(self, y, y_pred, sample_weight, rows, replication=None):
        """Computes this replica's share of each term.

        Args:
            y: Targets, a list in the order of the outputs, a dictionary by their names, or in their
                structure.
            y_pred: Outputs of the model.
            sample_weight: `None`, a tensor for all outputs, or structured like `y`.
            rows: A `Rows`.
            replication: The `Replication` through which replicas add divisors up and gather their
                examples, where a term needs it. `None` promises that none does.

        Returns:
            `(total, shares)`: the weighted sum of the shares, and the share of each term before its
            weight, a list. They are float32 scalars, or float64 where a loss returns float64.

        Raises:
            ValueError: Targets, outputs and weights do not fit each other.
        """
        targets = keras.tree.flatten(self.targets(y))
        weights = keras.tree.flatten(self.sample_weights(sample_weight))
        weights = weights if len(weights) == len(targets) else [None] * len(targets)
        predictions = keras.tree.flatten(y_pred)
        call = self.next_call()
        parts = []
        for term in self._terms:
            y_true = targets[term.output]
            if y_true is None:
                raise ValueError(
                    f"the output {term.name!r} has a loss and no targets; give y an entry for it, "
                    "or set its loss to None"
                )
            data = _Examples(y_true, predictions[term.output], weights[term.output])
            parts.append(self._part(term, data, rows, replication, call))
        divisors = [part.local_divisor for part in parts if part.local_divisor is not None]
        if divisors:
            divisors = common(divisors)
            divisors = list(_others(replication).reduce_sum(divisors, f"divisors.{call}"))
        shares = []
        for part in parts:
            divisor = part.divisor if part.local_divisor is None else divisors.pop(0)
            divisor = tf.cast(divisor, part.numerator.dtype)
            shares.append(tf.math.divide_no_nan(part.numerator, divisor))
        shares = common(shares)
        total = tf.add_n(
            [share * term.weight for share, term in zip(shares, self._terms, strict=True)]
        )
        return total, shares

    def next_call(self):
        """A number for the names of what replicas exchange.

        A step that computes the loss twice needs other names the second time.
        """
        return next(self._calls)

    def _part(self, term, data, rows, replication, call):
        """The `_Part` of a term on this replica."""
        if replication is not None and replication.replicas == 1:
            return _whole(term, data, rows, replication, call)
        shapes = (term.output, str(data.y_true.shape), str(data.y_pred.shape))
        if shapes not in self._by_example:
            self._by_example[shapes] = _is_computed_by_example(term.loss, data)
        if not self._by_example[shapes]:
            return _whole(term, data, rows, _others(replication), call)
        return _own(term, data, rows)


@dataclasses.dataclass(frozen=True)
class _Examples:
    """Targets, an output and sample weights of some examples, and the output's mask."""

    y_true: tf.Tensor
    y_pred: tf.Tensor
    sample_weight: tf.Tensor | None

    @property
    def mask(self):
        return _mask_of(self.y_pred)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A replica's share of a term: the numerator by the divisor of all replicas.

    `divisor` is that one; where it is `None`, it is the sum of the replicas' `local_divisor`.
    """

    numerator: tf.Tensor
    divisor: tf.Tensor | None = None
    local_divisor: tf.Tensor | None = None


def _own(term, data, rows):
    """The part of a loss with a value for each example, from this replica's examples."""
    weighted = _weighted_values(term, data, data.mask)
    # A replica without examples computes on one that another replica owns.
    dtype = weighted.values.dtype
    present = tf.cast(rows.local > 0, dtype)
    numerator = tf.reduce_sum(weighted.values) * present
    reduction = term.loss.reduction
    if depends_on_data(weighted, reduction):
        return _Part(numerator, local_divisor=divisor_of(weighted, reduction) * present)
    if reduction == "sum":
        return _Part(numerator, divisor=tf.constant(1.0, dtype))
    elements = size_of(weighted.values, dtype) / tf.cast(tf.maximum(rows.local, 1.0), dtype)
    return _Part(numerator, divisor=elements * tf.cast(rows.total, dtype))


def _whole(term, data, rows, replication, call):
    """The part of any loss, from the examples of all replicas."""
    batch = GlobalBatch(replication, rows, f"loss.{term.output}.{call}")
    mask, weight = data.mask, data.sample_weight
    y_true, y_pred = _cast(term.loss, data)
    # NCCL and Gloo gather float32; labels below 2^24 are exact in it, and the loss casts them.
    gathered = _Examples(
        batch.gather(y_true),
        batch.gather(y_pred),
        None if weight is None else batch.gather(widened(weight)),
    )
    mask = None if mask is None else batch.gather(mask)
    with replication.as_one_replica():
        weighted = _weighted_values(term, gathered, mask)
    divisor = divisor_of(weighted, term.loss.reduction)
    value = tf.math.divide_no_nan(tf.reduce_sum(weighted.values), divisor)
    return _Part(batch.share(value), divisor=tf.constant(1.0, value.dtype))


def _weighted_values(term, data, mask):
    """Calls the loss; a `Weighted`."""
    values = term.loss.call(*_cast(term.loss, data))
    values_mask = _mask_of(values)
    values = tf.convert_to_tensor(values)
    if values.shape.rank is None:
        raise ValueError(
            f"the loss {term.loss.name!r} returns a tensor whose number of axes is not known; "
            "return one with a static rank, such as tf.ensure_shape(values, [None])"
        )
    mask = join_masks(mask, values_mask)
    return weigh(values, data.sample_weight, mask, term.loss.name)


def _cast(loss, data):
    cast = lambda value: keras.ops.convert_to_tensor(value, dtype=loss.dtype)  # noqa: E731
    return cast(data.y_true), cast(data.y_pred)


def _is_computed_by_example(loss, data):
    """Whether a loss returns a value for each example that depends on that example alone."""
    arguments = (loss.call, data.y_true, data.y_pred, loss.dtype)
    shape, examples = returned_shape(*arguments)
    if shape is None or not shape.rank or shape[0] != examples:
        return False
    if _is_known(loss):
        return True
    return not mixes_examples(*arguments)


def _is_known(loss):
    """Whether a loss is one of Keras's whose values are known to be those of single examples."""
    own = loss._function if isinstance(loss, _FunctionLoss) else type(loss)
    mixing = (keras.losses.Circle, keras.losses.circle)
    return getattr(own, "__module__", "").startswith("keras.") and own not in mixing


def _others(replication):
    if replication is None:
        raise RuntimeError("a loss needs the other replicas, and none were given")
    return replication


def _mask_of(tensor):
    return getattr(tensor, "_keras_mask", None)


def _resolve(loss, y_pred_shape):
    if isinstance(loss, str) and loss.lower() in ("crossentropy", "ce"):
        raise ValueError(
            f"the loss {loss!r} is ambiguous; name binary_crossentropy, categorical_crossentropy "
            f"or sparse_categorical_crossentropy for the output of shape {tuple(y_pred_shape)}"
        )
    if not isinstance(loss, (str, dict)) and not callable(loss):
        raise TypeError(f"a loss must be a keras.losses.Loss, its name or a function, not {loss!r}")
    resolved = keras.losses.get(loss)
    if not isinstance(resolved, keras.losses.Loss):
        resolved = _FunctionLoss(resolved)
    if type(resolved).__call__ is not keras.losses.Loss.__call__:
        raise TypeError(
            f"{type(resolved).__name__} replaces __call__, so that its sum cannot be told from its "
            "mean; override call(y_true, y_pred) to return a value for each example instead"
        )
    if resolved.reduction not in _REDUCTIONS:
        raise ValueError(
            f"the loss {resolved.name!r} has reduction={resolved.reduction!r}; use "
            "'sum_over_batch_size', which is the mean over the global batch, or 'sum'"
        )
    return resolved


class _FunctionLoss(keras.losses.Loss):
    """A function `(y_true, y_pred)` as a loss with the mean over the batch."""

    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", type(function).__name__))
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(*match_ranks(y_true, y_pred))


def _terms(loss, weights, outputs, structure):
    chosen = structure.entries(loss, "loss", repeat=True)
    factors = structure.entries(
        1.0 if weights is None else weights,
        "loss_weights",
        missing=1.0,
        repeat=True,
        present=[i for i, one in enumerate(chosen) if one is not None],
    )
    terms = []
    for i, output in enumerate(keras.tree.flatten(outputs)):
        if chosen[i] is not None:
            factor = _number(factors[i], structure.names[i])
            terms.append(_Term(structure.names[i], i, _resolve(chosen[i], output.shape), factor))
    return terms


def _number(factor, name):
    if isinstance(factor, bool) or not isinstance(factor, numbers.Real):
        raise TypeError(f"the loss weight of the output {name!r} must be a number, not {factor!r}")
    return float(factor)
