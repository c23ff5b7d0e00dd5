"""The routes `replicas` and `histograms` of a running TensorBoard, also over an elastic restart."""

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin.conftest import PLAIN_RECORDS
from tests.plugin.run_writer import (
    RunWriter,
    histograms_part,
    normal_histogram,
    replicas_part,
    transformer,
    variable,
)
from tests.plugin.test_reader import decode_binary

pytestmark = pytest.mark.processes

PATHS = [path for path, _ in transformer(1)]

#: The variable of the run `plain` whose gradient overflows.
BROKEN = "transformer/block_0/attention/output/kernel"


@pytest.fixture
def elastic(server, logdir):
    """A run of 2 replicas that began again from step 20 with 3, and with other variables and bins.

    Its weights have as many zeros as the step says; `loss` is the step, and the replica besides.
    """
    if not (logdir / "elastic").exists():
        first = [variable("a"), variable("b")], ("zero", -1, 0)
        second = [variable("c"), variable("a")], ("zero", 0, 1)
        for number, (replicas, (variables, bins), steps) in enumerate(
            [(2, first, (0, 10, 20, 30)), (3, second, (20, 30, 40))]
        ):
            local = replicas_part(replicas)
            counted = histograms_part(variables, bins=bins)
            with RunWriter(logdir / "elastic") as writer:
                for step in steps:
                    # Older than every other run, so that no test finds it first.
                    wall_time = 1000 * (number + 1) + step
                    counts = np.ones(counted.shape(metadata.HISTOGRAMS))
                    counts[:, 0, 0] = step
                    writer.record(metadata.HISTOGRAMS, number, counted, step, counts, wall_time)
                    values = np.ones(local.shape(metadata.REPLICAS))
                    values[:, local.columns.index("loss")] = step + np.arange(replicas)
                    writer.record(metadata.REPLICAS, number, local, step, values, wall_time)
    server.wait_for("elastic", 40)
    return "elastic"


def test_replicas_answers_every_replica(server):
    answer = server.json("replicas", run="plain", columns=4096)
    assert answer["replicas"] == 4
    names = [item["name"] for item in answer["quantities"]]
    assert names[:4] == ["gradient_norm", "loss", "step_seconds", "wait_seconds"]
    assert names[4:] == [f"gradient_norm/{path}" for path in PATHS]
    assert np.shape(answer["mean"]) == (4, len(names), PLAIN_RECORDS)
    # One replica's gradient overflowed, and the last one is the slowest.
    norm = f"gradient_norm/{BROKEN}"
    answer = server.json("replicas", run="plain", quantity=[norm, "wait_seconds"], columns=6)
    assert [item["name"] for item in answer["quantities"]] == [norm, "wait_seconds"]
    assert np.sum(answer["nonfinite"], axis=2).tolist() == [[0, 0], [3, 0], [0, 0], [0, 0]]
    waits = np.array(answer["maximum"])[:, 1].astype(float)
    assert (waits[3] < waits[:3].min()).all()


def test_an_elastic_run_joins_its_replicas(server, elastic):
    answer = server.json("replicas", run=elastic, quantity="loss")
    assert answer["replicas"] == 3
    assert answer["first_step"] == [0, 10, 20, 30, 40]
    assert answer["mean"] == [
        [[0, 10, 20, 30, 40]],
        [[1, 11, 21, 31, 41]],
        [[None, None, 22, 32, 42]],
    ]
    assert answer["first_wall_time"] == [1000, 1010, 2020, 2030, 2040]
    two = server.json("replicas", run=elastic, quantity="loss", columns=2, start=10, end=39)
    assert (two["first_step"], two["last_step"]) == ([10, 20], [10, 30])
    assert two["maximum"] == [[[10, 30]], [[11, 31]], [[None, 32]]]


def test_histograms_answers_ridges(server):
    asked = {"run": "plain", "variable": ["logits/kernel", "final_norm/gamma"]}
    asked["quantity"] = "weight"
    answer = server.json("histograms", **asked, columns=7)
    assert answer["variables"] == asked["variable"]
    assert answer["quantity"]["label"] == "Weights"
    assert answer["bins"] == list(metadata.BINS)
    assert answer["records"] == PLAIN_RECORDS // 10
    assert (answer["first_step"][0], answer["last_step"][-1]) == (0, 2900)
    assert not {"minimum", "maximum", "nonfinite"} & set(answer)
    mean = np.array(answer["mean"])
    assert mean.shape == (2, 7, len(metadata.BINS))
    elements = mean[..., [name != "negative" for name in metadata.BINS]].sum(axis=2)
    np.testing.assert_allclose(elements, [[128 * 8000] * 7, [128] * 7], rtol=1e-6)
    first = server.json("histograms", **asked, end=0)
    expected = normal_histogram(128, 0.05)
    np.testing.assert_array_equal(np.array(first["mean"])[1, 0], expected)


def test_a_histogram_counts_what_is_not_finite(server):
    asked = {"run": "plain", "variable": BROKEN, "quantity": "gradient"}
    answer = server.json("histograms", **asked, start=1700, end=1700)
    found = dict(zip(answer["bins"], answer["mean"][0][0], strict=True))
    assert (found["nan"], found["infinity"]) == (12, 0)


def test_an_elastic_run_joins_its_histograms(server, elastic):
    asked = {"run": elastic, "variable": ["a", "b", "c"], "quantity": "weight"}
    answer = server.json("histograms", **asked, columns=5)
    assert answer["bins"] == ["zero", -1, 0, 1]
    assert answer["first_step"] == [0, 10, 20, 30, 40]
    old = [[step, 1, 1, None] for step in (0, 10)]
    new = [[step, None, 1, 1] for step in (20, 30, 40)]
    missing = [None] * 4
    assert answer["mean"] == [[*old, *new], [*old, *[missing] * 3], [*[missing] * 2, *new]]
    one = server.json("histograms", **asked, columns=1)
    assert one["mean"] == [[[20, 1, 1, 1]], [[5, 1, 1, None]], [[30, None, 1, 1]]]


def test_binary_histograms_say_the_same_as_json(server, elastic):
    asked = {"run": elastic, "variable": ["c", "a"], "quantity": "weight", "columns": 3}
    plain = server.json("histograms", **asked)
    status, headers, body = server.get("histograms", **asked, format="binary")
    assert status == 200
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Encoding"] == "gzip"
    header, arrays = decode_binary(body)
    for name in ("run", "variables", "quantity", "bins", "records", "first_step", "problems"):
        assert header[name] == plain[name]
    assert header["arrays"] == [{"name": "mean", "shape": [2, 3, 4]}]
    np.testing.assert_array_equal(np.array(plain["mean"], np.float32), arrays["mean"])
