"""What the plugin's tests share: run directories, TensorBoard on both readers, a browser.

Starting TensorBoard and a browser takes seconds, so each is started once for all tests.
"""

import json
import os
import pathlib
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests._support.timeouts import TIMEOUT
from tests.plugin import screenshot
from tests.plugin.run_writer import (
    RunWriter,
    layers_part,
    steps_part,
    variable,
    write_training,
)

#: Text that does harm where it is taken for HTML, a path or a query.
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "../../etc/passwd",
    '"><script>alert(1)</script>',
    "a&run=plain#%00",
)
HOSTILE_RUN = HOSTILE[0]
PLAIN_RECORDS = 300


def write_changed(directory):
    """Two parts: `a/kernel` in both, `a/bias` in the first, `b/kernel` in the second.

    `weight_norm` of `a/kernel` is its step; the gradient norm of step 20 is infinite, of step 30
    NaN, and 1 elsewhere.
    """
    first = layers_part([variable("a/kernel"), variable("a/bias", (4,))], ["momentum"])
    second = layers_part(
        [variable("a/kernel", slots=["velocity"]), variable("b/kernel", slots=["velocity"])],
        ["velocity"],
    )
    with RunWriter(directory) as writer:
        for step in range(0, 60, 10):
            number = int(step >= 40)
            part = (first, second)[number]
            values = np.ones((2, len(part.columns)))
            values[0, part.columns.index("weight_norm")] = step
            gradient = {20: np.inf, 30: np.nan}.get(step, 1)
            values[0, part.columns.index("gradient_norm")] = gradient
            writer.record(metadata.LAYERS, number, part, step, values)
            loss = np.full(len(steps_part().columns), 0.5)
            writer.record(metadata.STEPS, 0, steps_part(), step, loss)


def write_hostile(directory):
    """A run whose names are all hostile."""
    part = layers_part([variable(path, slots=HOSTILE[:1]) for path in HOSTILE], HOSTILE[:1])
    with RunWriter(directory) as writer:
        for step in range(5):
            writer.record(metadata.LAYERS, 0, part, step, np.ones((4, len(part.columns))))
            writer.raw("disttrain/" + HOSTILE[0], b"", step, np.ones(2))


def write_damaged(directory):
    """A run whose second of three parts has metadata that cannot be read."""
    part = layers_part([variable("a/kernel")])
    with RunWriter(directory) as writer:
        for step in range(9):
            number = step // 3
            content = b'{"version": 1, "statis' if number == 1 else part
            values = np.full((1, len(part.columns)), step)
            writer.record(metadata.LAYERS, number, content, step, values)


@pytest.fixture(scope="session")
def logdir(tmp_path_factory):
    """A log directory with a run for each kind of trouble, and one without."""
    root = tmp_path_factory.mktemp("logdir")
    write_training(root / "plain", records=PLAIN_RECORDS, every=10, blocks=1)
    write_changed(root / "changed")
    write_hostile(root / HOSTILE_RUN)
    write_damaged(root / "damaged")
    with RunWriter(root / "hopeless") as writer:
        writer.record(metadata.LAYERS, 0, b"\xff\x00", 0, np.ones((1, 8)))
    return root


class Server:
    """A running TensorBoard.

    Attributes:
        address: Its URL, with a slash at the end.
    """

    def __init__(self, address):
        self.address = address

    def get(self, route, method="GET", **parameters):
        """Asks a route of the plugin.

        Returns:
            `(status, headers, body)`; lists in the parameters are repeated. The body is as sent,
            gzipped where the headers say so.
        """
        query = urllib.parse.urlencode(parameters, doseq=True)
        request = urllib.request.Request(
            f"{self.address}data/plugin/disttrain/{route}?{query}",
            headers={"Accept-Encoding": "gzip" if parameters.get("format") == "binary" else ""},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def json(self, route, **parameters):
        """The JSON of a route that must answer 200."""
        status, _, body = self.get(route, **parameters)
        assert status == 200, body
        return json.loads(body)

    def wait_for(self, run, step, seconds=TIMEOUT):
        """Waits until TensorBoard has read a run up to a step."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(r["name"] == run and r["last_step"] >= step for r in self.json("runs")["runs"]):
                return
            time.sleep(0.1)
        raise AssertionError(f"TensorBoard did not read {run!r} up to step {step}")


#: Tests of the page that run by default with TensorBoard's Python reader, too. The others see the
#: reader through routes alone, which are tested with both.
WITH_BOTH_READERS = {
    "test_it_opens_on_the_newest_runs_update_ratio",
    "test_a_reload_of_tensorboard_shows_new_steps",
}


def pytest_itemcollected(item):
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if "browser" not in item.fixturenames or params.get("server") != "python":
        return
    if item.originalname not in WITH_BOTH_READERS:
        item.add_marker(pytest.mark.exhaustive)


@pytest.fixture(scope="session", params=["rust", "python"])
def server(request, logdir):
    """TensorBoard on `logdir`, once with the Rust and once with the Python reader."""
    fast = {"rust": "true", "python": "false"}[request.param]
    flags = [f"--load_fast={fast}", "--reload_interval=1"]
    with screenshot.tensorboard(logdir, *flags) as address:
        running = Server(address)
        running.wait_for("plain", (PLAIN_RECORDS - 1) * 10)
        for run, step in (("changed", 50), (HOSTILE_RUN, 4), ("damaged", 8), ("hopeless", 0)):
            running.wait_for(run, step)
        yield running


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium. Without one, tests are skipped, or fail where `DISTTRAIN_STRICT=1`."""
    missing = None
    if not pathlib.Path(screenshot.CHROMIUM).exists():
        missing = f"there is no Chromium at {screenshot.CHROMIUM}"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "Playwright is not installed"
    if missing:
        if os.environ.get("DISTTRAIN_STRICT") == "1":
            pytest.fail(f"{missing}, and DISTTRAIN_STRICT=1 asks for it")
        pytest.skip(missing)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=screenshot.CHROMIUM,
            args=["--no-sandbox", "--disable-gpu"],
            timeout=TIMEOUT * 1000,
        )
        yield launched
        launched.close()
