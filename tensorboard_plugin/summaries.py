"""What the metadata of a run's parts say about it, as JSON values for the page."""

import dataclasses

from tensorboard_plugin import axes, metadata


def summary(name, listing):
    """What the route `runs` says of one run: see `reader.Reader.runs`.

    Args:
        name: The run's name.
        listing: Its `parts.Listing`.
    """
    layers, steps, replicas, histograms = (parts_of(listing, tag) for tag in metadata.TAGS)
    newest = (layers or steps or replicas or histograms or [metadata.Part(())])[-1]
    return {
        "name": name,
        "last_step": listing.last_step,
        "last_wall_time": listing.last_wall_time,
        "parts": len(layers),
        "replicas": newest.replicas,
        "variables": len(axes.merge_variables(layers)),
        "optimizer": newest.optimizer,
        "tags": [tag for tag in metadata.TAGS if listing.parts.get(tag)],
        "statistics": described(axes.merge_columns(layers), metadata.LAYERS),
        "quantities": described(axes.merge_columns(steps), metadata.STEPS),
        "replica_quantities": described(axes.merge_columns(replicas), metadata.REPLICAS),
        "histogram_quantities": described(axes.merge_columns(histograms), metadata.HISTOGRAMS),
        "problems": [dataclasses.asdict(problem) for problem in listing.problems],
    }


def newest_first(item):
    """A key that sorts `(name, listing)`."""
    name, listing = item
    return -listing.last_wall_time, name


def parts_of(listing, kind):
    """The `metadata.Part`s of one of `metadata.TAGS`."""
    return [listed.part for listed in listing.parts.get(kind, [])]


def described(columns, tag):
    """What `metadata.describe` says of columns."""
    return [dataclasses.asdict(metadata.describe(name, tag)) for name in columns]
