"""Prints findings for a person."""

import contextlib

from rich.console import Console
from rich.table import Table
from rich.text import Text

from disttrain.doctor.findings import LEVELS

_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan", "ok": "green"}


def waiting(text):
    """A context in which a person at a terminal sees that something goes on."""
    console = Console(stderr=True, markup=False)
    return console.status(text) if console.is_terminal else contextlib.nullcontext()


def show(findings):
    """Prints findings to standard output, and what they come to."""
    console = Console(highlight=False, markup=False, emoji=False)
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for one in findings:
        text = Text(_clean(one.message))
        if one.mend:
            text.append("\nMend it: ", "bold")
            text.append(_clean(one.mend))
        grid.add_row(Text(one.level, _STYLES[one.level]), _clean(one.subject), text)
    console.print(grid)
    console.print()
    counts = [(level, sum(one.level == level for one in findings)) for level in LEVELS[:2]]
    counted = ", ".join(
        f"{number} {level}" + ("" if number == 1 else "s") for level, number in counts if number
    )
    if counts[0][1]:
        console.print(Text(f"Training would fail: {counted}.", _STYLES["error"]))
    else:
        console.print(Text(f"Ready to train{f', with {counted}' if counted else ''}.", "green"))


def _clean(text):
    """Text without control characters, which would move the cursor or change colours."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in str(text))
