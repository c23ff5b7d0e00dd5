"""The benchmark of the page, on a run that is small."""

from tests.benchmarks import harness, page


def test_the_page_is_measured_on_a_run_that_was_written_for_it(browser):
    found = {figure.name: figure for figure in page.page(harness.QUICK, browser)}
    assert list(found) == ["largest answer, MB", "first heatmap, s", "zoom, s", "memory, MB"]
    sizes = found["largest answer, MB"].details
    assert found["largest answer, MB"].summary.median == max(sizes.values()) / 1e6
    # 50 variables x 100 columns of three float32, and a gzipped file of them is not much less.
    assert 10_000 < sizes["heatmap (200)"] < 200_000
    assert 0 < found["zoom, s"].summary.median < 60
    assert 0 < found["first heatmap, s"].summary.median < 60
    assert found["memory, MB"].summary.median > 50


def test_the_start_of_tensorboard_is_measured_in_a_process_of_its_own():
    (figure,) = page.start(harness.QUICK)
    assert 0 < figure.summary.median < 60
    assert figure.goal == page.START
