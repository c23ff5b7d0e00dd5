"""How often a long run is recorded, so that what it writes stays within a budget.

Integer arithmetic on step numbers: no clock and no file is looked at, so that all processes come to
the same decision without asking each other.
"""

from disttrain.telemetry.ring import NEVER

#: While the steps double, at most one of so many parts of the room is used.
_PARTS = 8


class Thinning:
    """Chooses the steps to record: the first, and the multiples of an interval that grows.

    The interval is `every` times a power of two, so that records stay at multiples of `every` and
    those of several runs line up. It is `every` until about a ninth of the budget is used. From
    then on it is the least that is above 8 * step / room, with room for so many more records: it
    grows in proportion to the step, and a run's last tenth is seen about as finely as the tenth
    before it. What remains is used more and more sparingly, and never all at once.

    What is guaranteed, where at most `steps_per_execution` steps pass between two calls, or all of
    them but for these are up to `steady`:

    - the records never take more bytes than the budget;
    - the first step is recorded if the budget holds one record;
    - with room for r >= 8 more, the next record follows within 16 / r of the steps that the next
      execution brings the run to, or within `every`; so the last tenth of a run has at least about
      r / 160 records;
    - with any room, the next one follows before these steps have tripled, or within `every`.

    Of a budget of N records there is room for about 0.6 N when the steps are a hundred times those
    at which the interval first grew, and for 0.4 N at ten thousand times.

    Each kind of record has a `Thinning` of its own, with its share of the bytes.

    Args:
        every: Steps between records at first.
        budget: Bytes that all records may take together.
        record_bytes: Bytes of a record as written, with what the file adds to it.
        steps_per_execution: Most steps between two calls of `recorded`.

    Attributes:
        interval: Steps between records now; `NEVER` once there is no room.
        used: Bytes of the records so far.

    Raises:
        ValueError: An argument is not a whole number from 1; the budget may be 0.
    """

    def __init__(self, every, budget, record_bytes, steps_per_execution=1):
        self._every = _whole("every", every)
        self._budget = _whole("budget", budget, least=0)
        self._record_bytes = _whole("record_bytes", record_bytes)
        self._ahead = _whole("steps_per_execution", steps_per_execution)
        self._step = 0
        self.used = 0
        self.interval = self._choose()

    @property
    def room(self):
        """How many more records fit into the budget."""
        return (self._budget - self.used) // self._record_bytes

    @property
    def steady(self):
        """The last step up to which the interval stays as it is, whatever is recorded until then.

        After k more steps there is room for at least `room - k` more records, so that the interval
        holds while `interval * (room - k) > 8 * (step + steps_per_execution + k)`.
        """
        if self.room == 0:
            return NEVER
        done = self._step + self._ahead
        spare = self.interval * self.room - _PARTS * done - 1
        return self._step + max(0, spare // (self.interval + _PARTS))

    def records(self, step):
        """Whether the step of this number, counted from 1, is recorded."""
        return records(step, self.interval)

    def count(self, first, last):
        """How many of the steps `first` to `last`, both included, are recorded."""
        if self.interval >= NEVER:
            return 0
        multiples = last // self.interval - (first - 1) // self.interval
        return multiples + (first <= 1 <= last and self.interval > 1)

    def recorded(self, count, last_step):
        """Notes what was recorded since the last call.

        Args:
            count: Number of records, as `count` tells it.
            last_step: Number of the last step done.

        Returns:
            The interval from the next step on.

        Raises:
            ValueError: There was no room for so many, which more than `steps_per_execution` steps
                since the last call would explain.
        """
        if count > self.room:
            raise ValueError(
                f"{count} records of {self._record_bytes} bytes were made where {self.room} fit; "
                f"call recorded at least every {self._ahead} steps"
            )
        self._step = last_step
        if count:
            self.used += count * self._record_bytes
            self.interval = self._choose()
        return self.interval

    def resize(self, record_bytes):
        """Goes on with records of another size, as after a change of the optimizer.

        Args:
            record_bytes: As at first.

        Returns:
            The interval from the next step on; smaller than before where records are.
        """
        self._record_bytes = _whole("record_bytes", record_bytes)
        self.interval = self._choose()
        return self.interval

    def _choose(self):
        room = self.room
        if room == 0:
            return NEVER
        # The interval holds during the next execution, too, whose steps are done by then. With
        # less than 8 records' room, it is above all of these steps: one record at most is made.
        done, room = self._step + self._ahead, max(room, _PARTS)
        interval = self._every
        while interval * room <= _PARTS * done:
            interval *= 2
        return min(interval, NEVER)


def records(step, interval):
    """Whether a step is recorded under an interval; integers, or int64 tensors on the device."""
    return (interval < NEVER) & ((step == 1) | (step % interval == 0))


def _whole(name, value, least=1):
    if isinstance(value, bool) or int(value) != value or value < least:
        raise ValueError(f"{name} must be a whole number from {least}, not {value!r}")
    return int(value)
