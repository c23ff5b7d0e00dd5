"""The page in a real browser, inside a real TensorBoard, with both readers."""

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests._support.timeouts import TIMEOUT
from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, HOSTILE_RUN, PLAIN_RECORDS
from tests.plugin.run_writer import RunWriter, layers_part, variable

pytestmark = pytest.mark.browser


class Opened:
    """The plugin's page, in a tab of TensorBoard or by itself, which opens faster.

    Attributes:
        page: Playwright's page.
        frame: Our frame.
        faults: Errors, policy violations and dialogs so far; a test must end with none.
    """

    def __init__(self, browser, server, address):
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.page.set_default_timeout(TIMEOUT * 1000)
        self.faults = []
        self.watch()
        self.page.goto(server.address + address)
        self.frame = screenshot.plugin_frame(self.page)
        screenshot.wait_until_ready(self.frame)

    def watch(self):
        """Listens to the page before it loads anything."""
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", self._console)
        self.page.on("dialog", self._dialog)

    def _console(self, message):
        # The browser asks by itself for a page's icon, which only TensorBoard's own page names.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            self.faults.append(message.text)

    def _dialog(self, dialog):
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    @property
    def state(self):
        """The page's test hook."""
        return self.frame.evaluate("() => window.disttrainState")

    def choose(self, control, value):
        """Chooses a run or a statistic and waits for it."""
        self.frame.locator(f"select.{control}").select_option(value)
        screenshot.wait_until_ready(self.frame)

    def colors(self):
        """The distinct colours among the heatmap's pixels, as (red, green, blue)."""
        pixels = self.frame.evaluate(
            """() => {
              const canvas = document.querySelector('canvas.cells');
              const {data} = canvas.getContext('2d').getImageData(
                0, 0, canvas.width, canvas.height);
              return [...new Set(new Uint32Array(data.buffer))];
            }"""
        )
        return {(pixel & 255, pixel >> 8 & 255, pixel >> 16 & 255) for pixel in pixels}

    def hover(self, right, down):
        """Moves the pointer to a fraction of the cells' box, and gives the tooltip's text."""
        self.frame.wait_for_function("() => window.disttrainState.exact")
        box = self.frame.locator("canvas.cells").bounding_box()
        self.page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])
        return self.frame.locator(".tooltip").inner_text()


@pytest.fixture
def opened(browser, server):
    tab = Opened(browser, server, "data/plugin_entry.html?name=disttrain")
    yield tab
    tab.page.close()
    assert tab.faults == []


@pytest.fixture
def in_tensorboard(browser, server):
    tab = Opened(browser, server, "?darkMode=true#disttrain")
    yield tab
    tab.page.close()
    assert tab.faults == []


def test_it_opens_on_the_newest_runs_update_ratio(in_tensorboard):
    state = in_tensorboard.state
    assert state["run"] == "plain"
    assert state["statistic"] == "update_ratio"
    assert (state["rows"], state["columns"]) == (11, PLAIN_RECORDS)
    assert (state["layer"], state["error"]) == (None, None)
    labels = in_tensorboard.frame.locator(".row").all()
    titles = [label.get_attribute("title") for label in labels]
    assert "transformer/block_0/attention/query/kernel" in titles
    assert len(in_tensorboard.colors()) > 50
    assert in_tensorboard.frame.locator(".step-line").count() == 2
    assert in_tensorboard.frame.locator(".step-line canvas").count() == 2


def test_a_click_opens_the_layers_lines(in_tensorboard):
    screenshot.open_layer(in_tensorboard.frame, "logits/kernel")
    assert in_tensorboard.state["layer"] == "logits/kernel"
    panel = in_tensorboard.frame.locator("aside.layer")
    assert panel.locator("h2").inner_text() == "logits/kernel"
    assert "1,024,000" in panel.locator(".facts").inner_text()
    shown = panel.locator(".layer-line")
    names = [line.get_attribute("data-statistic") for line in shown.all()]
    assert names[:4] == ["update_ratio", "gradient_norm", "update_norm", "weight_norm"]
    assert {"slot/momentum", "slot/velocity", "update_cosine"} <= set(names)
    assert panel.locator("canvas").count() == len(names)
    panel.get_by_role("button", name="Close the layer").click()
    assert panel.is_hidden()
    assert in_tensorboard.state["layer"] is None


def test_a_click_on_a_cell_opens_its_row(opened):
    text = opened.hover(0.5, 0.5)
    box = opened.frame.locator("canvas.cells").bounding_box()
    opened.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    screenshot.wait_until_ready(opened.frame)
    assert opened.state["layer"]
    assert text.startswith(opened.state["layer"])


def test_the_keyboard_goes_through_rows_and_opens_one(opened):
    opened.frame.locator(".row").first.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        opened.page.keyboard.press(key)
    screenshot.wait_until_ready(opened.frame)
    assert opened.state["layer"] == "position/embeddings"
    opened.frame.locator("aside.layer .close").focus()
    opened.page.keyboard.press("Escape")
    assert opened.state["layer"] is None
    opened.page.keyboard.press("End")
    focused = opened.frame.evaluate("() => document.activeElement.title")
    assert focused == "logits/kernel"


def test_the_tooltip_tells_layer_step_and_exact_value(opened):
    opened.choose("run", "changed")
    opened.choose("statistic", "weight_norm")
    assert opened.hover(4.5 / 6, 0.1).split("\n") == ["a/kernel", "Step", "40", "Weight norm", "40"]
    assert "not recorded" in opened.hover(0.1, 0.5)
    opened.choose("statistic", "gradient_norm")
    assert "∞" in opened.hover(2.5 / 6, 0.1)
    assert "NaN" in opened.hover(3.5 / 6, 0.1)


def test_what_is_not_finite_and_what_is_zero_have_their_own_colours(opened):
    not_finite, zero = (255, 69, 20), (0, 0, 0)
    assert {not_finite, zero} <= opened.colors()
    legend = opened.frame.locator(".swatches")
    assert legend.inner_text().split("\n") == ["Exactly 0", "NaN or infinite"]
    opened.choose("run", "changed")
    opened.choose("statistic", "weight_norm")
    assert not_finite not in opened.colors()
    assert legend.inner_text().split("\n") == ["Exactly 0", "Not recorded"]


@pytest.mark.parametrize("plot", ["canvas.cells", ".step-line .u-over"])
def test_a_drag_zooms_and_a_button_shows_all_steps_again(opened, plot):
    box = opened.frame.locator(plot).first.bounding_box()
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + 0.5 * box["width"] + 1, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    opened.page.mouse.up()
    opened.frame.wait_for_function("() => window.disttrainState.columns < 100")
    screenshot.wait_until_ready(opened.frame)
    state = opened.state
    assert (state["start"], state["layer"]) == (1500, None)
    assert 1780 <= state["end"] <= 1810
    assert state["columns"] == (state["end"] - 1500) / 10 + 1
    assert "from 1,500 to 1," in opened.frame.locator(".overview .summary").inner_text()
    opened.frame.get_by_role("button", name="Show all steps").click()
    screenshot.wait_until_ready(opened.frame)
    assert opened.state["columns"] == PLAIN_RECORDS
    assert opened.frame.get_by_role("button", name="Show all steps").count() == 0


def test_the_filter_leaves_matching_layers(opened):
    box = opened.frame.locator("input.filter")
    box.fill("ATTENTION/")
    assert opened.state["rows"] == 4
    assert opened.frame.locator(".row").count() == 4
    box.fill("nothing like it")
    assert "No layer matches" in opened.frame.locator(".message").inner_text()
    box.fill("")
    assert opened.state["rows"] == 11


def test_hostile_names_are_text(opened):
    opened.choose("run", HOSTILE_RUN)
    titles = [o.get_attribute("title") for o in opened.frame.locator(".row").all()]
    assert titles == list(HOSTILE)
    for path in HOSTILE:
        opened.frame.locator(".row").nth(HOSTILE.index(path)).click()
        screenshot.wait_until_ready(opened.frame)
        assert opened.frame.locator("aside.layer h2").inner_text() == path
        assert path in opened.hover(0.5, (HOSTILE.index(path) + 0.5) / 4)
    for statistic in opened.frame.locator("select.statistic option").all():
        opened.choose("statistic", statistic.get_attribute("value"))
    opened.frame.locator(".notice summary").click()
    assert HOSTILE[0] in opened.frame.locator(".notice").inner_text()
    opened.page.wait_for_timeout(300)  # Time for what must not run to run.
    assert opened.frame.locator("img, script:not([type=module]), iframe").count() == 0


def test_a_damaged_run_says_so_and_shows_the_rest(opened):
    opened.choose("run", "damaged")
    assert opened.state["columns"] == 6
    notice = opened.frame.locator(".notice")
    assert "1 part of this run cannot be read" in notice.inner_text()
    opened.choose("run", "hopeless")
    assert "Nothing in this run can be read" in opened.frame.locator(".message").inner_text()
    opened.choose("run", "plain")
    assert notice.count() == 0
    assert opened.state["rows"] == 11


def test_a_failed_request_says_what_to_do_and_can_be_tried_again(opened):
    opened.page.route("**/heatmap?*", lambda route: route.abort())
    opened.choose("statistic", "weight_norm")
    message = opened.frame.get_by_role("alert")
    assert "Look whether it is still running" in message.inner_text()
    assert opened.state["error"]
    opened.page.unroute("**/heatmap?*")
    message.get_by_role("button", name="Try again").click()
    screenshot.wait_until_ready(opened.frame)
    assert message.count() == 0
    assert opened.state["rows"] == 11
    # The aborted request itself is an error on the console, and nothing else may be.
    assert all("ERR_FAILED" in fault for fault in opened.faults)
    opened.faults.clear()


def test_a_reload_of_tensorboard_shows_new_steps(in_tensorboard, server, logdir):
    part = layers_part([variable("a/kernel")])
    name = f"growing-{server.address.rsplit(':', 1)[1].strip('/')}"
    with RunWriter(logdir / name) as writer:

        def write(steps):
            for step in steps:
                values = np.full((1, len(part.columns)), 0.1)
                # Older than every other run, so that no test finds it first.
                writer.record(metadata.LAYERS, 0, part, step, values, wall_time=1000 + step)
            writer._writer.flush()

        write(range(3))
        server.wait_for(name, 2)
        refresh = in_tensorboard.page.locator("button.reload-button")
        refresh.click()
        in_tensorboard.frame.locator("select.run option", has_text=name).wait_for(state="attached")
        screenshot.wait_until_ready(in_tensorboard.frame)
        in_tensorboard.choose("run", name)
        assert in_tensorboard.state["columns"] == 3
        write(range(3, 7))
        server.wait_for(name, 6)
        refresh.click()
        in_tensorboard.frame.wait_for_function("() => window.disttrainState.columns === 7")
        assert in_tensorboard.state["run"] == name


def test_dark_mode_follows_tensorboard(in_tensorboard):
    background = "() => getComputedStyle(document.body).backgroundColor"
    assert in_tensorboard.frame.evaluate(background) == "rgb(48, 48, 48)"
    in_tensorboard.page.evaluate("() => document.body.classList.remove('dark-mode')")
    in_tensorboard.frame.wait_for_function(
        "() => !document.documentElement.classList.contains('dark')"
    )
    assert in_tensorboard.frame.evaluate(background) == "rgb(255, 255, 255)"


def test_an_empty_log_directory_says_how_to_fill_it(browser, tmp_path):
    with screenshot.tensorboard(tmp_path) as address:
        page = browser.new_page()
        page.set_default_timeout(TIMEOUT * 1000)
        page.goto(f"{address}data/plugin_entry.html?name=disttrain")
        screenshot.wait_until_ready(page.main_frame)
        text = page.locator(".message").inner_text()
        assert "No run with disttrain data yet" in text
        assert "tensorboard --logdir runs" in text
        page.close()
