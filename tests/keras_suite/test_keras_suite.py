"""Keras's own tests pass with the wrapper, but for those that the documentation lists."""

import fnmatch
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests._support.timeouts import TIMEOUT

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "keras_tests.md"

#: Section of the page to the modules of Keras whose tests it is about.
SUITES = {
    "Optimizers": ["keras.src.optimizers"],
    "Callbacks": ["keras.src.callbacks"],
    "Trainers": ["keras.src.trainers.trainer_test", "keras.src.trainers.compile_utils_test"],
    "Distribution": [
        "keras.src.backend.tensorflow.distribute_test",
        "keras.src.backend.tensorflow.optimizer_distribute_test",
    ],
}


def listed(suite):
    """The patterns of tests that the page lists for a suite."""
    section = PAGE.read_text().partition(f"\n## {suite}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.+) \|$", section, re.MULTILINE)
    assert all(reason.strip() for _, reason in rows)
    return [pattern for names, _ in rows for pattern in re.findall(r"`([^`]+)`", names)]


def outcomes(folder, modules, **environment):
    """Runs Keras's tests; returns name to outcome."""
    report = folder / "report.json"
    command = [sys.executable, "-m", "pytest", "--noconftest", "-c", os.devnull, "-q"]
    command += ["--rootdir", str(folder), "-p", "no:cacheprovider", "-W", "ignore"]
    command += ["-p", "tests.keras_suite.plugin", "--continue-on-collection-errors"]
    done = subprocess.run(
        [*command, "--pyargs", *modules],
        cwd=ROOT,
        env={**os.environ, "DISTTRAIN_REPORT": str(report), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=2 * TIMEOUT,
    )
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(report.read_text())


@pytest.mark.processes
@pytest.mark.exhaustive
@pytest.mark.timeout(3 * TIMEOUT)
@pytest.mark.parametrize("suite", SUITES)
def test_keras_s_tests_fail_where_the_page_says_so_and_nowhere_else(suite, tmp_path):
    found = outcomes(tmp_path, SUITES[suite])
    failed = {name: test["why"] for name, test in found.items() if test["outcome"] == "failed"}
    patterns = listed(suite)
    unlisted = {
        name: why
        for name, why in failed.items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    assert not unlisted, "\n\n".join(f"{name}: {why[-600:]}" for name, why in unlisted.items())
    idle = [pattern for pattern in patterns if not fnmatch.filter(failed, pattern)]
    assert not idle, "these do not fail any more; take them out of the page"
    assert sum(test["outcome"] == "passed" for test in found.values()) >= 10


@pytest.mark.unit
def test_each_suite_has_a_section_with_reasons():
    sections = re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)
    assert sections == list(SUITES)
    for suite in SUITES:
        assert listed(suite)
