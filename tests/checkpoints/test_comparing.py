"""What has changed is listed."""

import copy

import keras
import pytest

import disttrain
from disttrain.checkpoints import comparing
from disttrain.checkpoints.comparing import Changed

pytestmark = pytest.mark.unit

ENTRY = {"key": "model/0/dense/kernel", "path": "dense/kernel", "role": "equal"}
MANIFEST = {
    "step": 9,
    "replicas": 2,
    "variables": [
        {**ENTRY, "shape": [4, 3], "dtype": "float32"},
        {**ENTRY, "key": "model/1/dense/bias", "path": "dense/bias", "shape": [3], "dtype": "int8"},
        {**ENTRY, "key": "seeds/0/seed", "path": "seed", "shape": [2], "dtype": "int64"},
    ],
    "optimizer": {"inner": {"class_name": "Adam", "config": {"learning_rate": 0.1}}},
    "seed": 0,
    "data": {"steps": 10},
    "place": {"batches": 3},
}


def differences(change):
    now = copy.deepcopy(MANIFEST)
    change(now)
    with pytest.raises(Changed) as caught:
        comparing.check(MANIFEST, now)
    return str(caught.value)


def test_the_same_program_is_the_same():
    comparing.check(MANIFEST, copy.deepcopy(MANIFEST))


def test_a_changed_shape_is_named():
    said = differences(lambda now: now["variables"][0].update(shape=[4, 5]))
    assert "model: dense/kernel was float32[4, 3], now float32[4, 5]" in said
    assert "the checkpoint of step 9" in said


def test_a_lost_and_a_new_variable_are_named():
    gamma = {"key": "model/1/dense/gamma", "path": "dense/gamma"}
    said = differences(lambda now: now["variables"][1].update(gamma))
    assert "model no longer has dense/bias int8[3]" in said
    assert "model has dense/gamma int8[3], which it had not" in said


def test_another_order_is_a_difference():
    def swap(now):
        one, other, *_ = now["variables"]
        one["key"], other["key"] = "model/1/dense/kernel", "model/0/dense/bias"
        now["variables"][:2] = other, one

    assert "the variables come in another order" in differences(swap)


def test_seeds_that_one_run_used_and_the_other_did_not_are_none():
    now = copy.deepcopy(MANIFEST)
    del now["variables"][2]
    comparing.check(MANIFEST, now)


def test_the_optimizer_and_the_seed_are_compared_by_value():
    def change(now):
        now["optimizer"]["inner"]["class_name"] = "SGD"
        now["optimizer"]["inner"]["config"]["learning_rate"] = 0.2
        now["seed"] = 1

    said = differences(change)
    assert "optimizer.inner.class_name was 'Adam', now 'SGD'" in said
    assert "optimizer.inner.config.learning_rate was 0.1, now 0.2" in said
    assert "seed was 0, now 1" in said


def test_other_data_matter_in_the_middle_of_an_epoch_alone():
    assert "data.steps was 10, now 11" in differences(lambda now: now["data"].update(steps=11))
    now = copy.deepcopy(MANIFEST)
    now["data"]["steps"] = 11
    comparing.check({**MANIFEST, "place": {"batches": 0}}, now)


def test_names_and_addresses_are_no_differences():
    class Odd(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {"function": lambda: None}

    def one(name):
        inner = keras.optimizers.SGD(Odd(), name=name)
        return comparing.configuration(disttrain.DistributedOptimizer(inner))

    assert one("first") == one("second")


def test_an_optimizer_that_does_not_tell_its_configuration_is_known_by_its_class():
    class Silent(keras.optimizers.SGD):
        def get_config(self):
            raise NotImplementedError

    inner = Silent(0.1)
    found = comparing.configuration(disttrain.DistributedOptimizer(inner))
    assert found == {"class_name": "Silent"}
