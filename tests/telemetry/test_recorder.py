"""The event file: parts, metadata, and what happens when it cannot be written."""

import glob
import shutil

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from disttrain.telemetry import recorder
from tensorboard_plugin import metadata

pytestmark = pytest.mark.unit


def events(logdir):
    """`(tag, step, metadata or None, array)` of each summary in a run, as written."""
    from tensorboard.util import tensor_util

    found = []
    for path in sorted(glob.glob(f"{logdir}/events.*")):
        for event in EventFileLoader(path).Load():
            for value in event.summary.value:
                content = value.metadata.plugin_data.content
                array = tensor_util.make_ndarray(value.tensor)
                found.append((value.tag, event.step, content, array))
    return found


def write(logdir, descriptions):
    run = recorder.Recorder(str(logdir))
    for step, part in enumerate(descriptions, start=1):
        row = np.full((1, len(part.variables), len(part.columns)), step, np.float32)
        run.write_part(metadata.LAYERS, part, [step], row, [1000.0 + step])
    run.close()
    return events(logdir)


def part(*paths):
    return metadata.Part(("weight_norm", "update_norm"), tuple({"path": p} for p in paths))


def test_a_record_is_one_packed_float32_tensor(tmp_path):
    ((tag, step, content, array),) = write(tmp_path, [part("a", "b")])
    assert (tag, step) == ("disttrain/layers/0", 1)
    assert array.dtype == np.float32
    assert array.shape == (2, 2)
    assert metadata.decode(content) == part("a", "b")


def test_a_new_part_begins_when_the_variables_change(tmp_path):
    found = write(tmp_path, [part("a"), part("a"), part("a", "b"), part("a", "b")])
    assert [tag for tag, *_ in found] == ["disttrain/layers/0"] * 2 + ["disttrain/layers/1"] * 2


def test_a_new_part_begins_when_the_last_has_grown_large(tmp_path, monkeypatch):
    monkeypatch.setattr(metadata, "PART_BYTES", 20)
    found = write(tmp_path, [part("a")] * 7)
    assert [tag for tag, *_ in found] == [f"disttrain/layers/{i}" for i in (0, 0, 0, 1, 1, 1, 2)]


def test_numbers_become_scalars_and_the_rest_is_left_out(tmp_path):
    run = recorder.Recorder(str(tmp_path))
    run.write_scalars({"loss": 0.5, "confusion": np.ones((2, 2)), "name": "x"}, 3)
    run.close()
    ((tag, step, _, array),) = events(tmp_path)
    assert (tag, step, float(array)) == ("loss", 3, 0.5)


def test_a_failure_to_write_warns_once_and_is_no_error(tmp_path):
    run = recorder.Recorder(str(tmp_path))

    class Broken:
        def write(self, event):
            raise OSError(28, "No space left on device")

        flush = flush_now_and_then = close = write

    run._file.close()
    run._file = Broken()
    run.write_scalars({"loss": 1.0}, 1)
    with pytest.warns(UserWarning, match="No space left on device.*training goes on"):
        run.flush()
    run.write_scalars({"loss": 1.0}, 2)
    run.flush()
    run.close()


def test_a_full_disk_warns_once_and_is_no_error(tmp_path):
    run = recorder.Recorder(str(tmp_path))
    run._file._writer = tf.io.TFRecordWriter("/dev/full")
    with pytest.warns(UserWarning, match="(?s)No space left on device.*training goes on"):
        write_and_flush(run)
    write_and_flush(run)


def test_a_lost_directory_warns_once_and_is_no_error(tmp_path):
    run = recorder.Recorder(str(tmp_path / "run"))
    write_and_flush(run)
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(UserWarning, match="is gone.*training goes on"):
        write_and_flush(run)
    write_and_flush(run)


def write_and_flush(run):
    run.write_scalars({"loss": 1.0}, 1)
    run.flush()


def test_a_directory_that_cannot_be_made_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeError, match="file/run' cannot be written"):
        recorder.check_writable(str(tmp_path / "file" / "run"))


def test_a_configuration_becomes_json_whatever_it_holds():
    config = {"a": np.float32(1.5), "b": np.arange(2), "c": object, "d": [1, None]}
    plain = recorder.jsonable(config)
    assert plain["a"] == 1.5
    assert plain["b"] == [0, 1]
    assert plain["d"] == [1, None]
    assert isinstance(plain["c"], str)
