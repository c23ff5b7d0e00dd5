"""The page's Health view: findings as cards, their links, the badge, and a healthy run."""

import dataclasses

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import HOSTILE, Server
from tests.plugin.health_runs import Training
from tests.plugin.run_writer import RunWriter, layers_part, replicas_part, steps_part, variable
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

LONG = "long/" * 2000 + "kernel"
VANISHING = 9


def faulty():
    """A run with an error, warnings about one layer and about many, and a note."""
    training = Training(blocks=VANISHING + 11)
    training.layer("weight_norm", "block_0/kernel")[350:] = np.nan
    training.layer("update_norm", "block_1/kernel")[200:300] = 0
    for block in range(2, 2 + VANISHING):
        training.layer("gradient_norm", f"block_{block}/kernel")[:] *= 1e-6
    training.replica("loss")[150:, 1] *= 8
    training.quantity("clip_factor")[:] = 0.2
    return training


def hostile():
    training = Training(blocks=1)
    for one, path in zip(training.variables, (HOSTILE[0], LONG, HOSTILE[2]), strict=True):
        one["path"] = path
    training.layer("update_norm")[200:300] = 0
    return training


def write(directory, training, replicas=True):
    slots = ("momentum", "velocity")
    layers = dataclasses.replace(
        layers_part(training.variables, slots, 4), optimizer=training.optimizer
    )
    with RunWriter(directory) as writer:
        for record, step in enumerate(training.steps):
            step = int(step)
            writer.record(metadata.LAYERS, 0, layers, step, training.layers[record])
            writer.record(metadata.STEPS, 0, steps_part(4), step, training.quantities[record])
            if replicas:
                part = replicas_part(4)
                writer.record(metadata.REPLICAS, 0, part, step, training.replicas[record])


@pytest.fixture(scope="module")
def health_server(tmp_path_factory):
    root = tmp_path_factory.mktemp("health")
    write(root / "faulty", faulty())
    write(root / "healthy", Training(), replicas=False)
    write(root / HOSTILE[0], hostile())
    with screenshot.tensorboard(root, "--load_fast=false", "--reload_interval=1") as address:
        running = Server(address)
        running.root = root
        for run in ("faulty", "healthy", HOSTILE[0]):
            running.wait_for(run, 400)
        yield running


@pytest.fixture
def health(browser, health_server):
    """Opens the view of a run."""
    opened = []

    def open_(run, view="health", prefix="data/plugin_entry.html?name=disttrain"):
        query = "&".join(f"p.disttrain.{k}={v}" for k, v in (("run", run), ("view", view)))
        opened.append(Opened(browser, health_server, f"{prefix}&{query}"))
        return opened[-1]

    yield open_
    for tab in opened:
        tab.page.close()
        assert tab.faults == []


def cards(tab):
    return tab.frame.locator("article.finding")


def rules(tab):
    return [card.get_attribute("data-rule") for card in cards(tab).all()]


def test_findings_come_worst_first_with_why_what_to_try_and_the_numbers(health):
    tab = health("faulty")
    assert rules(tab) == [
        "not_finite",
        "replica_diverges",
        "no_update",
        "vanishing_gradient",
        "clip_always",
    ]
    kinds = [kind.inner_text().split(" ")[0] for kind in tab.frame.locator(".kind").all()]
    assert kinds == ["Error", "Warning", "Warning", "Warning", "Note"]
    text = cards(tab).first.inner_text()
    for part in ("block_0/kernel has held weights", "351 to 400", "Why it matters", "What to try"):
        assert part in text
    numbers = cards(tab).nth(1).locator(".numbers").inner_text()
    assert "Replica\n1\n" in numbers
    assert "Factor\n" in numbers
    assert (
        "The rules looked at 400 records of 41 variables" in tab.frame.locator("main").inner_text()
    )


def test_many_layers_are_four_until_all_are_asked_for(health):
    card = cards(health("faulty")).nth(3)
    assert card.locator("tbody tr").count() == 4
    more = card.get_by_role("button", name=f"and {VANISHING - 4} more")
    more.click()
    assert card.locator("tbody tr").count() == VANISHING
    assert more.count() == 0


def test_a_severity_can_be_hidden_and_the_address_remembers_it(health):
    tab = health("faulty")
    tab.frame.get_by_role("button", name="3 Warnings").click()
    assert rules(tab) == ["not_finite", "clip_always"]
    assert tab.state["hiddenSeverities"] == ["warning"]
    tab.page.reload()
    screenshot.wait_until_ready(tab.page.main_frame)
    assert rules(tab) == ["not_finite", "clip_always"]
    for name in ("1 Error", "1 Note"):
        tab.frame.get_by_role("button", name=name).click()
    assert "All findings are hidden" in tab.frame.locator(".findings").inner_text()
    tab.frame.get_by_role("button", name="3 Warnings").press("Enter")
    assert len(rules(tab)) == 3


def test_a_link_leads_to_the_view_the_layer_and_the_steps(health):
    tab = health("faulty")
    cards(tab).nth(2).get_by_role("link", name="Show in Layers").click()
    screenshot.wait_until_ready(tab.frame)
    state = tab.state
    assert (state["view"], state["layers"]) == ("layers", ["block_1/kernel"])
    assert (state["start"], state["end"]) == (192, 309)
    assert tab.frame.locator("#view-layers").is_visible()
    tab.frame.get_by_role("tab", name="Health").click()
    screenshot.wait_until_ready(tab.frame)
    path = cards(tab).nth(3).locator("tbody a").nth(1).get_attribute("title")
    cards(tab).nth(3).locator("tbody a").nth(1).click()
    screenshot.wait_until_ready(tab.frame)
    state = tab.state
    assert (state["view"], state["statistic"]) == ("overview", "gradient_norm")
    assert state["layer"] == path
    assert (state["start"], state["end"]) == (237, 400)


def test_the_badge_tells_the_findings_on_any_view(health):
    tab = health("faulty", view="overview")
    badge = tab.frame.locator("#tab-health .badge")
    badge.wait_for()
    assert badge.inner_text() == "5"
    tab.choose("run", "healthy")
    tab.frame.wait_for_function("() => window.disttrainState.findings === 0")
    assert badge.count() == 0


def test_a_healthy_run_says_what_was_checked_and_what_was_not(health):
    tab = health("healthy")
    calm = tab.frame.locator(".calm")
    assert "No findings" in calm.inner_text()
    assert "400 records of 11 variables" in calm.inner_text()
    assert "No gradient explodes, vanishes or is missing." in calm.inner_text()
    missing = tab.frame.locator(".missing").inner_text()
    assert missing.startswith("Not checked: replicas (disttrain/replicas was not recorded")
    assert "replica" not in calm.inner_text()


def test_hostile_names_are_text(health):
    tab = health(HOSTILE[0])
    paths = tab.frame.locator(".finding-layers .path")
    assert [path.get_attribute("title") for path in paths.all()] == [HOSTILE[0], LONG, HOSTILE[2]]
    assert len(paths.nth(1).inner_text()) < 100
    wide = "() => document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not tab.frame.evaluate(wide)
    assert tab.frame.locator("img").count() == 0


def test_a_failed_request_leaves_no_badge_and_the_view_says_so(health):
    tab = health("healthy", view="overview")
    tab.page.route("**/health?*", lambda route: route.abort())
    with tab.page.expect_event("requestfailed", lambda request: "/health?" in request.url):
        tab.choose("run", "faulty")
    assert tab.frame.locator(".badge").count() == 0
    tab.frame.get_by_role("tab", name="Health").click()
    screenshot.wait_until_ready(tab.frame)
    alert = tab.frame.get_by_role("alert")
    assert "TensorBoard does not answer" in alert.inner_text()
    tab.page.unroute("**/health?*")
    alert.get_by_role("button", name="Try again").click()
    screenshot.wait_until_ready(tab.frame)
    assert len(rules(tab)) == 5
    assert all("ERR_FAILED" in fault for fault in tab.faults)
    tab.faults.clear()


def test_the_badge_follows_a_run_that_grows(browser, health_server):
    part = layers_part([variable("a/kernel")])
    values = np.full((1, len(part.columns)), 0.1)
    values[0, part.columns.index("nonfinite")] = 0
    with RunWriter(health_server.root / "growing") as writer:

        def write_step(step):
            writer.record(metadata.LAYERS, 0, part, step, values)
            writer._writer.flush()
            health_server.wait_for("growing", step)

        write_step(1)
        tab = Opened(browser, health_server, "?p.disttrain.run=growing#disttrain")
        tab.frame.wait_for_function("() => window.disttrainState.findings === 0")
        values[0, part.columns.index("weight_norm")] = np.nan
        write_step(2)
        tab.page.locator("button.reload-button").click()
        tab.frame.wait_for_function("() => window.disttrainState.findings === 1")
        assert tab.frame.locator("#tab-health .badge").inner_text() == "1"
    tab.page.close()
    assert tab.faults == []
