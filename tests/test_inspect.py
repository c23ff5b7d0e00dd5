"""`disttrain inspect`: what it prints of a run, of several, and of what is no run."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from disttrain import cli
from disttrain.inspect import display, summary
from disttrain.telemetry.recorder import Recorder
from tensorboard_plugin import health, metadata
from tests._support.timeouts import TIMEOUT
from tests.plugin import run_writer
from tests.plugin.health_runs import SGD, Training

NAMES = ["embedding/embeddings", *(f"block_{i}/{k}" for i in range(5) for k in ("kernel", "bias"))]


def write(directory, training, extra=()):
    """Writes a `Training` as the trainer does."""
    run = Recorder(str(directory))
    columns = tuple(s.name for s in metadata.layer_statistics(["momentum", "velocity"]))
    steps = tuple(s.name for s in metadata.STEP_QUANTITIES)
    local = tuple(s.name for s in metadata.REPLICA_QUANTITIES)
    replicas = training.replicas.shape[1]
    optimizer = training.optimizer
    walls = 1.7e9 + training.steps
    for tag, part, rows in (
        (
            metadata.LAYERS,
            metadata.Part(columns, tuple(training.variables), optimizer, replicas),
            training.layers,
        ),
        (metadata.STEPS, metadata.Part(steps, (), optimizer, replicas), training.quantities),
        (metadata.REPLICAS, metadata.Part(local, (), optimizer, replicas), training.replicas),
        *extra,
    ):
        run.write_part(tag, part, training.steps, rows, walls)
    run.close()
    return directory


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return write(tmp_path_factory.mktemp("runs") / "healthy", Training())


@pytest.fixture(scope="module")
def sick(tmp_path_factory):
    training = Training(800, optimizer=SGD)
    training.layer("update_ratio", "block_2/kernel")[:] = 0.03
    training.layer("weight_norm", "block_1/bias")[-1] = np.nan
    training.quantity("clip_factor")[:] = 0.2
    return write(tmp_path_factory.mktemp("runs") / "sick", training)


@pytest.fixture(scope="module")
def several(healthy, sick, tmp_path_factory):
    root = tmp_path_factory.mktemp("several")
    for name, run in (("deep/healthy", healthy), ("sick", sick)):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(run)
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs the command; returns its exit status, output and errors."""

    def call(*arguments, width=120):
        monkeypatch.setenv("COLUMNS", str(width))
        status = cli.main(["inspect", *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def rows(output):
    """The table's lines, by the path that they begin with."""
    lines = output.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("Variable"))
    end = next(i for i, line in enumerate(lines) if line.startswith("Medians"))
    return {line.split()[0]: line for line in lines[begin + 1 : end]}


# A run.


@pytest.mark.unit
def test_the_table_has_a_line_for_each_variable_in_model_order(run, healthy):
    status, output, _ = run(healthy)
    assert status == 0
    table = rows(output)
    assert list(table) == NAMES
    assert "64x64" in table["block_0/kernel"]
    assert "4.1k" in table["block_0/kernel"]
    assert "No findings." in output


@pytest.mark.unit
def test_the_head_tells_what_the_run_did(run, healthy):
    output = " ".join(run(healthy)[1].split())
    for text in (
        "Optimizer Adam",
        "Replicas 4 replicas; batch 256,",
        "Steps 1 to 400, 400 records",
        "Learning rate 2.5e-05 → 0, at most",
        "Clip ClipByGlobalNorm(limit=1.0): acted in",
        "about the batch size above which more examples in a step help little",
        "84,800 parameters in 11 variables; optimizer memory 678 kB (momentum 339 kB",
    ):
        assert text in output, text


@pytest.mark.unit
def test_values_are_medians_over_the_records(run, tmp_path):
    training = Training(41)
    training.layer("weight_norm", "block_0/kernel")[:] = np.arange(41) - 10
    training.layer("weight_norm", "block_0/kernel")[[3, 5]] = np.nan, np.inf
    _, output, _ = run(write(tmp_path / "run", training), "--json")
    (content,) = json.loads(output)["runs"]
    kernel = content["variables"][1]
    recorded = np.delete(np.arange(41) - 10, [3, 5])
    assert kernel["statistics"]["weight_norm"] == np.median(recorded)


@pytest.mark.unit
def test_a_ratio_far_from_the_target_gets_an_arrow_but_not_that_of_a_bias(run, tmp_path):
    training = Training(30)
    for path, ratio in (("block_0/kernel", 0.2), ("block_1/kernel", 1e-6), ("block_1/bias", 0.2)):
        training.layer("update_ratio", path)[:] = ratio
    table = rows(run(write(tmp_path / "run", training))[1])
    assert "2.0e-01 ↑" in table["block_0/kernel"]
    assert "1.0e-06 ↓" in table["block_1/kernel"]
    assert "2.0e-01  " in table["block_1/bias"]
    assert "↑" not in table["block_1/bias"]


@pytest.mark.unit
def test_findings_come_worst_first_with_what_to_try(run, sick):
    status, output, _ = run(sick)
    assert status == 0
    assert "Findings: 1 error, 2 warnings" in output
    places = [output.index(text) for text in ("NaN or infinite", "0.03", "ClipByGlobalNorm acted")]
    assert places == sorted(places)
    assert output.count("Try: ") == 3


@pytest.mark.unit
def test_sorting_puts_the_largest_first(run, sick):
    assert next(iter(rows(run(sick, "--sort", "update_ratio")[1]))) == "block_2/kernel"
    assert next(iter(rows(run(sick, "--sort", "parameters")[1]))) == "embedding/embeddings"


@pytest.mark.unit
def test_what_was_not_recorded_is_sorted_last(run, tmp_path):
    training = Training(30)
    training.layers[:, 0] = np.nan
    output = run(write(tmp_path / "run", training), "--sort", "gradient_norm")[1]
    assert list(rows(output))[-1] == "embedding/embeddings"


@pytest.mark.unit
def test_the_last_records_alone(run, sick):
    output = run(sick, "--last", "50")[1]
    assert "751 to 800, 50 records" in output
    assert "Medians of 50 records" in output
    assert "800 records" in run(sick, "--last", "5000")[1]


@pytest.mark.unit
@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(run, sick, width):
    output = run(sick, width=width)[1]
    assert max(map(len, output.splitlines())) <= width
    assert len(rows(output)) == len(NAMES)


@pytest.mark.unit
def test_columns_that_do_not_fit_are_named(run, healthy):
    assert "Not shown for want of width" not in run(healthy, width=200)[1]
    narrow = run(healthy, width=80)[1]
    header = next(line for line in narrow.splitlines() if line.startswith("Variable"))
    assert "Ratio over steps" in header
    assert "Velocity" not in header
    assert "Velocity." in narrow


@pytest.mark.unit
def test_what_is_piped_has_no_colours(run, sick):
    assert "\x1b" not in run(sick)[1]


@pytest.mark.unit
def test_a_terminal_gets_colours(run, sick, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31merror" in run(sick)[1]


@pytest.mark.unit
def test_json_holds_the_table_and_the_findings(run, sick):
    status, output, _ = run(sick, "--json")
    assert status == 0
    content = json.loads(output, parse_constant=pytest.fail)
    (one,) = content["runs"]
    assert (one["name"], one["replicas"], one["records"]) == (".", 4, 800)
    assert [v["path"] for v in one["variables"]] == NAMES
    assert one["variables"][1]["statistics"]["slot/velocity"] > 0
    assert one["loss"].keys() == {"first", "last", "highest"}
    assert one["optimizer_bytes"] == {"momentum": 339200, "velocity": 339200}
    worst = one["findings"][0]
    assert (worst["rule"], worst["layer"]) == ("not_finite", "block_1/bias")
    assert worst["place"] == {"tab": "layer", "statistic": "weight_norm"}
    assert one["problems"] == []


@pytest.mark.unit
def test_a_run_that_changed_its_optimizer_and_variables_is_shown_whole(run, tmp_path):
    first, second = Training(30), Training(60, optimizer=SGD)
    columns = tuple(s.name for s in metadata.layer_statistics(["momentum", "velocity"]))
    log = Recorder(str(tmp_path))
    some = metadata.Part(columns, tuple(first.variables[:3]), first.optimizer)
    log.write_part(metadata.LAYERS, some, first.steps, first.layers[:, :3], 1e9 + first.steps)
    whole = metadata.Part(columns, tuple(second.variables), second.optimizer)
    later = slice(30, None)
    log.write_part(
        metadata.LAYERS,
        whole,
        second.steps[later],
        second.layers[later],
        1e9 + second.steps[later],
    )
    log.close()
    output = run(tmp_path)[1]
    assert list(rows(output)) == NAMES
    assert "1 to 60, 60 records" in output
    assert "SGD" in output


# Several runs.


@pytest.mark.unit
def test_several_runs_are_listed_with_their_findings(run, several):
    status, output, _ = run(several)
    assert status == 0
    lines = {line.split()[0]: line for line in output.splitlines() if line}
    assert "1 error, 2 warnings" in lines["sick"]
    assert lines["deep/healthy"].rstrip().endswith("none")
    assert "--run sick shows one of them" in output


@pytest.mark.unit
def test_one_of_several_runs_is_shown_in_full(run, several):
    assert list(rows(run(several, "--run", "deep/healthy")[1])) == NAMES


@pytest.mark.unit
def test_json_holds_all_runs(run, several):
    content = json.loads(run(several, "--json")[1])
    assert [one["name"] for one in content["runs"]] == ["sick", "deep/healthy"]


# What is no run.


@pytest.mark.unit
def test_a_directory_that_does_not_exist(run, tmp_path):
    status, output, error = run(tmp_path / "nope")
    assert (status, output) == (2, "")
    assert "there is no directory" in error
    assert "nope" in error


@pytest.mark.unit
def test_a_file_is_no_directory(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, error = run(tmp_path / "file")
    assert status == 2
    assert "give the directory" in error


@pytest.mark.unit
def test_a_directory_without_event_files(run, tmp_path):
    status, _, error = run(tmp_path)
    assert status == 2
    assert "there is no event file" in error
    assert "logdir=" in error


@pytest.mark.unit
def test_event_files_of_another_program(run, tmp_path):
    log = Recorder(str(tmp_path))
    log.write_scalars({"loss": 1.0}, 1)
    log.close()
    status, _, error = run(tmp_path)
    assert status == 2
    assert "hold no statistics of disttrain" in error
    assert "telemetry=None" in error


@pytest.mark.unit
def test_a_run_that_does_not_exist(run, several):
    status, _, error = run(several, "--run", "sik")
    assert status == 2
    assert "did you mean 'sick'? there are 'deep/healthy', 'sick'" in error


@pytest.mark.unit
@pytest.mark.parametrize("name", ["../..", "/etc", "<img src=x>"])
def test_a_run_is_a_name_and_no_path(run, several, name):
    assert run(several, "--run", name)[0] == 2


@pytest.mark.unit
def test_a_statistic_that_does_not_exist(run, sick):
    status, output, error = run(sick, "--sort", "ratio")
    assert (status, output) == (2, "")
    assert "did you mean 'update_ratio'? there are parameters, weight_norm" in error


@pytest.mark.unit
@pytest.mark.parametrize("count", ["0", "-3", "1.5", "ten"])
def test_a_number_of_records_that_is_none(count, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", ".", "--last", count])
    assert stop.value.code == 2
    assert "a whole number from 1" in capsys.readouterr().err


# What may be in a file.


@pytest.mark.unit
def test_a_truncated_file_is_read_as_far_as_it_goes(run, healthy, tmp_path):
    (source,) = healthy.glob("events.*")
    (tmp_path / source.name).write_bytes(source.read_bytes()[:-100_000])
    status, output, _ = run(tmp_path)
    assert status == 0
    assert list(rows(output)) == NAMES


@pytest.mark.unit
def test_a_damaged_part_is_named_and_the_rest_shown(run, tmp_path):
    part = run_writer.layers_part([run_writer.variable("a/kernel")])
    with run_writer.RunWriter(tmp_path) as writer:
        for step in range(9):
            number = step // 3
            content = b'{"version": 1, "statis' if number == 1 else part
            values = np.full((1, len(part.columns)), step)
            writer.record(metadata.LAYERS, number, content, step, values)
    status, output, error = run(tmp_path)
    assert status == 0
    assert "0 to 8, 6 records" in output
    assert "Not read in full: disttrain/layers/1" in output
    assert error == ""


@pytest.mark.unit
def test_a_run_of_which_nothing_can_be_read_says_so(run, tmp_path):
    with run_writer.RunWriter(tmp_path) as writer:
        writer.record(metadata.LAYERS, 0, b"\xff\x00", 0, np.ones((1, 8)))
    status, output, _ = run(tmp_path)
    assert status == 2
    assert "Records   none" in output
    assert "Not read in full: disttrain/layers/0" in output


@pytest.mark.unit
def test_text_from_a_file_is_printed_as_text(run, tmp_path):
    training = Training(30, optimizer={"class_name": "[red]A\x1b[31m", "clip": "[b]x"})
    training.variables[1]["path"] = "[bold]a\x1b]0;title\x07\n" + "long" * 3000 + "/[/bold]kernel"
    output = run(write(tmp_path / "run", training))[1]
    assert "\x1b" not in output
    assert "\x07" not in output
    assert "[red]A" in output
    assert "[b]x" in output
    assert "[/bold]kernel" in output
    assert max(map(len, output.splitlines())) <= 120
    assert len(rows(output)) == len(NAMES)


@pytest.mark.unit
def test_a_single_record_without_replicas_is_shown(run, tmp_path):
    training = Training(1)
    log = Recorder(str(tmp_path))
    columns = tuple(s.name for s in metadata.layer_statistics(["momentum", "velocity"]))
    part = metadata.Part(columns, tuple(training.variables), {})
    log.write_part(metadata.LAYERS, part, [1], training.layers, [1e9])
    log.close()
    status, output, _ = run(tmp_path)
    assert status == 0
    assert "1 to 1, 1 record" in output


# Parts.


@pytest.mark.unit
def test_a_trend_is_drawn_on_a_log_scale():
    assert display._sparkline([1e-5, 1e-4, 1e-3, 1e-2]) == "▁▃▆█"
    assert display._sparkline([1e-3, 0, np.nan, 1e-3]) == "▅· ▅"
    assert display._sparkline([0.0, np.nan]) == "· "


@pytest.mark.unit
def test_noise_is_not_blown_up_to_a_trend():
    drawn = display._sparkline([1.0e-3, 1.1e-3, 1.0e-3])
    assert len(set(drawn)) <= 2
    assert not set(drawn) & {"▁", "█"}


@pytest.mark.unit
def test_a_trend_is_the_geometric_mean_of_what_is_not_0():
    ratios = np.array([[1e-4], [1e-2], [0], [0], [np.nan], [np.nan]], np.float32)
    table = health.Table.packed(np.arange(6), ["update_ratio"], ratios[..., None])
    drawn = summary._trends(table.columns["update_ratio"])
    np.testing.assert_allclose(drawn[0], [1e-4, 1e-2, 0, 0, np.nan, np.nan], rtol=1e-5)
    long = summary._trends(np.tile([[1e-4], [1e-2]], (80, 1)))
    np.testing.assert_allclose(long, np.full((1, summary.TREND), 1e-3), rtol=1e-5)


@pytest.mark.unit
def test_json_has_no_number_that_is_none():
    made = summary.jsonable({"a": [float("nan"), float("inf"), -float("inf")], "b": (1, "x")})
    assert made == {"a": [None, "Infinity", "-Infinity"], "b": [1, "x"]}


@pytest.mark.unit
def test_wrapped_optimizers_are_named_with_what_they_wrap():
    inner = {"class_name": "Adam", "config": {"epsilon": 1e-7}}
    wrapped = {"class_name": "Lookahead", "config": {"inner": inner}}
    assert display._optimizer_name(wrapped) == "Lookahead(Adam)"


# As a process.


@pytest.mark.processes
def test_the_command_needs_no_tensorflow(sick):
    code = (
        "import sys; from disttrain.cli import main; status = main(sys.argv[1:]); "
        "print(*sorted({'tensorflow', 'keras'} & set(sys.modules)), file=sys.stderr); "
        "sys.exit(status)"
    )
    command = [sys.executable, "-c", code, "inspect", str(sick)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert (result.returncode, result.stderr) == (0, "\n")
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "block_2/kernel" in result.stdout


@pytest.mark.processes
def test_an_output_that_cannot_hold_all_characters_is_no_error(sick):
    result = subprocess.run(
        [sys.executable, "-m", "disttrain.cli", "inspect", str(sick)],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        timeout=TIMEOUT,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"block_2/kernel" in result.stdout
