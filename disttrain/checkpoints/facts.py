"""What a manifest holds beside files: what is compared, and what lives on the host alone."""

import json

import numpy as np


def compared(state, feed, config, seed):
    """What is compared when another process goes on.

    Args:
        state: The `disttrain.checkpoints.state.State`.
        feed: The `disttrain.data.Feed`.
        config: What `comparing.configuration` has said of the optimizer.
        seed: The trainer's seed.
    """
    return {
        "variables": state.describe(),
        "optimizer": config,
        "seed": seed,
        "data": {"steps": feed.steps, "endless": feed.endless, "numbered": feed.numbered},
    }


def of_host(callbacks, history):
    """The history and the state of callbacks, as JSON values that nothing changes any more.

    Args:
        callbacks: A list of Keras callbacks, of which those with `get_state` and `set_state` count.
        history: The `keras.callbacks.History`.
    """
    found = {
        "history": {
            "epoch": list(history.epoch),
            "values": {name: np.asarray(v).tolist() for name, v in history.history.items()},
        },
        "callbacks": {name: one.get_state() for name, one in _with_state(callbacks).items()},
    }
    return json.loads(json.dumps(found))


def restore_host(saved, callbacks, history):
    """Gives callbacks and the history what `of_host` has returned."""
    history.epoch = list(saved["history"]["epoch"])
    history.history = {name: list(v) for name, v in saved["history"]["values"].items()}
    for name, callback in _with_state(callbacks).items():
        if name in saved["callbacks"]:
            callback.set_state(saved["callbacks"][name])


def _with_state(callbacks):
    """Callbacks that can be saved, by a name that another process finds again."""
    found, seen = {}, {}
    for callback in callbacks:
        if hasattr(callback, "get_state") and hasattr(callback, "set_state"):
            kind = type(callback).__name__
            seen[kind] = seen.get(kind, 0) + 1
            found[f"{kind}-{seen[kind]}"] = callback
    return found
