"""A link shows what the page showed: its state in the address of TensorBoard's window."""

import json
import urllib.parse

import pytest

from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE_RUN
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser


def address(**parameters):
    """The page's address in TensorBoard, with these parts of its state."""
    query = urllib.parse.urlencode({f"p.disttrain.{k}": v for k, v in parameters.items()})
    return f"?{query}#disttrain"


def parameters(page):
    """The parts of the state in the address of the window."""
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(page.url).query, keep_blank_values=True)
    return {k.removeprefix("p.disttrain."): v for k, (v,) in query.items() if k.startswith("p.")}


@pytest.fixture
def open_at(browser, server):
    """Opens the page at a state; a test must end without faults."""
    tabs = []

    def open_(**parameters):
        tabs.append(Opened(browser, server, address(**parameters)))
        return tabs[-1]

    yield open_
    for tab in tabs:
        tab.page.close()
        assert tab.faults == []


def test_a_link_opens_run_statistic_layer_and_steps(open_at):
    tab = open_at(run="plain", statistic="weight_norm", layer="logits/kernel", start=500, end=900)
    state = tab.state
    assert (state["run"], state["statistic"]) == ("plain", "weight_norm")
    assert (state["layer"], state["start"], state["end"]) == ("logits/kernel", 500, 900)
    assert state["columns"] == 41
    assert tab.frame.locator("select.statistic").input_value() == "weight_norm"
    assert tab.frame.locator("aside.layer h2").inner_text() == "logits/kernel"
    assert "from 500 to 900" in tab.frame.locator(".overview .summary").inner_text()


def test_the_address_follows_what_is_chosen_and_survives_a_reload(open_at):
    tab = open_at()
    tab.choose("run", "changed")
    tab.choose("statistic", "gradient_norm")
    tab.frame.locator("input.filter").first.fill("a/")
    tab.frame.wait_for_function("() => window.disttrainState.filter === 'a/'")
    assert parameters(tab.page) == {"run": "changed", "statistic": "gradient_norm", "filter": "a/"}
    tab.choose("statistic", "update_ratio")
    assert "statistic" not in parameters(tab.page)
    tab.page.reload()
    tab.frame = screenshot.plugin_frame(tab.page)
    screenshot.wait_until_ready(tab.frame)
    assert (tab.state["run"], tab.state["filter"]) == ("changed", "a/")
    assert tab.frame.locator("input.filter").first.input_value() == "a/"


def test_what_is_not_there_any_more_is_passed_over(open_at):
    tab = open_at(run="gone", statistic="gone", layer="gone/kernel")
    state = tab.state
    assert (state["run"], state["statistic"]) == ("plain", "update_ratio")
    assert (state["layer"], state["error"]) == (None, None)
    assert tab.frame.locator("aside.layer").is_hidden()


def test_nonsense_in_an_address_is_as_if_it_were_not_there(open_at):
    hostile = "<img src=x onerror=alert(1)>"
    tab = open_at(
        view=hostile,
        sort="../../etc/passwd",
        start="1e400",
        end="NaN",
        collapsed='{"a": 1}',
        layers="[1, 2",
        smoothing="x" * 5000,
        run="..",
        unknown="x",
    )
    state = tab.state
    assert (state["view"], state["sort"], state["start"]) == ("overview", "model", None)
    assert (state["collapsed"], state["layers"]) == ([], [])
    assert state["rows"] == 11
    assert tab.frame.locator("img").count() == 0


def test_a_range_that_ends_before_it_begins_is_no_range(open_at):
    state = open_at(start=900, end=500).state
    assert (state["start"], state["end"], state["error"]) == (None, None, None)


def test_hostile_names_come_back_from_an_address(open_at):
    tab = open_at(run=HOSTILE_RUN)
    assert tab.state["run"] == HOSTILE_RUN
    assert json.dumps(tab.state)
