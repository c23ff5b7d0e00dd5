"""Asks the health rules about each learning rate of a range test.

The rules look for what lasts, and a range test stays at no rate. So each record is judged as if
training went on like that: the same record over and over. What the rules object to at the lowest
rate already is not the learning rate's doing, and does not count.
"""

import dataclasses

import numpy as np

from disttrain.telemetry.alerts import Chunk, as_run
from tensorboard_plugin import health

#: Of these records the rules that want a hundred steps have enough, and those that want five
#: hundred, about slow harm, have not: the first steps of a training are not to be judged by them.
_RECORDS, _SPACING, _FIRST = 30, 10, 110


@dataclasses.dataclass(frozen=True)
class Objection:
    """What the rules say of one rate.

    Attributes:
        place: Index of the first rate that they object to.
        messages: What they say, a list of sentences, each behind the rule's name.
    """

    place: int
    messages: list


def first(part, layers, quantities):
    """The first rate that the rules object to.

    Args:
        part: The `metadata.Part` of layers.
        layers: float32 `[rates, variables, statistics]`.
        quantities: float32 `[rates, quantities]`.

    Returns:
        An `Objection`, or `None`.
    """
    found = [_findings(part, *record) for record in zip(layers, quantities, strict=True)]
    known = set(found[0]) if found else set()
    for place, here in enumerate(found):
        # One odd batch is no fault: at the next rate it has to be so as well.
        new = set(here) - known
        new &= set(found[min(place + 1, len(found) - 1)])
        if new:
            return Objection(place, [here[rule] for rule in sorted(new)])
    return None


def _findings(part, layers, quantities):
    """The findings of a run that holds one record, rule to sentence; notes are left out."""
    steps = _FIRST + _SPACING * np.arange(_RECORDS)
    record = Chunk(
        part,
        steps,
        np.repeat(layers[None], _RECORDS, axis=0),
        np.repeat(quantities[None], _RECORDS, axis=0),
        None,
    )
    found = health.findings(as_run([record], 1))
    # Their own messages speak of a number of records, which there never were.
    return {f.rule: f"{_where(f)}: {f.why}" for f in found if f.severity != "note"}


def _where(finding):
    name = finding.rule.replace("_", " ")
    return name if finding.layer is None else f"{name} at {finding.layer}"
