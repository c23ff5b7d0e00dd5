"""The event file, read back through TensorBoard, holds what NumPy computes from the weights."""

import types

import numpy as np
import pytest
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.context import RequestContext
from tensorboard.data import provider

from tensorboard_plugin import metadata

pytestmark = pytest.mark.processes

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
    parts, read, scalars = _open(str(outcome("recorded", "logdir")))
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


def _open(logdir):
    """`(parts, records, scalars)` of a run, by tag."""
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
    return parts, read, scalars


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


class Records:
    """What a check has recorded, and the columns of its tags."""

    def __init__(self, outcome, check):
        self.parts, self._read, _ = _open(str(outcome(check, "logdir")))

    def steps(self, tag):
        return [datum.step for datum in self._read[f"disttrain/{tag}/0"]]

    def values(self, tag):
        return np.stack([datum.numpy for datum in self._read[f"disttrain/{tag}/0"]])

    def column(self, tag, name):
        return self.values(tag)[..., self.parts[f"disttrain/{tag}/0"].columns.index(name)]


def replicas_of(kind):
    return int(kind.rpartition("-")[2])


def local_rows(batch, replicas):
    """The places in a batch that each replica gets."""
    bounds = [batch * replica // replicas for replica in range(replicas + 1)]
    return np.split(np.arange(batch), bounds[1:-1])


@pytest.fixture
def local(outcome, kind):
    """Each replica's gradients and loss at each step, from plain Keras on one device."""
    import keras
    import tensorflow as tf

    from tests.distributed import checks

    weights = [outcome("replicas-recorded", f"weights_{i}") for i in range(4)]
    x, y = checks.data(41)
    model, loss = checks.build(), checks.loss()
    found = []
    for step, first in enumerate(range(0, 41, checks.BATCH)):
        model.set_weights([w[step] for w in weights])
        batch = np.arange(first, min(first + checks.BATCH, 41))
        own = []
        for places in local_rows(len(batch), replicas_of(kind)):
            if not len(places):
                own.append((0, 0.0, [0 * w[0] for w in weights]))
                continue
            with tf.GradientTape() as tape:
                value = loss(y[batch[places]], model(x[batch[places]]))
            gradients = tape.gradient(value, model.trainable_variables)
            own.append((len(places), float(value), [g.numpy() for g in gradients]))
        found.append(own)
    keras.backend.clear_session()
    return found


def test_each_replicas_own_part_equals_plain_keras(outcome, kind, local):
    records = Records(outcome, "replicas-recorded")
    part = records.parts["disttrain/replicas/0"]
    assert part.replicas == replicas_of(kind)
    assert records.steps("replicas") == [1, 2, 3, 4, 5, 6]
    norms = [[[np.linalg.norm(g) for g in gradients] for *_, gradients in own] for own in local]
    np.testing.assert_allclose(
        records.column("replicas", "gradient_norm"),
        np.linalg.norm(norms, axis=2),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(records.values("replicas")[:, :, 4:], norms, rtol=1e-4, atol=1e-6)
    losses = [[value for _, value, _ in own] for own in local]
    np.testing.assert_allclose(records.column("replicas", "loss"), losses, rtol=1e-5, atol=1e-6)
    assert (records.column("replicas", "step_seconds") > 0).all()
    waited = records.column("replicas", "wait_seconds")
    assert (waited >= 0).all()
    assert (waited > 0).any()


def test_every_statistic_of_adam_equals_numpys(outcome, local):
    """From the replicas' gradients, which plain Keras has computed, and the weights between."""
    records = Records(outcome, "replicas-recorded")
    weights = [outcome("replicas-recorded", f"weights_{i}").astype(np.float64) for i in range(4)]
    for step, own in enumerate(local):
        whole = sum(rows for rows, *_ in own)
        for i, w in enumerate(weights):
            gradient = sum(rows * gradients[i] for rows, _, gradients in own) / whole
            update = w[step + 1] - w[step]
            velocity = outcome("replicas-recorded", f"velocity_{i}")[step]
            expected = {
                "weight_norm": np.linalg.norm(w[step + 1]),
                "gradient_norm": np.linalg.norm(gradient),
                "update_norm": np.linalg.norm(update),
                "update_ratio": np.linalg.norm(update) / np.linalg.norm(w[step + 1]),
                "gradient_max": np.abs(gradient).max(),
                "zero_fraction": np.mean(gradient == 0),
                "nonfinite": 0.0,
                "slot/velocity": np.linalg.norm(velocity),
                "update_cosine": -np.sum(update * gradient)
                / (np.linalg.norm(update) * np.linalg.norm(gradient)),
            }
            for name, value in expected.items():
                found = records.column("layers", name)[step, i]
                np.testing.assert_allclose(found, value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_noise_scale_is_that_of_the_replicas_gradients(outcome, local):
    from disttrain.telemetry.noise import NoiseScale

    noise = NoiseScale()
    expected = []
    for own in local:
        sizes = [rows for rows, *_ in own]
        flat = [np.concatenate([g.ravel() for g in gradients]) for *_, gradients in own]
        whole = sum(n * g for n, g in zip(sizes, flat, strict=True)) / sum(sizes)
        norms = [np.linalg.norm(g) for g in flat]
        expected.append(noise.update(norms, sizes, np.linalg.norm(whole), sum(sizes)))
    found = Records(outcome, "replicas-recorded").column("steps", "noise_scale")
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_histograms_count_every_element(outcome):
    records = Records(outcome, "replicas-recorded")
    part = records.parts["disttrain/histograms/0"]
    assert part.columns == ("weight", "gradient", "update", "slot/momentum", "slot/velocity")
    assert records.steps("histograms") == [1, 6]
    counts = np.delete(records.values("histograms"), part.bins.index("negative"), axis=-1)
    sizes = [np.prod(variable["shape"]) for variable in part.variables]
    np.testing.assert_array_equal(
        counts.sum(axis=-1), np.broadcast_to(np.asarray(sizes)[:, None], (2, 4, 5))
    )


def test_accumulated_steps_are_recorded_at_the_boundary_and_a_skipped_one_as_skipped(outcome):
    records = Records(outcome, "accumulated")
    assert records.steps("layers") == [1, 2, 3]
    np.testing.assert_array_equal(records.column("steps", "skipped"), [0, 1, 0])
    troubled = records.column("layers", "nonfinite") > 0
    assert troubled[1].all()
    assert not troubled[[0, 2]].any()
    np.testing.assert_array_equal(records.column("layers", "update_norm")[1], 0)
    # The replica that had the NaN is known by its loss.
    assert np.isnan(records.column("replicas", "loss")[1]).sum() == 1


def test_replicas_that_differ_stop_every_process_with_the_same_error(outcome, kind):
    chief, *others = outcome.every("divergence", "error")
    assert f"'v1' on replica {replicas_of(kind) - 1} is not" in str(chief)
    assert all(other == chief for other in others)
    assert list(outcome.every("divergence", "warnings")) == [1] + [0] * len(others)


def test_model_fit_is_recorded_by_the_callback(outcome, kind):
    if kind.startswith("multi_worker"):
        # Keras itself, see test_gradients.py.
        assert "PerReplica" in str(outcome("model-fit", "error"))
        return
    records = Records(outcome, "model-fit")
    assert records.steps("layers") == list(range(1, 13))
    weights = outcome("model-fit", "weights")
    norms = records.column("layers", "weight_norm")[-1]
    np.testing.assert_allclose(np.linalg.norm(norms), np.linalg.norm(weights), rtol=1e-5)
    losses = records.column("steps", "loss").reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(losses, outcome("model-fit", "loss"), rtol=1e-5)
    own = records.column("replicas", "loss")
    np.testing.assert_allclose(own.mean(axis=1), records.column("steps", "loss"), rtol=1e-5)
    examples = records.column("steps", "examples_per_second") * records.column(
        "steps", "step_seconds"
    )
    np.testing.assert_allclose(examples, 12, rtol=1e-3)
