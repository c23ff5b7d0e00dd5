"""The data schema: plugin name, tags, the table of statistics, and the metadata of a part.

`disttrain.telemetry` writes by this table; the reader, the page and the documentation read by it.
"""

import dataclasses
import json
import re

PLUGIN_NAME = "disttrain"
VERSION = 1

LAYERS = "disttrain/layers"
STEPS = "disttrain/steps"
REPLICAS = "disttrain/replicas"
HISTOGRAMS = "disttrain/histograms"
TAGS = (LAYERS, STEPS, REPLICAS, HISTOGRAMS)

#: A part closes once its tensors have taken this many bytes; the next record opens another part.
PART_BYTES = 32 * 2**20


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One column of a record.

    Attributes:
        name: The name in a part's metadata.
        label: What a person reads on the page.
        description: One sentence that defines it, units included.
        scale: `"log"` where values are non-negative and span decades, else `"linear"`.
        target: A value that is usually healthy, or `None`.
    """

    name: str
    label: str
    description: str
    scale: str = "log"
    target: float | None = None


#: Columns of `disttrain/layers` that every variable has. Slot norms follow them.
LAYER_STATISTICS = (
    Statistic(
        "weight_norm",
        "Weight norm",
        "L2 norm of the variable after the update; before it if the step was skipped.",
    ),
    Statistic(
        "gradient_norm",
        "Gradient norm",
        "L2 norm of the gradient after reduction and unscaling, before clipping.",
    ),
    Statistic(
        "update_norm",
        "Update norm",
        "L2 norm of the true change of the variable in this step, weight decay included.",
    ),
    Statistic(
        "update_ratio",
        "Update ratio",
        "Update norm divided by weight norm; around 0.001 is usual.",
        target=1e-3,
    ),
    Statistic(
        "gradient_max", "Largest gradient", "Largest absolute value in the reduced gradient."
    ),
    Statistic(
        "zero_fraction",
        "Zero gradients",
        "Fraction of the gradient's elements that are 0.",
        "linear",
    ),
    Statistic(
        "nonfinite",
        "Not finite",
        "Number of the gradient's elements that are NaN or infinite.",
        "linear",
    ),
)

#: The last column of `disttrain/layers`.
UPDATE_COSINE = Statistic(
    "update_cosine",
    "Update cosine",
    "Cosine of the angle between the update and the negative gradient; 1 is plain descent.",
    "linear",
)

#: Columns of `disttrain/steps`.
STEP_QUANTITIES = (
    Statistic(
        "loss", "Loss", "Training loss of the global batch, regularisation included.", "linear"
    ),
    Statistic("learning_rate", "Learning rate", "Learning rate that the step used.", "linear"),
    Statistic(
        "gradient_norm", "Global gradient norm", "L2 norm over all variables, before clipping."
    ),
    Statistic(
        "clip_factor",
        "Clip factor",
        "What clipping multiplied the gradient by; 1 is untouched.",
        "linear",
    ),
    Statistic("loss_scale", "Loss scale", "Factor on the loss against underflow; 1 without it."),
    Statistic(
        "skipped",
        "Skipped steps",
        "Steps skipped for a gradient that was not finite, since the last record.",
        "linear",
    ),
    Statistic(
        "step_seconds", "Step time", "Seconds a step took, mean over its execution.", "linear"
    ),
    Statistic(
        "examples_per_second", "Throughput", "Examples a second over all replicas.", "linear"
    ),
    Statistic("noise_scale", "Gradient noise scale", "Examples; NaN where it was not measured."),
)

SLOT_PREFIX = "slot/"


def slot_statistic(slot):
    """The column that holds the L2 norm of one optimizer slot, such as `slot/momentum`."""
    return Statistic(
        SLOT_PREFIX + slot,
        f"{slot.replace('_', ' ').capitalize()} norm",
        f"L2 norm of the slot {slot}.",
    )


def layer_statistics(slots):
    """All columns of `disttrain/layers` for the slots given by name, in order."""
    return (*LAYER_STATISTICS, *(slot_statistic(slot) for slot in slots), UPDATE_COSINE)


def describe(name, tag=LAYERS):
    """The `Statistic` of a tag's column; one made from the name itself for an unknown column."""
    known = STEP_QUANTITIES if tag == STEPS else (*LAYER_STATISTICS, UPDATE_COSINE)
    for statistic in known:
        if statistic.name == name:
            return statistic
    if tag == LAYERS and name.startswith(SLOT_PREFIX):
        return slot_statistic(name.removeprefix(SLOT_PREFIX))
    return Statistic(name, name, "", "linear")


def part_tag(tag, part):
    """The tag of a numbered part: `("disttrain/layers", 0)` gives `"disttrain/layers/0"`."""
    return f"{tag}/{part}"


def parse_tag(tag):
    """The inverse of `part_tag`: `(tag, part)`, or `None` for a tag that is not ours."""
    match = re.fullmatch(r"(disttrain/[a-z]+)/(\d{1,9})", tag)
    if match is None or match[1] not in TAGS:
        return None
    return match[1], int(match[2])


@dataclasses.dataclass(frozen=True)
class Part:
    """What the metadata of a part says about its axes.

    Attributes:
        columns: Names of the last axis: statistics for layers, quantities otherwise.
        variables: Objects with `path`, `shape`, `dtype`, `trainable` and `slots` (slot name to an
            object with `dtype` and `bytes`), in model order. Empty where the part has no such axis.
        optimizer: The optimizer's configuration, as JSON values.
        replicas: Number of replicas of the run.
        version: Schema version that wrote the part.
    """

    columns: tuple
    variables: tuple = ()
    optimizer: dict = dataclasses.field(default_factory=dict)
    replicas: int = 1
    version: int = VERSION


def encode(tag, part):
    """The plugin data of a part's first summary: UTF-8 JSON."""
    axis = "statistics" if tag == LAYERS else "quantities"
    content = {
        "version": part.version,
        axis: list(part.columns),
        "variables": list(part.variables),
        "optimizer": part.optimizer,
        "replicas": part.replicas,
    }
    return json.dumps(content, separators=(",", ":")).encode()


# What reading JSON that is not as `encode` writes it can raise; `int(inf)` overflows.
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def decode(content):
    """Reads what `encode` wrote.

    Raises:
        ValueError: The content is not ours, is damaged, or has a newer schema version.
    """
    try:
        data = json.loads(content)
        columns = _list(data.get("statistics") or data["quantities"])
        variables = _list(data.get("variables", []))
        version = int(data["version"])
        replicas = int(data.get("replicas", 1))
        optimizer = dict(data.get("optimizer") or {})
        paths = [variable["path"] for variable in variables]
    except _DAMAGE as error:
        raise ValueError(f"the metadata of a disttrain part cannot be read: {error!r}") from error
    if version > VERSION:
        raise ValueError(
            f"the run was written by schema version {version}, this plugin reads up to {VERSION}; "
            "update disttrain where TensorBoard runs"
        )
    if not all(isinstance(name, str) for name in (*columns, *paths)):
        raise ValueError("the metadata of a disttrain part names an axis with something not text")
    return Part(columns, variables, optimizer, replicas, version)


def _list(value):
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return tuple(value)
