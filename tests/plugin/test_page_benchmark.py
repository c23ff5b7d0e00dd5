"""The benchmark of the page, on a run that is small."""

import pytest

from tests.benchmarks import harness, page


@pytest.mark.browser
@pytest.mark.exhaustive
def test_the_page_is_measured_on_a_run_that_was_written_for_it(browser):
    found = {figure.name: figure for figure in page.page(harness.QUICK, browser)}
    assert list(found) == [
        "first heatmap, cold, s",
        "all records, cold, s",
        "first heatmap, s",
        "all records, s",
        "zoom, cold, s",
        "zoom, s",
        "zoom with its lines, s",
        "largest answer, MB",
        "memory, MB",
        "memory of the plugin, MB",
    ]
    sizes = found["largest answer, MB"].details
    assert found["largest answer, MB"].summary.median == max(sizes.values()) / 1e6
    # 50 variables x 100 columns of three float32, and a gzipped file of them is not much less.
    assert 10_000 < sizes["heatmap (200)"] < 200_000
    for name in list(found)[:6]:
        assert 0 < found[name].summary.median < 60
    for first, complete in (list(found)[:2], list(found)[2:4]):
        assert found[first].summary.median <= found[complete].summary.median
    memory = found["memory, MB"]
    assert memory.summary.median > 50
    before = memory.details.pop("before the page was opened")
    assert memory.summary.median == sum(memory.details.values()) / 1e6
    plugin = found["memory of the plugin, MB"].summary.median
    assert plugin == (sum(memory.details.values()) - before) / 1e6


@pytest.mark.processes
def test_the_start_of_tensorboard_is_measured_in_a_process_of_its_own():
    (figure,) = page.start(harness.QUICK)
    assert 0 < figure.summary.median < 60
    assert figure.goal == page.START
