"""The event file, read back through TensorBoard, holds what NumPy computes from the weights."""

import types

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.data import provider

from tensorboard_plugin import metadata

RATE, CLIP, MOMENTUM = 0.1, 0.5, 0.9


@pytest.fixture(scope="module")
def recorded_runs():
    return {}


@pytest.fixture
def run(outcome, kind, recorded_runs):
    """What was recorded and what was seen, as arrays."""
    if kind not in recorded_runs:
        recorded_runs[kind] = _read(outcome)
    return recorded_runs[kind]


def _read(outcome):
    logdir = str(outcome("recorded", "logdir"))
    multiplexer = plugin_event_multiplexer.EventMultiplexer(
        tensor_size_guidance={metadata.PLUGIN_NAME: 0, "scalars": 0}
    )
    multiplexer.AddRunsFromDirectory(logdir)
    multiplexer.Reload()
    reader = data_provider.MultiplexerDataProvider(multiplexer, logdir)
    arguments = {"experiment_id": "", "plugin_name": metadata.PLUGIN_NAME}
    listed = reader.list_tensors(RequestContext(), **arguments)["."]
    read = reader.read_tensors(
        RequestContext(),
        **arguments,
        downsample=1000,
        run_tag_filter=provider.RunTagFilter(runs=["."]),
    )["."]
    parts = {tag: metadata.decode(listed[tag].plugin_content) for tag in listed}
    scalars = reader.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000
    )["."]
    return types.SimpleNamespace(
        parts=parts,
        steps=[datum.step for datum in read["disttrain/layers/0"]],
        layers=np.stack([datum.numpy for datum in read["disttrain/layers/0"]]),
        quantities=np.stack([datum.numpy for datum in read["disttrain/steps/0"]]),
        weights=[outcome("recorded", f"weights_{i}") for i in range(4)],
        momentum=[outcome("recorded", f"momentum_{i}") for i in range(4)],
        running_loss=outcome("recorded", "running_loss"),
        scalars={tag: [datum.value for datum in data] for tag, data in scalars.items()},
        replicas=outcome.processes[0].get("topology", [None])[0],
    )


def column(run, name):
    return run.layers[:, :, run.parts["disttrain/layers/0"].columns.index(name)]


def quantity(run, name):
    return run.quantities[:, run.parts["disttrain/steps/0"].columns.index(name)]


def norms(arrays):
    """L2 norm of each variable at each step, `[steps, variables]`."""
    return np.stack(
        [np.sqrt((a.astype(np.float64) ** 2).sum(axis=tuple(range(1, a.ndim)))) for a in arrays], 1
    )


def test_the_metadata_names_the_axes(run, kind):
    part = run.parts["disttrain/layers/0"]
    assert part.columns == (
        *("weight_norm", "gradient_norm", "update_norm", "update_ratio", "gradient_max"),
        *("zero_fraction", "nonfinite", "slot/momentum", "update_cosine"),
    )
    assert [v["path"].split("/")[-1] for v in part.variables] == ["kernel", "bias"] * 2
    assert part.variables[0]["shape"] == [6, 16]
    assert part.variables[0]["slots"] == {"momentum": {"dtype": "float32", "bytes": 6 * 16 * 4}}
    assert part.optimizer["class_name"] == "SGD"
    assert part.replicas == int(kind.rpartition("-")[2])


def test_every_step_is_recorded_once(run):
    assert run.steps == [1, 2, 3, 4, 5, 6]


def test_norms_equal_numpys(run):
    weights = norms([w[1:] for w in run.weights])
    updates = norms([np.diff(w.astype(np.float64), axis=0) for w in run.weights])
    np.testing.assert_allclose(column(run, "weight_norm"), weights, rtol=1e-5)
    np.testing.assert_allclose(column(run, "update_norm"), updates, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(column(run, "update_ratio"), updates / weights, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(column(run, "slot/momentum"), norms(run.momentum), rtol=1e-5)


def test_gradient_norms_are_those_before_the_clip(run):
    """The clipped gradient follows from the momenta: m = 0.9 m' - 0.1 g."""
    clipped = [
        (MOMENTUM * np.concatenate([np.zeros_like(m[:1]), m[:-1]]) - m).astype(np.float64) / RATE
        for m in run.momentum
    ]
    whole = np.sqrt((norms(clipped) ** 2).sum(axis=1))
    factor = quantity(run, "clip_factor")
    assert (factor < 1).any(), "the clip never acted, so this test shows nothing"
    np.testing.assert_allclose(whole[factor < 1], CLIP, rtol=1e-5)
    np.testing.assert_allclose(quantity(run, "gradient_norm") * factor, whole, rtol=1e-5)
    np.testing.assert_allclose(
        column(run, "gradient_norm") * factor[:, None], norms(clipped), rtol=1e-4, atol=1e-6
    )
    largest = np.stack([np.abs(c).reshape(len(c), -1).max(axis=1) for c in clipped], 1)
    np.testing.assert_allclose(
        column(run, "gradient_max") * factor[:, None], largest, rtol=1e-4, atol=1e-6
    )


def test_the_loss_is_that_of_the_global_batch(run):
    """The callbacks saw the running mean over the examples."""
    sizes = np.asarray([8, 8, 8, 8, 8, 1])
    running = np.cumsum(quantity(run, "loss") * sizes) / np.cumsum(sizes)
    np.testing.assert_allclose(running, run.running_loss, rtol=1e-5)


def test_the_other_quantities_are_filled_in(run):
    np.testing.assert_allclose(quantity(run, "learning_rate"), RATE, rtol=1e-6)
    np.testing.assert_array_equal(quantity(run, "skipped"), 0)
    np.testing.assert_array_equal(quantity(run, "loss_scale"), 1)
    seconds = quantity(run, "step_seconds")
    assert (seconds > 0).all()
    examples = quantity(run, "examples_per_second") * seconds
    np.testing.assert_allclose(examples, [8, 8, 8, 8, 8, 1], rtol=1e-4)


def test_loss_and_learning_rate_are_plain_scalars_too(run):
    np.testing.assert_allclose(run.scalars["loss"], quantity(run, "loss"), rtol=1e-6)
    np.testing.assert_allclose(run.scalars["learning_rate"], RATE, rtol=1e-6)
