"""The page of a comparison: one HTML file that needs nothing else, on light and on dark screens."""

import base64
import html
import io
import os
import re

from disttrain.experiments.comparisons import figures, tables

_INTERVAL = re.compile(r" \(([^()]+ to [^()]+)\)$")

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --line: #d0d4da;
  --soft: #f3f5f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181c; --line: #3a3f47; --soft: #1f2329; }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  margin: 2rem auto; max-width: 66rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .8rem .35rem 0; text-align: left;
  white-space: nowrap; }
img { max-width: 100%; height: auto; }
li { margin: .4rem 0; }
details { margin-top: 2rem; } summary { cursor: pointer; }
p.answer { background: var(--soft); border-left: 4px solid #0072B2; padding: .7rem 1rem; }
"""


def save(comparison, directory):
    """Writes `curves.png` and `index.html`.

    Returns:
        Their paths, a list.
    """
    picture = os.path.join(directory, "curves.png")
    figures.save(comparison, picture)
    path = os.path.join(directory, "index.html")
    beside = f"{path}.{os.getpid()}.writing"
    with open(beside, "w", encoding="utf-8") as file:
        file.write(render(comparison))
    os.replace(beside, path)
    return [picture, path]


def render(comparison):
    """The page as a text. Names are a user's, and are escaped."""
    count, seeds = len(comparison.optimizers), len(comparison.seeds)
    title = f"{count} optimizers, {seeds} seed{'' if seeds == 1 else 's'}"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}, by {_text(comparison.monitor)}</h1>",
            f'<p class="answer">{_text(answer(comparison))}</p>',
            _picture(comparison),
            "<p>Lines are means over the seeds, bands their 95% intervals (Student's t).</p>",
            "<h2>Results</h2>",
            _results(comparison),
            _explanation(comparison),
            "<h2>What may be concluded</h2><ul>",
            *(f"<li>{_text(sentence)}</li>" for sentence in comparison.conclusions),
            "</ul>",
            _runs(comparison),
            "</body></html>",
        ]
    )


def answer(comparison):
    """The result in one sentence."""
    if len(comparison.optimizers) == 1:
        return f"{comparison.optimizers[0]} was trained alone: there is nothing to compare it with."
    if comparison.best is not None:
        word = "lowest" if comparison.mode == "min" else "highest"
        return (
            f"{comparison.best} ended with the {word} {comparison.monitor}, and its difference "
            "to each of the others is more than chance."
        )
    shown = [test for test in comparison.tests if test["significant"]]
    if not shown:
        return "No difference between these optimizers is shown; that does not make them equal."
    return (
        f"No optimizer is shown to be the best; {len(shown)} of {len(comparison.tests)} "
        "differences are more than chance."
    )


def _picture(comparison):
    sources = {theme: _encoded(comparison, theme) for theme in ("light", "dark")}
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{sources["dark"]}">'
        f'<img alt="Course of each optimizer over the epochs" src="{sources["light"]}"></picture>'
    )


def _encoded(comparison, theme):
    file = io.BytesIO()
    figures.draw(comparison, file, theme)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _results(comparison):
    columns = tables.headings(comparison)
    rows = [[cell(row) for _, cell in columns] for row in comparison.summary]
    return _table([heading for heading, _ in columns], rows)


def _explanation(comparison):
    text = (
        "Below each mean stands its 95% interval over the seeds. Final is after the last epoch, "
        "best after any. Seconds are those of training without validation."
    )
    if any(row["diverged"] for row in comparison.summary):
        text += (
            " Means are over the runs that did not diverge; an optimizer with diverged runs ranks "
            "below those with fewer."
        )
    if comparison.target is not None:
        text += (
            " Steps and seconds to the target are medians over all runs, in which a run that never "
            "reached it took longer than any; never means half of them or more."
        )
    return f"<p>{text}</p>"


def _runs(comparison):
    rows = []
    for record in comparison.runs:
        last = (record["history"].get(comparison.monitor) or [None])[-1]
        rows.append(
            [
                record["optimizer"],
                str(record["seed"]),
                record["state"],
                "not finite" if last is None else f"{last:.6g}",
                f"{record['training_seconds']:.1f}",
                "; ".join(record["findings"]),
            ]
        )
    heading = ["optimizer", "seed", "state", f"final {comparison.monitor}", "seconds", "health"]
    return f"<details><summary>All runs</summary>{_table(heading, rows)}</details>"


def _table(headings, rows):
    head = "".join(f"<th>{_text(heading)}</th>" for heading in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _cell(value):
    """A mean with its interval below it, where the table stays narrow."""
    return _INTERVAL.sub(r"<br><small>\1</small>", _text(value))


def _text(value):
    return html.escape(str(value))
