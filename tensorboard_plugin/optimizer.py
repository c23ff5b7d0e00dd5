"""What the optimizers of a run were, and what happened to them: JSON values for the page.

Between `joined`, which joins the records of steps, and `reader`, which answers. Only the few
numbers of each step are looked at, never the layers.
"""

import numpy as np

#: The quantities that say what happened.
QUANTITIES = ("learning_rate", "clip_factor", "loss_scale", "skipped")

#: Those of which a chart says nothing while they stay the same.
_SETTINGS = ("learning_rate", "clip_factor", "loss_scale")

#: At most so many events of each kind are listed; all of them are counted.
MOST_EVENTS = 2000

#: No run needs more switches; each may carry a long configuration.
MOST_OPTIMIZERS = 50


def switches(described, records):
    """The optimizers of a run, one after the other.

    Args:
        described: `metadata.Part`s in order.
        records: Their `joined.Joined`.

    Returns:
        A list of `configuration` (JSON values), `first_step` and `last_step`: those of the records
        that count. Consecutive parts with the same configuration are one. Beyond
        `MOST_OPTIMIZERS`, the first are left out.
    """
    found = []
    spans = zip(described, records.spans(), strict=True)
    counting = [(part.optimizer, *span) for part, span in spans if span is not None]
    # A resumed run goes back: parts that still count are in order of their steps.
    for configuration, first, last in sorted(counting, key=lambda item: item[1:]):
        if found and found[-1]["configuration"] == configuration:
            found[-1]["last_step"] = last
        else:
            found.append({"configuration": configuration, "first_step": first, "last_step": last})
    return found[-MOST_OPTIMIZERS:]


def history(steps, values):
    """What happened to the loss scale and the clip.

    Args:
        steps: `[n]` int64, increasing.
        values: `[n]` float arrays by name, those of `QUANTITIES` that the run has; NaN where
            nothing was recorded.

    Returns:
        JSON values: `settings`, by name `first`, `last` and `constant`, whether all records that
        have one are equal; `clipped`, how many records have a clip factor below 1, `of` how many,
        or null without any; `events`, by kind (`raised`, `lowered`: the loss scale; `skipped`)
        their `count`, and `steps` and `values` of at most `MOST_EVENTS` of them: what the loss
        scale is from there on, how many steps were skipped since the record before. The count of
        `skipped` is that of steps.
    """
    settings = {}
    for name in _SETTINGS:
        known = _known(values.get(name))
        if len(known):
            constant = bool((known == known[0]).all())
            settings[name] = {
                "first": float(known[0]),
                "last": float(known[-1]),
                "constant": constant,
            }
    clip = _known(values.get("clip_factor"))
    clipped = {"clipped": int((clip < 1).sum()), "of": len(clip)} if len(clip) else None
    return {"settings": settings, "clipped": clipped, "events": _events(steps, values)}


def _known(values):
    return np.empty(0) if values is None else values[~np.isnan(values)]


def _events(steps, values):
    events = {}
    scale = values.get("loss_scale")
    if scale is not None:
        known = np.flatnonzero(~np.isnan(scale))
        now, before = scale[known[1:]], scale[known[:-1]]
        for kind, moved in (("raised", now > before), ("lowered", now < before)):
            at = known[1:][moved]
            events[kind] = _listed(steps[at], scale[at], len(at))
    skipped = values.get("skipped")
    if skipped is not None:
        at = np.flatnonzero(skipped > 0)
        finite = skipped[at][np.isfinite(skipped[at])]
        events["skipped"] = _listed(steps[at], skipped[at], int(finite.sum(dtype=np.float64)))
    return events


def _listed(steps, values, count):
    kept = np.arange(len(steps))
    if len(steps) > MOST_EVENTS:
        # Evenly, for the page shows where they are, and has no more pixels.
        kept = np.linspace(0, len(steps) - 1, MOST_EVENTS).astype(np.int64)
    return {"count": count, "steps": steps[kept].tolist(), "values": values[kept].tolist()}
