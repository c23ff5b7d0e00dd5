"""Checks of what a `CustomStep` holds and returns, with errors that say what to do."""

import functools
import re

import keras
import tensorflow as tf

from disttrain.custom_step import CustomStep
from disttrain.optimizers.missing import some
from disttrain.optimizers.named import NamedOptimizers

#: What belongs to the model, which is created in the replicas' scope and saved in checkpoints.
_STATE = (
    keras.Layer,
    keras.Variable,
    keras.optimizers.Optimizer,
    keras.random.SeedGenerator,
    tf.Variable,
    tf.random.Generator,
)

_OTHER_NUMBER = "returned another number of values"


def several(optimizer, step):
    """Whether `optimizer` is a dictionary from name to optimizer.

    Raises:
        ValueError: It is, and there is no `step`.
    """
    if not isinstance(optimizer, dict) or "class_name" in optimizer:
        return False
    if step is None:
        raise ValueError(
            f"there are several optimizers, {sorted(map(str, optimizer))}, and one loss; give a "
            "disttrain.CustomStep as Trainer(step=...), which returns a loss for each"
        )
    return True


def can_switch(before, after):
    """Checks the argument of `Trainer.switch_optimizer`.

    Raises:
        ValueError: There are several optimizers before or after.
    """
    if isinstance(before.inner, NamedOptimizers) or several(after, CustomStep()):
        raise ValueError(
            "switch_optimizer works with one optimizer, and there are several; make a new Trainer, "
            "and give its model the weights with set_weights"
        )


def step(value, loss, several, loss_weights=None):
    """Checks the `step` argument of a trainer.

    Args:
        value: The argument.
        loss: The trainer's `loss`.
        several: Whether the trainer has several optimizers.
        loss_weights: The trainer's `loss_weights`.

    Raises:
        TypeError: It is no `CustomStep`.
        ValueError: `loss` or `loss_weights` is given too, a method is missing, or the step holds
            state.
    """
    if isinstance(value, type) or not isinstance(value, CustomStep):
        raise TypeError(
            f"step must be an object of a class that derives from disttrain.CustomStep, not "
            f"{value!r}"
        )
    name = type(value).__name__
    if loss is not None:
        raise ValueError(
            f"both step={name}() and loss={loss!r} are set; the step computes the losses, so leave "
            "loss out"
        )
    if loss_weights is not None:
        raise ValueError(
            f"both step={name}() and loss_weights={loss_weights!r} are set; multiply the losses "
            "that the step returns instead"
        )
    if type(value).losses is CustomStep.losses:
        raise ValueError(f"{name} has to define losses(self, model, batch, training)")
    if several and type(value).variables is CustomStep.variables:
        raise ValueError(
            f"{name} has to define variables(self, model), because there are several optimizers "
            "and nothing else shows which variables each of them updates"
        )
    for attribute, held in vars(value).items():
        for leaf in keras.tree.flatten(held):
            if isinstance(leaf, _STATE):
                raise ValueError(
                    f"{name}.{attribute} is a {type(leaf).__name__}; make it an attribute of the "
                    "model in build_model, so that each replica has it and checkpoints save it"
                )


def variables(step, model, names):
    """What each optimizer updates.

    Args:
        step: A `CustomStep`.
        model: The model.
        names: The names of the optimizers; `[None]` for one.

    Returns:
        A list of lists of variables, in the order of the names.

    Raises:
        TypeError: What the step returns has a wrong structure.
        ValueError: A list is empty, has a variable that the model does not train, or that another
            list has too.
    """
    owner = f"{type(step).__name__}.variables"
    found = _for_each(owner, step.variables(model), names, "a list of variables")
    trainable = {id(variable) for variable in model.trainable_variables}
    all_of_model = {id(variable) for variable in model.variables}
    seen = {}
    for name, listed in zip(names, found, strict=True):
        of_name = "" if name is None else f" for {name!r}"
        if not isinstance(listed, (list, tuple)):
            raise TypeError(
                f"{owner} must return a list of variables{of_name}, such as "
                f"model.trainable_variables, not {listed!r}"
            )
        if not listed:
            raise ValueError(
                f"{owner} returned no variable{of_name}: these layers are not built yet, or are "
                "not trainable; create all variables in build_model, for example with keras.Input"
            )
        for variable in listed:
            path = getattr(variable, "path", repr(variable))
            if id(variable) not in trainable:
                why = "is not trainable" if id(variable) in all_of_model else "is not the model's"
                raise ValueError(
                    f"{owner} lists {path!r}{of_name}, which {why}; list variables from "
                    "model.trainable_variables alone"
                )
            if id(variable) in seen:
                raise ValueError(
                    f"{owner} lists {path!r}{of_name}, which {seen[id(variable)]} has already; "
                    "only one optimizer can update a variable"
                )
            seen[id(variable)] = "the same list" if name is None else repr(name)
    return [list(listed) for listed in found]


def losses(step, found, names, batch):
    """Checks what `CustomStep.losses` has returned.

    Args:
        step: The `CustomStep`.
        found: What it has returned.
        names: The names of the optimizers; `[None]` for one.
        batch: The part of a batch that it got.

    Returns:
        `(losses, outputs)`: a float32 tensor `[rows]` for each optimizer, in order, and the outputs
        or `None`.

    Raises:
        TypeError: The structure is wrong.
        ValueError: A loss does not have one value for each example.
    """
    owner = f"{type(step).__name__}.losses"
    outputs = None
    if isinstance(found, tuple):
        if len(found) != 2:
            raise TypeError(
                f"{owner} must return losses, or a tuple (losses, outputs), not a tuple of "
                f"{len(found)}"
            )
        found, outputs = found
    first = tf.nest.flatten(batch)[0]
    each = _for_each(owner, found, names, "a tensor with one value for each example")
    return [
        _per_example(owner, name, loss, first) for name, loss in zip(names, each, strict=True)
    ], outputs


def _per_example(owner, name, loss, first):
    of_name = "" if name is None else f" for {name!r}"
    if loss is None or isinstance(loss, (list, tuple, dict, str)):
        raise TypeError(
            f"{owner} must return a tensor with one value for each example{of_name}, not {loss!r}"
        )
    values = tf.convert_to_tensor(loss)
    if not values.dtype.is_floating:
        raise TypeError(
            f"{owner} returned a loss of dtype {values.dtype.name}{of_name}; use floats"
        )
    values = tf.cast(values, tf.float32)
    if values.shape.rank == 0:
        raise ValueError(
            f"{owner} returned a single number{of_name}, which may be a sum or a mean, or a mean "
            "that Keras has divided by the number of replicas; return one value for each example, "
            "shape [rows]: keras.losses.binary_crossentropy(y, y_pred), or a loss object with "
            "reduction=None"
        )
    rows = first.shape[0]
    if values.shape.rank != 1 or (None not in (rows, values.shape[0]) and rows != values.shape[0]):
        raise ValueError(
            f"{owner} returned a loss of shape {values.shape}{of_name} for {rows or 'n'} "
            f"examples; return one value for each example, shape [{rows or 'n'}], for example "
            "keras.ops.mean(values, axis=-1)"
        )
    if rows is None or values.shape[0] is None:
        count = tf.shape(first)[0]
        message = (
            f"{owner} {_OTHER_NUMBER}{of_name} than there are examples; return one value for each "
            "example"
        )
        with tf.control_dependencies([tf.debugging.assert_equal(tf.size(values), count, message)]):
            values = tf.identity(values)
    return values


def readable_errors(execute):
    """A function that raises what `losses` finds in the graph as a `ValueError`.

    Args:
        execute: Runs a step.
    """

    @functools.wraps(execute)
    def wrapper(*arguments):
        try:
            return execute(*arguments)
        except tf.errors.InvalidArgumentError as error:
            found = re.search(rf"\S+\.losses {_OTHER_NUMBER}.*? for each example", str(error))
            if found is None:
                raise
            raise ValueError(found[0]) from None

    return wrapper


def _for_each(owner, found, names, what):
    """One entry of `found` for each name, in order."""
    if names == [None]:
        if isinstance(found, dict):
            raise TypeError(
                f"{owner} returned a dictionary with {sorted(found)}, and there is one optimizer; "
                f"return {what}, or give Trainer(optimizer={{name: optimizer, ...}})"
            )
        return [found]
    if not isinstance(found, dict):
        raise TypeError(
            f"{owner} must return a dictionary with {what} for each of the optimizers {names}, not "
            f"{type(found).__name__}"
        )
    if set(found) != set(names):
        raise ValueError(
            f"{owner} returned entries for {sorted(map(str, found))}, and the optimizers are "
            f"{names}; use the same names"
        )
    return [found[name] for name in names]


def has_gradients(gradients, variables, name):
    """Checks that a loss depends on what it is to train.

    Raises:
        ValueError: It depends on none of the variables.
    """
    if all(gradient is None for gradient in gradients):
        raise ValueError(
            f"the loss{'' if name is None else f' of {name!r}'} depends on none of its variables "
            f"({some([variable.path for variable in variables])}); is it computed from the model, "
            "without stop_gradient?"
        )


def has_call(model):
    """Whether a model can be called with `x`."""
    return type(model).call is not keras.Model.call


def can_predict(model):
    """Raises a `ValueError` where a model cannot be called."""
    if not has_call(model):
        raise ValueError(
            f"{type(model).__name__} has no call(inputs), which predict needs; define it, or call "
            "a part of trainer.model yourself"
        )


def is_built(model):
    """Whether all layers of a model have their variables."""
    return all(layer.built for layer in model._flatten_layers(include_self=False))


def has_outputs(model, compares):
    """Checks that a model can be called to build its layers, or what compares its outputs.

    Raises:
        ValueError: It cannot.
    """
    if has_call(model):
        return
    name = type(model).__name__
    if compares:
        raise ValueError(
            f"metrics= compares targets with outputs, and {name} has no call(inputs); define it, "
            "or leave metrics= out"
        )
    raise ValueError(
        f"{name} has layers without variables yet, and no call(inputs) to build them; build them "
        "in build_model, for example with keras.Input, or define call"
    )


def can_compare(step, y, y_pred):
    """Raises a `ValueError` where metrics lack targets or outputs."""
    if y is None:
        raise ValueError("metrics= needs targets: let the dataset yield (x, y)")
    if y_pred is None:
        raise ValueError(
            f"metrics= needs the model's outputs: let {type(step).__name__}.losses return a tuple "
            "(losses, outputs)"
        )
