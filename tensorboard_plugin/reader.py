"""What each route answers: names are looked up, records joined and bucketed, answers bounded.

Every method takes a request's context and experiment, checks its arguments against what the data
provider lists, and raises `tensorboard.errors` for what it cannot answer. HTTP is in `plugin.py`.
"""

import dataclasses

from tensorboard import errors

from tensorboard_plugin import answers, buckets, diagnosis, joined, metadata, optimizer, parts

#: Most columns of any answer: more than a screen has pixels across.
MAX_COLUMNS = 4096

#: Most cells of any answer, over all rows. A cell takes 16 bytes before compression; the compressed
#: answer stays below `answers.MOST_BYTES`.
MAX_CELLS = 2**19

DEFAULT_COLUMNS = 512


class Reader:
    """Answers from one data provider; safe to call from several threads."""

    def __init__(self, data_provider):
        self._provider = data_provider
        self._parts = parts.PartReader(data_provider)
        self._diagnosis = diagnosis.Diagnosis(self._parts)

    def runs(self, ctx, experiment):
        """Runs that hold our data, the newest first.

        Returns:
            JSON values: `version`, `limits` (`columns` and `cells` of any answer) and `runs`, each
            with `name`, `last_step`, `last_wall_time` (seconds), `parts`, `replicas`, `variables`
            (their number), `optimizer`, `tags` (those of `metadata.TAGS` that it holds), the
            columns of each tag as `statistics`, `quantities`, `replica_quantities` and
            `histogram_quantities` (what `metadata.Statistic` holds), and `problems` (`tag` and
            `message`).
        """
        listings = parts.list_runs(self._provider, ctx, experiment)
        newest_first = sorted(listings.items(), key=_newest_first)
        return {
            "version": metadata.VERSION,
            "limits": {"columns": MAX_COLUMNS, "cells": MAX_CELLS},
            "runs": [_summary(name, listing) for name, listing in newest_first],
        }

    def variables(self, ctx, experiment, run):
        """The variables of a run in model order, over all its parts.

        Returns:
            JSON values: `run`, `variables`, each with what `joined.Variable` holds, and
            `histograms`, the paths of those that have histograms.
        """
        listing = self._listing(ctx, experiment, run)
        variables = joined.merge_variables(_metadata(listing, metadata.LAYERS))
        counted = joined.merge_variables(_metadata(listing, metadata.HISTOGRAMS))
        return {
            "run": run,
            "variables": [dataclasses.asdict(variable) for variable in variables],
            "histograms": [variable.path for variable in counted],
        }

    def heatmap(self, ctx, experiment, run, statistic, columns, start=None, end=None):
        """One statistic of every variable over the recorded steps.

        Args:
            statistic: The name of a column of `disttrain/layers`.
            columns: Most buckets wanted, 1 to `MAX_COLUMNS`.
            start: First step wanted, or `None`.
            end: Last step wanted, or `None`.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[variables, columns]`. The
            header has `run`, `statistic`, `variables` (paths), and `_axis`'s fields.
        """
        listing = self._listing(ctx, experiment, run)
        layers = _metadata(listing, metadata.LAYERS)
        _known("statistic", [statistic], joined.merge_columns(layers))
        paths = [variable.path for variable in joined.merge_variables(layers)]
        _bounded(columns, len(paths))
        records, problems = self._join(ctx, experiment, run, listing, metadata.LAYERS, start, end)
        bounds = buckets.edges(len(records.steps), columns)
        header = {
            "run": run,
            "statistic": _described([statistic], metadata.LAYERS)[0],
            "variables": paths,
            **_axis(records, bounds),
            "problems": problems,
        }
        portions = (
            (places, values[..., 0], recorded[..., 0])
            for places, values, recorded in records.layer_portions([statistic], paths)
        )
        summed = buckets.collect(portions, bounds, (len(paths),))
        return answers.from_buckets(header, summed)

    def series(self, ctx, experiment, run, variables, statistics, columns, start=None, end=None):
        """Some statistics of some variables over the recorded steps.

        Args:
            variables: Paths of variables, at least one.
            statistics: Names of columns of `disttrain/layers`, at least one.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[variables, statistics,
            columns]`. The header has `run`, `variables`, `statistics` and `_axis`'s fields.
        """
        listing = self._listing(ctx, experiment, run)
        layers = _metadata(listing, metadata.LAYERS)
        known = [variable.path for variable in joined.merge_variables(layers)]
        _known("variable", variables, known)
        _known("statistic", statistics, joined.merge_columns(layers))
        _bounded(columns, len(variables) * len(statistics))
        records, problems = self._join(ctx, experiment, run, listing, metadata.LAYERS, start, end)
        bounds = buckets.edges(len(records.steps), columns)
        header = {
            "run": run,
            "variables": variables,
            "statistics": _described(statistics, metadata.LAYERS),
            **_axis(records, bounds),
            "problems": problems,
        }
        portions = records.layer_portions(statistics, variables)
        summed = buckets.collect(portions, bounds, (len(variables), len(statistics)))
        return answers.from_buckets(header, summed)

    def histograms(self, ctx, experiment, run, variables, quantity, columns, start=None, end=None):
        """How the magnitudes of some variables' elements spread, over the recorded steps.

        A count is the mean over the records of a column, so that the counts of a variable add up
        to its number of elements however many records a column holds.

        Args:
            variables: Paths of variables, at least one.
            quantity: The name of a column of `disttrain/histograms`.

        Returns:
            `(header, arrays, recorded)` for `answers`; the only array is `mean`, `[variables,
            columns, bins]`. The header has `run`, `variables`, `quantity`, `bins` (as
            `metadata.BINS`) and `_axis`'s fields.
        """
        listing = self._listing(ctx, experiment, run)
        counted = _metadata(listing, metadata.HISTOGRAMS)
        known = [variable.path for variable in joined.merge_variables(counted)]
        _known("histogram of the variable", variables, known)
        _known("histogram of the quantity", [quantity], joined.merge_columns(counted))
        bins = joined.merge_bins(counted)
        _bounded(columns, len(variables) * len(bins))
        records, problems = self._join(
            ctx, experiment, run, listing, metadata.HISTOGRAMS, start, end
        )
        bounds = buckets.edges(len(records.steps), columns)
        header = {
            "run": run,
            "variables": variables,
            "quantity": _described([quantity], metadata.HISTOGRAMS)[0],
            "bins": bins,
            **_axis(records, bounds),
            "problems": problems,
        }
        portions = records.histogram_portions(quantity, variables, bins)
        summed = buckets.collect(portions, bounds, (len(variables), len(bins)))
        return answers.from_histograms(header, summed)

    def steps(self, ctx, experiment, run, columns, start=None, end=None):
        """Every quantity of the run as a whole over the recorded steps.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[quantities, columns]`. The
            header has `run`, `quantities` and `_axis`'s fields.
        """
        listing = self._listing(ctx, experiment, run)
        names = joined.merge_columns(_metadata(listing, metadata.STEPS))
        _bounded(columns, len(names))
        records, problems = self._join(ctx, experiment, run, listing, metadata.STEPS, start, end)
        bounds = buckets.edges(len(records.steps), columns)
        header = {
            "run": run,
            "quantities": _described(names, metadata.STEPS),
            **_axis(records, bounds),
            "problems": problems,
        }
        summed = buckets.collect(records.quantity_portions(names), bounds, (len(names),))
        return answers.from_buckets(header, summed)

    def replicas(self, ctx, experiment, run, quantities, columns, start=None, end=None):
        """Quantities of each replica over the recorded steps.

        Args:
            quantities: Names of columns of `disttrain/replicas`, or `None` for all.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[replicas, quantities,
            columns]`, with as many replicas as the run ever had. The header has `run`, `replicas`
            (their number), `quantities` and `_axis`'s fields.
        """
        listing = self._listing(ctx, experiment, run)
        local = _metadata(listing, metadata.REPLICAS)
        names = joined.merge_columns(local)
        if quantities is not None:
            _known("quantity of replicas", quantities, names)
            names = quantities
        replicas = max((part.replicas for part in local), default=0)
        _bounded(columns, replicas * len(names))
        records, problems = self._join(ctx, experiment, run, listing, metadata.REPLICAS, start, end)
        bounds = buckets.edges(len(records.steps), columns)
        header = {
            "run": run,
            "replicas": replicas,
            "quantities": _described(names, metadata.REPLICAS),
            **_axis(records, bounds),
            "problems": problems,
        }
        portions = records.replica_portions(names, replicas)
        summed = buckets.collect(portions, bounds, (replicas, len(names)))
        return answers.from_buckets(header, summed)

    def optimizer(self, ctx, experiment, run):
        """The optimizers of a run, and what happened to the loss scale and the clip.

        Returns:
            JSON values: `run`, `optimizers` (`optimizer.switches`), the fields of
            `optimizer.history`, and `problems`.
        """
        listing = self._listing(ctx, experiment, run)
        steps = _metadata(listing, metadata.STEPS)
        records, problems = self._join(ctx, experiment, run, listing, metadata.STEPS, None, None)
        switches = optimizer.switches(steps, records)
        if not any(part.optimizer for part in steps):
            # Only the layers' parts name it, which are larger.
            layers = _metadata(listing, metadata.LAYERS)
            whole, more = self._join(ctx, experiment, run, listing, metadata.LAYERS, None, None)
            switches = optimizer.switches(layers, whole)
            problems += [problem for problem in more if problem not in problems]
        names = [name for name in optimizer.QUANTITIES if name in joined.merge_columns(steps)]
        values, _ = records.quantities(names)
        history = optimizer.history(records.steps, dict(zip(names, values.T, strict=True)))
        return {"run": run, "optimizers": switches, **history, "problems": problems}

    def health(self, ctx, experiment, run):
        """What is wrong with a run, worst first; JSON values as of `diagnosis.Diagnosis.of`."""
        listing = self._listing(ctx, experiment, run)
        return self._diagnosis.of(ctx, experiment, run, listing)

    def _listing(self, ctx, experiment, run):
        listing = parts.list_runs(self._provider, ctx, experiment, [run]).get(run)
        if listing is None:
            raise errors.NotFoundError(
                f"no run {answers.shown(run)} holds disttrain data; see the route `runs`"
            )
        return listing

    def _join(self, ctx, experiment, run, listing, kind, start, end):
        listed = listing.parts.get(kind, [])
        if start is not None:
            listed = parts.from_step(listed, start)
        records = [self._parts.open(ctx, experiment, run, part) for part in listed]
        found = [*listing.problems, *(problem for part in records for problem in part.problems)]
        whole = joined.Joined([item.part for item in listed], records, start, end)
        return whole, [dataclasses.asdict(problem) for problem in found]


def _summary(name, listing):
    layers, steps, replicas, histograms = (_metadata(listing, tag) for tag in metadata.TAGS)
    newest = (layers or steps or replicas or histograms or [metadata.Part(())])[-1]
    return {
        "name": name,
        "last_step": listing.last_step,
        "last_wall_time": listing.last_wall_time,
        "parts": len(layers),
        "replicas": newest.replicas,
        "variables": len(joined.merge_variables(layers)),
        "optimizer": newest.optimizer,
        "tags": [tag for tag in metadata.TAGS if listing.parts.get(tag)],
        "statistics": _described(joined.merge_columns(layers), metadata.LAYERS),
        "quantities": _described(joined.merge_columns(steps), metadata.STEPS),
        "replica_quantities": _described(joined.merge_columns(replicas), metadata.REPLICAS),
        "histogram_quantities": _described(joined.merge_columns(histograms), metadata.HISTOGRAMS),
        "problems": [dataclasses.asdict(problem) for problem in listing.problems],
    }


def _newest_first(item):
    name, listing = item
    return -listing.last_wall_time, name


def _metadata(listing, kind):
    return [listed.part for listed in listing.parts.get(kind, [])]


def _described(columns, tag):
    return [dataclasses.asdict(metadata.describe(name, tag)) for name in columns]


def _known(what, names, known):
    for name in names:
        if name not in known:
            raise errors.NotFoundError(f"this run has no {what} {answers.shown(name)}")


def _bounded(columns, rows):
    if columns * rows > MAX_CELLS:
        most = MAX_CELLS // rows
        advice = f"at most {most} columns" if most else "fewer variables or quantities"
        raise errors.InvalidArgumentError(
            f"{rows} rows of {columns} columns are more than {MAX_CELLS} cells; ask for {advice}"
        )


def _axis(records, bounds):
    """The shared axis: `records`, and of each column its first and last step and wall time."""
    first, last = bounds[:-1], bounds[1:] - 1
    return {
        "records": len(records.steps),
        "first_step": records.steps[first].tolist(),
        "last_step": records.steps[last].tolist(),
        "first_wall_time": records.wall_times[first].tolist(),
        "last_wall_time": records.wall_times[last].tolist(),
    }
