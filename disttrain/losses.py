"""The loss of a global batch, written as a sum of shares that replicas can compute alone.

Keras divides a loss by what it sees: the examples, the unmasked elements or the sample weights of
one replica. A mean of such means weighs uneven parts wrongly. Here each replica divides what it
sums by what all replicas see, so that the shares add up to the loss of one device with the whole
batch. Terms, names and shapes follow `keras.losses`.
"""

import dataclasses

import keras
import tensorflow as tf

_MEANS = ("sum_over_batch_size", "mean", "mean_with_sample_weight")


@dataclasses.dataclass(frozen=True)
class Rows:
    """How many examples there are.

    Attributes:
        local: float32 scalar, examples of this replica; 0 where it only takes part.
        total: float32 scalar, examples of the global batch.
    """

    local: tf.Tensor
    total: tf.Tensor


@dataclasses.dataclass(frozen=True)
class _Term:
    name: str
    path: tuple
    loss: keras.losses.Loss
    weight: float


class Losses:
    """The losses of a model's outputs.

    Args:
        loss: A Keras loss, its name, a function `(y_true, y_pred)`, or a list or dictionary of them
            that has the structure of the outputs.
        outputs: The model's symbolic outputs.
        output_names: Names of the outputs, in order.
        weights: A number for each loss, in the same structure, or `None`.

    Raises:
        ValueError: The structure of `loss` does not fit the outputs, or a loss has no reduction.
        TypeError: Something is no loss, or replaces `keras.losses.Loss.__call__`.
    """

    def __init__(self, loss, outputs, output_names, weights=None):
        self._terms = _terms(loss, weights, outputs, output_names)

    @property
    def names(self):
        """Names of the terms, such as `"digit_loss"`; empty where there is only one."""
        return [f"{term.name}_loss" for term in self._terms] if len(self._terms) > 1 else []

    def __call__(self, y, y_pred, sample_weight, rows, reduce_sum=None):
        """Computes this replica's share of each term.

        Args:
            y: Targets in the structure of the outputs.
            y_pred: Outputs of the model.
            sample_weight: `None`, a tensor for all outputs, or the structure of the outputs.
            rows: A `Rows`.
            reduce_sum: Sums a list of tensors over the replicas. `None` promises that elements per
                example are equal on all replicas; the function is then called for masks and
                for means by sample weight alone.

        Returns:
            `(total, shares)`: the weighted sum of the shares, a float32 scalar, and the share of
            each term before its weight, a list of float32 scalars.
        """
        pairs = []
        for term in self._terms:
            weight = _at(sample_weight, term.path) if _nested(sample_weight) else sample_weight
            pairs.append(
                _sum_and_divisor(term.loss, _at(y, term.path), _at(y_pred, term.path), weight, rows)
            )
        divisors = [local for _, local, exact in pairs if not exact]
        if divisors:
            if reduce_sum is None:
                raise RuntimeError("a loss with a mask or a weighted mean needs the other replicas")
            divisors = list(reduce_sum(divisors))
        shares = []
        for numerator, divisor, exact in pairs:
            divisor = divisor if exact else divisors.pop(0)
            shares.append(tf.math.divide_no_nan(numerator, divisor))
        total = tf.add_n(
            [share * term.weight for share, term in zip(shares, self._terms, strict=True)]
        )
        return total, shares

    def needs_communication(self, y_pred):
        """Whether a term's divisor depends on data that only its own replica has."""
        return any(
            term.loss.reduction == "mean_with_sample_weight"
            or _mask_of(_at(y_pred, term.path)) is not None
            for term in self._terms
        )


def _sum_and_divisor(loss, y_true, y_pred, sample_weight, rows):
    """Returns `(numerator, divisor, exact)`; `exact` says that the divisor is the global one."""
    mask = _mask_of(y_pred)
    cast = lambda value: keras.ops.convert_to_tensor(value, dtype=loss.dtype)  # noqa: E731
    y_true = keras.tree.map_structure(cast, y_true)
    y_pred = keras.tree.map_structure(cast, y_pred)
    values = tf.cast(loss.call(y_true, y_pred), tf.float32)
    out_mask = _mask_of(values)
    if out_mask is not None:
        mask = out_mask if mask is None else mask & out_mask
    present = tf.cast(rows.local > 0, tf.float32)
    if values.shape.rank == 0:
        # A loss that is one number already: the mean over this replica's examples.
        return values * rows.local, rows.total, True

    weights = None if sample_weight is None else tf.cast(sample_weight, tf.float32)
    if mask is not None:
        mask = tf.cast(mask, tf.float32)
        weights = mask if weights is None else _same_rank(weights, mask) * mask
    if weights is not None:
        weights = _same_rank(weights, values)
        values = values * weights
    numerator = tf.reduce_sum(values) * present

    if loss.reduction == "sum":
        return numerator, tf.constant(1.0), True
    if loss.reduction == "mean_with_sample_weight" and weights is not None:
        return numerator, tf.reduce_sum(weights) * present, False
    size = tf.cast(tf.size(values), tf.float32)
    if mask is not None and loss.reduction != "mean_with_sample_weight":
        elements = size / tf.cast(tf.size(mask), tf.float32)
        return numerator, tf.reduce_sum(mask) * elements * present, False
    # A replica without examples computes on one that another replica owns.
    per_example = size / tf.maximum(rows.local, 1.0)
    return numerator, per_example * rows.total, True


def _same_rank(weights, values):
    """Gives per-example weights the trailing axes, or drops one, to broadcast against values."""
    if weights.shape.rank == values.shape.rank + 1 and weights.shape[-1] == 1:
        return tf.squeeze(weights, -1)
    for _ in range((values.shape.rank or 0) - (weights.shape.rank or 0)):
        weights = tf.expand_dims(weights, -1)
    return weights


def _mask_of(tensor):
    return getattr(tensor, "_keras_mask", None)


def _nested(value):
    return isinstance(value, (dict, list, tuple))


def _at(structure, path):
    for key in path:
        structure = structure[key]
    return structure


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
    if resolved.reduction not in (*_MEANS, "sum"):
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
        if y_true.shape.rank != y_pred.shape.rank:
            if y_true.shape.rank == y_pred.shape.rank + 1 and y_true.shape[-1] == 1:
                y_true = tf.squeeze(y_true, -1)
            elif y_pred.shape.rank == y_true.shape.rank + 1 and y_pred.shape[-1] == 1:
                y_pred = tf.squeeze(y_pred, -1)
        return self._function(y_true, y_pred)


def _terms(loss, weights, outputs, output_names):
    paths = [path for path, _ in keras.tree.flatten_with_path(outputs)] if _nested(outputs) else []
    if not _nested(outputs):
        if isinstance(loss, (list, tuple)) and len(loss) == 1:
            loss = loss[0]
        if isinstance(loss, dict) and len(loss) == 1 and set(loss) <= set(output_names):
            loss = next(iter(loss.values()))
        if _nested(loss):
            raise ValueError(f"the model has one output and loss has {len(loss)} entries: {loss!r}")
        return [_Term(output_names[0], (), _resolve(loss, outputs.shape), float(weights or 1.0))]

    names = ["/".join(map(str, path)) for path in paths]
    if isinstance(outputs, (list, tuple)) and len(output_names) == len(paths):
        names = list(output_names)
    chosen = _spread(loss, names, paths, "loss")
    factors = _spread(1.0 if weights is None else weights, names, paths, "loss_weights")
    terms = []
    for name, path, one, factor in zip(names, paths, chosen, factors, strict=True):
        if one is not None:
            terms.append(_Term(name, path, _resolve(one, _at(outputs, path).shape), float(factor)))
    if not terms:
        raise ValueError("no output has a loss; give loss= at least one that is not None")
    return terms


def _spread(value, names, paths, what):
    """One entry of `value` for each output; a single one serves them all."""
    if isinstance(value, dict):
        unknown = set(value) - set(names)
        if unknown:
            raise ValueError(
                f"{what} names outputs that the model does not have: {sorted(unknown)}; its "
                f"outputs are {names}"
            )
        return [value.get(name, 1.0 if what == "loss_weights" else None) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) != len(paths):
            raise ValueError(
                f"{what} has {len(value)} entries for the {len(paths)} outputs {names}"
            )
        return list(value)
    return [value] * len(paths)
