"""The findings of a recorded run as JSON values, each with a link to a place on the page.

Between `whole`, which reads a run, and `health`, which judges it; `reader` asks it.
"""

import dataclasses
import json
import threading

import numpy as np

from tensorboard_plugin import cache, health, metadata, thinned, whole

#: Answers that are kept, in bytes.
CACHE_BYTES = 2**24

#: Of the variables that a finding is about, so many are listed, and so many letters of their paths.
MOST_LAYERS = 100
MOST_LETTERS = 30_000

#: Steps that a link shows at least.
LEAST_STEPS = 100


class Diagnosis:
    """Answers for runs, computed once for each state of a run; safe to call from several threads.

    Args:
        reader: A `partreader.PartReader`.
        most_bytes: As `thinned.MOST_BYTES`.
        give_way: As of `thinned.ThinReader`.
    """

    def __init__(self, reader, most_bytes=None, give_way=lambda seconds: None):
        self._reader = thinned.ThinReader(reader, most_bytes, give_way)
        self._answers = cache.Cache(CACHE_BYTES)
        self._computing = threading.Lock()

    def of(self, ctx, experiment, run, listing):
        """What is wrong with a run.

        Args:
            ctx: The request's context.
            experiment: The experiment's identifier.
            run: The run's name.
            listing: Its `parts.Listing`.

        Returns:
            JSON values: `run`; `findings`, worst first, as `described`; `records`, the number that
            the run has; `looked_at`, how many of them the rules saw of each variable;
            `first_step`, `last_step`, or null without records; `problems`.
        """
        key, stamp = (experiment, run), _stamp(listing)
        # Several pages ask at once; what one waits for, the other has in the cache.
        with self._computing:
            answer = self._answers.get(key, stamp)
            if answer is None:
                answer = self._compute(ctx, experiment, run, listing)
                self._answers.put(key, stamp, answer, len(json.dumps(answer)))
        return answer

    def _compute(self, ctx, experiment, run, listing):
        reader = self._reader.of(listing)
        found, problems = whole.read(
            reader, ctx, experiment, run, listing, statistics=health.STATISTICS
        )
        tables = {
            metadata.LAYERS: found.layers,
            metadata.STEPS: found.quantities,
            metadata.REPLICAS: found.replicas,
        }
        filled = {tag: table for tag, table in tables.items() if len(table.steps)}
        tag, looked_at = next(iter(filled.items()), (metadata.LAYERS, found.layers))
        ends = [table.steps[[0, -1]] for table in filled.values()]
        span = (int(np.min(ends)), int(np.max(ends))) if ends else (None, None)
        return {
            "run": run,
            "findings": [described(finding, span) for finding in health.findings(found)],
            "records": reader.counts[tag],
            "looked_at": len(looked_at.steps),
            "first_step": span[0],
            "last_step": span[1],
            "problems": [dataclasses.asdict(problem) for problem in problems],
        }


def _stamp(listing):
    """Another one once the run has other records."""
    states = [
        (part.tag, part.max_step, part.max_wall_time)
        for listed in listing.parts.values()
        for part in listed
    ]
    return tuple(states), listing.problems


def described(finding, span):
    """A `health.Finding` as JSON values.

    Args:
        finding: The `health.Finding`.
        span: The first and the last step of the run.

    Returns:
        What `Finding.to_json` gives, its `layers` cut short; `layer_count`, how many there are;
        and `link`: `view` (one of `health.finding.TABS`), `variable` or null, `statistic` or null,
        `start` and `end`, the steps to show, both null where that is all of the run.
    """
    layers, letters = [], 0
    for item in finding.layers[:MOST_LAYERS]:
        letters += len(item.path)
        if letters > MOST_LETTERS and layers:
            break
        layers.append(item)
    start, end = _shown(finding.first_step, finding.last_step, span)
    return {
        **dataclasses.replace(finding, layers=tuple(layers)).to_json(),
        "layer_count": len(finding.layers),
        "link": {
            "view": finding.place.tab,
            "variable": finding.layer,
            "statistic": finding.place.statistic,
            "start": start,
            "end": end,
        },
    }


def _shown(first, last, span):
    """The steps to show for a finding: with some before and after it, within the run."""
    margin = max((last - first) // 10, (LEAST_STEPS - (last - first)) // 2, 1)
    start, end = np.clip([first - margin, last + margin], *span).tolist()
    return (None, None) if (start, end) == span else (start, end)
