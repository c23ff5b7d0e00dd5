"""The page's view of replicas in a real browser: lines or heatmaps, the table, empty states."""

import json

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import Server
from tests.plugin.run_writer import (
    RunWriter,
    layers_part,
    replicas_part,
    steps_part,
    variable,
    write_training,
)
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

RECORDS = 60
MANY = 64
SLOW, LOUD, OTHER_DATA, BROKEN = 5, 17, 40, 30


def _write(directory, replicas, local=None, records=RECORDS, noise=np.nan):
    """`local(record)` gives `[replicas, quantities]` of `disttrain/replicas`; `None` for none."""
    layers, whole = layers_part([variable("a")], replicas=replicas), steps_part(replicas)
    own = replicas_part(replicas)
    with RunWriter(directory) as writer:
        for record in range(records):
            step = record + 1
            writer.record(metadata.LAYERS, 0, layers, step, np.ones((1, len(layers.columns))))
            row = np.ones(len(whole.columns))
            row[whole.columns.index("step_seconds")] = 0.05
            row[whole.columns.index("examples_per_second")] = 16 * replicas / 0.05
            row[whole.columns.index("noise_scale")] = noise
            writer.record(metadata.STEPS, 0, whole, step, row)
            if local is not None:
                writer.record(metadata.REPLICAS, 0, own, step, local(record))


def _many(record):
    """64 replicas: one slow, one loud, one with other data from the middle, one broken for a while.

    The first step is a tracing one.
    """
    norm, loss = np.full(MANY, 2.0), np.full(MANY, 1.5)
    seconds, wait = np.full(MANY, 8.0 if record == 0 else 0.05), np.full(MANY, 0.015)
    norm[LOUD], wait[SLOW] = 8, 0.001
    norm += np.arange(MANY) / 1e4
    if record >= RECORDS // 2:
        loss[OTHER_DATA] = 6
    if 10 <= record < 13:
        norm[BROKEN], loss[BROKEN] = np.inf, np.nan
    return np.stack([norm, loss, seconds, wait], axis=1)


def _two(record):
    """Two replicas, the second of which waits; seconds rather than milliseconds."""
    return np.array([[1 + record, 2.5, 3, 0.25], [2, np.nan if record == 7 else 2.25, 3, 1.75]])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("replicas")
    _write(root / "many", MANY, _many, noise=100)
    _write(root / "two", 2, _two)
    _write(root / "single", 1, records=3)
    _write(root / "alone", 1, lambda record: np.ones((1, 4)), records=3)
    _write(root / "unasked", 2, records=3)
    write_training(root / "four", records=150, blocks=1, nan_at=10**6)
    with screenshot.tensorboard(root) as found:
        running = Server(found)
        lasts = {"many": RECORDS, "two": RECORDS, "four": 1490}
        for run, last in {**lasts, "single": 3, "alone": 3, "unasked": 3}.items():
            running.wait_for(run, last)
        yield found


@pytest.fixture
def opened(browser, address, request):
    """The view on the run that the test's parameter names."""
    query = f"name=disttrain&p.disttrain.view=replicas&p.disttrain.run={request.param}"
    tab = Opened(browser, Server(address), f"data/plugin_entry.html?{query}")
    tab.view = tab.frame.locator("#view-replicas")
    yield tab
    tab.page.close()
    assert tab.faults == []


def on(*runs):
    return pytest.mark.parametrize("opened", runs, indirect=True)


def numbers(tab, quantity):
    return tab.view.locator(f'[data-quantity="{quantity}"] .replica-value').all_inner_texts()


def plot(tab, quantity):
    found = tab.view.locator(f'[data-quantity="{quantity}"] .plot')
    found.scroll_into_view_if_needed()
    # The axis' numbers are left of it.
    box = found.bounding_box()
    return {**box, "x": box["x"] + 58, "width": box["width"] - 58}


def point_at(tab, quantity, record, replica=10):
    """Moves the pointer to a record on a chart; on a heatmap also to a replica."""
    box = plot(tab, quantity)
    right, margin = (record + 0.5) / RECORDS, 6
    down = (replica + 0.5) / MANY * (box["height"] - 2 * margin)
    tab.page.mouse.move(box["x"] + right * box["width"], box["y"] + margin + down)


def remarks(tab):
    return {
        row.locator("th").inner_text(): row.locator(".remarks").inner_text()
        for row in tab.view.locator(".replica-table tbody tr").all()
    }


@on("two")
def test_a_few_replicas_are_lines_with_exact_numbers_at_one_cursor(opened):
    names = opened.view.locator(".stack-row .name").all_inner_texts()
    assert names == [
        "Local gradient norm",
        "Local loss",
        "Step time, s",
        "Time in the reduction, s",
    ]
    assert opened.view.locator(".stack-row canvas").count() == 4
    assert numbers(opened, "gradient_norm") == ["60", "2"]
    point_at(opened, "loss", 7)
    assert opened.view.locator(".stack-step").inner_text() == "Step 8"
    assert numbers(opened, "gradient_norm") == ["8", "2"]
    assert numbers(opened, "loss") == ["2.5", "NaN"]
    assert numbers(opened, "wait_seconds") == ["0.25", "1.75"]
    dashes = opened.view.locator(".line-key line").evaluate_all(
        "(lines) => lines.map((line) => line.getAttribute('stroke-dasharray'))"
    )
    assert len(set(dashes)) == 2  # Told apart without colours.


@on("two")
def test_the_table_says_who_keeps_the_others_waiting(opened):
    rows = opened.view.locator(".replica-table tbody tr")
    first = rows.nth(0).locator("td").all_inner_texts()
    assert [text.replace("\xa0", " ") for text in first[:3]] == ["3 s", "250 ms", "8%"]
    assert rows.nth(0).locator(".remarks").inner_text() == (
        "Straggler: the others lose 50% of each step to it"
    )
    assert rows.nth(1).locator(".remarks").inner_text() == "NaN or infinite once"
    assert "16 on each replica. The gradient noise scale was not recorded" in (
        opened.view.locator(".noise").inner_text()
    )


@on("many")
def test_many_replicas_are_heatmaps_with_exact_numbers_in_a_tooltip(opened):
    assert opened.state["rows"] == MANY
    assert opened.view.locator("canvas.replica-cells").count() == 4
    point_at(opened, "gradient_norm", 20, LOUD)
    lines = opened.frame.locator(".tooltip").inner_text().split("\n")
    assert lines == ["Replica 17", "Step", "21", "Local gradient norm", "8.0017"]
    heading = opened.view.locator('[data-quantity="gradient_norm"] .value').inner_text()
    assert "highest 8.002, replica 17" in heading
    assert "lowest 2, replica 0" in heading
    assert "NaN or infinite" in heading
    point_at(opened, "gradient_norm", 11, BROKEN)
    assert opened.frame.locator(".tooltip").inner_text().endswith("∞")
    assert opened.view.locator('[data-quantity="loss"] .cursor').is_visible()


@on("many")
def test_what_stands_out_among_many_comes_first_and_in_words(opened):
    found = remarks(opened)
    assert list(found)[:4] == [str(place) for place in (SLOW, LOUD, BROKEN, OTHER_DATA)]
    assert found[str(SLOW)] == "Straggler: the others lose 28% of each step to it"
    assert "gradient norm more than 3 times off the median in 100%" in found[str(LOUD)]
    assert "loss more than 2 times off the median in 51%" in found[str(OTHER_DATA)]
    assert found[str(BROKEN)] == "NaN or infinite 3 times"
    assert set(list(found.values())[4:]) == {""}
    assert len(found) == 32
    # Without the first step, which took 8 s.
    assert "50\xa0ms" in opened.view.locator('tr[data-replica="0"]').inner_text()
    opened.view.get_by_role("button", name="Show all 64 replicas").click()
    opened.view.locator(".replica-table").get_by_role("button", name="Gradient norm").click()
    assert len(remarks(opened)) == MANY
    assert next(iter(remarks(opened))) == str(LOUD)
    assert "the batch is 10 times as large" in opened.view.locator(".noise").inner_text()


@on("many")
def test_a_drag_on_a_heatmap_zooms(opened):
    box = plot(opened, "loss")
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + 0.5 * box["width"] + 1, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 0.695 * box["width"], middle)
    opened.page.mouse.up()
    opened.frame.wait_for_function("() => window.disttrainState.columns < 20")
    screenshot.wait_until_ready(opened.frame)
    assert (opened.state["start"], opened.state["end"]) == (31, 42)
    opened.view.get_by_role("button", name="Show all steps").click()
    opened.frame.wait_for_function("() => window.disttrainState.columns === 60")


@on("four")
def test_what_the_rules_find_about_replicas_stands_at_the_top(opened):
    finding = opened.view.locator(".replica-finding")
    finding.wait_for()
    text = finding.inner_text()
    assert text.startswith("Warning Replica 3 is the slowest")
    assert "Look at that replica's host" in text
    top = opened.view.locator(".stack").bounding_box()["y"]
    assert finding.bounding_box()["y"] < top
    assert remarks(opened)["3"].startswith("Straggler")


@on("two", "many")
def test_a_chart_of_all_replicas_is_pinned_and_stays_in_other_views(opened, request):
    many = request.node.callspec.params["opened"] == "many"
    opened.view.get_by_role("button", name="Pin Local loss of the replicas").press("Enter")
    chart = opened.frame.locator(".pinned")
    chart.locator("canvas").wait_for()
    assert json.loads(opened.state["pins"][0]) == ["replicas", "loss", []]
    opened.frame.get_by_role("tab", name="Overview").click()
    screenshot.wait_until_ready(opened.frame)
    assert opened.frame.locator("#view-overview").is_visible()
    colors = chart.locator("canvas").evaluate(
        """(one) => {
          const {data} = one.getContext('2d').getImageData(0, 0, one.width, one.height);
          return new Set(new Uint32Array(data.buffer)).size;
        }"""
    )
    assert colors > 5
    box = chart.locator(".plot").bounding_box()
    right = 58 + (7.5 / RECORDS) * (box["width"] - 58)
    opened.page.mouse.move(box["x"] + right, box["y"] + box["height"] / 2)
    if many:
        assert "1.5" in opened.frame.locator(".tooltip").inner_text()
    else:
        assert chart.locator(".pinned-keys .value").all_inner_texts() == ["2.5", "NaN"]
    opened.choose("run", "single")
    assert "Not recorded in this run" in chart.inner_text()


@on("single", "alone")
def test_a_run_of_one_replica_says_how_to_have_more(opened):
    text = opened.frame.locator(".message").inner_text()
    assert text.startswith("This run has one replica")
    assert 'replication="mirrored"' in text
    assert opened.view.is_hidden()


@on("unasked")
def test_a_run_without_the_tag_says_what_to_ask_for(opened):
    text = opened.frame.locator(".message").inner_text()
    assert text.startswith("Nothing was recorded of the single replicas")
    assert "Telemetry(per_replica=True)" in text
    opened.choose("run", "two")
    assert opened.view.locator("h1").inner_text() == "2 replicas"
    assert opened.frame.locator(".message").count() == 0


@on("many")
def test_it_fits_a_narrow_window(opened):
    opened.page.set_viewport_size({"width": 1024, "height": 700})
    scroller = opened.view.locator(".view-scroller")
    opened.frame.wait_for_function(
        "() => document.querySelector('#view-replicas .replica-cells').clientWidth < 800"
    )
    wide, seen = scroller.evaluate("(box) => [box.scrollWidth, box.clientWidth]")
    assert wide == seen
