"""Findings: what the recorded statistics say is wrong with a training, worst first.

`findings(run)` applies every rule. A rule is a function of `Evidence` that returns a list of
`Finding`s; it lives in the file of its subject, with its thresholds and their reasons. The rules
need NumPy alone: the plugin and `disttrain inspect` apply them to whole runs, a training to a
window of its recent records.
"""

import numpy as np

from tensorboard_plugin.health import (
    gradients,
    not_finite,
    optimizers,
    progress,
    replicas,
    updates,
)
from tensorboard_plugin.health.evidence import Evidence, is_matrix
from tensorboard_plugin.health.finding import SEVERITIES, Finding, LayerNumbers, Place
from tensorboard_plugin.health.run import Run, Table

__all__ = [
    "SEVERITIES",
    "STATISTICS",
    "Finding",
    "LayerNumbers",
    "Place",
    "Run",
    "Table",
    "findings",
    "is_matrix",
]

#: The columns of `disttrain/layers` that any rule looks at.
STATISTICS = (
    "weight_norm",
    "gradient_norm",
    "update_norm",
    "update_ratio",
    "zero_fraction",
    "nonfinite",
    *optimizers.SECOND_MOMENT_COLUMNS,
)

#: The gravest first: this decides between findings of the same severity.
RULES = (
    not_finite.not_finite,
    gradients.exploding,
    optimizers.loss_scale_collapses,
    optimizers.skipped_steps,
    progress.loss_trend,
    replicas.replica_diverges,
    gradients.no_gradient,
    updates.no_update,
    gradients.vanishing,
    updates.ratio_too_high,
    optimizers.epsilon_dominates,
    updates.ratio_too_low,
    optimizers.clip_always,
    replicas.straggler,
    gradients.rounding_gradient,
    progress.batch_size,
)


def findings(run):
    """What is wrong with a run, or with a window of its records.

    Args:
        run: A `Run`. With fewer records than a lasting condition needs (20, and 100 steps, behind
            the first 100 steps) only NaN and infinities are found.

    Returns:
        A list of `Finding`s, worst first; empty for a healthy run.
    """
    with np.errstate(all="ignore"):  # A run may hold NaN and infinities anywhere.
        evidence = Evidence(run)
        found = [finding for rule in RULES for finding in rule(evidence)]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))
