"""The overview in a real browser: groups, filter, order, events, and what is shown at once."""

import gzip
import json
import urllib.parse

import numpy as np
import pytest

from tensorboard_plugin import answers, metadata
from tests.plugin import screenshot
from tests.plugin.conftest import Server
from tests.plugin.run_writer import RunWriter, layers_part, steps_part, variable
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

LONG = "a" * 5_000 + "/" + "b" * 5_000
OTHERS = ("<img src=x onerror=alert(1)>", LONG)
RECORDS = 40
MANY = 10_000


def block_paths(blocks):
    """Paths of a model whose blocks are told apart by a number, as Keras's functional ones are."""
    found = ["embedding/embeddings"]
    for block in range(blocks):
        at = f"block_{block}"
        found += [f"{at}_attention/{name}/kernel" for name in ("query", "key", "value")]
        found += [f"{at}_norm/gamma", f"{at}_norm/beta"]
    return [*found, "logits/kernel", "logits/bias"]


def write_blocks(directory, paths, records=RECORDS):
    """Update ratios of 10^-row/10 rising to their tenfold, and events at steps 10, 20 and 30.

    The gradient of the second path is not finite at step 10, which is skipped and halves the loss
    scale; it doubles at step 20. The clip acts at steps 30 and 31.
    """
    part, whole = layers_part([variable(path) for path in paths]), steps_part()
    column = {name: index for index, name in enumerate(whole.columns)}
    ratio = part.columns.index("update_ratio")
    with RunWriter(directory) as writer:
        for step in range(records):
            values = np.ones((len(paths), len(part.columns)))
            values[:, ratio] = 10.0 ** (-np.arange(len(paths)) / 10 + step / records)
            if step == 10:
                values[1, ratio] = np.nan
            quantities = np.ones(len(whole.columns))
            quantities[column["skipped"]] = step == 10
            quantities[column["loss_scale"]] = 512 if 10 < step < 20 else 1024
            quantities[column["clip_factor"]] = 0.25 if step in (30, 31) else 1
            writer.record(metadata.LAYERS, 0, part, step, values)
            writer.record(metadata.STEPS, 0, whole, step, quantities)


def write_parted(directory, parts=4, records=700):
    """More records than a sample has, in several parts; all but one are 1, and one is NaN."""
    part = layers_part([variable("a/kernel"), variable("b/kernel")])
    with RunWriter(directory) as writer:
        for step in range(parts * records):
            values = np.ones((2, len(part.columns)))
            if step == records // 2:
                values[1] = np.nan
            writer.record(metadata.LAYERS, step // records, part, step, values)
    return parts * records


@pytest.fixture(scope="module")
def many_server(tmp_path_factory):
    """TensorBoard on runs of three blocks, of hundred, and of ten thousand variables."""
    root = tmp_path_factory.mktemp("overview")
    write_blocks(root / "blocks", block_paths(3))
    write_blocks(root / "deep", block_paths(100))
    write_blocks(root / "others", OTHERS)
    parted = write_parted(root / "parted")
    write_blocks(root / "flat", [f"layer_{number}/kernel" for number in range(MANY)], records=2)
    with screenshot.tensorboard(root, "--load_fast=true") as address:
        running = Server(address)
        for run in ("blocks", "deep", "others"):
            running.wait_for(run, RECORDS - 1)
        running.wait_for("parted", parted - 1)
        running.wait_for("flat", 1)
        yield running


@pytest.fixture
def overview(browser, many_server):
    """Opens a run with some of the state; `overview(run, collapsed=[...])`."""
    tabs = []

    def open_(run, **state):
        state = {"run": run, **state}
        texts = {
            f"p.disttrain.{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in state.items()
        }
        query = urllib.parse.urlencode({"name": "disttrain", **texts})
        tabs.append(Opened(browser, many_server, f"data/plugin_entry.html?{query}"))
        return tabs[-1]

    yield open_
    for tab in tabs:
        tab.page.close()
        assert tab.faults == []


def labels(tab):
    """The texts of the labels, top down."""
    return [text.strip() for text in tab.frame.locator(".row").all_inner_texts()]


def focused(tab):
    """What is focused, in words."""
    return tab.frame.evaluate("() => document.activeElement.getAttribute('aria-label')")


def test_layers_are_grouped_by_block_in_model_order(overview):
    tab = overview("blocks")
    shown = [text.replace("\n", "") for text in labels(tab)]
    assert shown[:8] == [
        "embedding/embeddings",
        "▾block_0",
        "▾attention",
        "query/kernel",
        "key/kernel",
        "value/kernel",
        "norm/gamma",
        "norm/beta",
    ]
    assert shown[-2:] == ["logits/kernel", "logits/bias"]
    assert tab.state["rows"] == 18
    levels = [row.get_attribute("aria-level") for row in tab.frame.locator(".row").all()]
    assert levels[:5] == ["1", "1", "2", "3", "3"]


def test_a_group_collapses_into_the_address_and_opens_from_it(overview):
    tab = overview("blocks")
    before = len(labels(tab))
    tab.frame.get_by_title("block_1, 5 layers", exact=True).click()
    assert len(labels(tab)) == before - 6
    assert tab.state["collapsed"] == ["-block_1_"]
    again = overview("blocks", collapsed=tab.state["collapsed"])
    assert len(labels(again)) == before - 6
    group = again.frame.get_by_title("block_1, 5 layers", exact=True)
    assert group.get_attribute("aria-expanded") == "false"
    again.frame.get_by_role("button", name="Collapse all").click()
    assert len(labels(again)) == 6
    again.frame.get_by_role("button", name="Expand all groups").click()
    assert len(labels(again)) == before


def test_arrows_go_through_the_tree(overview):
    tab = overview("blocks")
    tab.frame.locator(".row").first.focus()
    press = tab.page.keyboard.press
    press("ArrowDown")
    assert focused(tab) == "block_0, 5 layers"
    press("ArrowRight")
    assert focused(tab) == "block_0_attention, 3 layers"
    press("ArrowRight")
    assert focused(tab) == "block_0_attention/query/kernel"
    press("ArrowLeft")
    press("ArrowLeft")
    assert tab.state["collapsed"] == ["-block_0_attention/"]
    assert focused(tab) == "block_0_attention, 3 layers"
    press("ArrowLeft")
    press("ArrowLeft")
    assert focused(tab) == "block_0, 5 layers"
    assert len(tab.state["collapsed"]) == 2
    press("ArrowRight")
    assert tab.state["collapsed"] == ["-block_0_attention/", "+block_0_"]
    press("Enter")
    assert tab.state["collapsed"][-1] == "-block_0_"


def test_a_collapsed_group_shows_the_mean_of_logarithms_and_what_is_not_finite(overview):
    tab = overview("blocks", collapsed=["-"])
    text = tab.hover(1 / RECORDS / 2, 1.5 / 6)  # The first step of block_0, rows 1 to 5.
    assert text.split("\n")[:2] == ["block_0 (5 layers)", "Step"]
    assert "geometric mean\n0.5011872" in text  # 10^-0.3
    assert "Highest\n0.7943282\nattention/query/kernel" in text
    assert "Lowest\n0.3162278\nnorm/beta" in text
    not_finite = (255, 69, 20)
    assert not_finite in tab.colors()
    assert "Not finite\n1 of 5 layers" in tab.hover(10.5 / RECORDS, 1.5 / 6)


def test_a_large_model_begins_collapsed_and_fits(overview):
    tab = overview("deep", filter="/block_[0-9]_/")
    assert tab.state["rows"] == 50
    # 50 layers and 20 groups are more than 60 rows, so the groups begin collapsed.
    assert labels(tab) == [f"▸\nblock_{block}" for block in range(10)]
    state = tab.frame.evaluate(
        "() => (({scrollHeight, clientHeight}) => ({scrollHeight, clientHeight}))"
        "(document.querySelector('.heat-scroller'))"
    )
    assert state["scrollHeight"] == state["clientHeight"]


def test_a_layer_of_the_address_is_seen_in_its_group(overview):
    tab = overview("deep", layer="block_77_norm/gamma")
    assert tab.frame.locator(".row.selected").get_attribute("title") == "block_77_norm/gamma"
    assert tab.frame.locator(".row.selected").is_visible()
    assert tab.frame.locator("aside.layer h2").inner_text() == "block_77_norm/gamma"


def test_the_filter_takes_expressions_and_says_what_is_wrong_with_one(overview):
    tab = overview("blocks")
    box, problem = tab.frame.locator("input.filter"), tab.frame.locator(".field-problem")
    box.fill("/BLOCK_[01].*kernel/")
    assert tab.state["rows"] == 6
    assert problem.is_hidden()
    box.fill("/block_[01/")
    assert "Not a regular expression: Unterminated character class" in problem.inner_text()
    assert box.get_attribute("aria-invalid") == "true"
    assert tab.state["rows"] == 6  # As before.
    box.fill("/gamma$/")
    assert (tab.state["rows"], tab.state["filter"]) == (3, "/gamma$/")
    assert problem.is_hidden()


def test_an_order_shows_layers_without_groups(overview):
    tab = overview("blocks", sort="lowest")
    titles = [row.get_attribute("title") for row in tab.frame.locator(".row").all()]
    assert titles[:2] == ["logits/bias", "logits/kernel"]
    assert tab.frame.locator(".row.group").count() == 0
    tab.frame.locator("select.order").select_option("highest")
    first = tab.frame.locator(".row").first
    assert first.get_attribute("title") == "embedding/embeddings"
    assert tab.state["sort"] == "highest"


def test_events_stand_above_the_heatmap(overview):
    tab = overview("blocks")
    lanes = tab.frame.locator(".lane")
    names = [lane.get_attribute("data-lane") for lane in lanes.all()]
    assert names == ["skipped", "clipped", "loss-scale"]
    cells = tab.frame.locator("canvas.cells").bounding_box()

    def hover(lane, step):
        track = tab.frame.locator(f'[data-lane="{lane}"] canvas').bounding_box()
        assert (track["x"], track["width"]) == pytest.approx((cells["x"], cells["width"]))
        tab.page.mouse.move(track["x"] + (step + 0.5) / RECORDS * track["width"], track["y"] + 9)
        return tab.frame.locator(".tooltip").inner_text().split("\n")

    assert hover("skipped", 10) == ["Step 10", "1 step skipped"]
    assert hover("clipped", 31) == ["Step 31", "Clip factor 0.25"]
    assert hover("loss-scale", 11) == ["Step 11", "Loss scale from 1,024 to 512"]
    assert hover("loss-scale", 20) == ["Step 20", "Loss scale from 512 to 1,024"]
    hover("skipped", 25)
    assert tab.frame.locator(".tooltip").is_hidden()
    tab.frame.locator('[data-lane="loss-scale"] .track').focus()
    tab.page.keyboard.press("End")
    assert "Step 20" in tab.frame.locator(".tooltip").inner_text()


def test_a_column_of_several_records_tells_what_its_ends_say(overview):
    tab = overview("blocks")
    # Loss scales of four columns, the second and third with a change inside, and skips.
    found = tab.frame.evaluate(
        """async () => {
          const {findEvents} = await import('/data/plugin/disttrain/static/stepevents.js');
          const array = (...values) => ({values: Float32Array.from(values)});
          return findEvents({
            first_step: [0, 10, 20, 30], records: 40,
            quantities: [{name: 'loss_scale'}, {name: 'skipped'}, {name: 'clip_factor'}],
            minimum: array(8, 4, 4, 8, 0, 0, 0, 0, 1, 0.5, 1, 1),
            mean: array(8, 6, 6, 8, 0, 0.3, 0, 0, 1, 0.75, 1, 1),
            maximum: array(8, 8, 8, 8, 0, 1, 0, 0, 1, 1, 1, 1),
          }).map(({name, summary, events}) =>
            [name, summary, events.map(({column, kind, text}) => [column, kind, text])]);
        }"""
    )
    assert found == [
        ["skipped", "3", [[1, "skip", "3 steps skipped"]]],
        ["clipped", "", [[1, "clip", "Clip factor 0.75, lowest 0.5"]]],
        [
            "loss-scale",
            "2",
            [
                [1, "down", "Loss scale from 8 within 4 and 8"],
                [2, "up", "Loss scale from 4 within 4 and 8"],
            ],
        ],
    ]


def test_without_events_there_is_no_strip(overview):
    tab = overview("blocks", start="32", end="39")
    assert tab.frame.locator(".strip").is_hidden()
    assert tab.frame.locator(".step-line").count() == 2


def test_a_zoom_shows_at_once_what_is_there(overview):
    tab = overview("blocks")
    held = []
    tab.page.route("**/heatmap?*", lambda route: held.append(route))
    box = tab.frame.locator("canvas.cells").bounding_box()
    middle = box["y"] + box["height"] / 2
    tab.page.mouse.move(box["x"] + 0.5 * box["width"] + 1, middle)
    tab.page.mouse.down()
    tab.page.mouse.move(box["x"] + 0.75 * box["width"] - 1, middle)
    tab.page.mouse.up()
    tab.frame.wait_for_function("() => window.disttrainState.columns === 10")
    assert not tab.state["ready"]
    assert "from 20 to 29" in tab.frame.locator(".overview .summary").inner_text()
    held.pop().continue_()
    screenshot.wait_until_ready(tab.frame)
    assert tab.state["columns"] == 10
    tab.page.unroute("**/heatmap?*")


def test_the_cells_wait_for_nothing_but_themselves(overview):
    tab = overview("blocks")
    held = []
    tab.page.route("**/steps?*", lambda route: held.append(route))
    tab.frame.locator("select.statistic").select_option("weight_norm")
    tab.frame.wait_for_function(
        "() => document.querySelector('.caption h1').textContent === 'Weight norm'"
    )
    assert not tab.state["ready"]
    held.pop().continue_()
    screenshot.wait_until_ready(tab.frame)
    tab.page.unroute("**/steps?*")


def test_a_sample_is_shown_at_once_and_says_that_it_is_one(overview):
    tab = overview("blocks")
    held = []

    def hold(route):
        if "sample=allowed" in route.request.url:
            route.continue_()
        else:
            held.append(route)

    tab.page.route("**/heatmap?*", hold)
    tab.frame.locator("select.run").select_option("parted")
    note = tab.frame.locator(".overview .refining")
    note.get_by_text("Refining: a random sample of ").wait_for()
    tab.frame.wait_for_function("() => window.disttrainState.sampled")
    assert not tab.state["ready"]
    assert "recorded steps" not in tab.frame.locator(".overview .summary").inner_text()
    while not held:
        tab.page.wait_for_timeout(20)
    held.pop().continue_()
    tab.page.unroute("**/heatmap?*")
    screenshot.wait_until_ready(tab.frame)
    assert not tab.state["sampled"]
    assert note.inner_text() == ""
    assert "2,800 recorded steps" in tab.frame.locator(".overview .summary").inner_text()
    assert (255, 69, 20) in tab.colors()


def test_a_sample_without_the_rest_is_an_error(overview):
    tab = overview("blocks")
    tab.page.route(
        "**/heatmap?*",
        lambda route: (
            route.fulfill(
                status=200,
                body=sampled_answer(),
                headers={"Content-Type": "application/octet-stream"},
            )
            if "sample=allowed" in route.request.url
            else route.fulfill(status=400, body=json.dumps({"error": "nothing to be read"}))
        ),
    )
    tab.frame.locator("select.statistic").select_option("weight_norm")
    tab.frame.get_by_text("nothing to be read").wait_for()
    assert tab.frame.locator("canvas.cells").is_hidden()
    tab.page.unroute("**/heatmap?*")
    tab.faults.clear()  # The browser tells of the status.


def sampled_answer():
    """Binary of an answer of `heatmap` with a sample of one record."""
    header = {
        "run": "blocks",
        "statistic": {
            "name": "weight_norm",
            "label": "Weight norm",
            "scale": "log",
            "target": None,
        },
        "variables": ["a"],
        "sampled": True,
        "records": 1,
        **{key: [3] for key in ("first_step", "last_step")},
        **{key: [3.0] for key in ("first_wall_time", "last_wall_time")},
        "problems": [],
    }
    arrays = {name: np.ones((1, 1), np.float32) for name in ("mean", "nonfinite")}
    return gzip.decompress(answers.to_binary(header, arrays, None))


def test_the_exact_numbers_come_behind_what_is_painted(overview):
    tab = overview("blocks")
    held = []

    def hold(route):
        if "array=minimum" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    tab.page.route("**/heatmap?*", hold)
    tab.choose("statistic", "weight_norm")
    assert tab.state["ready"]
    assert not tab.state["exact"]
    while not held:
        tab.page.wait_for_timeout(20)
    held.pop().continue_()
    tab.page.unroute("**/heatmap?*")
    tab.frame.wait_for_function("() => window.disttrainState.exact")
    assert tab.hover(0.5, 0.5)


def test_of_ten_thousand_layers_only_those_in_sight_are_elements(overview):
    tab = overview("flat")
    assert tab.state["rows"] == MANY
    assert tab.frame.locator(".row").count() < 45
    tab.frame.locator(".row").first.focus()
    tab.page.keyboard.press("End")
    assert focused(tab) == f"layer_{MANY - 1}/kernel"
    assert tab.frame.locator(".row").count() < 45
    tab.page.keyboard.press("Home")
    assert focused(tab) == "layer_0/kernel"
    # The focused row stays one while it is out of sight.
    tab.frame.evaluate("() => { document.querySelector('.heat-scroller').scrollTop = 80000; }")
    tab.frame.get_by_title("layer_5000/kernel", exact=True).wait_for()
    assert focused(tab) == "layer_0/kernel"
    tab.page.keyboard.press("ArrowDown")
    assert focused(tab) == "layer_1/kernel"


def test_names_of_any_length_break_nothing(overview):
    tab = overview("others")
    assert tab.frame.locator(".row").first.inner_text() == OTHERS[0]
    text = tab.hover(0.5, 0.75)
    assert "…" in text
    assert len(text) < 400
    box = tab.frame.locator(".row").last.bounding_box()
    assert box["width"] <= 240
    assert tab.frame.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
