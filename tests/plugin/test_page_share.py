"""What a person takes along from the page: links, numbers, pictures; and charts that stay."""

import io
import json
import urllib.parse

import matplotlib.image
import pytest

from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, HOSTILE_RUN
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser


@pytest.fixture
def tab(browser, server):
    opened = Opened(browser, server, "?#disttrain")
    yield opened
    opened.page.close()
    assert opened.faults == []


def menu(tab):
    """Opens the menu and gives its items."""
    tab.frame.get_by_role("button", name="Share").click()
    return tab.frame.get_by_role("menuitem")


def kept(tab, item):
    """The file that an item of the menu gives: `(name, bytes)`."""
    items = menu(tab)
    with tab.page.expect_download() as download:
        items.filter(has_text=item).click()
    file = download.value
    with open(file.path(), "rb") as content:
        return file.suggested_filename, content.read()


def pins(tab):
    """What is pinned, as `[layer, statistic]` each."""
    return [json.loads(pin) for pin in tab.state["pins"]]


def test_a_link_to_what_is_shown_is_copied(tab):
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab.choose("statistic", "weight_norm")
    menu(tab).filter(has_text="Copy link").click()
    tab.frame.get_by_role("status").filter(has_text="Link copied").wait_for()
    copied = tab.page.evaluate("() => navigator.clipboard.readText()")
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(copied).query)
    assert query["p.disttrain.statistic"] == ["weight_norm"]
    assert copied.endswith("#disttrain")


def test_the_numbers_of_the_heatmap_are_those_of_its_route(tab, server):
    tab.choose("run", "changed")
    tab.choose("statistic", "weight_norm")
    name, content = kept(tab, "Heatmap as CSV")
    assert name == "disttrain-changed-heatmap-weight_norm.csv"
    asked = {"run": "changed", "statistic": "weight_norm", "columns": tab.state["columns"]}
    status, _, expected = server.get("export", what="heatmap", format="csv", **asked)
    assert status == 200
    assert sorted(content.splitlines()) == sorted(expected.splitlines())
    name, content = kept(tab, "Heatmap as JSON")
    assert name.endswith(".json")
    assert json.loads(content)["variables"]


def test_the_picture_shows_what_is_seen(tab):
    name, content = kept(tab, "Picture as PNG")
    assert name == "disttrain.png"
    image = matplotlib.image.imread(io.BytesIO(content))
    height, width = image.shape[:2]
    assert width == 2 * 1280
    assert height > 2 * 500
    colors = {
        tuple((pixel * 255).round().astype(int)[:3]) for pixel in image[::7, ::7].reshape(-1, 4)
    }
    # The page, the scale, and what is not finite.
    assert (255, 255, 255) in colors
    assert (255, 69, 20) in colors
    assert len(colors) > 100


def test_the_menu_is_used_by_the_keyboard(tab):
    tab.frame.get_by_role("button", name="Share").focus()
    tab.page.keyboard.press("Enter")
    focused = "() => document.activeElement.textContent"
    assert "Copy link" in tab.frame.evaluate(focused)
    tab.page.keyboard.press("ArrowUp")
    assert "JSON" in tab.frame.evaluate(focused)
    tab.page.keyboard.press("Escape")
    assert tab.frame.evaluate(focused) == "Share"
    assert tab.frame.get_by_role("menu").count() == 0


def test_a_pinned_chart_stays_in_every_view_and_in_the_address(tab):
    screenshot.open_layer(tab.frame, "logits/kernel")
    tab.frame.get_by_role("button", name="Pin Gradient norm of logits/kernel").click()
    chart = tab.frame.locator(".pinned")
    chart.locator("canvas").wait_for()
    assert pins(tab) == [["logits/kernel", "gradient_norm"]]
    assert chart.locator("figcaption").get_attribute("title") == "Gradient norm of logits/kernel"
    tab.frame.get_by_role("tab", name="Optimizer").click()
    screenshot.wait_until_ready(tab.frame)
    assert chart.locator("canvas").count() == 1
    tab.page.reload()
    tab.frame = screenshot.plugin_frame(tab.page)
    screenshot.wait_until_ready(tab.frame)
    chart = tab.frame.locator(".pinned")
    assert chart.locator("canvas").count() == 1
    tab.frame.locator("select.run").select_option("changed")
    screenshot.wait_until_ready(tab.frame)
    assert "Not in this run" in chart.inner_text()
    chart.get_by_role("button").click()
    tab.frame.locator("section.pins").wait_for(state="hidden")
    assert pins(tab) == []


def test_a_line_of_the_whole_run_is_pinned_from_the_optimizer(tab):
    tab.frame.get_by_role("tab", name="Optimizer").click()
    screenshot.wait_until_ready(tab.frame)
    tab.frame.get_by_role("button", name="Pin Loss of the run").click()
    chart = tab.frame.locator(".pinned")
    chart.locator("canvas").wait_for()
    assert pins(tab) == [[None, "loss"]]
    assert chart.locator(".of").inner_text() == "whole run"
    tab.choose("run", "damaged")
    assert "Not recorded in this run" in chart.inner_text()


def test_pins_of_an_address_may_be_written_in_other_ways(browser, server):
    pins = ['[null,  "loss"]', '[null,"loss"]', "[1, 2]", '["layers", "x"', '["moons", "x", []]']
    query = urllib.parse.urlencode({"p.disttrain.pins": json.dumps(pins)})
    tab = Opened(browser, server, f"data/plugin_entry.html?name=disttrain&{query}")
    chart = tab.frame.locator(".pinned")
    chart.locator("canvas").wait_for()
    assert tab.state["pins"] == ['[null,"loss"]']
    button = chart.get_by_role("button", name="Unpin Loss of the run")
    assert button.get_attribute("aria-pressed") == "true"
    button.click()
    tab.frame.locator("section.pins").wait_for(state="hidden")
    assert tab.state["pins"] == []
    tab.page.close()
    assert tab.faults == []


def test_hostile_names_are_pinned_as_text(tab):
    tab.choose("run", HOSTILE_RUN)
    path = HOSTILE[0]
    screenshot.open_layer(tab.frame, path)
    tab.frame.locator("aside.layer button.pin").first.click()
    tab.frame.locator(".pinned canvas").wait_for()
    assert tab.frame.locator(".pinned .of").inner_text() == path
    assert tab.frame.locator("img").count() == 0
