"""What the page for people who come from Horovod promises, row by row."""

import keras
import numpy as np
import pytest

import disttrain
from disttrain import from_horovod
from disttrain.schedules import Warmup
from tests._support import horovod_table

ROWS = horovod_table.rows()


@pytest.mark.graph
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.horovod[:40])
def test_each_row_runs_on_one_process(row, tmp_path):
    horovod_table.run(row, horovod_table.namespace(tmp_path))


@pytest.mark.unit
def test_every_name_and_argument_of_horovods_has_a_row():
    page = horovod_table.PAGE.read_text()
    for name in [*from_horovod.NAMES, *from_horovod.ARGUMENTS]:
        if name not in horovod_table.WITHOUT_A_ROW:
            assert name in page, name


@pytest.mark.unit
@pytest.mark.parametrize("name", sorted(from_horovod.NAMES))
def test_a_moved_name_is_an_error_that_says_what_to_use(name):
    if name in disttrain.__all__:
        pytest.skip(f"disttrain.{name} exists")
    for module in (disttrain, disttrain.callbacks):
        assert not hasattr(module, name)
        with pytest.raises(AttributeError, match="coming from Horovod: (use|leave|give)"):
            getattr(module, name)


@pytest.mark.unit
@pytest.mark.parametrize("name", sorted(from_horovod.ARGUMENTS))
def test_a_moved_argument_is_an_error_that_says_what_to_use(name):
    with pytest.raises(TypeError, match=f"no argument '{name}'; coming from Horovod"):
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), **{name: 1})


@pytest.mark.unit
def test_accumulation_of_horovods_says_that_here_gradients_are_averaged():
    with pytest.raises(TypeError, match=r"averages the gradients.*Horovod adds them by default"):
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), backward_passes_per_step=2)


@pytest.mark.unit
def test_other_unknown_names_stay_plain_errors():
    with pytest.raises(TypeError, match=r"has no argument 'clips'$"):
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), clips=1)
    with pytest.raises(ValueError, match=r"groups must be a whole number.*not \[\['a'\]\]"):
        disttrain.DistributedOptimizer(keras.optimizers.SGD(0.1), groups=[["a"]])
    with pytest.raises(AttributeError, match="has no attribute 'Traner'$"):
        disttrain.Traner  # noqa: B018


@pytest.mark.unit
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), TypeError, r"sets replication, not root_rank; write BroadcastVariables\(\)"),
        (("auto", 1), ValueError, "root_rank=1 is not the chief"),
    ],
)
def test_broadcasting_from_another_rank_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        disttrain.callbacks.BroadcastVariables(*arguments)


@pytest.mark.graph
@pytest.mark.parametrize("replicas", [2, 8])
def test_warmup_has_horovods_rate_in_every_batch(replicas):
    rate, steps = 0.8, 12
    schedule = Warmup(rate, steps, start=rate / replicas, ahead=1)
    ours = [float(schedule(k)) for k in range(steps + 3)]
    theirs = [rate / replicas + (rate - rate / replicas) * (k + 1) / steps for k in range(steps)]
    np.testing.assert_allclose(ours, [*theirs, rate, rate, rate], rtol=1e-6)
    again = Warmup.from_config(schedule.get_config())
    assert float(again(3)) == ours[3]
    behind = Warmup(rate, steps, start=rate / replicas)
    np.testing.assert_allclose([float(behind(k + 1)) for k in range(steps)], theirs, rtol=1e-6)


@pytest.mark.unit
def test_objects_of_one_process():
    obj = {"a": [1, 2]}
    assert disttrain.broadcast_object(obj) is obj
    assert disttrain.allgather_object(obj) == [obj]
    for wrong in (1, -1):
        with pytest.raises(ValueError, match=f"there is no process {wrong}"):
            disttrain.broadcast_object(obj, root_rank=wrong)
    with pytest.raises(ValueError, match="must be the number of a process"):
        disttrain.broadcast_object(obj, root_rank=None)
