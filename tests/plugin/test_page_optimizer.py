"""The page's optimizer view in a real browser: configuration, charts with events, memory."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, Server
from tests.plugin.run_writer import RunWriter, layers_part, steps_part, variable
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

SCHEDULE = {
    "module": "keras.optimizers.schedules",
    "class_name": "CosineDecay",
    "config": {"initial_learning_rate": 1e-5, "decay_steps": 106, "warmup_target": 0.001},
    "registered_name": None,
}
ADAM = {
    "class_name": "Adam",
    "config": {
        "name": "adam",
        "learning_rate": SCHEDULE,
        "weight_decay": None,
        "beta_1": 0.9,
        "amsgrad": False,
    },
    "clip": "ClipByGlobalNorm(limit=1.0)",
    "loss_scale": "DynamicLossScale(32768)",
    "reduction": "mean",
    "compression": None,
    "accumulate_steps": 4,
}
PLAIN = {"class_name": "SGD", "config": {"learning_rate": 0.1}, "clip": None, "loss_scale": None}
LONG = "x" * 10_000

#: Of `troubled`: the steps that were skipped, each of which halves the loss scale of the next.
SKIPPED = (20, 21, 60)
STEPS = 100


def _write(directory, parts, variables, slots, values, layers_only=False):
    """`parts` is `[(optimizer, steps)]`, `values(step)` gives quantities by name."""
    with RunWriter(directory) as writer:
        for number, (optimizer, steps) in enumerate(parts):
            layers = dataclasses.replace(layers_part(variables, slots), optimizer=optimizer)
            whole = dataclasses.replace(steps_part(), optimizer=optimizer)
            for step in steps:
                shape = len(variables), len(layers.columns)
                writer.record(metadata.LAYERS, number, layers, step, np.ones(shape))
                row = np.ones(len(whole.columns))
                row[whole.columns.index("skipped")] = 0
                for name, value in values(step).items():
                    row[whole.columns.index(name)] = value
                if not layers_only:
                    writer.record(metadata.STEPS, number, whole, step, row)


def _troubled(step):
    return {
        "loss": 3 - 0.02 * step,
        "learning_rate": 0.001 * step,
        "gradient_norm": np.inf if step in SKIPPED else 2 + step % 3,
        "clip_factor": 0.25 if step % 4 == 0 else 1,
        "loss_scale": 2.0 ** (15 - sum(step > at for at in SKIPPED) + (step > 80)),
        "skipped": float(step in SKIPPED),
        "examples_per_second": 300 + step,
    }


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    root = tmp_path_factory.mktemp("optimizers")
    slots = ("momentum", "velocity")
    paths = [f"block_{block}/{name}/kernel" for block in range(3) for name in "abcdef"]
    blocks = [variable(path, (64, 64), slots) for path in paths]
    blocks[0] = variable(paths[0], (640, 64), slots)
    _write(root / "troubled", [(ADAM, range(1, STEPS + 1))], blocks, slots, _troubled)
    quiet = {"loss": np.nan}
    one = [variable("a/kernel", slots=())]
    _write(root / "quiet", [(PLAIN, range(1, 9))], one, (), lambda step: quiet if step == 3 else {})
    _write(root / "stepless", [(PLAIN, range(1, 4))], one, (), lambda step: {}, layers_only=True)
    named = [variable(path, slots=[HOSTILE[0], LONG]) for path in (*HOSTILE, LONG, "z/" * 3000)]
    hostile = {"class_name": LONG, "config": {LONG: HOSTILE[0], HOSTILE[0]: LONG}, "clip": LONG}
    parts = [(hostile, range(1, 30)), (PLAIN | {"class_name": HOSTILE[0]}, range(30, 60))]
    _write(root / "hostile", parts, named, (HOSTILE[0], LONG), lambda step: {"loss": step})
    with screenshot.tensorboard(root) as found:
        running = Server(found)
        lasts = {"troubled": STEPS, "quiet": 8, "stepless": 3, "hostile": 59}
        for run, last in lasts.items():
            running.wait_for(run, last)
        yield found


@pytest.fixture
def opened(browser, address, request):
    """The view on the run that the test's parameter names, or on `troubled`."""
    run = getattr(request, "param", "troubled")
    query = f"name=disttrain&p.disttrain.view=optimizer&p.disttrain.run={run}"
    tab = Opened(browser, Server(address), f"data/plugin_entry.html?{query}")
    tab.view = tab.frame.locator("#view-optimizer")
    yield tab
    tab.page.close()
    assert tab.faults == []


def on(run):
    return pytest.mark.parametrize("opened", [run], indirect=True)


def charts(tab):
    return [row.get_attribute("data-quantity") for row in tab.view.locator(".stack-row").all()]


def value(tab, quantity):
    return tab.view.locator(f'[data-quantity="{quantity}"] .value').inner_text()


def point_at(tab, quantity, step, last=STEPS):
    """Moves the pointer to a step on a quantity's chart."""
    plot = tab.view.locator(f'[data-quantity="{quantity}"] .u-over')
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    tab.page.mouse.move(
        box["x"] + box["width"] * (step - 0.5) / last, box["y"] + 0.5 * box["height"]
    )


def has_color(tab, quantity, color):
    """Whether a chart's canvas has a pixel of a colour `(red, green, blue)`."""
    return tab.frame.evaluate(
        """([quantity, color]) => {
          const canvas = document.querySelector(`[data-quantity="${quantity}"] canvas`);
          const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] === 255 && color.every((c, i) => data[at + i] === c)) return true;
          }
          return false;
        }""",
        [quantity, color],
    )


#: The colour of marks, `--accent` of the light theme.
ACCENT = (0xD9, 0x59, 0x0C)


def test_the_configuration_is_a_table_with_the_schedule_and_what_stands_around(opened):
    rows = {}
    for row in opened.view.locator("table.configuration tr").all():
        rows[row.locator("th").inner_text()] = row.locator("td").inner_text()
    assert rows == {
        "Class": "Adam",
        "learning_rate": "CosineDecay",
        "initial_learning_rate": "1e-5",
        "decay_steps": "106",
        "warmup_target": "0.001",
        "beta_1": "0.9",
        "amsgrad": "no",
        "Clip": "ClipByGlobalNorm(limit=1.0)",
        "Loss scale": "DynamicLossScale(32768)",
        "Reduction": "mean",
        "Compression": "none",
        "Accumulated steps": "4",
    }
    assert "Not set: weight_decay." in opened.view.locator(".configurations").inner_text()


def test_what_the_optimizer_did_is_drawn_with_its_events(opened):
    assert charts(opened) == [
        *("loss", "learning_rate", "gradient_norm", "clip_factor", "loss_scale"),
        "examples_per_second",
    ]
    events = opened.view.locator(".event-counts li").all_inner_texts()
    assert [text.strip("▼▲✕ \n") for text in events] == [
        "loss scale lowered 3 times",
        "loss scale raised once",
        "3 steps skipped",
    ]
    assert has_color(opened, "loss_scale", ACCENT)
    assert has_color(opened, "loss", ACCENT)
    assert "The clip acted in 25.0% of all records." in opened.view.inner_text()


@on("quiet")
def test_what_the_run_has_not_is_said_in_a_line(opened):
    assert charts(opened) == ["loss", "gradient_norm", "examples_per_second"]
    said = opened.view.locator(".constant-settings").inner_text()
    assert said == "Learning rate 1 throughout. Nothing is clipped. No loss scale acts."
    assert opened.view.locator(".event-counts").is_hidden()
    assert not has_color(opened, "loss", ACCENT)
    point_at(opened, "loss", 3, last=8)
    assert value(opened, "loss") == "NaN"


def test_one_cursor_tells_the_exact_numbers_of_all_charts(opened):
    point_at(opened, "learning_rate", 21)
    assert opened.view.locator(".stack-step").inner_text() == "Step 21"
    assert value(opened, "learning_rate") == "0.021"
    assert value(opened, "loss") == "2.58"
    assert value(opened, "gradient_norm") == "∞"
    assert value(opened, "loss_scale") == "16,384"


def test_the_keyboard_moves_the_cursor_and_zooms(opened):
    opened.view.locator(".stack-handle").focus()
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft"):
        opened.page.keyboard.press(key)
    handle = opened.view.locator(".stack-handle")
    assert handle.get_attribute("aria-valuenow") == "2"
    assert handle.get_attribute("aria-valuetext").startswith("Step 2: Loss 2.96;")
    opened.page.keyboard.press("+")
    opened.frame.wait_for_function("() => window.disttrainState.columns <= 52")
    screenshot.wait_until_ready(opened.frame)
    assert opened.state["start"] == 1
    opened.page.keyboard.press("0")
    opened.frame.wait_for_function("() => window.disttrainState.columns === 100")


def test_a_drag_zooms_all_charts_and_a_button_shows_all_again(opened):
    box = opened.view.locator(".u-over").nth(1).bounding_box()
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + 0.5 * box["width"] + 1, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    opened.page.mouse.up()
    opened.frame.wait_for_function("() => window.disttrainState.columns < 20")
    screenshot.wait_until_ready(opened.frame)
    assert (opened.state["start"], opened.state["end"]) == (51, 60)
    assert "10 recorded steps from 51 to 60" in opened.view.locator(".summary").inner_text()
    # What is drawn is chosen by the whole run, so that nothing jumps.
    assert len(charts(opened)) == 6
    opened.view.get_by_role("button", name="Show all steps").click()
    opened.frame.wait_for_function("() => window.disttrainState.columns === 100")


def test_memory_is_told_by_slot_and_by_block(opened):
    memory = opened.view.locator(".optimizer-memory")
    sentence = memory.locator(".memory-sentence").inner_text().replace("\xa0", " ")
    assert sentence.startswith("Adam keeps 2.0 times the weights: 432 KiB of weights and 864 KiB")
    parts = memory.locator(".memory-part").all_inner_texts()
    assert [part.split("\n")[0] for part in parts] == ["Weights", "momentum", "velocity"]
    assert "432\xa0KiB · 33.3%" in parts[1]
    names = memory.locator("tbody th")
    shown = [name.strip("▸▾ \n") for name in names.all_inner_texts()]
    assert shown == ["All", "block_0", "block_1", "block_2"]
    memory.get_by_role("button", name="block_0").click()
    assert names.count() == 10
    assert "a/kernel" in names.nth(2).inner_text()
    cells = memory.locator("tbody tr").nth(2).locator("td").all_inner_texts()
    shown = [cell.replace("\xa0", " ") for cell in cells]
    assert shown[:5] == ["40,960", "160 KiB", "160 KiB", "160 KiB", "480 KiB"]
    assert "37.0%" in shown[5]
    total = memory.get_by_role("button", name="Total")
    total.click()
    total.click()
    assert "block_1" in names.nth(1).inner_text()
    header = memory.locator("thead th").nth(5)
    assert header.get_attribute("aria-sort") == "ascending"


@on("hostile")
def test_hostile_names_are_text_and_break_no_layout(opened):
    opened.page.set_viewport_size({"width": 1024, "height": 800})
    summaries = opened.view.locator("summary").all_inner_texts()
    assert summaries[0] == f"{HOSTILE[0]} from step 30 to 59"
    assert summaries[1].endswith("… from step 1 to 29")
    titles = [one.get_attribute("title") for one in opened.view.locator(".leaf").all()]
    assert set(HOSTILE) < set(titles)
    assert opened.view.locator("img").count() == 0
    scroller = opened.view.locator(".view-scroller")
    wide, seen = scroller.evaluate("(box) => [box.scrollWidth, box.clientWidth]")
    assert wide == seen
    assert opened.view.locator(".event-counts").inner_text().endswith("optimizer switched once")


@on("stepless")
def test_a_run_without_steps_still_tells_configuration_and_memory(opened):
    assert charts(opened) == []
    text = opened.view.inner_text()
    assert "nothing to draw" in text
    assert "SGD keeps nothing beside the weights: 64\xa0B in all" in text
    assert opened.view.locator("table.configuration").is_visible()


def test_the_link_leads_here_and_other_views_come_back(opened):
    opened.frame.locator("#tab-overview").click()
    screenshot.wait_until_ready(opened.frame)
    assert opened.view.is_hidden()
    opened.frame.locator("#tab-optimizer").click()
    screenshot.wait_until_ready(opened.frame)
    assert len(charts(opened)) == 6
    assert "p.disttrain.view=optimizer" in opened.page.url
