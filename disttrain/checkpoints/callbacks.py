"""What callbacks and the history have come to, as a checkpoint keeps it and gives it back."""

import json

import keras
import numpy as np

from disttrain.checkpoints import exchange

#: What Keras's own count and compare with; each begins them anew with every training.
_KERAS = (
    (keras.callbacks.EarlyStopping, ("wait", "best", "best_epoch", "stopped_epoch")),
    (keras.callbacks.ReduceLROnPlateau, ("wait", "best", "cooldown_counter")),
    (keras.callbacks.ModelCheckpoint, ("best", "_batches_seen_since_last_saving")),
)

#: In a checkpoint, the third of the best weights of an `EarlyStopping` is `callbacks/.../2`.
_WEIGHT = "callbacks/{}/{}"


def saved(callbacks, history):
    """What a checkpoint keeps, on the chief.

    Args:
        callbacks: A list of Keras callbacks. Those with `get_state` and `set_state` count, and
            Keras's `EarlyStopping`, `ReduceLROnPlateau` and `ModelCheckpoint`.
        history: The `keras.callbacks.History`.

    Returns:
        `(facts, tensors)`: JSON values that nothing changes any more, and name to array.
    """
    states, weights, tensors = {}, {}, {}
    for name, callback in _named(callbacks).items():
        if _has_state(callback):
            states[name] = callback.get_state()
            continue
        states[name] = {a: _number(getattr(callback, a)) for a in _attributes(callback)}
        best = getattr(callback, "best_weights", None)
        if best is not None:
            weights[name] = [[str(array.dtype), list(array.shape)] for array in best]
            tensors |= {_WEIGHT.format(name, i): array for i, array in enumerate(best)}
    facts = {
        "history": {
            "epoch": list(history.epoch),
            "values": {name: np.asarray(v).tolist() for name, v in history.history.items()},
        },
        "callbacks": states,
        "best_weights": weights,
    }
    return json.loads(json.dumps(facts)), tensors


def tensors_of(facts, tensors):
    """The arrays of a checkpoint that `restore` wants.

    Args:
        facts: What `saved` has returned.
        tensors: Name to array, of the whole checkpoint; on the chief.
    """
    weights = facts["best_weights"].items()
    return {
        key: tensors[key]
        for name, described in weights
        for key in (_WEIGHT.format(name, number) for number in range(len(described)))
    }


def restore(replication, facts, tensors, callbacks, history):
    """Gives callbacks and the history what `saved` has returned; called by every process.

    Args:
        replication: A `Replication`.
        facts: The first of it.
        tensors: On the chief, the second.
        callbacks: As for `saved`; other processes may have fewer.
        history: The `keras.callbacks.History`.
    """
    history.epoch = list(facts["history"]["epoch"])
    history.history = {name: list(v) for name, v in facts["history"]["values"].items()}
    named = _named(callbacks)
    for name, state in facts["callbacks"].items():
        callback = named.get(name)
        if callback is None:
            continue
        if _has_state(callback):
            callback.set_state(state)
        else:
            vars(callback).update(state)
    for name, described in facts["best_weights"].items():
        data = b""
        if replication.is_chief:
            keys = [_WEIGHT.format(name, number) for number in range(len(described))]
            data = b"".join(tensors[key].tobytes() for key in keys)
        data = exchange.from_chief(replication, data)
        if name in named:
            named[name].best_weights = _arrays(data, described)


def _arrays(data, described):
    found, start = [], 0
    for dtype, shape in described:
        count = int(np.prod(shape, dtype=np.int64))
        array = np.frombuffer(data, np.dtype(dtype), count, start).reshape(shape)
        start += array.nbytes
        found.append(array.copy())
    return found


def _named(callbacks):
    """Callbacks that are saved, by a name that another process finds again."""
    found, seen = {}, {}
    for callback in callbacks:
        if _has_state(callback) or _attributes(callback):
            kind = type(callback).__name__
            seen[kind] = seen.get(kind, 0) + 1
            found[f"{kind}-{seen[kind]}"] = callback
    return found


def _has_state(callback):
    return hasattr(callback, "get_state") and hasattr(callback, "set_state")


def _attributes(callback):
    for kind, attributes in _KERAS:
        if isinstance(callback, kind):
            return [name for name in attributes if hasattr(callback, name)]
    return []


def _number(value):
    return value.item() if hasattr(value, "item") else value
