"""The probes of this process's replicas: what the optimizer meets in the graph, and the host reads.

All processes read at the same steps, so that what each replica has recorded of its own part can be
gathered by one small collective.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from disttrain.telemetry.layers import Layers
from disttrain.telemetry.probe import LOCAL, Probe
from disttrain.telemetry.ring import NEVER, Plan
from disttrain.telemetry.statistics import NAN

#: What the rows of statistics may take on the device, in bytes, unless one execution needs more.
BUFFER_BYTES = 4 * 2**20

#: Most rows between two reads of a process that reads every few seconds, too.
_MOST_ROWS = 256

#: The same of several, which read at the same step, and whose pages are to follow.
_MOST_ROWS_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Rows:
    """What was recorded since the last read.

    Attributes:
        steps: int64 `[n]`.
        layers: float32 `[n, variables, statistics]`; `None` on other processes than the chief's.
        quantities: float32 `[n, quantities]`, or `None`.
        examples: float32 `[n]`, or `None`.
        histogram_steps: Steps of the histograms, `[m]`.
        histograms: float32 `[m, variables, quantities, bins]`.
        local: float32 `[n, local replicas, local quantities]`, or `None`.
    """

    steps: np.ndarray
    layers: np.ndarray | None
    quantities: np.ndarray | None
    examples: np.ndarray | None
    histogram_steps: np.ndarray
    histograms: np.ndarray
    local: np.ndarray | None


class Observer:
    """Records the steps of one optimizer on one set of variables.

    Args:
        options: A `Telemetry`.
        optimizer: The built inner optimizer.
        variables: The trainable variables, in model order.
        replication: A `Replication`.
        first_step: Number of steps done before.
        steps_per_execution: Steps between two chances of the host to read.

    Attributes:
        plan: The present `Plan`.
        capacity: Rows for steps that the plan names.
        histogram_capacity: Rows for histograms.
        layers: The `Layers`.
        local_columns: Names of what replicas record of their own part.
    """

    def __init__(
        self, options, optimizer, variables, replication, first_step=0, steps_per_execution=1
    ):
        self._replication = replication
        self.plan = Plan(options.every, options.histograms_every or NEVER)
        chosen = options.chosen(variables)
        self.layers = Layers(optimizer, chosen, options.histograms_every is not None)
        row_bytes = max(1, self.layers.row_bytes)
        counts = options.histograms_every or NEVER
        most = 4 + steps_per_execution // options.every + steps_per_execution // counts
        most = min(steps_per_execution, most)
        rows = _MOST_ROWS if replication.topology.processes == 1 else _MOST_ROWS_TOGETHER
        self.capacity = most + max(1, min(rows, BUFFER_BYTES // row_bytes))
        self.histogram_capacity = 2 + min(steps_per_execution, 3 + steps_per_execution // counts)
        alone = replication.replicas == 1
        per_variable = chosen if options.per_replica == "variables" and not alone else []
        self._place = {id(variable): i for i, variable in enumerate(per_variable)}
        self.local_columns = (*LOCAL, *(variable.path for variable in per_variable))
        local = bool(options.per_replica)
        self._notes = {}
        self._probes = []
        for replica in range(replication.topology.local_replicas):
            chief = replication.is_chief and replica == 0
            probe = None
            if chief or local:
                probe = Probe(
                    self.plan,
                    first_step,
                    self.capacity,
                    self.layers if chief else None,
                    self.histogram_capacity,
                    local,
                    len(per_variable),
                    alone,
                )
            self._probes.append(probe)

    # In the graph, in replica context.

    def here(self):
        """The `Probe` of the replica that calls, or `None`."""
        topology = self._replication.topology
        return self._probes[self._replication.replica_index() - topology.first_replica]

    def begin(self):
        """Begins a step; see `Ring.begin`."""
        probe = self.here()
        return (tf.constant(False),) * 2 if probe is None else probe.ring.begin()

    def arrived(self, record, gradients, variables, to_mean, loss, examples):
        """Measures a replica's own part before the reduction; see `Probe.arrived`."""
        probe = self.here()
        if probe is None:
            return {}
        places = [self._place.get(id(variable)) for variable in variables]
        return probe.arrived(record, gradients, places, to_mean, loss, examples)

    def reduced(self, found, gradients):
        """Notes that the reduction is done; see `Probe.reduced`."""
        probe = self.here()
        return {} if probe is None else probe.reduced(found, gradients)

    def note(self, name, value):
        """Keeps what the replica that calls knows, a scalar, until `noted` asks for it."""
        self._notes[self._replication.replica_index(), name] = value

    def noted(self, name):
        """What this replica has noted last under a name; NaN if nothing."""
        # Taken out, for in another function the tensor would mean nothing.
        return self._notes.pop((self._replication.replica_index(), name), tf.constant(NAN))

    # On the host.

    def steps(self):
        """Number of steps done, skipped ones included; 0 where this process records nothing."""
        probe = next((probe for probe in self._probes if probe is not None), None)
        return 0 if probe is None else int(probe.ring.step.numpy())

    def go_on_from(self, step):
        """Counts on from this number of steps done."""
        for probe in self._probes:
            if probe is not None:
                probe.ring.step.assign(step)

    def follow(self, plan):
        """Goes on by another `Plan`; called by every process at the same step."""
        self.plan = plan
        for probe in self._probes:
            if probe is not None:
                probe.ring.follow(plan)

    def read(self):
        """Takes what was recorded since the last call.

        Returns:
            `Rows`, or `None` where this process records nothing.
        """
        probes = [probe for probe in self._probes if probe is not None]
        if not probes:
            return None
        places = [probe.ring.read() for probe in probes]
        steps, rows = places[0]
        local = None
        if probes[0].records_its_own_part:
            read = [p.read_local(r) for p, (_, r) in zip(probes, places, strict=True)]
            local = np.stack(read, axis=1)
        if not self._replication.is_chief:
            return Rows(steps, None, None, None, np.empty(0, np.int64), np.empty(0), local)
        quantities, examples = probes[0].read_steps(rows)
        return Rows(
            steps,
            self.layers.read(rows),
            quantities,
            examples,
            *self.layers.read_histograms(),
            local,
        )
