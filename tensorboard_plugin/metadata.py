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
    Statistic(
        "noise_scale",
        "Gradient noise scale",
        "Examples; about the batch size above which more examples a step help little. NaN where "
        "there are not two replicas to compare.",
    ),
)

#: Columns of `disttrain/replicas`; a run may add one for each variable, see `local_gradient_norm`.
REPLICA_QUANTITIES = (
    Statistic(
        "gradient_norm",
        "Local gradient norm",
        "L2 norm of the gradient of the replica's own examples, unscaled, before the reduction.",
    ),
    Statistic("loss", "Local loss", "Mean loss of the replica's own examples.", "linear"),
    Statistic(
        "step_seconds",
        "Step time",
        "Seconds a step took on the replica's process, mean over its execution.",
        "linear",
    ),
    Statistic(
        "wait_seconds",
        "Time in the reduction",
        "Seconds from the replica's own gradients to the reduced ones: the transfer, and waiting "
        "for slower replicas.",
        "linear",
    ),
)

#: Quantities of `disttrain/histograms` that every variable has. Slots follow them.
HISTOGRAM_QUANTITIES = (
    Statistic("weight", "Weights", "The variable after the update."),
    Statistic("gradient", "Gradients", "The gradient after reduction, before clipping."),
    Statistic("update", "Updates", "The true change of the variable in this step."),
)

#: A histogram's first bins count elements by kind; a negative one is counted by magnitude, too.
COUNTS = ("zero", "negative", "nan", "infinity")

#: Then bin k counts magnitudes in [2^k, 2^(k+1)); the first and the last take what lies beyond.
EXPONENTS = tuple(range(-72, 24))

#: The last axis of `disttrain/histograms`: names of counts, then exponents.
BINS = (*COUNTS, *EXPONENTS)

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


def histogram_quantities(slots):
    """All quantities of `disttrain/histograms` for the slots given by name, in order."""
    return (*HISTOGRAM_QUANTITIES, *(_slot_values(slot) for slot in slots))


def _slot_values(slot):
    label = slot.replace("_", " ").capitalize()
    return Statistic(SLOT_PREFIX + slot, label, f"The optimizer's slot {slot}.")


_LOCAL_NORM_PREFIX = "gradient_norm/"


def local_gradient_norm(path):
    """The column of `disttrain/replicas` for one variable, such as `gradient_norm/dense/kernel`."""
    return Statistic(
        _LOCAL_NORM_PREFIX + path,
        f"Local gradient norm of {path}",
        f"L2 norm of the gradient of {path} for the replica's own examples.",
    )


_TABLES = {
    LAYERS: (*LAYER_STATISTICS, UPDATE_COSINE),
    STEPS: STEP_QUANTITIES,
    REPLICAS: REPLICA_QUANTITIES,
    HISTOGRAMS: HISTOGRAM_QUANTITIES,
}

_FAMILIES = {
    LAYERS: (SLOT_PREFIX, slot_statistic),
    REPLICAS: (_LOCAL_NORM_PREFIX, local_gradient_norm),
    HISTOGRAMS: (SLOT_PREFIX, _slot_values),
}


def describe(name, tag=LAYERS):
    """The `Statistic` of a tag's column; one made from the name itself for an unknown column."""
    for statistic in _TABLES[tag]:
        if statistic.name == name:
            return statistic
    prefix, make = _FAMILIES.get(tag, ("", None))
    if make is not None and name.startswith(prefix):
        return make(name.removeprefix(prefix))
    return Statistic(name, name, "", "linear")


def part_tag(tag, part):
    """The tag of a numbered part: `("disttrain/layers", 0)` gives `"disttrain/layers/0"`."""
    return f"{tag}/{part}"


def parse_tag(tag):
    """The inverse of `part_tag`: `(tag, part)`, or `None` for a tag that is not ours."""
    match = re.fullmatch(r"(disttrain/[a-z]+)/([0-9]{1,9})", tag)
    if match is None or match[1] not in TAGS:
        return None
    return match[1], int(match[2])


@dataclasses.dataclass(frozen=True)
class Part:
    """What the metadata of a part says about its axes.

    Attributes:
        columns: Names of statistics for layers, of quantities otherwise: the last axis of a record,
            but for histograms, where `bins` is behind it.
        variables: Objects with `path`, `shape`, `dtype`, `trainable` and `slots` (slot name to an
            object with `dtype` and `bytes`), in model order. Empty where the part has no such axis.
        optimizer: The optimizer's configuration, as JSON values.
        replicas: Number of replicas of the run.
        version: Schema version that wrote the part.
        bins: The last axis of histograms, as `BINS`; empty elsewhere.
    """

    columns: tuple
    variables: tuple = ()
    optimizer: dict = dataclasses.field(default_factory=dict)
    replicas: int = 1
    version: int = VERSION
    bins: tuple = ()

    def shape(self, tag):
        """The shape of a record of this part, a tuple."""
        rows = {
            LAYERS: (len(self.variables),),
            HISTOGRAMS: (len(self.variables),),
            REPLICAS: (self.replicas,),
        }.get(tag, ())
        bins = (len(self.bins),) if tag == HISTOGRAMS else ()
        return (*rows, len(self.columns), *bins)


def encode(tag, part):
    """The plugin data of a part's first summary: UTF-8 JSON."""
    axis = "statistics" if tag == LAYERS else "quantities"
    content = {
        "version": part.version,
        axis: list(part.columns),
        "variables": list(part.variables),
        "optimizer": part.optimizer,
        "replicas": part.replicas,
        **({"bins": list(part.bins)} if part.bins else {}),
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
        text = content.decode(errors="replace")
        data = json.loads(text)
        if "\\ud" in text.lower():
            # No request could name half a character.
            data = json.loads(json.dumps(data, ensure_ascii=False).encode(errors="replace"))
        columns = _list(data.get("statistics") or data["quantities"])
        variables = _list(data.get("variables", []))
        version = int(data["version"])
        replicas = int(data.get("replicas", 1))
        optimizer = dict(data.get("optimizer") or {})
        bins = _list(data.get("bins", []))
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
    if replicas < 1:
        raise ValueError(f"the metadata of a disttrain part says {replicas} replicas")
    if not all(type(name) in (str, int) for name in bins):
        raise ValueError("the metadata of a disttrain part names a bin with something else")
    return Part(columns, variables, optimizer, replicas, version, bins)


def _list(value):
    if not isinstance(value, list):
        raise TypeError(f"expected a list, found {type(value).__name__}")
    return tuple(value)
