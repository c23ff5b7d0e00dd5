"""Prints summaries: one run in full, of several a line each.

Text from event files and directory names is untrusted: it is printed as text, without markup and
control characters.
"""

import contextlib
import math

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tensorboard_plugin import metadata
from tensorboard_plugin.health import SEVERITIES, is_matrix

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}

_LEVELS = "▁▂▃▄▅▆▇█"

#: A trend that spans less than this factor is drawn as flat as it is.
_LEAST_SPAN = 10.0

#: A path is not shortened below this to make room for columns.
_LEAST_PATH = 24

_GAP = 2

_TARGET = metadata.describe("update_ratio").target


def waiting(text):
    """A context in which a person at a terminal sees that something goes on."""
    console = Console(stderr=True, markup=False)
    return console.status(Text(_clean(text))) if console.is_terminal else contextlib.nullcontext()


def show(summaries, logdir):
    """Prints summaries to standard output."""
    console = Console(highlight=False, markup=False, emoji=False)
    if len(summaries) == 1:
        _show_run(console, summaries[0], logdir)
    else:
        _show_runs(console, summaries, logdir)


def _show_runs(console, summaries, logdir):
    console.print(Text(f"{len(summaries)} runs in {_clean(logdir)}, the newest first", "bold"))
    console.print()
    table = _table()
    for name, justify in (("Run", "left"), ("Optimizer", "left"), ("Steps", "right")):
        table.add_column(name, justify=justify, overflow="fold")
    table.add_column("Loss", overflow="fold")
    table.add_column("Findings", overflow="fold")
    for one in summaries:
        loss = one["loss"]
        table.add_row(
            _clean(one["name"]),
            _clean(_optimizer_name(one["optimizer"])),
            f"{one['last_step']:,}" if one["records"] else "none",
            f"{loss['first']:.3g} → {loss['last']:.3g}" if loss else "",
            _counts(one["findings"]) or "none",
        )
    console.print(table)
    console.print()
    example = _clean(summaries[0]["name"])
    console.print(f"disttrain inspect {_clean(logdir)} --run {example} shows one of them.")


def _show_run(console, one, logdir):
    name = _clean(logdir) if one["name"] == "." else f"{_clean(one['name'])} in {_clean(logdir)}"
    console.print(Text(name, "bold"))
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in _head(one):
        grid.add_row(label, _clean(text))
    console.print(grid)
    console.print()
    if one["variables"] and one["records"]:
        _show_layers(console, one)
        console.print()
    _show_findings(console, one)
    for problem in one["problems"]:
        text = f"Not read in full: {problem['tag']}: {problem['message']}"
        console.print(Text(_clean(text), "yellow"))


def _head(one):
    """Pairs of a label and a text about the run as a whole."""
    optimizer = one["optimizer"]
    if optimizer:
        yield "Optimizer", _optimizer_name(optimizer)
    replicas = _count(one["replicas"], "replica")
    if one["batch"] == one["batch"]:
        replicas += (
            f"; batch {one['batch']:,.0f}, {one['examples_per_second']:,.0f} examples/s"
            f", {1e3 * one['step_seconds']:.3g} ms a step"
        )
    yield "Replicas", replicas
    if not one["records"]:
        yield "Records", "none"
        return
    yield (
        "Steps",
        f"{one['first_step']:,} to {one['last_step']:,}, {_count(one['records'], 'record')}"
        + (f"; {_count(one['skipped'], 'step')} skipped" if one["skipped"] else ""),
    )
    if one["loss"]:
        yield "Loss", f"{one['loss']['first']:.4g} → {one['loss']['last']:.4g}"
    if one["learning_rate"]:
        rate = one["learning_rate"]
        yield (
            "Learning rate",
            f"{rate['first']:.3g} → {rate['last']:.3g}, at most {rate['highest']:.3g}",
        )
    clip = optimizer.get("clip")
    if clip or one["clipped"]:
        acted = f"acted in {one['clipped']:.0%} of the records"
        if one["clipped"]:
            acted += f", there with a median factor of {one['clip_factor']:.2g}"
        yield "Clip", f"{clip}: {acted}" if clip else acted
    scale = one["loss_scale"]
    if optimizer.get("loss_scale") or (scale and scale["highest"] != 1):
        values = f"{scale['first']:g} → {scale['last']:g}" if scale else ""
        yield (
            "Loss scale",
            "  ".join(filter(None, [str(optimizer.get("loss_scale") or ""), values])),
        )
    if one["noise_scale"] == one["noise_scale"]:
        yield (
            "Noise scale",
            f"{one['noise_scale']:,.0f} examples: about the batch size above which more examples "
            "in a step help little (critical batch size)",
        )
    slots = one["optimizer_bytes"]
    text = (
        f"{_count(one['parameters'], 'parameter')} in {_count(len(one['variables']), 'variable')}"
    )
    if slots:
        each = ", ".join(f"{slot} {_size(size)}" for slot, size in slots.items())
        text += f"; optimizer memory {_size(sum(slots.values()))} ({each})"
    yield "Model", text


def _show_layers(console, one):
    columns = _columns(one["variables"])
    widths = {name: max(map(len, [name, *map(str, cells)])) for name, _, cells in columns}
    room = console.width
    paths = max(len("Variable"), max(len(_clean(v["path"])) for v in one["variables"]))
    left = room - min(paths, _LEAST_PATH)
    chosen = set()
    for name, _, _ in sorted(columns, key=lambda column: column[1]):
        if widths[name] + _GAP <= left:
            chosen.add(name)
            left -= widths[name] + _GAP
        else:
            break  # What matters less does not take the place of what matters more.
    width = min(paths, min(paths, _LEAST_PATH) + left)
    table = _table()
    table.add_column("Variable", no_wrap=True, width=width)
    shown = [column for column in columns if column[0] in chosen]
    for name, _, _ in shown:
        left_aligned = name in ("Shape", "Ratio", "Ratio over steps")
        table.add_column(name, justify="left" if left_aligned else "right", no_wrap=True)
    for row, variable in enumerate(one["variables"]):
        path = _clean(variable["path"])
        path = path if len(path) <= width else "…" + path[len(path) - width + 1 :]
        table.add_row(path, *(cells[row] for _, _, cells in shown))
    console.print(table)
    hidden = [name for name, _, _ in columns if name not in chosen]
    console.print(
        Text(
            f"Medians of {_count(one['records'], 'record')}. The ratio is the update's norm by the "
            f"weight's: {_TARGET:g} is usual, ↑ and ↓ are 10 times off."
            + (f" Not shown for want of width: {', '.join(hidden)}." if hidden else ""),
            "dim",
        )
    )


def _columns(variables):
    """`(header, priority, cells)` of each column in order; the lowest priority number stays."""

    def norms(statistic):
        return [_number(v["statistics"].get(statistic, math.nan)) for v in variables]

    slots = dict.fromkeys(
        name for v in variables for name in v["statistics"] if name.startswith("slot/")
    )
    columns = [
        ("Shape", 6, ["x".join(map(str, v.get("shape", []))) or "scalar" for v in variables]),
        ("Params", 5, [_thousands(v.get("parameters", 0)) for v in variables]),
        ("Weight", 4, norms("weight_norm")),
        ("Gradient", 2, norms("gradient_norm")),
        ("Update", 3, norms("update_norm")),
        ("Ratio", 0, [_ratio(v) for v in variables]),
        ("Cosine", 5, [_cosine(v["statistics"].get("update_cosine")) for v in variables]),
    ]
    for place, slot in enumerate(slots):
        label = slot.removeprefix("slot/").replace("_", " ").capitalize()
        columns.append((_clean(label), 7 + place, norms(slot)))
    columns.append(("Ratio over steps", 1, [_sparkline(v["trend"]) for v in variables]))
    return columns


def _ratio(variable):
    """The update ratio, in colour, and with an arrow where it is 10 times the target or a tenth."""
    value = variable["statistics"].get("update_ratio", math.nan)
    text = f"{_number(value):>7}"
    if math.isnan(value) or value == 0 or not is_matrix(variable):
        return Text(f"{text}  ", "dim")
    away = math.log10(value / _TARGET)
    arrow = " " if abs(away) <= 1 else "↑" if away > 0 else "↓"
    style = "green" if abs(away) <= 1 else "yellow" if abs(away) <= 2 else "red"
    return Text(f"{text} {arrow}", style)


def _show_findings(console, one):
    found = one["findings"]
    if not found:
        if one["records"]:
            console.print(Text("No findings.", "green"))
        return
    console.print(Text(f"Findings: {_counts(found)}", "bold"))
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for item in found:
        text = Text(_clean(item["message"]))
        text.append("\n" + _clean(item["why"]), "dim")
        text.append("\nTry: ", "bold")
        text.append(_clean(item["advice"]))
        grid.add_row(Text(item["severity"], _STYLES[item["severity"]]), text)
    console.print(grid)


def _counts(found):
    """How many findings of each severity there are, such as `"1 error, 2 notes"`."""
    counts = [(s, sum(item["severity"] == s for item in found)) for s in SEVERITIES]
    return ", ".join(_count(number, severity) for severity, number in counts if number)


def _table():
    return Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")


def _optimizer_name(optimizer):
    """The class, and in brackets the classes of optimizers inside of it."""
    names = []
    while isinstance(optimizer, dict):
        names.append(str(optimizer.get("class_name") or optimizer.get("name") or "unknown"))
        config = optimizer.get("config")
        optimizer = config.get("inner") if isinstance(config, dict) else None
    return "(".join(names) + ")" * (len(names) - 1)


def _sparkline(trend):
    """Block characters for a trend on a log scale; a dot where it is 0, a gap where unknown."""
    known = [math.log(value) for value in trend if value > 0]
    if not known:
        return "".join("·" if value == 0 else " " for value in trend)
    low, high = min(known), max(known)
    spare = max(0.0, math.log(_LEAST_SPAN) - (high - low)) / 2
    low, high = low - spare, high + spare
    return "".join(
        _LEVELS[min(len(_LEVELS) - 1, int((math.log(value) - low) / (high - low) * len(_LEVELS)))]
        if value > 0
        else "·"
        if value == 0
        else " "
        for value in trend
    )


def _number(value):
    if math.isnan(value):
        return "-"
    return "0" if value == 0 else f"{value:.1e}"


def _cosine(value):
    return "-" if value is None or math.isnan(value) else f"{value:.2f}"


def _thousands(count):
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if count >= 10**power:
            return f"{count / 10**power:.3g}{unit}"
    return str(count)


def _size(size):
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} B"


def _count(number, noun):
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _clean(text):
    """Text without control characters, which would move the cursor or change colours."""
    return "".join(c if c.isprintable() else "�" for c in str(text))
