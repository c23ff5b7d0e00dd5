"""What a rule says: one finding, however many variables it is about."""

import dataclasses
import numbers as abstract

SEVERITIES = ("error", "warning", "note")

#: Tabs of the page that a finding can point to.
TABS = ("overview", "layer", "optimizer", "replicas")

#: So many variables a message names.
_NAMED = 3

#: Longer paths are shortened in messages; `Finding.layer` holds them whole.
_PATH = 100


@dataclasses.dataclass(frozen=True)
class Place:
    """Where to look on the page.

    Attributes:
        tab: One of `TABS`.
        statistic: The name of a statistic or quantity, or `None`.
    """

    tab: str
    statistic: str | None = None


@dataclasses.dataclass(frozen=True)
class LayerNumbers:
    """What a finding says of one variable: its path, the steps, and numbers by name."""

    path: str
    first_step: int
    last_step: int
    numbers: dict


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that a person should know of a run.

    Attributes:
        rule: Identifier of the rule, such as `"exploding_gradient"`.
        severity: `"error"`: the run is broken or breaking; `"warning"`: it trains worse than it
            could; `"note"`: worth knowing.
        message: What was found, with the numbers; one sentence.
        why: Why it matters.
        advice: What to try.
        place: Where to look on the page.
        first_step: The first recorded step that it was found at.
        last_step: The last one.
        numbers: By name, those of the worst variable where it is about variables.
        layer: Path of the variable, the worst one where it is about several, or `None`.
        layers: `LayerNumbers` of all of them, worst first.
    """

    rule: str
    severity: str
    message: str
    why: str
    advice: str
    place: Place
    first_step: int
    last_step: int
    numbers: dict
    layer: str | None = None
    layers: tuple = ()

    @property
    def key(self):
        """Equal for findings that say the same, so that a training can print each once."""
        return self.rule, self.severity

    def to_json(self):
        """JSON values; NaN and infinities stay floats."""
        return dataclasses.asdict(self)


def plain(numbers):
    """Numbers by name as Python's own, which JSON and messages want."""
    return {
        name: int(value) if isinstance(value, abstract.Integral) else float(value)
        for name, value in numbers.items()
    }


def of_run(rule, severity, place, steps, numbers, *, message, why, advice):
    """A `Finding` about the run as a whole; `steps` is the first and the last."""
    first, last = steps
    return Finding(
        rule, severity, message, why, advice, place, int(first), int(last), plain(numbers)
    )


def of_layers(rule, severity, place, layers, total, *, one, many, short, why, advice):
    """One `Finding` about one or more variables.

    Args:
        layers: `LayerNumbers`, worst first, at least one.
        total: Number of variables of the run.
        one: The sentence about a single variable, which begins with its path: format text with the
            fields `numbers` holds.
        many: The same about several: the sentence without the subject.
        short: What stands in brackets behind each variable that is named.
    """
    worst = layers[0]
    if len(layers) == 1:
        message = f"{shortened(worst.path)} {one.format(**worst.numbers)}."
    else:
        named = [f"{shortened(item.path)} ({short.format(**item.numbers)})" for item in layers]
        introduced = ":" if len(layers) <= _NAMED else "; worst:"
        message = (
            f"{len(layers)} of {total} variables {many}{introduced} {', '.join(named[:_NAMED])}."
        )
    return Finding(
        rule,
        severity,
        message,
        why,
        advice,
        place,
        min(item.first_step for item in layers),
        max(item.last_step for item in layers),
        worst.numbers,
        worst.path,
        tuple(layers),
    )


def shortened(path):
    """A path that fits into a sentence; its end says more than its beginning."""
    return path if len(path) <= _PATH else "…" + path[1 - _PATH :]


def counted(count, noun):
    """`"1 step was"`, `"2 steps were"`."""
    return f"{count} {noun} was" if count == 1 else f"{count} {noun}s were"


def percent(share):
    """A share between 0 and 1 for a sentence; 100% and 0% are said of nothing else."""
    value = 100 * share
    if 99 < value < 100:
        return "more than 99%"
    if 0 < value < 1:
        return "less than 1%"
    return f"{value:.0f}%"


def rounded(value):
    """A number from 1 with one significant digit for advice: `"300"`, `"20,000"`."""
    return f"{float(f'{value:.1g}'):,.0f}"
