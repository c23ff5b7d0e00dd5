"""What the rules look at: the recorded arrays of one run, or of a window of it.

Nothing here knows where the arrays come from: a training hands in what it has just measured,
`tensorboard_plugin.whole` what an event file holds.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Table:
    """Records of one tag of `metadata.TAGS`, such as `disttrain/layers`.

    Attributes:
        steps: `[n]` int64, strictly increasing.
        columns: By the name of a statistic or quantity, a float array `[n, ...]`: `[n, variables]`
            for layers, `[n]` for steps, `[n, replicas]` for replicas. NaN where nothing was
            recorded; a column that a rule wants and that is not there keeps the rule silent.
    """

    steps: np.ndarray
    columns: Mapping

    @classmethod
    def packed(cls, steps, names, values):
        """A table of packed records, as they are written.

        Args:
            steps: `[n]`.
            names: Names of the last axis of `values`.
            values: `[n, ..., len(names)]`.
        """
        values = np.asarray(values)
        return cls(np.asarray(steps), {name: values[..., i] for i, name in enumerate(names)})

    def since(self, step):
        """The records of this step and later."""
        at = int(np.searchsorted(self.steps, step))
        return Table(self.steps[at:], {name: c[at:] for name, c in self.columns.items()})

    @classmethod
    def empty(cls):
        """A table without records."""
        return cls(np.empty(0, np.int64), {})


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, or a window of its recent records.

    Attributes:
        layers: The `Table` of `disttrain/layers`.
        quantities: The `Table` of `disttrain/steps`.
        replicas: The `Table` of `disttrain/replicas`.
        variables: Of each variable of `layers`, in order, a mapping with `path` and what else the
            metadata holds: `shape`, `dtype`, `trainable`.
        optimizer: The optimizer's description, as the metadata holds it: `class_name`, `config`,
            `clip`, `loss_scale`.
        optimizer_since: The first step that this optimizer made. Its slots start from nothing
            there.
    """

    layers: Table = dataclasses.field(default_factory=Table.empty)
    quantities: Table = dataclasses.field(default_factory=Table.empty)
    replicas: Table = dataclasses.field(default_factory=Table.empty)
    variables: tuple = ()
    optimizer: Mapping = dataclasses.field(default_factory=dict)
    optimizer_since: int = 1

    def since(self, step):
        """A window of the run: its records of this step and later."""
        return dataclasses.replace(
            self,
            layers=self.layers.since(step),
            quantities=self.quantities.since(step),
            replicas=self.replicas.since(step),
        )
