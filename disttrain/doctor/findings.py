"""What the doctor has found about one thing."""

import dataclasses

#: From the worst on. With an error, training would fail; a warning costs something; a note is a
#: thing that is not there and need not be.
LEVELS = ("error", "warning", "note", "ok")


@dataclasses.dataclass(frozen=True)
class Finding:
    """A finding.

    Attributes:
        subject: What it is about, a word or two.
        level: One of `LEVELS`.
        message: What was found, a sentence without its full stop.
        mend: The command that mends it, or what to do; `None` where nothing is wrong.
    """

    subject: str
    level: str
    message: str
    mend: str | None = None

    def as_dict(self):
        """Its fields, for JSON."""
        return dataclasses.asdict(self)
