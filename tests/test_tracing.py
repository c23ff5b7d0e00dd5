"""What is traced for each object is not taken for a function that is traced again and again."""

import pytest
import tensorflow as tf

from disttrain.tracing import traced
from tests._support.tiny_models import X, Y, one_weight, trainer_of

pytestmark = pytest.mark.graph

#: More than TensorFlow takes for a mistake.
MANY = 7


class Adds:
    """Adds a number in one operation."""

    def __init__(self, number):
        self._number = number
        self.calls = 0
        self.run = traced(self._run)

    def _run(self, x, twice=False):
        self.calls += 1
        return x + self._number * (2 if twice else 1)


@pytest.fixture
def told(caplog):
    """What TensorFlow has warned of so far."""
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    with caplog.at_level("WARNING", logger=logger.name):
        yield lambda: [r.getMessage() for r in caplog.records if "retracing" in r.getMessage()]
    logger.removeHandler(caplog.handler)


def test_objects_that_are_each_traced_once_are_no_fault(told):
    made = [Adds(number) for number in range(MANY)]
    assert [int(one.run(tf.constant(1))) for one in made] == list(range(1, MANY + 1))
    assert [int(one.run(tf.constant(2))) for one in made] == list(range(2, MANY + 2))
    assert [one.calls for one in made] == [1] * MANY
    assert told() == []


def test_one_that_is_traced_for_each_shape_still_is(told):
    one = Adds(1)
    for size in range(MANY):
        assert one.run(tf.zeros([size])).shape == size
    assert told()


def test_arguments_and_names_are_those_of_the_method():
    one = Adds(3)
    assert int(one.run(tf.constant(1), twice=True)) == 7
    concrete = one.run.get_concrete_function(tf.TensorSpec([], tf.int32))
    assert b"_run" in concrete.name


@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_many_short_trainings_are_no_fault(told, mirrored, replicas):
    """As a search makes them: each trains, evaluates and predicts one batch."""
    replication = "single" if replicas == 1 else mirrored(replicas)
    for _ in range(MANY):
        trainer = trainer_of(one_weight, loss="mse", replication=replication)
        x, y = X[:, :1], Y[:, :1]
        trainer.fit(x, y, batch_size=len(x), verbose=0, validation_data=(x, y))
        trainer.predict(x, batch_size=len(x))
    assert told() == []
