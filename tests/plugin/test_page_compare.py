"""The page's Compare view: which runs, their lines, their heatmaps, and their differences."""

import csv
import io
import json
import urllib.parse

import matplotlib.image
import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, Server
from tests.plugin.run_writer import EPOCH, RunWriter, layers_part, steps_part, variable
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

SPARE = [f"spare-{number}" for number in range(5)]
LONG = "long-" * 40
NONE, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"


def write(
    directory, *, every, last, paths, norm, first=None, zeros=0.1, loss=1.0, age=0, optimizer=None
):
    """A run whose weight norms are `norm`, but for the first record; a second a step."""
    part = layers_part([variable(path) for path in paths])
    part = metadata.Part(part.columns, part.variables, optimizer or part.optimizer, 2)
    names = [quantity.name for quantity in metadata.STEP_QUANTITIES]
    with RunWriter(directory) as writer:
        for step in range(0, last + 1, every):
            values = np.full((len(paths), len(part.columns)), 0.5)
            values[:, part.columns.index("weight_norm")] = norm if step or first is None else first
            values[:, part.columns.index("update_norm")] = step
            values[:, part.columns.index("zero_fraction")] = zeros
            values[:, part.columns.index("nonfinite")] = 0
            time = EPOCH - age + step
            writer.record(metadata.LAYERS, 0, part, step, values, time)
            whole = np.ones(len(names))
            whole[names.index("loss")] = loss / (1 + step)
            whole[names.index("learning_rate")] = 0.1 / (1 + step)
            writer.record(metadata.STEPS, 0, steps_part(), step, whole, time)


@pytest.fixture(scope="module")
def compare_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    shared = ["first/kernel", "last/kernel"]
    sgd = {"class_name": "SGD", "config": {"momentum": 0.5}, "clip": None}
    # Ages decide which is the newest: `fine`, then `coarse`.
    write(
        root / "coarse",
        every=20,
        last=400,
        norm=2,
        first=0,
        age=10,
        paths=[shared[0], "only/a", shared[1]],
    )
    write(
        root / "fine", every=10, last=600, norm=8, zeros=0.3, loss=4, optimizer=sgd,
        paths=[*shared, "only/b"],
    )  # fmt: skip
    write(root / "another", every=10, last=100, norm=1, paths=["x/kernel"], age=9000)
    write(root / HOSTILE[0], every=10, last=50, norm=1, paths=[HOSTILE[2], LONG], age=9100)
    for name in SPARE:
        write(root / name, every=50, last=100, norm=1, paths=shared, age=9200)
    with screenshot.tensorboard(root, "--load_fast=false") as address:
        running = Server(address)
        for run, step in (("coarse", 400), ("fine", 600), ("another", 100), (SPARE[-1], 100)):
            running.wait_for(run, step)
        yield running


@pytest.fixture
def compare(browser, compare_server):
    """Opens the view in a state."""
    opened = []

    def open_(**state):
        state = {"view": "compare", "run": "fine", "statistic": "weight_norm", **state}
        query = {f"p.disttrain.{k}": v if isinstance(v, str) else json.dumps(v)
                 for k, v in state.items()}  # fmt: skip
        query = urllib.parse.urlencode({"name": "disttrain", **query})
        opened.append(Opened(browser, compare_server, f"data/plugin_entry.html?{query}"))
        return opened[-1]

    yield open_
    for tab in opened:
        tab.page.close()
        assert tab.faults == []


def chosen(tab):
    return [
        box.get_attribute("value")
        for box in tab.frame.locator(".run-box input").all()
        if box.is_checked()
    ]


def choose(tab, label, value):
    tab.frame.locator(".controls:visible").get_by_label(label).select_option(value)
    screenshot.wait_until_ready(tab.frame)


def hover(tab, row, step, number=0):
    """The tooltip's lines over a cell of a heatmap, with the axis from `low` to `high`."""
    box = tab.frame.locator(".compared-scroller").nth(number)
    box.scroll_into_view_if_needed()
    point = box.evaluate(
        """(node, [row, share]) => {
          const canvas = node.querySelector('canvas').getBoundingClientRect();
          const height = parseFloat(node.querySelector('.compared-spacer').style.height);
          const rows = window.disttrainState.rows;
          return [canvas.left + 240 + share * (canvas.width - 240),
                  canvas.top + (row + 0.5) * height / rows];
        }""",
        [row, step],
    )
    tab.page.mouse.move(*point)
    return tab.frame.locator(".tooltip").inner_text().split("\n")


def test_the_chosen_run_and_the_newest_other_are_compared_at_first(compare):
    tab = compare(run="another")
    assert sorted(chosen(tab)) == ["another", "fine"]
    assert tab.state["runs"] == []
    tab.frame.get_by_role("checkbox", name="coarse").check()
    screenshot.wait_until_ready(tab.frame)
    assert sorted(tab.state["runs"]) == ["another", "coarse", "fine"]
    assert tab.frame.locator(".compared").count() == 3
    tab.frame.get_by_role("checkbox", name="another").focus()
    tab.page.keyboard.press("Space")
    screenshot.wait_until_ready(tab.frame)
    assert sorted(tab.state["runs"]) == ["coarse", "fine"]
    focused = tab.frame.evaluate("() => document.activeElement.value")
    assert focused == "another"


def test_one_run_alone_asks_for_another(compare):
    tab = compare(runs=["fine"])
    assert "Choose another run" in tab.frame.locator("#view-compare .message").inner_text()
    assert tab.frame.locator(".overlay").count() == 0
    assert tab.frame.get_by_role("checkbox", name="fine").is_disabled()
    tab.frame.get_by_role("checkbox", name="coarse").check()
    screenshot.wait_until_ready(tab.frame)
    assert tab.frame.locator(".overlay").count() == 2


def test_six_runs_are_the_most(compare):
    tab = compare(runs=["fine", "coarse", *SPARE])
    assert chosen(tab) == ["fine", "coarse", *SPARE[:4]]
    note = tab.frame.locator(".run-note").inner_text()
    assert "At most 6 runs at once" in note
    assert "1 more are not shown" in note
    assert tab.frame.get_by_role("checkbox", name=SPARE[4]).is_disabled()
    tab.frame.get_by_role("checkbox", name=SPARE[0]).uncheck()
    screenshot.wait_until_ready(tab.frame)
    assert tab.frame.get_by_role("checkbox", name=SPARE[4]).is_enabled()


def test_lines_are_overlaid_with_exact_values_of_each(compare):
    tab = compare()
    shown = [o.get_attribute("data-quantity") for o in tab.frame.locator(".overlay").all()]
    assert shown == ["loss", "learning_rate"]
    assert "Loss scale (1)" in tab.frame.locator(".overlays-foot").inner_text()
    tab.frame.locator(".overlay .plot").first.focus()
    tab.page.keyboard.press("Home")
    tip = tab.frame.locator(".tooltip").inner_text().split("\n")
    assert [text.strip() for text in tip][:3] == ["Loss", "Step", "0"]
    values = tab.frame.locator(".tooltip dd").all_inner_texts()
    assert values == ["0", "4", "1"]
    tab.page.keyboard.press("End")
    assert NONE in tab.frame.locator(".tooltip").inner_text()  # Only one run has step 600.


def test_lines_can_be_over_the_time_since_the_first_record(compare):
    tab = compare(horizontal="relative", start="200", end="300")
    assert "over the time since each" in tab.frame.locator("#view-compare").inner_text()
    tab.frame.locator(".overlay .plot").first.focus()
    tab.page.keyboard.press("Home")
    # 200 steps of a second each, counted from the run's first record and not from the zoom.
    assert "3:20 min" in tab.frame.locator(".tooltip").inner_text()


def test_heatmaps_match_layers_by_path_and_share_an_axis(compare):
    tab = compare(runs=["coarse", "fine"])
    assert (tab.state["rows"], tab.state["columns"]) == (4, 21)
    words = tab.frame.locator(".matching").inner_text()
    assert words.startswith("4 layers, 2 of them not in all runs: ")
    assert "only/a (only coarse)" in words
    assert "only/b (only fine)" in words
    assert hover(tab, 0, 0.5) == ["first/kernel", "Step", "300", "coarse", "2", "fine", "8"]
    assert hover(tab, 1, 0.5)[-4:] == ["coarse", "2", "fine", "no such layer"]
    # The longer run has steps that the other has not.
    assert hover(tab, 0, 0.9, number=1)[-4:] == ["coarse", NONE, "fine", "8"]


def test_a_logarithmic_difference_is_a_ratio_on_common_columns(compare):
    tab = compare(runs=["coarse", "fine"], difference="coarse")
    assert (tab.state["rows"], tab.state["columns"]) == (2, 21)
    assert tab.frame.locator(".compared").count() == 1
    words = tab.frame.locator(".matching").inner_text()
    assert "Steps 0 to 400, which both have: 21 columns of coarse" in words
    assert "mean of the nearest of fine" in words
    lines = hover(tab, 0, 0.5)
    assert lines == [
        *("first/kernel", "Step", "200", "coarse (baseline)", "2", "fine", "8"),
        *("Ratio", f"{TIMES} 4"),
    ]
    # At step 0 only `coarse` has 0.
    assert hover(tab, 0, 0.01)[-4:] == ["fine", "8", "Ratio", f"{TIMES} ∞"]
    choose(tab, "Heatmaps", "fine")
    assert hover(tab, 0, 0.5)[-1] == "÷ 4"
    # Steps 190 and 200 are nearest to 200; 210 lies between it and 220, and goes to that.
    choose(tab, "Statistic", "update_norm")
    assert hover(tab, 0, 0.5)[3:7] == ["fine (baseline)", "195", "coarse", "200"]
    choose(tab, "Heatmaps", "")
    assert tab.frame.locator(".compared").count() == 2


def test_a_linear_difference_is_what_is_added(compare):
    tab = compare(runs=["coarse", "fine"], difference="coarse", statistic="zero_fraction")
    assert hover(tab, 0, 0.5)[-2:] == ["Difference", "+0.2"]


def test_runs_without_common_layers_say_so(compare):
    tab = compare(runs=["fine", "another"])
    assert "no layer in common" in tab.frame.locator(".matching").inner_text()
    assert tab.frame.locator(".compared").count() == 2
    choose(tab, "Heatmaps", "another")
    assert tab.frame.locator(".compared").count() == 0
    message = tab.frame.locator(".compare-message").inner_text()
    assert "another and fine have no layer in common" in message


def test_a_drag_zooms_all_and_a_button_shows_all_steps_again(compare):
    tab = compare(runs=["coarse", "fine"])
    box = tab.frame.locator(".compared-scroller").first
    box.scroll_into_view_if_needed()
    area = box.bounding_box()
    cells = (area["x"] + 240, area["width"] - 254)
    tab.page.mouse.move(cells[0] + 0.25 * cells[1], area["y"] + 10)
    tab.page.mouse.down()
    tab.page.mouse.move(cells[0] + 0.5 * cells[1], area["y"] + 10)
    tab.page.mouse.up()
    tab.frame.wait_for_function("() => window.disttrainState.start !== null")
    screenshot.wait_until_ready(tab.frame)
    state = tab.state
    assert 130 <= state["start"] <= 160
    assert 300 <= state["end"] <= 320
    assert state["columns"] in (8, 9)
    tab.frame.get_by_role("button", name="Show all steps").first.click()
    tab.frame.wait_for_function("() => window.disttrainState.columns === 21")
    assert tab.state["start"] is None


def test_the_keyboard_reads_cells_and_zooms(compare):
    tab = compare(runs=["coarse", "fine"])
    tab.frame.locator(".compared-scroller").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft"):
        tab.page.keyboard.press(key)
    said = tab.frame.locator("#view-compare [role=status].unseen").inner_text()
    assert said.startswith("only/a. Step: 380; coarse: 2")
    tab.page.keyboard.press("+")
    tab.frame.wait_for_function("() => window.disttrainState.start !== null")
    screenshot.wait_until_ready(tab.frame)
    assert tab.state["start"] > 200


def test_settings_that_differ_are_a_table(compare):
    tab = compare(runs=["coarse", "fine"])
    summary = tab.frame.locator(".settings summary")
    assert "differ" in summary.inner_text()
    summary.click()
    rows = [row.inner_text().split("\t") for row in tab.frame.locator(".settings tr").all()]
    assert ["optimizer", NONE, "SGD"] in rows
    assert ["momentum", "0.9", "0.5"] in rows
    assert not any(row[0] in ("replicas", "layers") for row in rows)


def test_hostile_names_are_text(compare):
    tab = compare(runs=[HOSTILE[0], "another"])
    assert tab.frame.locator(".compared h3").first.inner_text().endswith(HOSTILE[0])
    assert tab.frame.locator("img").count() == 0
    wide = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not tab.frame.evaluate(wide)


def test_lines_of_runs_are_pinned_and_stay_whichever_run_is_shown(compare):
    tab = compare(runs=["coarse", "fine"])
    tab.frame.get_by_role("button", name="Pin Loss of these runs").press("Enter")
    chart = tab.frame.locator(".pinned")
    chart.locator("canvas").wait_for()
    assert json.loads(tab.state["pins"][0]) == ["runs", "loss", ["coarse", "fine"]]
    tab.frame.get_by_role("tab", name="Overview").click()
    screenshot.wait_until_ready(tab.frame)
    tab.choose("run", "another")
    keys = chart.locator(".pinned-keys li")
    assert [key.get_attribute("title") for key in keys.all()] == ["coarse", "fine"]
    plot = chart.locator(".plot")
    plot.focus()
    tab.page.keyboard.press("Home")
    assert keys.locator(".value").all_inner_texts() == ["1", "4"]
    chart.get_by_role("button", name="Unpin Loss of 2 runs").click()
    tab.frame.locator("section.pins").wait_for(state="hidden")


def kept(tab, item):
    """The file that an item of the menu gives: `(name, bytes)`."""
    tab.frame.get_by_role("button", name="Share").click()
    with tab.page.expect_download() as download:
        tab.frame.get_by_role("menuitem", name=item).click()
    with open(download.value.path(), "rb") as content:
        return download.value.suggested_filename, content.read()


def table(content):
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def test_heatmaps_and_lines_of_all_runs_are_kept_in_one_file(compare):
    tab = compare(runs=["coarse", HOSTILE[0], "fine"])
    name, content = kept(tab, "Heatmaps as CSV")
    assert name == "disttrain-compare-heatmap-weight_norm.csv"
    rows = table(content)
    assert len(rows) == 21 * 3 + 6 * 2 + 61 * 3
    cells = {(row["run"], row["variable"], row["first_step"]): row["mean"] for row in rows}
    assert cells["coarse", "only/a", "400"] == "2.0"
    assert cells["fine", "last/kernel", "600"] == "8.0"
    assert cells[HOSTILE[0], HOSTILE[2], "50"] == "1.0"
    name, content = kept(tab, "Heatmaps as JSON")
    assert name.endswith(".json")
    runs = json.loads(content)["runs"]
    assert [run["run"] for run in runs] == ["coarse", HOSTILE[0], "fine"]
    assert runs[2]["mean"][0][-1] == 8
    _, content = kept(tab, "The runs\N{RIGHT SINGLE QUOTATION MARK} lines as CSV")
    loss = {
        (row["run"], row["first_step"]): float(row["mean"])
        for row in table(content)
        if row["quantity"] == "loss"
    }
    assert (loss["coarse", "0"], loss["fine", "0"], loss["fine", "10"]) == (
        1, 4, pytest.approx(4 / 11),
    )  # fmt: skip


def test_differences_are_kept_as_they_are_shown(compare):
    tab = compare(runs=["coarse", "fine"], difference="coarse")
    name, content = kept(tab, "Differences as CSV")
    assert name == "disttrain-compare-differences-weight_norm.csv"
    rows = table(content)
    assert len(rows) == 2 * 21
    assert {(row["baseline"], row["run"]) for row in rows} == {("coarse", "fine")}
    by_step = {row["first_step"]: row for row in rows if row["variable"] == "first/kernel"}
    assert float(by_step["200"]["log10_ratio"]) == pytest.approx(np.log10(4))
    assert (by_step["200"]["baseline_mean"], by_step["200"]["run_mean"]) == ("2", "8")
    assert by_step["0"]["log10_ratio"] == "Infinity"
    _, content = kept(tab, "Differences as JSON")
    assert json.loads(content)[0]["log10_ratio"] == "inf"


def test_the_picture_names_the_runs(compare):
    tab = compare(runs=["coarse", "fine"], start="100", end="300")
    tab.frame.evaluate(
        """() => {
          const {fillText} = CanvasRenderingContext2D.prototype;
          window.written = [];
          CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
            window.written.push(text);
            fillText.call(this, text, ...place);
          };
        }"""
    )
    name, content = kept(tab, "Picture as PNG")
    assert name == "disttrain.png"
    written = tab.frame.evaluate("() => window.written")
    assert written[0] == "coarse, fine: Compare, steps 100 to 300"
    assert {"coarse", "fine", "Loss", "Weight norm"} <= set(written)
    image = matplotlib.image.imread(io.BytesIO(content))
    assert image.shape[1] == 2 * 1280
    # The title, and below it heatmaps with their colours.
    assert (image[: 2 * 34, :, :3].mean(axis=2) < 0.5).any()
    assert len({tuple(pixel) for pixel in image[::9, ::9].reshape(-1, 4)}) > 30
