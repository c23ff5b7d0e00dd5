"""What holds in every view: below a path prefix, with both readers, in light and dark, and on a run
that grows while it is watched.

All views are opened in one tab of TensorBoard for each reader, which is slow to open; a link to a
view opens it in the plugin's frame alone.
"""

import dataclasses
import json
import urllib.parse

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import Server
from tests.plugin.run_writer import (
    EPOCH,
    RunWriter,
    histograms_part,
    layers_part,
    normal_histogram,
    replicas_part,
    steps_part,
    variable,
)
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

PREFIX = "/deep/prefix"
PATHS = [f"block_{block}/kernel" for block in range(12)]
REPLICAS = 3
RECORDS = 120
ZOOM = (10, 40)
OPTIMIZER = {"class_name": "SGD", "config": {"momentum": 0.9}, "clip": "ClipByGlobalNorm(1.0)"}
CHOICE = {
    "overview": {"statistic": "weight_norm", "layer": PATHS[2], "filter": "kernel"},
    "layers": {"layers": PATHS[:2], "scale": "linear", "quantity": "weight"},
    "optimizer": {"pins": [json.dumps([None, "loss"])]},
    "replicas": {"pins": [json.dumps([None, "loss"])]},
    "health": {"hiddenSeverities": ["note"]},
    "compare": {"runs": ["growing", "other"], "statistic": "weight_norm", "filter": "block_1"},
}
SCROLLERS = {
    "overview": "aside.layer",
    "layers": ".layer-scroller",
    "optimizer": ".view-scroller",
    "replicas": ".view-scroller",
    "health": ".charts",
    "compare": ".charts",
}
#: The route that says what a view shows.
ROUTES = {"overview": "series", "health": "health", "replicas": "replicas", "layers": "series"}


class Growing:
    """Runs whose values tell their step; `growing` takes more while it is watched.

    The weight norm of variable i at step s is s + 1000 i, the loss 1000 - s, the gradient norm of
    replica r is s + r. From the sixth on, variables are not updated: Health tells that.
    """

    def __init__(self, root):
        self.writers = {name: RunWriter(root / name) for name in ("growing", "other")}
        self.last = 0
        variables = [variable(path) for path in PATHS]
        self.layers = dataclasses.replace(
            layers_part(variables, replicas=REPLICAS), optimizer=OPTIMIZER
        )
        self.counted = histograms_part(variables)
        self._write("other", range(1, RECORDS + 1))
        self.grow(RECORDS)

    def grow(self, records):
        self._write("growing", range(self.last + 1, self.last + records + 1))
        self.last += records

    def _write(self, run, steps):
        writer = self.writers[run]
        whole, local = steps_part(REPLICAS), replicas_part(REPLICAS)
        names = [quantity.name for quantity in metadata.STEP_QUANTITIES]
        for step in steps:
            at = {"step": step, "wall_time": EPOCH + step - (run == "other")}
            values = np.full((len(PATHS), len(self.layers.columns)), 0.001)
            weight_norm = self.layers.columns.index("weight_norm")
            values[:, weight_norm] = step + 1000 * np.arange(len(PATHS))
            values[:, self.layers.columns.index("nonfinite")] = 0
            values[6:, self.layers.columns.index("update_norm")] = 0
            writer.record(metadata.LAYERS, 0, self.layers, tensor=values, **at)
            row = dict.fromkeys(names, 1.0) | {"loss": 1000 - step, "skipped": 0}
            row |= {"clip_factor": 0.1, "learning_rate": 1e-3 * step}
            writer.record(metadata.STEPS, 0, whole, tensor=[row[name] for name in names], **at)
            own = [[step + replica, 2.0, 0.05, 0.01] for replica in range(REPLICAS)]
            writer.record(metadata.REPLICAS, 0, local, tensor=own, **at)
            if step % 10 == 0:
                shape = (len(PATHS), len(self.counted.columns), 1)
                counts = np.tile(normal_histogram(16, 0.1), shape)
                writer.record(metadata.HISTOGRAMS, 0, self.counted, tensor=counts, **at)
        writer._writer.flush()


class Everywhere(Opened):
    """TensorBoard's page with ours in it, which notes every request.

    Attributes:
        foreign: Addresses of other hosts that were asked for.
        failed: Requests that failed, with how.
    """

    def __init__(self, browser, server):
        self.server = server
        self.foreign, self.failed = [], []
        # TensorBoard's own page looks for its fonts outside the prefix.
        self.fonts = urllib.parse.urljoin(server.address, "/font-roboto/")
        super().__init__(browser, server, "#disttrain")
        self.page.set_viewport_size({"width": 1100, "height": 480})

    def watch(self):
        super().watch()
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)
        self.page.on("requestfailed", self._failed)

    def _console(self, message):
        if not message.location["url"].startswith(self.fonts):
            super()._console(message)

    def _asked(self, request):
        if not request.url.startswith((self.server.address, self.fonts, "data:", "blob:")):
            self.foreign.append(request.url)

    def _answered(self, response):
        if response.status >= 400 and not response.url.startswith(self.fonts):
            self.failed.append((response.status, response.url))

    def _failed(self, request):
        # The page itself ends requests that have become useless.
        if request.failure != "net::ERR_ABORTED":
            self.failed.append((request.failure, request.url))

    def open(self, view, **state):
        """Opens a view as a link to it does, in our frame alone."""
        state = {"view": view, "run": "growing", **CHOICE[view], **state}
        texts = {
            f"p.disttrain.{name}": json.dumps(value) if isinstance(value, list) else value
            for name, value in state.items()
        }
        address = f"{self.server.address}?{urllib.parse.urlencode(texts)}#disttrain"
        self.page.evaluate("(address) => history.replaceState(null, '', address)", address)
        self.frame.evaluate("() => { window.disttrainState = null; location.reload(); }")
        screenshot.wait_until_ready(self.frame)
        assert self.state["error"] is None
        return self.frame.locator(f"#view-{view}")

    def reload(self, view):
        """Presses TensorBoard's button, and waits until the view has what is new."""
        route = f"**/disttrain/{ROUTES.get(view, 'steps')}?*"
        with self.page.expect_response(route):
            self.page.locator("button.reload-button").click()
        screenshot.wait_until_ready(self.frame)


@pytest.fixture(
    scope="module",
    params=["true", pytest.param("false", marks=pytest.mark.exhaustive)],
    ids=["rust", "python"],
)
def everywhere(request, browser, tmp_path_factory):
    """The page below a path prefix, with one of the readers."""
    root = tmp_path_factory.mktemp("everywhere")
    runs = Growing(root)
    flags = [f"--load_fast={request.param}", "--reload_interval=1"]
    with screenshot.tensorboard(root, *flags, prefix=PREFIX) as address:
        server = Server(address)
        for run in ("growing", "other"):
            server.wait_for(run, RECORDS)
        tab = Everywhere(browser, server)
        tab.runs = runs
        yield tab
        tab.page.close()


@pytest.fixture
def tab(everywhere):
    assert everywhere.server.address.endswith(f"{PREFIX}/")
    yield everywhere
    assert (everywhere.faults, everywhere.failed, everywhere.foreign) == ([], [], [])


each_view = pytest.mark.parametrize("view", list(CHOICE))


def numbers(root, view, last):
    """What a view shows of the last step in numbers, and what it must be."""

    def text(selector):
        return root.locator(selector).first.inner_text()

    if view == "overview":
        return text('.layer-line[data-statistic="weight_norm"] .value'), f"{2000 + last:,}"
    if view == "layers":
        label = root.locator('[data-statistic="weight_norm"] .plot').get_attribute("aria-label")
        values = f"{PATHS[0]}: {last:,}; {PATHS[1]}: {1000 + last:,}. "
        return label.split("Last values: ")[1][: len(values)], values
    if view == "optimizer":
        return text('[data-quantity="loss"] .value'), f"{1000 - last:,}"
    if view == "replicas":
        shown = root.locator('[data-quantity="gradient_norm"] .replica-value').all_inner_texts()
        return shown, [str(last + replica) for replica in range(REPLICAS)]
    if view == "health":
        whole = f"The rules looked at {last} records of {len(PATHS)} variables"
        return text(".description")[: len(whole)], whole
    label = root.locator('[data-quantity="loss"] .plot').get_attribute("aria-label")
    values = f"growing: {1000 - last:,}; other: {1000 - min(last, RECORDS):,}. "
    return label.split("Last values: ")[1][: len(values)], values


def assert_shows(root, view, last):
    shown, expected = numbers(root, view, last)
    assert shown == expected


def pictures(root):
    """Each canvas that is seen: its pixels as a text, and how many colours they have."""
    return root.evaluate(
        """(root) => [...root.querySelectorAll('canvas')]
          .filter((one) => one.checkVisibility() && one.width > 1 && one.height > 1)
          .map((one) => {
            const {data} = one.getContext('2d').getImageData(0, 0, one.width, one.height);
            return [one.toDataURL(), new Set(new Uint32Array(data.buffer)).size];
          })"""
    )


UNREADABLE = """(root) => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = ([red, green, blue]) => [red, green, blue].map((value) => value / 255)
    .map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
    .reduce((sum, one, index) => sum + one * [0.2126, 0.7152, 0.0722][index], 0.05);
  const behind = (node) => {
    for (let box = node; box; box = box.parentElement) {
      const [red, green, blue, alpha = 1] = channels(getComputedStyle(box).backgroundColor);
      if (alpha > 0.5) return [red, green, blue];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest(':disabled, [aria-hidden="true"]')) continue;
    const [one, other] = [channels(getComputedStyle(node).color), behind(node)].map(luminance);
    const contrast = Math.max(one, other) / Math.min(one, other);
    if (contrast < 4.5) found.push([walker.currentNode.data.slice(0, 60), contrast]);
  }
  return found;
}"""


@each_view
def test_a_view_is_drawn_and_readable_in_light_and_dark(tab, view):
    root = tab.open(view)
    seen = {}
    for dark, page in ((False, "rgb(255, 255, 255)"), (True, "rgb(48, 48, 48)")):
        tab.page.evaluate("(on) => document.body.classList.toggle('dark-mode', on)", dark)
        tab.frame.wait_for_function(
            "(on) => document.documentElement.classList.contains('dark') === on", arg=dark
        )
        background = "() => getComputedStyle(document.body).backgroundColor"
        assert tab.frame.evaluate(background) == page
        assert_shows(root, view, tab.runs.last)
        seen[dark] = pictures(root)
        assert root.evaluate(UNREADABLE) == []
        assert all(colors > 2 for _, colors in seen[dark])
    tab.page.evaluate("() => document.body.classList.remove('dark-mode')")
    assert len(seen[False]) == len(seen[True])
    # Health is words alone; whatever is drawn has lines or words in the theme's colours.
    assert (len(seen[False]) >= 2) == (view != "health")
    assert sum(a != b for (a, _), (b, _) in zip(*seen.values(), strict=True)) >= min(
        2, len(seen[True])
    )


@each_view
def test_a_view_of_a_run_that_grows_keeps_its_zoom_choice_and_scroll(tab, view):
    root = tab.open(view, start=ZOOM[0], end=ZOOM[1])
    scroller = root.locator(SCROLLERS[view]).first
    # Health tells of the whole run.
    shown = tab.runs.last if view == "health" else ZOOM[1]
    assert_shows(root, view, shown)
    kept = {name: tab.state[name] for name in (*CHOICE[view], "view", "run", "start", "end")}
    place = scroller.evaluate("(box) => { box.scrollTop = 90; return box.scrollTop; }")
    assert place > 50, "there is nothing to scroll"

    def grow():
        tab.runs.grow(5)
        tab.server.wait_for("growing", tab.runs.last)
        tab.reload(view)
        assert {name: tab.state[name] for name in kept} == kept
        assert scroller.evaluate("(box) => box.scrollTop") == place

    grow()
    assert_shows(root, view, tab.runs.last if view == "health" else shown)
    if view != "health":
        root.get_by_role("button", name="Show all steps").first.evaluate("(one) => one.click()")
        tab.frame.wait_for_function("() => disttrainState.start === null && disttrainState.ready")
    kept |= {name: tab.state[name] for name in ("start", "end")}
    assert_shows(root, view, tab.runs.last)
    place = scroller.evaluate("(box) => { box.scrollTop = 70; return box.scrollTop; }")
    grow()
    assert_shows(root, view, tab.runs.last)
