"""A whole run as the health rules want it: every record, no buckets.

Between `parts`, which reads, and `health`, which judges; the plugin and `disttrain inspect` call
it.
"""

import dataclasses

import numpy as np

from tensorboard_plugin import axes, health, joined, metadata


def read(reader, ctx, experiment, run, listing, statistics=None, start=None, end=None):
    """Reads a run.

    It takes the memory of the values asked for, and of one part more.

    Args:
        reader: A `partreader.PartReader`.
        ctx: The request's context.
        experiment: The experiment's identifier.
        run: The run's name.
        listing: Its `parts.Listing`.
        statistics: Names of columns of `disttrain/layers`; `None` for all of them. The rules look
            at `health.STATISTICS`; a run may lack some.
        start: First step wanted, or `None`.
        end: Last step wanted, or `None`.

    Returns:
        `(health.Run, problems)`: the run, and a `parts.Problem` for each thing that could not be
        read.
    """
    problems = list(listing.problems)

    def join(kind):
        listed = listing.parts.get(kind, [])
        opened = [reader.open(ctx, experiment, run, part) for part in listed]
        problems.extend(problem for part in opened for problem in part.problems)
        described = [item.part for item in listed]
        return described, opened, joined.Joined(described, opened, start, end)

    layers, opened, of_layers = join(metadata.LAYERS)
    steps, _, of_steps = join(metadata.STEPS)
    replicas, _, of_replicas = join(metadata.REPLICAS)
    variables = axes.merge_variables(layers)
    paths = [variable.path for variable in variables]
    wanted = statistics or axes.merge_columns(layers)
    names = [name for name in axes.merge_columns(layers) if name in wanted]
    count = replicas[-1].replicas if replicas else 0
    local = [quantity.name for quantity in metadata.REPLICA_QUANTITIES]
    newest = (layers or steps or [metadata.Part(())])[-1]
    found = health.Run(
        layers=_table(of_layers, names, of_layers.layer_portions(names, paths), (len(paths),)),
        quantities=_table(
            of_steps,
            axes.merge_columns(steps),
            of_steps.quantity_portions(axes.merge_columns(steps)),
        ),
        replicas=_table(of_replicas, local, of_replicas.replica_portions(local, count), (count,)),
        variables=tuple(dataclasses.asdict(variable) for variable in variables),
        optimizer=newest.optimizer,
        optimizer_since=_since(newest, layers, opened),
    )
    return found, problems


def _table(whole, names, portions, shape=()):
    """A `health.Table` from portions whose last axis is the column."""
    # Columns are looked at one by one, so each lies together.
    values = np.full((len(names), len(whole.steps), *shape), np.nan, np.float32)
    for places, portion, _ in portions:
        values[:, places] = np.moveaxis(portion, -1, 0)
    return health.Table(whole.steps, dict(zip(names, values, strict=True)))


def _since(newest, layers, opened):
    """The first step of the last parts that have the optimizer of the newest."""
    since = 1
    for part, records in zip(reversed(layers), reversed(opened), strict=True):
        if part.optimizer != newest.optimizer:
            return since
        since = int(records.steps[0]) if len(records.steps) else since
    return 1
