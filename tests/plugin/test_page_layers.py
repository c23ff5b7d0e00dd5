"""The page's view of layers: their lines, histograms and facts, in a real browser."""

import json
import urllib.parse

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, HOSTILE_RUN, PLAIN_RECORDS
from tests.plugin.run_writer import (
    RunWriter,
    histograms_part,
    layers_part,
    variable,
)
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

# What the browser alone does needs no second reader.
one_reader = pytest.mark.parametrize("server", ["rust"], indirect=True, scope="session")

QUERY = "transformer/block_0/attention/query/kernel"
LOGITS = "logits/kernel"
BROKEN = "transformer/block_0/attention/output/kernel"

#: The most columns of the view's charts.
COLUMNS = 500


class Layers(Opened):
    """The view of layers in a tab that all tests of a reader share; each opens its own state."""

    def __init__(self, browser, server):
        self.server = server
        super().__init__(browser, server, self._address())
        self.root = self.frame.locator("section.layers")

    def open(self, **state):
        """Loads the page at a state, as a link to it does."""
        self.page.unroute_all()
        self.page.set_viewport_size({"width": 1280, "height": 800})
        self.page.goto(self.server.address + self._address(**state))
        screenshot.wait_until_ready(self.frame)
        return self

    def _address(self, run="plain", **state):
        values = {"view": "layers", "run": run, **state}
        query = {
            f"p.disttrain.{name}": json.dumps(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return f"data/plugin_entry.html?name=disttrain&{urllib.parse.urlencode(query)}"

    @property
    def legend(self):
        """The paths that are drawn, in order."""
        return [
            item.get_attribute("title") for item in self.root.locator(".layer-legend .path").all()
        ]

    def chart(self, statistic):
        return self.root.locator(f'.line-chart[data-statistic="{statistic}"]')

    def hover_chart(self, statistic, right=0.5, down=0.5):
        """Moves the pointer into a chart; gives the tooltip's values by path, and its heading."""
        over = self.chart(statistic).locator(".u-over")
        over.scroll_into_view_if_needed()
        box = over.bounding_box()
        self.page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])
        tooltip = self.frame.locator(".tooltip")
        rows = {
            row.locator(".path").get_attribute("title"): row.locator("td").all_inner_texts()
            for row in tooltip.locator("tbody tr").all()
        }
        return rows, tooltip.locator(".tooltip-when").inner_text()

    def drag(self, statistic, left, right):
        over = self.chart(statistic).locator(".u-over")
        box = over.bounding_box()
        middle = box["y"] + box["height"] / 2
        self.page.mouse.move(box["x"] + left * box["width"], middle)
        self.page.mouse.down()
        self.page.mouse.move(box["x"] + right * box["width"], middle)
        self.page.mouse.up()

    def module(self, name, expression):
        """Evaluates an expression of one of the page's modules, `m`."""
        return self.frame.evaluate(
            f"""async () => {{
              const [style] = document.querySelectorAll('link[href$="layers.css"]');
              const m = await import(new URL('./{name}', style.href).href);
              return {expression};
            }}"""
        )


@pytest.fixture(scope="module")
def layers(browser, server):
    tab = Layers(browser, server)
    yield tab
    tab.page.close()


@pytest.fixture
def open_layers(layers):
    """Opens the view at a state; a test must end without faults."""
    yield layers.open
    layers.page.mouse.move(0, 0)
    faults, layers.faults[:] = list(layers.faults), []
    assert faults == []


# Which layers


def test_without_a_choice_the_open_layer_is_shown_or_else_the_first_ones(open_layers):
    tab = open_layers()
    assert tab.legend == ["embedding/embeddings", "position/embeddings", QUERY]
    assert (tab.state["rows"], tab.state["columns"]) == (3, PLAIN_RECORDS)
    statistics = [c.get_attribute("data-statistic") for c in tab.root.locator(".line-chart").all()]
    assert statistics[:4] == ["update_ratio", "gradient_norm", "update_norm", "weight_norm"]
    assert {"slot/momentum", "slot/velocity", "gradient_max", "zero_fraction"} <= set(statistics)
    assert "update_cosine" in statistics
    assert "nonfinite" not in statistics
    assert "No element of a gradient was NaN" in tab.root.inner_text()
    assert open_layers(layer=LOGITS).legend == [LOGITS]


@one_reader
def test_layers_are_found_chosen_and_removed_with_the_keyboard(open_layers):
    tab = open_layers(layers=[LOGITS])
    tab.root.get_by_role("searchbox", name="Find a layer").focus()
    tab.page.keyboard.type("/query|key|value/")
    assert tab.root.get_by_role("checkbox").count() == 3
    for key in ("ArrowDown", "ArrowDown", "Space"):
        tab.page.keyboard.press(key)
    screenshot.wait_until_ready(tab.frame)
    key_path = QUERY.replace("query", "key")
    assert tab.legend == [LOGITS, key_path]
    assert json.loads(tab.frame.evaluate("() => JSON.stringify(disttrainState.layers)")) == [
        LOGITS,
        key_path,
    ]
    assert "layers" in tab.page.url
    colors = tab.root.locator(".layer-legend .layer-swatch")
    before = colors.nth(1).evaluate("one => getComputedStyle(one).color")
    tab.root.get_by_role("button", name=f"Remove {LOGITS}").press("Enter")
    screenshot.wait_until_ready(tab.frame)
    assert tab.legend == [key_path]
    # A layer keeps its colour where others go.
    assert colors.evaluate("one => getComputedStyle(one).color") == before
    tab.root.get_by_role("button", name="Clear").press("Enter")
    screenshot.wait_until_ready(tab.frame)
    assert tab.root.locator(".layer-empty").inner_text().startswith("Choose a layer")
    assert tab.root.locator(".line-chart").is_hidden()


@one_reader
def test_of_more_than_eight_layers_eight_are_drawn_and_a_sentence_says_so(open_layers, server):
    paths = [v["path"] for v in server.json("variables", run="plain")["variables"]]
    tab = open_layers(layers=[*paths[:9], "not/there"])
    assert tab.legend == paths[:8]
    assert "8 of 9 chosen layers are drawn" in tab.root.inner_text()
    swatches = tab.root.locator(".layer-legend .layer-swatch")
    assert swatches.all_inner_texts() == list("12345678")
    assert (
        len({swatch.evaluate("one => getComputedStyle(one).color") for swatch in swatches.all()})
        == 8
    )
    lines = tab.root.locator(".layer-legend line").all()
    assert len({line.get_attribute("stroke-dasharray") for line in lines}) == 8


@one_reader
@pytest.mark.parametrize("dark", [False, True])
def test_every_colour_stands_out_from_the_page(open_layers, dark):
    tab = open_layers()
    found = tab.frame.evaluate(
        """dark => {
          document.documentElement.classList.toggle('dark', dark);
          const style = getComputedStyle(document.documentElement);
          const names = [...Array(8).keys()].map((place) => `--layer-${place + 1}`);
          return ['--page', ...names].map((name) => style.getPropertyValue(name).trim());
        }""",
        dark,
    )

    def luminance(color):
        channels = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722] + 0.05

    page, *colors = map(luminance, found)
    assert all(max(page, color) / min(page, color) >= 3 for color in colors)


# Lines


@one_reader
def test_the_cursor_is_on_all_charts_and_tells_every_layers_exact_value(open_layers):
    tab = open_layers(run="changed", layers=["a/kernel", "b/kernel"])
    values, when = tab.hover_chart("weight_norm", 4.5 / 6)
    assert values == {"a/kernel": ["40"], "b/kernel": ["1"]}
    assert when.startswith("Step 40, 40 s after the first record, ")
    cursors = [
        chart.locator(".u-cursor-x").evaluate("one => new DOMMatrix(one.style.transform).e")
        for chart in tab.root.locator(".line-chart").all()
    ]
    widths = tab.chart("weight_norm").locator(".u-over").bounding_box()["width"]
    assert max(cursors) - min(cursors) < 3
    assert abs(cursors[0] - 4.5 / 6 * widths) < 3
    assert tab.hover_chart("weight_norm", 0.5 / 6)[0]["b/kernel"] == ["not recorded"]
    assert tab.hover_chart("gradient_norm", 2.5 / 6)[0]["a/kernel"] == ["∞"]
    assert tab.hover_chart("gradient_norm", 3.5 / 6)[0]["a/kernel"] == ["NaN"]
    tab.page.mouse.move(5, 5)
    assert tab.frame.locator(".tooltip").is_hidden()


@one_reader
def test_arrow_keys_move_the_cursor_and_are_read_out(open_layers):
    tab = open_layers(run="changed", layers=["a/kernel"])
    tab.chart("weight_norm").locator(".plot").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        tab.page.keyboard.press(key)
    assert "Step 10," in tab.frame.locator(".tooltip").inner_text()
    assert "Step 10," in tab.root.locator(".spoken").inner_text()
    tab.page.keyboard.press("Escape")
    assert tab.frame.locator(".tooltip").is_hidden()
    tab.page.keyboard.press("End")
    tab.page.keyboard.press("+")
    tab.frame.wait_for_function("() => disttrainState.start !== null && disttrainState.ready")
    assert tab.state["columns"] < 6
    tab.page.keyboard.press("0")
    tab.frame.wait_for_function("() => disttrainState.columns === 6")


@one_reader
def test_the_scale_is_logarithmic_or_linear_and_never_hides_what_is_negative(open_layers):
    tab = open_layers(layers=[QUERY], scale="log")
    assert tab.root.locator('.line-chart[data-log="true"]').count() > 5
    lines = "m.logarithmic('log', {{scale: 'log'}}, [{{mean: [0.001, 1, {}]}}])"
    assert tab.module("linechart.js", lines.format(0.1)) is True
    assert tab.module("linechart.js", lines.format(-0.1)) is False
    assert "0 at the lower edge" in tab.chart("update_ratio").inner_text()
    tab.frame.locator("select.scale").select_option("linear")
    assert tab.root.locator('.line-chart[data-log="true"]').count() == 0
    assert tab.state["scale"] == "linear"
    tab.frame.locator("select.scale").select_option("auto")
    assert tab.chart("update_ratio").get_attribute("data-log") == "true"
    assert tab.chart("zero_fraction").get_attribute("data-log") == "false"


@one_reader
def test_what_is_zero_has_marks_below_a_logarithmic_axis(open_layers):
    tab = open_layers(layers=["position/embeddings"])
    assert tab.chart("update_ratio").get_attribute("data-log") == "true"
    # The first tenth of the run is 0, where no line can be.
    top, bottom, *_ = ink(tab, "update_ratio", 0.05)
    assert 0.95 < top < bottom
    top, *_ = ink(tab, "update_ratio", 0.3)
    assert top < 0.9


def smoothed(values, weight):
    """TensorBoard's smoothing, written from its definition: weights that sum to 1."""
    found = []
    for last in range(len(values)):
        known = [(last - at, v) for at, v in enumerate(values[: last + 1]) if np.isfinite(v)]
        ages = np.arange(len(known))[::-1]
        weights = weight**ages
        found.append(float(weights @ [v for _, v in known] / weights.sum()))
    return found


@one_reader
def test_smoothing_is_an_average_without_the_bias_of_its_beginning(open_layers):
    tab = open_layers(run="changed", layers=["a/kernel"], smoothing=7)
    values = [3, 1, float("nan"), 4, 1, 5]
    found = tab.module("smoothing.js", "m.smooth([3, 1, NaN, 4, 1, 5], 0.6)")
    assert np.isnan(found[2])
    known = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(np.take(found, known), np.take(smoothed(values, 0.6), known))
    assert tab.module("smoothing.js", "m.smooth([3, 1], 0)") == [3, 1]
    slider = tab.frame.get_by_label("Smoothing")
    assert slider.input_value() == "0.99"
    slider.fill("0.5")
    assert tab.state["smoothing"] == 0.5
    assert "smoothing=0.5" in tab.page.url
    rows, _ = tab.hover_chart("weight_norm", 4.5 / 6)
    value, average = rows["a/kernel"]
    assert value == "40"
    expected = smoothed([0, 10, 20, 30, 40], 0.5)[-1]
    assert float(average) == pytest.approx(expected, rel=1e-6)


@one_reader
def test_times_are_relative_to_the_runs_first_record_also_when_zoomed(open_layers):
    tab = open_layers(layers=[LOGITS], horizontal="relative", start=1500, end=1800)
    assert tab.state["columns"] == 31
    _, when = tab.hover_chart("update_ratio", 0.5)
    assert when.startswith("Step 1,650, 27:30 min after the first record")
    tab.drag("update_ratio", 0.01, 0.4)
    tab.frame.wait_for_function("() => disttrainState.columns < 20 && disttrainState.ready")
    assert tab.state["start"] == 1500
    assert 1600 <= tab.state["end"] <= 1640
    tab.frame.locator("select.horizontal").select_option("wall")
    assert tab.state["horizontal"] == "wall"
    assert "Nov 2023, time zone" in tab.root.locator(".layer-summary").inner_text()
    assert "1,500 to 1,6" in tab.root.locator(".records").inner_text()


@one_reader
def test_ticks_of_time_are_round(open_layers):
    tab = open_layers(run="changed")
    answer = (
        "{first_step: [0, 1], last_step: [0, 1], records: 2, "
        "first_wall_time: [50, 7250], last_wall_time: [50, 7250]}"
    )
    expression = f"(h => h.labels(h.ticks(400)))(new m.Horizontal('relative', {answer}, 50))"
    labels = tab.module("horizontal.js", expression)
    assert labels == ["0 s", "1:00 h", "2:00 h", "3:00 h"]
    # Values that differ by rounding alone once took ticks without end.
    assert tab.module("format.js", "m.ticks(1, 1 + 3e-16, 6)") == [1]
    back = answer.replace("[50, 7250]", "[50, 20]")
    assert tab.module("horizontal.js", f"new m.Horizontal('relative', {back}, 50).middle") == [0, 0]


def test_a_drag_zooms_and_asks_the_server_for_the_detail(open_layers, server, logdir):
    tab = open_layers(layers=[LOGITS, QUERY])
    with tab.page.expect_response("**/series?*") as answered:
        tab.drag("gradient_norm", 0.5, 0.6)
    assert "start=1500" in answered.value.url
    screenshot.wait_until_ready(tab.frame)
    assert 25 <= tab.state["columns"] <= 35
    tab.root.get_by_role("button", name="Show all steps").click()
    screenshot.wait_until_ready(tab.frame)
    assert tab.state["columns"] == PLAIN_RECORDS


BUCKETED, BUCKET = "bucketed", 4


@pytest.fixture(scope="module")
def bucketed(server, logdir):
    """A run of four records to each column of the charts: their mean m, and m - 3, m - 1, m + 4.

    m is the step of the column's first record for the weight norm, and for the gradient norm 10 to
    the power of -2, between a third and three times itself.
    """
    name = f"{BUCKETED}-{server.address.rsplit(':', 1)[1].strip('/')}"
    part = layers_part([variable("a/kernel")])
    columns = {column: part.columns.index(column) for column in ("weight_norm", "gradient_norm")}
    with RunWriter(logdir / name) as writer:
        for step in range(BUCKET * COLUMNS):
            values = np.zeros((1, len(part.columns)))
            within = step % BUCKET
            values[0, columns["weight_norm"]] = step - within + (-3, 0, -1, 4)[within]
            values[0, columns["gradient_norm"]] = 0.01 * (1 / 3, 1, 1, 3)[within]
            # Older than every other run, so that no test finds it first.
            writer.record(metadata.LAYERS, 0, part, step, values, wall_time=1000 + step)
    server.wait_for(name, BUCKET * COLUMNS - 1)
    return name


def ink(tab, statistic, right):
    """Where a chart's pixels are coloured at a fraction of its width: top, bottom, part, line."""
    return tab.chart(statistic).evaluate(
        """(chart, right) => {
          const canvas = chart.querySelector('canvas');
          const frame = canvas.getBoundingClientRect();
          const over = chart.querySelector('.u-over').getBoundingClientRect();
          const scale = canvas.width / frame.width;
          const x = Math.round((over.left - frame.left + right * over.width) * scale);
          const top = Math.round((over.top - frame.top) * scale);
          const height = Math.round(over.height * scale);
          const {data} = canvas.getContext('2d').getImageData(x, top, 1, height);
          const style = getComputedStyle(document.documentElement);
          const color = style.getPropertyValue('--layer-1').trim();
          const wanted = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
          const colored = [];
          let line = null;
          for (let at = 0; at < height; at += 1) {
            const [red, green, blue, alpha] = data.slice(4 * at, 4 * at + 4);
            const far = [red, green, blue].map((one, index) => Math.abs(one - wanted[index]));
            if (alpha > 20 && Math.max(...far) < 30) colored.push(at);
            if (alpha > 200 && Math.max(...far) < 30) line ??= at;
          }
          return [colored[0], colored.at(-1) + 1, colored.length, line].map((at) => at / height);
        }""",
        right,
    )


@one_reader
def test_a_band_of_a_long_run_reaches_from_the_lowest_to_the_highest_record(open_layers, bucketed):
    tab = open_layers(run=bucketed, layers=["a/kernel"], scale="linear", start=0, end=15)
    assert tab.state["columns"] == 16
    tab = open_layers(run=bucketed, layers=["a/kernel"])
    assert tab.state["columns"] == COLUMNS
    text = tab.root.locator(".records").inner_text()
    assert "2,000 recorded steps" in text
    assert "the mean of up to 4 records, the band from their minimum to their maximum" in text
    values, when = tab.hover_chart("weight_norm", 100.5 / COLUMNS)
    mean, low, high = map(float, values["a/kernel"])
    assert (low, high) == (mean - 3, mean + 4)
    assert mean == pytest.approx(400, abs=8)
    assert when.startswith(f"Steps {mean:.0f} to {mean + 3:.0f}, ")
    tab.page.mouse.move(0, 0)
    # All records lie between 1/3 and 3 times the mean, and the scale reaches 6% farther.
    assert tab.chart("gradient_norm").get_attribute("data-log") == "false"
    tab.frame.locator("select.scale").select_option("log")
    assert tab.chart("gradient_norm").get_attribute("data-log") == "true"
    room = 0.06 / 1.12
    for right in (0.17, 0.43, 0.93):  # Between the lines of the grid.
        top, bottom, filled, line = ink(tab, "gradient_norm", right)
        assert top == pytest.approx(room, abs=0.02)
        assert bottom == pytest.approx(1 - room, abs=0.02)
        assert filled > 0.85
        # The mean of 1/3, 1, 1 and 3 is 4/3, a bit below the middle between 1 and 3.
        mean = np.log(3 / (4 / 3)) / np.log(9)
        assert line == pytest.approx(room + mean * (1 - 2 * room), abs=0.02)


# Histograms


def ridge_values(tab, index=0):
    """What the tooltip tells of a panel's ridge, by name, and its heading."""
    dl = tab.frame.locator(".tooltip dl")
    names, values = dl.locator("dt").all_inner_texts(), dl.locator("dd").all_inner_texts()
    return dict(zip(names, values, strict=True)), tab.frame.locator(".tooltip").inner_text()


def test_ridges_tell_exact_counts_of_every_step(open_layers, server):
    tab = open_layers(layers=[BROKEN, "position/embeddings"])
    panels = tab.root.locator(".ridges")
    assert panels.count() == 2
    assert "30 histograms" in panels.first.get_attribute("aria-label")
    counts = server.json(
        "histograms", run="plain", variable=BROKEN, quantity="gradient", columns=512
    )
    last = counts["mean"][0][-1]
    most = max(range(len(metadata.COUNTS), len(last)), key=lambda at: (last[at], -at))
    panels.first.focus()
    tab.page.keyboard.press("ArrowDown")
    values, text = ridge_values(tab)
    assert "Step 2,900" in text
    magnitude = next(name for name in values if name.startswith("Magnitude"))
    low = 2.0 ** counts["bins"][most]
    assert float(magnitude.split()[1]) == pytest.approx(low, rel=0.01)
    assert values[magnitude].startswith(f"{int(last[most]):,} of 16,384 ")
    assert values["Negative"] == "8,192 of 16,384 (50%)"
    for _ in range(12):
        tab.page.keyboard.press("ArrowUp")
    values, text = ridge_values(tab)
    assert "Step 1,700" in text
    assert values["NaN"].startswith("12 of 16,384 (0.073%)")
    assert values["Zero"].startswith("16,372 of")
    assert "Step 1,700" in tab.root.locator(".spoken").inner_text()
    tab.frame.get_by_label("Quantity").select_option("slot/velocity")
    screenshot.wait_until_ready(tab.frame)
    assert tab.state["quantity"] == "slot/velocity"
    assert "Velocity of" in panels.first.get_attribute("aria-label")


@one_reader
def test_a_ridge_under_the_pointer_is_the_one_that_is_seen(open_layers):
    tab = open_layers(layers=[LOGITS], quantity="weight")
    canvas = tab.root.locator(".ridges canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()

    def point(right, up):
        """The step and the elements of the bin that are told so far above the last base."""
        bottom = box["y"] + box["height"] - 24  # Below are the numbers of the axis.
        tab.page.mouse.move(box["x"] + right * box["width"], bottom - up)
        values, text = ridge_values(tab)
        amount = next(value for name, value in values.items() if name.startswith("Magnitude"))
        step = int(text.split("Step ")[1].split("\n")[0].replace(",", ""))
        return step, int(amount.split(" of ")[0].replace(",", ""))

    # Beside the peaks the ridges' feet are seen, one above the other.
    steps = [point(0.15, up)[0] for up in range(200, 0, -20)]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2900 - 2 * 100
    peak = max(np.linspace(0.15, 0.6, 30), key=lambda right: point(right, 2)[1])
    # The newest ridge hides several behind it, as high as it is.
    assert [point(peak, up)[0] for up in (1, 10, 20, 30)] == [2900] * 4
    assert point(peak, 60)[0] < 2900
    ink = canvas.evaluate(
        """one => new Set(new Uint32Array(
             one.getContext('2d').getImageData(0, 0, one.width, one.height).data.buffer)).size"""
    )
    assert ink > 50


@one_reader
def test_where_there_are_no_histograms_the_page_says_how_to_record_them(open_layers):
    tab = open_layers(run="changed")
    section = tab.root.locator(".ridge-section")
    assert "recorded no histograms" in section.inner_text()
    assert "histograms_every=" in section.locator("pre").inner_text()
    tab = open_layers(start=1510, end=1590)
    assert tab.state["columns"] == 9
    text = tab.root.locator(".ridge-section").inner_text()
    assert "No histogram was recorded from step 1,510 to 1,590" in text


# Pins


@one_reader
def test_a_chart_of_several_layers_is_pinned_with_the_keyboard(open_layers):
    tab = open_layers(layers=[LOGITS, QUERY])
    pin = tab.root.get_by_role("button", name="Pin Gradient norm of the 2 layers")
    pin.focus()
    tab.page.keyboard.press("Enter")
    pinned = tab.frame.locator(".pinned")
    pinned.locator("canvas").wait_for()
    assert json.loads(tab.state["pins"][0]) == ["layers", "gradient_norm", [LOGITS, QUERY]]
    names = pinned.locator(".pinned-keys li")
    assert [name.get_attribute("title") for name in names.all()] == [LOGITS, QUERY]
    assert pinned.locator(".value").all_inner_texts() == ["", "", ""]
    rows, _ = tab.hover_chart("gradient_norm", 0.5)
    assert names.locator(".value").all_inner_texts() == [rows[LOGITS][0], rows[QUERY][0]]
    # Two lines of different colours.
    shades = pinned.locator("canvas").evaluate(
        """(one) => {
          const {data} = one.getContext('2d').getImageData(0, 0, one.width, one.height);
          return [...new Set(new Uint32Array(data.buffer))];
        }"""
    )
    channels = [[shade & 255, shade >> 8 & 255, shade >> 16 & 255] for shade in shades]
    assert any(blue > red + 60 for red, _, blue in channels)
    assert any(red > blue + 60 for red, _, blue in channels)
    tab.choose("run", "changed")
    assert "Not in this run" in pinned.inner_text()
    pinned.get_by_role("button", name="Unpin Gradient norm of 2 layers").press("Enter")
    tab.frame.locator("section.pins").wait_for(state="hidden")
    assert tab.state["pins"] == []


@one_reader
def test_a_chart_of_one_layer_is_pinned_as_from_the_overview(open_layers):
    tab = open_layers(layers=[LOGITS])
    tab.root.get_by_role("button", name=f"Pin Weight norm of {LOGITS}").click()
    tab.frame.locator(".pinned canvas").wait_for()
    assert json.loads(tab.state["pins"][0]) == [LOGITS, "weight_norm"]
    button = tab.chart("weight_norm").locator("button.pin")
    assert button.get_attribute("aria-pressed") == "true"
    button.press("Enter")
    tab.frame.locator("section.pins").wait_for(state="hidden")
    assert button.get_attribute("aria-pressed") == "false"


# Facts, names, failures


@one_reader
def test_facts_name_shape_type_and_slots_and_lead_to_the_overview(open_layers):
    tab = open_layers(layers=[QUERY])
    cells = tab.root.locator(".layer-facts td").all_inner_texts()
    assert [cell.replace("\u00a0", " ").replace("\u00d7", "x") for cell in cells] == [
        "128 x 4 x 32",
        "16,384",
        "float32",
        "yes",
        "momentum float32 64 KiB, velocity float32 64 KiB",
    ]
    tab.root.locator(".layer-facts .link").click()
    screenshot.wait_until_ready(tab.frame)
    assert (tab.state["view"], tab.state["layer"]) == ("overview", QUERY)


@one_reader
def test_hostile_names_are_text(open_layers):
    tab = open_layers(run=HOSTILE_RUN, layers=list(HOSTILE))
    assert tab.legend == list(HOSTILE)
    assert tab.root.locator(".layer-facts .link").all_inner_texts() == list(HOSTILE)
    rows, _ = tab.hover_chart("update_norm")
    assert list(rows) == list(HOSTILE)
    assert tab.root.locator("img").count() == 0


@one_reader
def test_very_long_names_break_no_layout(open_layers, server, logdir):
    name = f"long-{server.address.rsplit(':', 1)[1].strip('/')}"
    paths = [f"{letter * 10_000}/kernel" for letter in "üx<"] + ["/" * 10_000]
    variables = [variable(path) for path in paths]
    part, counted = layers_part(variables), histograms_part(variables)
    with RunWriter(logdir / name) as writer:
        for step in range(2):
            at = {"step": step, "wall_time": 1000 + step}  # Older than every other run.
            writer.record(metadata.LAYERS, 0, part, tensor=np.ones((4, len(part.columns))), **at)
            counts = np.ones((4, len(counted.columns), len(counted.bins)))
            writer.record(metadata.HISTOGRAMS, 0, counted, tensor=counts, **at)
    server.wait_for(name, 1)
    tab = open_layers(run=name)
    # Their paths are too long for one request's address.
    for box in tab.root.get_by_role("checkbox").all():
        box.check()
        screenshot.wait_until_ready(tab.frame)
    assert (tab.state["rows"], tab.state["error"]) == (4, None)
    assert tab.root.locator(".ridges").count() == 4
    for selector in (".layer-scroller", ".layer-picker", ".ridge-panel .heading"):
        wide = tab.root.locator(selector).first.evaluate("one => one.scrollWidth - one.clientWidth")
        assert wide <= 0, selector
    tab.hover_chart("update_norm")
    assert tab.frame.locator(".tooltip").bounding_box()["width"] < 700


@one_reader
def test_histograms_that_cannot_be_read_leave_the_lines(open_layers):
    tab = open_layers()
    tab.page.route(
        "**/histograms?*", lambda route: route.fulfill(status=400, body='{"error": "Too much."}')
    )
    tab.choose("run", "changed")
    tab.choose("run", "plain")
    assert tab.root.locator(".ridge-section").get_by_role("alert").inner_text() == "Too much."
    assert tab.root.locator(".line-chart").count() == 9
    assert all("400" in fault for fault in tab.faults)
    tab.faults.clear()


@one_reader
def test_a_run_without_records_has_no_numbers_to_share(open_layers):
    tab = open_layers(run="hopeless")
    tab.frame.get_by_role("button", name="Share").click()
    assert tab.frame.get_by_role("menuitem").count() == 2


@one_reader
def test_the_view_fits_a_width_of_1024(open_layers):
    tab = open_layers(layers=[LOGITS, QUERY])
    tab.page.set_viewport_size({"width": 1024, "height": 700})
    tab.frame.wait_for_function(
        "() => document.querySelector('.line-chart .uplot').offsetWidth < 400"
    )
    assert tab.frame.evaluate("() => document.documentElement.scrollWidth") <= 1024
    box = tab.root.locator(".layer-scroller")
    assert box.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    for plot in tab.root.locator(".line-chart .uplot").all():
        inside = plot.evaluate("one => one.offsetWidth - one.parentElement.clientWidth")
        assert inside == 0
