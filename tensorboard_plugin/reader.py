"""What each route answers: names are looked up, answers bounded, records asked for.

Every method takes a request's context and experiment, checks its arguments against what the data
provider lists, and raises `tensorboard.errors` for what it cannot answer. HTTP is in `plugin.py`.
"""

import dataclasses
import functools

from tensorboard import errors

from tensorboard_plugin import (
    answers,
    axes,
    buckets,
    decoder,
    diagnosis,
    joining,
    metadata,
    optimizer,
    partreader,
    parts,
    summaries,
    turns,
)

#: Most columns of any answer: more than a screen has pixels across.
MAX_COLUMNS = 4096

#: Most cells of any answer, over all rows. A cell takes 16 bytes before compression; the compressed
#: answer stays below `answers.MOST_BYTES`.
MAX_CELLS = 2**19

DEFAULT_COLUMNS = 512


def _waited_for(answer):
    """Marks an answer that a person waits for: reading in the background makes way for it."""

    @functools.wraps(answer)
    def ahead(self, *args, **kwargs):
        with self._turns.first():
            return answer(self, *args, **kwargs)

    return ahead


class Reader:
    """Answers from one data provider; safe to call from several threads."""

    def __init__(self, data_provider):
        self._provider = data_provider
        self._decode = decoder.Decoder()
        self._turns = turns.Turns()
        reads = partreader.PartReader(data_provider)
        self._joiner = joining.Joiner(reads)
        self._diagnosis = diagnosis.Diagnosis(reads, give_way=self._turns.give_way)

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
        listings = parts.list_runs(self._provider, ctx, experiment, decode=self._decode)
        newest_first = sorted(listings.items(), key=summaries.newest_first)
        return {
            "version": metadata.VERSION,
            "limits": {"columns": MAX_COLUMNS, "cells": MAX_CELLS},
            "runs": [summaries.summary(name, listing) for name, listing in newest_first],
        }

    def variables(self, ctx, experiment, run):
        """The variables of a run in model order, over all its parts.

        Returns:
            JSON values: `run`, `variables`, each with what `axes.Variable` holds, and
            `histograms`, the paths of those that have histograms.
        """
        listing = self._listing(ctx, experiment, run)
        variables = axes.merge_variables(summaries.parts_of(listing, metadata.LAYERS))
        counted = axes.merge_variables(summaries.parts_of(listing, metadata.HISTOGRAMS))
        return {
            "run": run,
            "variables": [dataclasses.asdict(variable) for variable in variables],
            "histograms": [variable.path for variable in counted],
        }

    @_waited_for
    def heatmap(self, ctx, experiment, run, statistic, columns, start=None, end=None, sample=False):
        """One statistic of every variable over the recorded steps.

        Args:
            statistic: The name of a column of `disttrain/layers`.
            columns: Most buckets wanted, 1 to `MAX_COLUMNS`.
            start: First step wanted, or `None`.
            end: Last step wanted, or `None`.
            sample: Whether a random sample of the records will do where reading all takes long.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[variables, columns]`. The
            header has `run`, `statistic`, `variables` (paths), what `joining.bucketed` adds, and,
            only where there is but a sample, `sampled`, true; `records` are the sample's then.
        """
        listing = self._listing(ctx, experiment, run)
        layers = summaries.parts_of(listing, metadata.LAYERS)
        _known("statistic", [statistic], axes.merge_columns(layers))
        paths = [variable.path for variable in axes.merge_variables(layers)]
        _bounded(columns, len(paths))
        wanted = (paths, [statistic])
        asked = (ctx, experiment, run, listing, metadata.LAYERS, start, end)
        sampled = sample and self._joiner.takes_long(*asked, wanted)
        if sampled:
            records, problems = self._joiner.sample(*asked, columns)
        else:
            records, problems = self._joiner.join(*asked, wanted)
        header = {
            "run": run,
            "statistic": summaries.described([statistic], metadata.LAYERS)[0],
            "variables": paths,
            **({"sampled": True} if sampled else {}),
        }
        header, summed = joining.bucketed(
            header, records, problems, columns, records.layer_portions([statistic], paths), wanted
        )
        arrays = {name: array[..., 0] for name, array in vars(summed).items()}
        return answers.from_buckets(header, buckets.Buckets(**arrays))

    @_waited_for
    def series(self, ctx, experiment, run, variables, statistics, columns, start=None, end=None):
        """Some statistics of some variables over the recorded steps.

        Args:
            variables: Paths of variables, at least one.
            statistics: Names of columns of `disttrain/layers`, at least one.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[variables, statistics,
            columns]`. The header has `run`, `variables`, `statistics` and what `joining.bucketed`
            adds.
        """
        listing = self._listing(ctx, experiment, run)
        layers = summaries.parts_of(listing, metadata.LAYERS)
        known = [variable.path for variable in axes.merge_variables(layers)]
        _known("variable", variables, known)
        _known("statistic", statistics, axes.merge_columns(layers))
        _bounded(columns, len(variables) * len(statistics))
        wanted = (variables, statistics)
        records, problems = self._joiner.join(
            ctx, experiment, run, listing, metadata.LAYERS, start, end, wanted
        )
        header = {
            "run": run,
            "variables": variables,
            "statistics": summaries.described(statistics, metadata.LAYERS),
        }
        portions = records.layer_portions(statistics, variables)
        answer = joining.bucketed(header, records, problems, columns, portions, wanted)
        return answers.from_buckets(*answer)

    @_waited_for
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
            `metadata.BINS`) and what `joining.bucketed` adds.
        """
        listing = self._listing(ctx, experiment, run)
        counted = summaries.parts_of(listing, metadata.HISTOGRAMS)
        known = [variable.path for variable in axes.merge_variables(counted)]
        _known("histogram of the variable", variables, known)
        _known("histogram of the quantity", [quantity], axes.merge_columns(counted))
        bins = axes.merge_bins(counted)
        _bounded(columns, len(variables) * len(bins))
        wanted = (variables, [quantity], bins)
        records, problems = self._joiner.join(
            ctx, experiment, run, listing, metadata.HISTOGRAMS, start, end, wanted
        )
        header = {
            "run": run,
            "variables": variables,
            "quantity": summaries.described([quantity], metadata.HISTOGRAMS)[0],
            "bins": bins,
        }
        portions = records.histogram_portions(quantity, variables, bins)
        answer = joining.bucketed(header, records, problems, columns, portions, (variables, bins))
        return answers.from_histograms(*answer)

    @_waited_for
    def steps(self, ctx, experiment, run, columns, start=None, end=None):
        """Every quantity of the run as a whole over the recorded steps.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[quantities, columns]`. The
            header has `run`, `quantities` and what `joining.bucketed` adds.
        """
        listing = self._listing(ctx, experiment, run)
        names = axes.merge_columns(summaries.parts_of(listing, metadata.STEPS))
        _bounded(columns, len(names))
        records, problems = self._joiner.join(
            ctx, experiment, run, listing, metadata.STEPS, start, end
        )
        header = {"run": run, "quantities": summaries.described(names, metadata.STEPS)}
        portions = records.quantity_portions(names)
        answer = joining.bucketed(header, records, problems, columns, portions, (names,))
        return answers.from_buckets(*answer)

    @_waited_for
    def replicas(self, ctx, experiment, run, quantities, columns, start=None, end=None):
        """Quantities of each replica over the recorded steps.

        Args:
            quantities: Names of columns of `disttrain/replicas`, or `None` for all.

        Returns:
            `(header, arrays, recorded)` for `answers`; arrays are `[replicas, quantities,
            columns]`, with as many replicas as the run ever had. The header has `run`, `replicas`
            (their number), `quantities` and what `joining.bucketed` adds.
        """
        listing = self._listing(ctx, experiment, run)
        local = summaries.parts_of(listing, metadata.REPLICAS)
        names = axes.merge_columns(local)
        if quantities is not None:
            _known("quantity of replicas", quantities, names)
            names = quantities
        replicas = max((part.replicas for part in local), default=0)
        _bounded(columns, replicas * len(names))
        wanted = (range(replicas), names)
        records, problems = self._joiner.join(
            ctx, experiment, run, listing, metadata.REPLICAS, start, end, wanted
        )
        header = {
            "run": run,
            "replicas": replicas,
            "quantities": summaries.described(names, metadata.REPLICAS),
        }
        portions = records.replica_portions(names, replicas)
        answer = joining.bucketed(header, records, problems, columns, portions, wanted)
        return answers.from_buckets(*answer)

    def optimizer(self, ctx, experiment, run):
        """The optimizers of a run, and what happened to the loss scale and the clip.

        Returns:
            JSON values: `run`, `optimizers` (`optimizer.switches`), the fields of
            `optimizer.history`, and `problems`.
        """
        listing = self._listing(ctx, experiment, run)
        steps = summaries.parts_of(listing, metadata.STEPS)
        records, problems = self._joiner.join(
            ctx, experiment, run, listing, metadata.STEPS, None, None
        )
        switches = optimizer.switches(steps, records)
        if not any(part.optimizer for part in steps):
            # Only the layers' parts name it, which are larger.
            layers = summaries.parts_of(listing, metadata.LAYERS)
            whole, more = self._joiner.join(
                ctx, experiment, run, listing, metadata.LAYERS, None, None
            )
            switches = optimizer.switches(layers, whole)
            problems += [problem for problem in more if problem not in problems]
        names = [name for name in optimizer.QUANTITIES if name in axes.merge_columns(steps)]
        values, _ = records.quantities(names)
        history = optimizer.history(records.steps, dict(zip(names, values.T, strict=True)))
        return {"run": run, "optimizers": switches, **history, "problems": problems}

    def health(self, ctx, experiment, run):
        """What is wrong with a run, worst first; JSON values as of `diagnosis.Diagnosis.of`."""
        listing = self._listing(ctx, experiment, run)
        return self._diagnosis.of(ctx, experiment, run, listing)

    def _listing(self, ctx, experiment, run):
        listed = parts.list_runs(self._provider, ctx, experiment, [run], self._decode)
        listing = listed.get(run)
        if listing is None:
            raise errors.NotFoundError(
                f"no run {answers.shown(run)} holds disttrain data; see the route `runs`"
            )
        return listing


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
