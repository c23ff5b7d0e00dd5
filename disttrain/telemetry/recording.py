"""What belongs to one observer of a run: what its rows are, its share of the budget, its noise."""

import math

from disttrain.telemetry import recorder
from disttrain.telemetry.noise import NoiseScale
from disttrain.telemetry.probe import LOCAL
from disttrain.telemetry.ring import Plan
from disttrain.telemetry.thinning import Thinning
from tensorboard_plugin import metadata

#: Part of the budget that histograms may take.
_HISTOGRAMS = 0.25

#: What an event adds to the numbers in it, in bytes: tags, shapes, times, checksums, scalars.
_EVENT_BYTES = 256

#: The columns of `disttrain/steps`.
QUANTITIES = tuple(s.name for s in metadata.STEP_QUANTITIES)


class Recording:
    """What belongs to one observer: its parts' metadata, its share of the budget, its noise scale.

    Args:
        observer: The `Observer`.
        options: The `Telemetry`.
        optimizer: The built `DistributedOptimizer`.
        replicas: Number of replicas.
        budget: Bytes that its records may take.
        steps_per_execution: Most steps between two calls of `thin`.
    """

    def __init__(self, observer, options, optimizer, replicas, budget, steps_per_execution):
        config = _configuration(optimizer)
        self.layers, self.histograms = observer.layers.describe(config, replicas)
        self.steps = metadata.Part(QUANTITIES, (), config, replicas)
        columns = [q.name for q in metadata.REPLICA_QUANTITIES]
        own = [*observer.local_columns, "step_seconds"]
        self._order = [own.index(name) for name in columns]
        of_variables = observer.local_columns[len(LOCAL) :]
        self._order += range(len(LOCAL), len(observer.local_columns))
        columns += [metadata.local_gradient_norm(path).name for path in of_variables]
        self.replicas = metadata.Part(tuple(columns), (), config, replicas)
        row_bytes = observer.layers.row_bytes + 4 * (len(QUANTITIES) + replicas * len(columns))
        counts = observer.layers.histogram_bytes
        for_counts = int(budget * _HISTOGRAMS) if counts else 0
        self._rows = Thinning(
            options.every,
            budget - for_counts,
            row_bytes + _EVENT_BYTES,
            steps_per_execution,
        )
        self._counts = None
        if counts:
            self._counts = Thinning(
                options.histograms_every, for_counts, counts + _EVENT_BYTES, steps_per_execution
            )
        self.thinnings = [thinning for thinning in (self._rows, self._counts) if thinning]
        # The reduced gradient is the mean of the replicas' only if nothing else is done to it.
        self._comparable = (
            replicas > 1
            and optimizer.reduction.kind == "mean"
            and not optimizer.two_gradients
            and not (optimizer.clip is not None and optimizer.clip.before_reduce)
        )
        self._noise = NoiseScale()
        self.warns = options.warnings

    def thin(self, observer, rows, histograms, step):
        """Notes what an execution has recorded, and follows the budget.

        Args:
            observer: The `Observer`.
            rows: Number of recorded steps.
            histograms: How many of them with histograms.
            step: The last step done.
        """
        plan = observer.plan
        every = self._rows.recorded(min(rows, self._rows.room), step)
        of_histograms = plan.histograms
        if self._counts is not None:
            of_histograms = self._counts.recorded(min(histograms, self._counts.room), step)
        if (every, of_histograms) != (plan.every, plan.histograms):
            observer.follow(Plan(every, of_histograms, plan.last))

    @property
    def steady(self):
        """The last step up to which `thin` would change nothing."""
        return min(thinning.steady for thinning in self.thinnings)

    def replica_columns(self, own):
        """`[..., replicas, k]` in the order of the metadata's columns."""
        return own[..., self._order]

    def noise_scales(self, rows, replicas):
        """The gradient noise scale at each of the rows, `[n]`; NaN where it cannot be told."""
        norms = rows.quantities[:, QUANTITIES.index("gradient_norm")]
        finite = rows.quantities[:, QUANTITIES.index("skipped")] == 0
        own_norms = replicas[..., LOCAL.index("gradient_norm")]
        own_examples = replicas[..., LOCAL.index("examples")]
        return [
            self._noise.update(own_norms[i], own_examples[i], norms[i], rows.examples[i])
            if self._comparable and finite[i]
            else math.nan
            for i in range(len(norms))
        ]


def _configuration(optimizer):
    """What the metadata says of an optimizer, as JSON values."""
    return recorder.jsonable(
        {
            "class_name": type(optimizer.inner).__name__,
            "config": optimizer.inner.get_config(),
            "clip": repr(optimizer.clip) if optimizer.clip else None,
            "loss_scale": repr(optimizer.loss_scale) if optimizer.loss_scale else None,
            "reduction": optimizer.reduction.kind,
            "compression": optimizer.reduction.compression,
            "accumulate_steps": optimizer.accumulate_steps,
        }
    )
