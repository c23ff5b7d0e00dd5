"""A whole run as it comes out of the parts that it was written in."""

import numpy as np
import pytest

from tensorboard_plugin import health, metadata, partreader, parts, whole
from tests.plugin.health_runs import ADAM, SGD, Training
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

LAYERS = tuple(s.name for s in metadata.layer_statistics(["momentum", "velocity"]))
STEPS = tuple(s.name for s in metadata.STEP_QUANTITIES)
REPLICAS = tuple(s.name for s in metadata.REPLICA_QUANTITIES)


def add(provider, training, number=0, rows=slice(None)):
    """Adds some records of a training as one part of each tag."""
    replicas = training.replicas.shape[1]
    for tag, columns, variables, values in (
        (metadata.LAYERS, LAYERS, training.variables, training.layers),
        (metadata.STEPS, STEPS, (), training.quantities),
        (metadata.REPLICAS, REPLICAS, (), training.replicas),
    ):
        part = metadata.Part(columns, tuple(variables), training.optimizer, replicas)
        data = [
            (int(step), 1e9 + step, value)
            for step, value in zip(training.steps[rows], values[rows], strict=True)
        ]
        provider.add("run", metadata.part_tag(tag, number), metadata.encode(tag, part), data)


def read(provider, **options):
    listing = parts.list_runs(provider, CONTEXT, EXPERIMENT)["run"]
    reader = partreader.PartReader(provider)
    run, problems = whole.read(reader, CONTEXT, EXPERIMENT, "run", listing, **options)
    assert problems == []
    return run


def test_a_run_in_three_parts_comes_out_as_it_was():
    training, provider = Training(30), MemoryProvider()
    for number in range(3):
        add(provider, training, number, slice(10 * number, 10 * number + 10))
    run = read(provider)
    expected = training.run()
    for table, wanted in (
        (run.layers, expected.layers),
        (run.quantities, expected.quantities),
        (run.replicas, expected.replicas),
    ):
        np.testing.assert_array_equal(table.steps, wanted.steps)
        assert set(table.columns) == set(wanted.columns)
        for name, column in wanted.columns.items():
            np.testing.assert_array_equal(table.columns[name], column, err_msg=name)
    assert [v["path"] for v in run.variables] == training.paths
    assert (run.optimizer, run.optimizer_since) == (ADAM, 1)


def test_a_fault_in_a_recorded_run_is_found():
    training, provider = Training(), MemoryProvider()
    training.layer("update_norm", "block_2/kernel")[200:] = 0
    training.replica("loss")[150:, 1] *= 8
    for number in range(2):
        add(provider, training, number, slice(200 * number, 200 * number + 200))
    found = health.findings(read(provider, statistics=health.STATISTICS))
    assert [f.rule for f in found] == ["replica_diverges", "no_update"]
    assert [f.rule for f in training.findings()] == ["replica_diverges", "no_update"]


def test_only_the_statistics_that_are_wanted_are_kept():
    provider = MemoryProvider()
    add(provider, Training(5))
    run = read(provider, statistics=["update_ratio", "slot/unknown"])
    assert list(run.layers.columns) == ["update_ratio"]


def test_a_range_of_steps():
    provider = MemoryProvider()
    add(provider, Training(30))
    run = read(provider, start=11, end=20)
    for table in (run.layers, run.quantities, run.replicas):
        assert table.steps.tolist() == list(range(11, 21))


def test_after_a_switch_the_optimizer_is_the_new_one_since_its_first_step():
    provider = MemoryProvider()
    add(provider, Training(30), 0, slice(10))
    add(provider, Training(30, optimizer=SGD), 1, slice(10, 20))
    add(provider, Training(30, optimizer=SGD), 2, slice(20, 30))
    run = read(provider)
    assert (run.optimizer, run.optimizer_since) == (SGD, 11)


def test_replicas_that_came_later_have_nothing_before():
    provider = MemoryProvider()
    add(provider, Training(30, replicas=2), 0, slice(10))
    add(provider, Training(30, replicas=3), 1, slice(10, 30))
    losses = read(provider).replicas.columns["loss"]
    assert losses.shape == (30, 3)
    assert np.isnan(losses[:10, 2]).all()
    assert not np.isnan(losses[:10, :2]).any()
    assert not np.isnan(losses[10:]).any()


def test_a_run_without_layers_is_read():
    provider = MemoryProvider()
    part = metadata.encode(metadata.STEPS, metadata.Part(STEPS))
    provider.add("run", "disttrain/steps/0", part, [(1, 1.0, np.zeros(len(STEPS)))])
    run = read(provider)
    assert run.quantities.steps.tolist() == [1]
    assert health.findings(run) == []


def test_a_window_of_a_run():
    run = Training(30).run().since(21)
    assert run.layers.steps.tolist() == list(range(21, 31))
    assert run.replicas.columns["loss"].shape == (10, 4)
