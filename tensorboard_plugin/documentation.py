"""The tables of `docs/telemetry.md`, made from the schema.

`python -m tensorboard_plugin.documentation` prints them; a test holds the page to them.
"""

from tensorboard_plugin import metadata

BEGIN, END = "<!-- schema: begin -->", "<!-- schema: end -->"

_TITLES = {
    metadata.LAYERS: "`disttrain/layers`: of each variable, `[variables, statistics]`",
    metadata.STEPS: "`disttrain/steps`: of the step as a whole, `[quantities]`",
    metadata.REPLICAS: "`disttrain/replicas`: of each replica's own part, `[replicas, quantities]`",
    metadata.HISTOGRAMS: "`disttrain/histograms`: counts, `[variables, quantities, bins]`",
}


def tables():
    """All tags with their columns, as Markdown text."""
    slot, path = "<slot>", "<variable>"
    columns = {
        metadata.LAYERS: metadata.layer_statistics([slot]),
        metadata.STEPS: metadata.STEP_QUANTITIES,
        metadata.REPLICAS: (*metadata.REPLICA_QUANTITIES, metadata.local_gradient_norm(path)),
        metadata.HISTOGRAMS: metadata.histogram_quantities([slot]),
    }
    return "\n\n".join(_table(_TITLES[tag], columns[tag]) for tag in metadata.TAGS)


def _table(title, statistics):
    lines = [f"### {title}", "", "| name | what it is |", "|---|---|"]
    lines += [f"| `{statistic.name}` | {statistic.description} |" for statistic in statistics]
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables())
