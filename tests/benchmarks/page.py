"""How fast the TensorBoard page is on large runs, and what its server sends and holds.

Times are seconds, sizes bytes: there is nothing to take a ratio to.
"""

import collections
import contextlib
import dataclasses
import pathlib
import re
import subprocess
import sys
import tempfile
import urllib.parse

import numpy as np
import psutil

from disttrain.telemetry import recorder
from tensorboard_plugin import metadata
from tests.benchmarks import harness
from tests.benchmarks.report import Figure
from tests.plugin import screenshot
from tests.plugin.conftest import Server
from tests.plugin.run_writer import layers_part, steps_part, variable

#: Goals: seconds to the first heatmap and to a zoom, megabytes of an answer and of memory, seconds
#: that TensorBoard may start later.
PAINT, ZOOM, ANSWER, MEMORY, START = 1.0, 0.150, 8.0, 1000.0, 0.050

_LOAD_SECONDS = 600
_EVERY = 10
_SLOTS = ("momentum", "velocity")

_READY = """() => new Promise((painted) => {
  const look = () => {
    const state = window.disttrainState;
    if (state && (state.ready || state.error)) {
      requestAnimationFrame(() => setTimeout(() => painted(performance.now()), 0));
    } else setTimeout(look, 2);
  };
  look();
})"""

# When the first cells are painted, be they those of a sample or of all records.
_CELLS = """() => new Promise((painted) => {
  const look = () => {
    const first = ['disttrain:sample', 'disttrain:cells'].flatMap(
      (name) => performance.getEntriesByName(name))[0];
    const error = window.disttrainState && window.disttrainState.error;
    if (first || error) {
      requestAnimationFrame(() => setTimeout(() => painted(performance.now()), 0));
    } else setTimeout(look, 2);
  };
  look();
})"""


# When the cells of the range of a zoom are painted, in milliseconds from the end of the drag.
_DETAIL = """() => new Promise((painted) => {
  const look = () => {
    const marks = performance.getEntriesByName('disttrain:cells');
    const error = window.disttrainState.error;
    if (error || marks.some(({startTime}) => startTime > window.began)) {
      requestAnimationFrame(() => setTimeout(
        () => painted(performance.now() - window.began), 0));
    } else setTimeout(look, 2);
  };
  look();
})"""


@dataclasses.dataclass(frozen=True)
class Run:
    """A made-up run.

    Attributes:
        variables: Number of variables.
        records: Number of recorded steps.
    """

    variables: int
    records: int

    @property
    def name(self):
        """The run's name, and the benchmark's case."""
        return f"{self.variables:,} x {self.records:,}"


LARGE = Run(1_000, 10_000), Run(10_000, 500)
QUICK = (Run(50, 100),)


def write(run, logdir, seed=0):
    """Writes a run of random walks into a directory of its own.

    Args:
        run: A `Run`.
        logdir: Where its directory is made.
        seed: Seed of the walks.

    Returns:
        The number of its last step.
    """
    rng = np.random.default_rng(seed)
    paths = [
        f"block_{i // 10}/dense_{i % 10 // 2}/{('kernel', 'bias')[i % 2]}"
        for i in range(run.variables)
    ]
    part = layers_part([variable(path, (256, 256), _SLOTS) for path in paths], _SLOTS)
    steps = steps_part()
    written = recorder.Recorder(str(pathlib.Path(logdir) / run.name.replace(" ", "")))
    walk = rng.normal(-6.0, 2.0, (run.variables, len(part.columns)))
    for record in range(run.records):
        walk += 0.02 * rng.normal(size=walk.shape)
        quantities = rng.uniform(0.1, 1.0, len(steps.columns))
        parts = {
            metadata.LAYERS: (part, np.exp(walk).astype(np.float32)),
            metadata.STEPS: (steps, quantities.astype(np.float32)),
        }
        # One by one, not to have more waiting than the recorder lets wait.
        written.write([recorder.Record(record * _EVERY, 1e9 + record, parts, {})])
        written._thread.submit(bool).result()
    written.close()
    return (run.records - 1) * _EVERY


def page(settings, browser=None):
    """Times of the page, and sizes of its server, on large runs."""
    with contextlib.ExitStack() as stack:
        yield from _page(settings, browser or stack.enter_context(_launched()))


@contextlib.contextmanager
def _launched():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=screenshot.CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def _page(settings, browser):
    for run in QUICK if settings.quick else LARGE:
        with tempfile.TemporaryDirectory() as logdir:
            last = write(run, logdir)
            for reader in ("true", "false") if not settings.quick else ("false",):
                name = {"true": "Rust reader", "false": "Python reader"}[reader]
                flags = [f"--load_fast={reader}", "--reload_interval=0"]
                with screenshot.tensorboard(logdir, *flags) as address:
                    server = Server(address)
                    server.wait_for(run.name.replace(" ", ""), last, seconds=_LOAD_SECONDS)
                    yield from _of(run, name, server, settings, browser)


def start(settings):
    """Seconds that the plugin adds to the start of TensorBoard: the import of what it loads."""
    program = (
        # What TensorBoard has imported by then, with or without us.
        "import time; from tensorboard import default, program; default.get_plugins; "
        "from tensorboard.plugins.scalar import scalars_plugin; began = time.perf_counter(); "
        "from tensorboard_plugin import plugin; print(time.perf_counter() - began)"
    )
    samples = []
    for _ in range(1 if settings.quick else 7):
        done = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True
        )
        samples.append(float(done.stdout))
    yield Figure("page-start", "import", "seconds", harness.summarize(samples), START)


def _of(run, reader, server, settings, browser):
    times = 1 if settings.quick else 5
    loaded = sum(_memory(server.address).values())
    # The first opening comes before anything else has made the server read.
    yield from _in_browser(run, reader, server, times, browser)
    sizes = _sizes(run, server)
    largest = max(sizes.values())
    yield _figure(run, reader, "largest answer, MB", [largest / 1e6], ANSWER, sizes)
    server.json("health", run=run.name.replace(" ", ""))
    found = _memory(server.address)
    total = sum(found.values())
    details = {**found, "before the page was opened": loaded}
    yield _figure(run, reader, "memory, MB", [total / 1e6], MEMORY, details)
    yield _figure(run, reader, "memory of the plugin, MB", [(total - loaded) / 1e6])


def _figure(run, reader, what, samples, goal=None, details=None):
    summary = harness.summarize(samples)
    return Figure("page", f"{run.name}, {reader}", what, summary, goal, details or {})


def _sizes(run, server):
    """Bytes of the largest answers that the page may ask for."""
    name = run.name.replace(" ", "")
    variables = [v["path"] for v in server.json("variables", run=name)["variables"][:20]]
    limits = server.json("runs")["limits"]
    common = {"run": name, "columns": 2000, "format": "binary"}
    columns = min(limits["columns"], limits["cells"] // run.variables)
    asked = {
        "runs": {},
        "variables": {"run": name},
        "heatmap": {**common, "columns": columns, "statistic": "update_ratio"},
        "steps": common,
        "series": {**common, "variable": variables, "statistic": ["update_ratio", "weight_norm"]},
    }
    sizes = {}
    for route, parameters in asked.items():
        status, _, body = server.get(route, **parameters)
        # A request that is refused for its size has an answer that is small.
        sizes[f"{route} ({status})"] = len(body)
    return sizes


def _in_browser(run, reader, server, times, browser):
    firsts, completes, zooms, lines = [], [], [], []
    query = urllib.parse.urlencode({"p.disttrain.run": run.name.replace(" ", "")})
    for _ in range(1 + times):
        tab = browser.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(f"{server.address}data/plugin_entry.html?name=disttrain&{query}")
        firsts.append(tab.evaluate(_CELLS) / 1000)
        completes.append(tab.evaluate(_READY) / 1000)
        cells, everything = _zoom(tab)
        zooms.append(cells)
        lines.append(everything)
        tab.close()
    # After the first opening, the server keeps what it has read.
    yield _figure(run, reader, "first heatmap, cold, s", firsts[:1], PAINT)
    yield _figure(run, reader, "all records, cold, s", completes[:1])
    yield _figure(run, reader, "first heatmap, s", firsts[1:], PAINT)
    yield _figure(run, reader, "all records, s", completes[1:])
    yield _figure(run, reader, "zoom, cold, s", zooms[:1], ZOOM)
    yield _figure(run, reader, "zoom, s", zooms[1:], ZOOM)
    yield _figure(run, reader, "zoom with its lines, s", lines[1:])


def _zoom(tab):
    """Seconds from the end of a drag over the heatmap to its cells, and to all of it, painted."""
    box = tab.locator("canvas.cells").bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.mouse.move(box["x"] + 0.4 * box["width"], middle)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 0.5 * box["width"], middle, steps=3)
    tab.evaluate(
        "() => window.addEventListener('pointerup', () => { window.began = performance.now(); },"
        " {capture: true, once: true})"
    )
    tab.mouse.up()
    cells = tab.evaluate(_DETAIL)
    return cells / 1000, (tab.evaluate(_READY) - tab.evaluate("() => window.began")) / 1000


def _memory(address):
    """Bytes that TensorBoard's processes hold by kind, the Rust reader's included.

    Pages of files, such as libraries, are told apart: they are shared with whoever maps them, too.
    """
    port = int(address.rsplit(":", 1)[1].strip("/"))
    (listens,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    total = collections.Counter()
    for process in (psutil.Process(listens), *psutil.Process(listens).children()):
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            for kind, name in (("RssAnon", "own"), ("RssFile", "of files")):
                who = "TensorBoard" if process.pid == listens else "the Rust reader"
                held = re.search(rf"{kind}:\s+(\d+)", status)
                total[f"{who}, {name}"] += 1024 * int(held[1])
    return dict(total)
