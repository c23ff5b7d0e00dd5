"""The optimizers of a run and its events, as the page gets them."""

import dataclasses

import numpy as np
import pytest
from tensorboard import errors

from tensorboard_plugin import metadata, optimizer, reader
from tests.plugin.run_writer import layers_part, steps_part, variable
from tests.plugin.test_reader import CONTEXT, EXPERIMENT, MemoryProvider

pytestmark = pytest.mark.unit

ADAM = {"class_name": "Adam", "config": {"learning_rate": 0.001, "beta_1": 0.9}}
SGD = {"class_name": "SGD", "config": {"learning_rate": 0.1}}


def ask(memory, run="run"):
    return reader.Reader(memory).optimizer(CONTEXT, EXPERIMENT, run)


def add_steps(memory, number, configuration, steps, wall=0, **columns):
    """A part of `disttrain/steps`, ones but for the given columns, one value a step."""
    part = dataclasses.replace(steps_part(), optimizer=configuration)
    rows = np.ones((len(steps), len(part.columns)), np.float32)
    rows[:, part.columns.index("skipped")] = 0
    for name, values in columns.items():
        rows[:, part.columns.index(name)] = values
    data = [(step, wall + step, row) for step, row in zip(steps, rows, strict=True)]
    tag = metadata.part_tag(metadata.STEPS, number)
    memory.add("run", tag, metadata.encode(metadata.STEPS, part), data)


def test_parts_of_one_optimizer_are_one_and_a_switch_begins_at_its_first_step():
    memory = MemoryProvider()
    add_steps(memory, 0, ADAM, [1, 2])
    add_steps(memory, 1, ADAM, [3, 4])
    add_steps(memory, 2, SGD, [5, 9])
    assert ask(memory)["optimizers"] == [
        {"configuration": ADAM, "first_step": 1, "last_step": 4},
        {"configuration": SGD, "first_step": 5, "last_step": 9},
    ]


def test_what_a_resumed_run_went_back_behind_does_not_count():
    memory = MemoryProvider()
    add_steps(memory, 0, SGD, [1, 2])
    add_steps(memory, 1, ADAM, [3, 4])
    add_steps(memory, 2, SGD, [3, 4], wall=100)
    assert ask(memory)["optimizers"] == [{"configuration": SGD, "first_step": 1, "last_step": 4}]


def test_where_only_the_layers_name_the_optimizer_it_is_found_there():
    memory = MemoryProvider()
    add_steps(memory, 0, {}, [1, 2])
    part = layers_part([variable("a")])
    data = [(2, 2, np.ones((1, len(part.columns)), np.float32))]
    memory.add("run", "disttrain/layers/0", metadata.encode(metadata.LAYERS, part), data)
    (found,) = ask(memory)["optimizers"]
    assert found == {"configuration": part.optimizer, "first_step": 2, "last_step": 2}


def test_events_are_the_steps_from_which_the_loss_scale_is_another():
    memory = MemoryProvider()
    scale = [8, 8, 4, np.nan, 4, 8]
    add_steps(memory, 0, ADAM, range(1, 7), loss_scale=scale, skipped=[0, 0, 1, 0, 2, 0])
    answer = ask(memory)
    assert answer["events"] == {
        "raised": {"count": 1, "steps": [6], "values": [8.0]},
        "lowered": {"count": 1, "steps": [3], "values": [4.0]},
        "skipped": {"count": 3, "steps": [3, 5], "values": [1.0, 2.0]},
    }
    assert answer["settings"]["loss_scale"] == {"first": 8.0, "last": 8.0, "constant": False}


def test_settings_say_what_never_changed_and_clips_are_counted():
    memory = MemoryProvider()
    add_steps(memory, 0, ADAM, [1, 2, 3], clip_factor=[1, 0.5, np.nan], loss_scale=np.nan)
    answer = ask(memory)
    assert answer["settings"]["learning_rate"] == {"first": 1.0, "last": 1.0, "constant": True}
    assert answer["settings"]["clip_factor"]["constant"] is False
    assert "loss_scale" not in answer["settings"]
    assert answer["clipped"] == {"clipped": 1, "of": 2}


def test_lists_are_bounded_and_counts_are_not(monkeypatch):
    monkeypatch.setattr(optimizer, "MOST_EVENTS", 3)
    monkeypatch.setattr(optimizer, "MOST_OPTIMIZERS", 2)
    memory = MemoryProvider()
    for number, configuration in enumerate((ADAM, SGD, ADAM)):
        steps = range(10 * number, 10 * number + 10)
        add_steps(memory, number, configuration, steps, skipped=2)
    answer = ask(memory)
    assert [found["first_step"] for found in answer["optimizers"]] == [10, 20]
    assert answer["events"]["skipped"] == {"count": 60, "steps": [0, 14, 29], "values": [2.0] * 3}


def test_infinities_and_missing_columns_are_no_error():
    memory = MemoryProvider()
    add_steps(memory, 0, ADAM, [1, 2], skipped=[np.inf, np.nan], learning_rate=np.inf)
    answer = ask(memory)
    assert answer["events"]["skipped"] == {"count": 0, "steps": [1], "values": [np.inf]}
    assert answer["settings"]["learning_rate"]["constant"] is True
    memory = MemoryProvider()
    part = metadata.Part(("loss",))
    data = [(1, 1, np.ones(1, np.float32))]
    memory.add("run", "disttrain/steps/0", metadata.encode(metadata.STEPS, part), data)
    answer = ask(memory)
    assert (answer["settings"], answer["clipped"], answer["events"]) == ({}, None, {})
    with pytest.raises(errors.NotFoundError):
        ask(memory, "another")
