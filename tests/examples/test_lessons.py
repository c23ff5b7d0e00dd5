"""Each short example shows what it says, on one device and on two Horovod processes."""

import contextlib
import functools
import importlib
import io
import json
import math
import sys

import pytest

from tests._support.covering import representatives
from tests.distributed import jobs

NAMES = (
    "first_model",
    "switch_optimizer",
    "custom_optimizer",
    "large_batch",
    "batch_norm",
    "clipping",
    "schedules",
    "transfer",
    "bad_rate",
    "gan",
    "distillation",
)


def shows_first_model(found):
    assert found["accuracy"] > 0.95
    assert found["losses"][-1] < 0.3 * found["losses"][0]


def shows_switch_optimizer(found):
    assert found["after"] < found["before"], "the switch has undone nothing"
    assert found["end"] < found["after"]
    assert found["steps"] == 6 * 45, "its own steps, of half the epochs"
    assert found["accuracy"] > 0.95


def shows_custom_optimizer(found):
    assert found["accuracy"] > 0.9
    assert found["the old API"] < 1e-4
    assert found["TensorFlow's core"] < 1e-4


def shows_large_batch(found):
    assert found["LARS, rate 4"] > 0.95
    assert found["LARS, rate 4"] > found["SGD, rate 0.03"]
    assert found["LARS, rate 4"] > found["SGD, rate 0.1"]


def shows_batch_norm(found):
    assert found["synchronised"] < 0.2


def shows_clipping(found):
    assert math.isnan(found["without a clip"])
    assert found["clipped to 1"] < 2.2, "below guessing, which costs log(10)"


def shows_schedules(found):
    assert len(found) == 5
    assert min(found.values()) > 0.85


def shows_transfer(found):
    assert found["known"] > 0.95
    beginning, alike, deep, head = list(found.values())[1:]
    assert deep[0] > beginning[0], "what was learnt before helps"
    assert head[1] == 0 < deep[1] < 0.5 * alike[1], "the lowest layer moves the less"


def shows_bad_rate(found):
    assert found["good"][0] > 100 * found["bad"][0]
    assert found["good"][1] > max(0.95, found["bad"][1])


def shows_gan(found):
    assert found["after"] < 0.5 * found["before"]
    assert math.isfinite(found["loss"])


def shows_distillation(found):
    assert found["60 labels"] < 0.85
    assert found["distilled"] > 0.95


SHOWS = {name: globals()[f"shows_{name}"] for name in NAMES}


#: Those that two processes run by default: here each has statistics of its part.
BY_DEFAULT = ("batch_norm",)
REST = tuple(name for name in NAMES if name not in BY_DEFAULT)


def on_two_processes(directory, *names):
    """What examples have returned on each of two processes, in one job."""
    queue = jobs.Queue()
    program = [sys.executable, "-m", "tests.examples.lessons_program", "horovod", str(directory)]
    try:
        status, output = queue.add("horovod-2", [*program, *names]).result()
    finally:
        queue.close()
    assert status == 0, f"the job ended with {status}:\n{output[-5000:]}"
    return [json.loads((directory / f"{rank}.json").read_text()) for rank in range(2)]


@functools.cache
def on_one_device(name):
    """What an example returns and prints on one device."""
    lesson = importlib.import_module(f"disttrain.examples.{name}")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        found = lesson.main(["--replication", "single"])
    return found, printed.getvalue()


@pytest.mark.graph
@pytest.mark.parametrize(
    "name",
    representatives(
        NAMES,
        "first_model",
        "switch_optimizer",
        "custom_optimizer",
        "batch_norm",
        "bad_rate",
        "gan",
        "distillation",
    ),
)
def test_on_one_device_it_shows_what_it_says(name):
    found, out = on_one_device(name)
    SHOWS[name](found)
    assert len(out.splitlines()) >= 2
    if name == "bad_rate":
        assert "update_ratio_low" in found["findings of bad"]
        assert "update_ratio_low" not in found["findings of good"]
        assert "changed by less than 1e-05 of" in out


@pytest.mark.processes
@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.background_job(on_two_processes, *BY_DEFAULT))
            for name in BY_DEFAULT
        ),
        *(
            pytest.param(
                name,
                marks=[
                    pytest.mark.background_job(on_two_processes, *REST),
                    pytest.mark.exhaustive,
                ],
            )
            for name in REST
        ),
    ],
)
def test_on_two_processes_it_shows_the_same(background_job, name):
    chief, other = background_job
    for results in (chief, other):
        assert "raised" not in results[name], results[name]["raised"]
        SHOWS[name](results[name])
    shared = other[name]
    assert json.dumps({key: chief[name][key] for key in shared}) == json.dumps(shared)
    if name == "batch_norm":
        (one, _), two = on_one_device(name), chief[name]
        assert one["distance"] < 1e-4 < 1e-2 < two["distance"], "parts have statistics of their own"
        assert two["synchronised"] == pytest.approx(one["synchronised"], rel=1e-3)


@pytest.mark.unit
def test_each_is_a_page_long_and_says_how_it_is_run():
    for name in NAMES:
        lesson = importlib.import_module(f"disttrain.examples.{name}")
        assert f"python -m disttrain.examples.{name}" in lesson.__doc__
        with open(lesson.__file__) as file:
            assert len(file.readlines()) <= 100
