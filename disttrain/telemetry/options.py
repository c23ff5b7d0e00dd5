"""What a user chooses about telemetry."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Telemetry:
    """Which steps are recorded.

    Attributes:
        every: Record the first step and each step whose number, counted from 1, it divides.

    Raises:
        ValueError: `every` is not a whole number from 1.
    """

    every: int = 10

    def __post_init__(self):
        if isinstance(self.every, bool) or int(self.every) != self.every or self.every < 1:
            raise ValueError(
                f"Telemetry(every=...) must be a whole number from 1, not {self.every!r}; use "
                "telemetry=None to record nothing"
            )

    def records(self, step):
        """Whether the step of this number, an integer or an integer tensor, is recorded."""
        return (step == 1) | (step % self.every == 0)

    def count(self, first, last):
        """How many of the steps `first` to `last`, both included, are recorded."""
        multiples = last // self.every - (first - 1) // self.every
        return multiples + (first <= 1 <= last and self.every > 1)
