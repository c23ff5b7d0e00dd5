"""Tells what has changed between a checkpoint and the program that is to go on from it."""

import json
import re

from disttrain.checkpoints import adapting

#: What Python adds to the text of an object, and Keras to a name; neither means anything here.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

#: Differences that a message lists at most.
_MOST = 12

#: A program may use global generators only later.
_OPTIONAL = "seeds/"


class Changed(ValueError):
    """The program is not the one that has written the checkpoint."""


def configuration(optimizer):
    """What is compared of an optimizer, as JSON values.

    It is taken before the first step, because a configuration holds what steps change: a learning
    rate that a callback sets, the factor of a `Plateau`.
    """
    try:
        config = optimizer.get_config()
        return json.loads(json.dumps(_nameless(config), default=_text))
    except (NotImplementedError, TypeError, ValueError):
        # An optimizer, or its schedule, that does not tell its configuration.
        return {"class_name": type(optimizer.inner).__name__}


def check(manifest, now):
    """Compares a checkpoint with the program.

    With another number of replicas learning rates and batches may have grown in proportion.

    Args:
        manifest: The checkpoint's, with `variables`, `optimizer`, `seed`, `data`, `replicas` and
            `place`.
        now: The same of this program, without `place`.

    Returns:
        What learning rates have been multiplied by, a dictionary from the rate of now.

    Raises:
        Changed: They differ; the message lists how.
    """
    replicas = manifest["replicas"], now["replicas"]
    found, ratios = [], {}
    for key, before, after in _values("optimizer", manifest["optimizer"], now["optimizer"]):
        ratio = adapting.rate_ratio(key, before, after, replicas)
        if ratio is None:
            found.append(_said(key, before, after))
        else:
            ratios[after] = ratio
    found += [_said(*each) for each in _values("seed", manifest["seed"], now["seed"])]
    if manifest["place"]["batches"]:
        follow = ("data.batch", "data.steps") if replicas[0] != replicas[1] else ()
        different = _values("data", manifest["data"], now["data"])
        found += [_said(*each) for each in different if each[0] not in follow]
    found += _variables(manifest["variables"], now["variables"])
    if not found:
        return ratios
    more = f"; and {len(found) - _MOST} more" if len(found) > _MOST else ""
    raise Changed(
        f"the checkpoint of step {manifest['step']} is of another training: "
        f"{'; '.join(found[:_MOST])}{more}. Bring the program back to what it was, or begin in "
        "another directory, with disttrain.checkpoints.load_weights if the weights are to stay"
    )


def _variables(before, now):
    before = [entry for entry in before if not entry["key"].startswith(_OPTIONAL)]
    now = [entry for entry in now if not entry["key"].startswith(_OPTIONAL)]
    if [_facts(entry) for entry in before] == [_facts(entry) for entry in now]:
        return []
    found = []
    for group in dict.fromkeys(entry["key"].split("/")[0] for entry in [*before, *now]):
        old, new = _by_path(before, group), _by_path(now, group)
        for path in dict.fromkeys([*old, *new]):
            if path not in new:
                found.append(f"{group} no longer has {path} {_shape(old[path])}")
            elif path not in old:
                found.append(f"{group} has {path} {_shape(new[path])}, which it had not")
            elif _shape(old[path]) != _shape(new[path]):
                found.append(f"{group}: {path} was {_shape(old[path])}, now {_shape(new[path])}")
            elif old[path]["role"] != new[path]["role"]:
                found.append(
                    f"{group}: {path} was kept as {old[path]['role']}, now {new[path]['role']}"
                )
    return found or ["the variables come in another order"]


def _facts(entry):
    return entry["key"], entry["shape"], entry["dtype"], entry["role"]


def _by_path(entries, group):
    """Path to entry; equal paths are told apart by their order."""
    found = {}
    for entry in entries:
        if entry["key"].split("/")[0] == group:
            path, number = entry["path"], 1
            while path in found:
                number += 1
                path = f"{entry['path']} ({number})"
            found[path] = entry
    return found


def _shape(entry):
    return f"{entry['dtype']}{entry['shape']}"


def _values(name, before, now):
    """Where two JSON values differ: `(key, before, now)` for each place."""
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(f"{name}.{k}", before.get(k), now.get(k)) for k in dict.fromkeys([*before, *now])]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        numbered = enumerate(zip(before, now, strict=True))
        pairs = [(f"{name}[{number}]", *pair) for number, pair in numbered]
    else:
        return [] if before == now else [(name, before, now)]
    return [difference for pair in pairs for difference in _values(*pair)]


def _said(name, before, now):
    return f"{name} was {before!r}, now {now!r}"


def _nameless(value):
    """A configuration without names, which Keras numbers by what else the process has made."""
    if isinstance(value, dict):
        return {key: _nameless(one) for key, one in value.items() if key != "name"}
    if isinstance(value, (list, tuple)):
        return [_nameless(one) for one in value]
    return value


def _text(value):
    if hasattr(value, "tolist"):
        return value.tolist()
    return _ADDRESS.sub("", repr(value))
