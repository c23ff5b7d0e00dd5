"""The benchmarks' own logic, on made-up numbers: what a figure is, and that all of it runs."""

import contextlib
import dataclasses
import gc
import json
import os
import platform
import sys

import keras
import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from tests._support.tiny_models import CLOSE, LABELS, X, batches, compiled, trainer_of
from tests.benchmarks import __main__ as command
from tests.benchmarks import checkpoint, comparison, harness, memory, models, report, telemetry
from tests.benchmarks.harness import Settings, Timings, Variant
from tests.benchmarks.slices import Slices


class Machine:
    """A clock, and variants that let it go on; its speed changes from slice to slice."""

    def __init__(self, noise=0.0):
        self.now = 0.0
        self.calls = []
        self._noise = noise
        self._rng = np.random.default_rng(0)

    def clock(self):
        return self.now

    def variant(self, name, cost=1.0, dear=0.0, **options):
        """`cost` seconds a step, and `dear` more for each `period`-th one."""
        made = Variant(name, lambda steps: self._run(name, steps, cost, dear), **options)
        self._done = getattr(self, "_done", {}) | {name: 0}
        self._period = getattr(self, "_period", {}) | {name: made.period}
        return made

    def _run(self, name, steps, cost, dear):
        self.calls.append((name, steps, gc.isenabled()))
        before = self._done[name]
        self._done[name] = after = before + steps
        period = self._period[name]
        seconds = cost * steps + dear * (after // period - before // period)
        self.now += seconds * np.exp(self._noise * self._rng.normal())


def measured(machine, variants, rounds=20, slice_seconds=8.0):
    return harness.measure(variants, Settings(rounds, slice_seconds), machine.clock)


# What a figure is


@pytest.mark.unit
def test_the_figure_is_the_median_of_the_ratios_within_rounds():
    # The machine was three times as slow in the third round, and disturbed once in the last.
    seconds = {"a": np.array([1.0, 1.0, 3.0, 1.0]), "b": np.array([1.1, 1.1, 3.3, 9.0])}
    timings = Timings(seconds, 10, 1, np.zeros(4))
    found = report.ratio("speed", "model", Variant("b", None, "a"), timings)
    assert found.summary.median == pytest.approx(1.1)
    assert found.details["ratio_of_sums"] == pytest.approx(14.5 / 6)
    assert found.details["milliseconds"] == pytest.approx(220)


@pytest.mark.unit
def test_what_is_too_rare_for_a_sample_is_added_to_each():
    seconds = {"a": np.full(3, 2.0), "b": np.full(3, 2.2)}
    variant, timings = Variant("b", None, "a"), Timings(seconds, 1, 1, np.arange(3))
    found = report.ratio("speed", "model", variant, timings, plus=np.full(3, 0.05))
    assert found.summary.median == pytest.approx(1.15)
    assert found.details["ratio_of_sums"] == pytest.approx(1.15)


@pytest.mark.unit
def test_the_spread_goes_from_the_10th_to_the_90th_percentile():
    found = harness.summarize(np.arange(101.0))
    assert (found.median, found.p10, found.p90, found.samples) == (50, 10, 90, 101)
    assert found.p10 < found.low < found.median < found.high < found.p90


@pytest.mark.unit
def test_the_interval_holds_the_true_median_about_19_times_in_20():
    rng = np.random.default_rng(1)
    summaries = [harness.summarize(rng.lognormal(size=60)) for _ in range(200)]
    holds = np.mean([s.low <= 1.0 <= s.high for s in summaries])
    assert 0.9 < holds < 0.99


@pytest.mark.unit
def test_the_interval_narrows_with_more_rounds_and_is_the_same_each_time():
    rng = np.random.default_rng(2)
    few, many = (harness.summarize(rng.normal(1.0, 0.1, n)) for n in (30, 3000))
    assert many.high - many.low < (few.high - few.low) / 4
    assert harness.summarize([1.0, 1.2, 1.1]) == harness.summarize([1.0, 1.2, 1.1])


@pytest.mark.unit
def test_the_interval_counts_builds_where_the_samples_of_one_are_alike():
    """Six builds of ten samples, which differ by builds alone: as good as six samples."""
    rng = np.random.default_rng(3)
    holds, widths = [], []
    for _ in range(150):
        builds = np.repeat(np.arange(6), 10)
        samples = rng.normal(1.0, 0.03, 6)[builds] + rng.normal(0.0, 0.003, 60)
        found = harness.summarize(samples, builds)
        alone = harness.summarize(samples)
        holds.append((found.low <= 1.0 <= found.high, alone.low <= 1.0 <= alone.high))
        widths.append((found.high - found.low) / (alone.high - alone.low))
    grouped, ungrouped = np.mean(holds, axis=0)
    assert grouped > 0.85 > ungrouped + 0.2
    assert np.median(widths) > 1.5


@pytest.mark.unit
def test_builds_that_do_not_differ_leave_the_interval_as_it_is():
    rng = np.random.default_rng(4)
    samples, builds = rng.normal(1.0, 0.1, 600), np.repeat(np.arange(30), 20)
    found, alone = harness.summarize(samples, builds), harness.summarize(samples)
    assert found.median == alone.median
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.4)


@pytest.mark.unit
def test_a_group_for_each_sample_is_asked_for():
    with pytest.raises(ValueError, match=r"3 samples, but groups of shape \(2,\)"):
        harness.summarize([1.0, 2.0, 3.0], [0, 1])


@pytest.mark.unit
def test_one_sample_is_its_own_interval():
    assert harness.summarize([1.5]) == harness.Summary(1.5, 1.5, 1.5, 1.5, 1.5, 1)


@pytest.mark.unit
@pytest.mark.parametrize("samples", [[], 1.0, [[1.0]]])
def test_what_is_no_list_of_numbers_is_refused(samples):
    with pytest.raises(ValueError, match="list of numbers"):
        harness.summarize(samples)


# Rounds


@pytest.mark.unit
def test_each_round_runs_every_variant_once_in_an_order_of_its_own():
    machine = Machine()
    variants = [machine.variant(name) for name in "abcd"]
    harness.interleave(variants, 5, 30, np.random.default_rng(0), machine.clock)
    orders = np.array([name for name, _, _ in machine.calls]).reshape(30, 4)
    assert all(sorted(order) == list("abcd") for order in orders)
    assert len({tuple(order) for order in orders}) > 10
    assert {steps for _, steps, _ in machine.calls} == {5}

    again = Machine()
    variants = [again.variant(name) for name in "abcd"]
    harness.interleave(variants, 5, 30, np.random.default_rng(0), again.clock)
    assert again.calls == machine.calls


@pytest.mark.unit
def test_garbage_is_collected_between_rounds_only():
    machine = Machine()
    frozen = gc.get_freeze_count()
    harness.interleave([machine.variant("a")], 1, 3, np.random.default_rng(0), machine.clock)
    assert not any(enabled for _, _, enabled in machine.calls)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen


@pytest.mark.unit
def test_garbage_collection_comes_back_after_an_error():
    def fail(steps):
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        harness.interleave([Variant("a", fail)], 1, 3, np.random.default_rng(0))
    assert gc.isenabled()


@pytest.mark.unit
def test_noise_that_hits_all_alike_leaves_the_ratio():
    machine = Machine(noise=0.3)
    off, on = machine.variant("off"), machine.variant("on", cost=1.2, baseline="off")
    timings = measured(machine, [off, on], rounds=600)
    found = harness.summarize(harness.ratios(timings, on))
    assert found.low < 1.2 < found.high
    assert found.median == pytest.approx(1.2, rel=0.05)


@pytest.mark.unit
def test_what_is_measured_is_built_anew_with_a_share_of_the_rounds():
    """Each build has a bias of its own, which the figure averages and its details tell."""
    machine, open_builds, closed = Machine(), [], []
    biases = [1.0, 1.3, 1.1, 1.2]

    @contextlib.contextmanager
    def build(number):
        open_builds.append(number)
        off = machine.variant("off")
        yield [off, machine.variant("on", cost=biases[number], baseline="off")]
        closed.append(number)

    timings = harness.measure_anew(build, Settings(18, 8.0, builds=4), machine.clock)
    assert open_builds == closed == [0, 1, 2, 3]
    assert timings.build.tolist() == [n for n in range(4) for _ in range(5)]
    assert timings.seconds["on"].shape == timings.seconds["off"].shape == (20,)
    assert timings.steps == 8
    found = report.ratio("speed", "model", Variant("on", None, "off"), timings)
    assert found.summary.median == pytest.approx(1.15)
    assert found.details["median_of_builds"] == pytest.approx(biases)
    assert (found.summary.low, found.summary.high) == pytest.approx((1.0, 1.3), abs=0.06)


@pytest.mark.unit
def test_all_variants_are_built_before_the_first_round():
    machine = Machine()
    measured(machine, [machine.variant("off"), machine.variant("on", baseline="off")], rounds=5)
    timed = machine.calls[-10:]
    warm = machine.calls[:-10]
    assert {"off", "on"} == {name for name, _, _ in warm}
    assert all(enabled for _, _, enabled in warm)
    assert not any(e for _, _, e in timed)
    # The last before the rounds are slices of the same length.
    assert [call[:2] for call in warm[-2:]] == [("off", 8), ("on", 8)]


@pytest.mark.unit
@pytest.mark.parametrize("slice_seconds", [1.0, 4.0, 9.0, 10.0, 37.0, 200.0])
def test_every_sample_has_its_share_of_dear_steps(slice_seconds):
    machine = Machine()
    off = machine.variant("off")
    on = machine.variant("on", dear=5.0, baseline="off", period=10)
    timings = measured(machine, [off, on], rounds=25, slice_seconds=slice_seconds)
    assert timings.steps % 10 == 0
    np.testing.assert_allclose(harness.ratios(timings, on), 1.5)
    # A slice is about as long as was asked for.
    assert slice_seconds / 2 <= timings.steps / timings.slices <= slice_seconds * 2


@pytest.mark.unit
@pytest.mark.parametrize("period", [1, 7, 10, 60])
@pytest.mark.parametrize("steps", [0.2, 1.0, 3.3, 9.9, 24.0, 500.0])
def test_a_sample_is_a_whole_number_of_periods(steps, period):
    of_a_slice, slices = harness.plan(steps, period)
    assert of_a_slice >= 1
    assert of_a_slice * slices % period == 0


@pytest.mark.unit
def test_a_baseline_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="'off' of 'on' is none of"):
        harness.measure([Variant("on", print, baseline="off")], Settings())


@pytest.mark.unit
def test_two_variants_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="names of their own"):
        harness.measure([Variant("on", print), Variant("on", print)], Settings())


# Slices of a training


def by_trainer(callback):
    made = trainer_of()
    by_trainer.optimizer = made.optimizer
    data = batches(X, LABELS).repeat()
    made.fit(data, steps_per_epoch=10**9, verbose=0, callbacks=[callback])


def by_keras(callback):
    model = compiled()
    by_keras.optimizer = model.optimizer
    data = batches(X, LABELS).repeat()
    model.fit(data, steps_per_epoch=10**9, verbose=0, callbacks=[callback])


@pytest.mark.graph
@pytest.mark.parametrize("train", [by_trainer, by_keras])
def test_a_slice_makes_the_steps_that_it_is_asked_for(train):
    with Slices(train) as run:
        for steps, total in ((2, 2), (5, 7), (1, 8)):
            run(steps)
            assert int(train.optimizer.iterations.numpy()) == run.steps == total
    assert not run._thread.is_alive()


@pytest.mark.graph
def test_several_steps_at_once_are_counted():
    def train(callback):
        model = compiled(steps_per_execution=4)
        train.optimizer = model.optimizer
        data = batches(X[:8], LABELS[:8]).repeat()
        model.fit(data, steps_per_epoch=10**9, verbose=0, callbacks=[callback])

    with Slices(train) as run:
        run(8)
        assert int(train.optimizer.iterations.numpy()) == 8


@pytest.mark.unit
def test_an_error_of_the_training_comes_out_of_the_slice():
    def train(callback):
        raise OSError("no data")

    with Slices(train) as run, pytest.raises(OSError, match="no data"):
        run(1)


@pytest.mark.graph
def test_a_training_that_ends_by_itself_is_an_error():
    def train(callback):
        compiled().fit(X, LABELS, verbose=0, callbacks=[callback])

    with Slices(train) as run, pytest.raises(RuntimeError, match="ended before its step 9"):
        run(9)


@pytest.mark.unit
def test_a_training_that_never_began_ends_too():
    with Slices(by_trainer):
        pass


# Reports


def figure(median=1.02, goal=1.03, samples=60):
    summary = harness.Summary(median, median - 0.01, median + 0.01, 0.9, 1.2, samples)
    return report.Figure("telemetry-speed", "mlp", "every=1", summary, goal, {"steps": 3})


@pytest.mark.unit
def test_a_goal_is_met_by_the_median():
    assert [figure(m).met for m in (1.02, 1.03, 1.031)] == [True, True, False]
    assert figure(goal=None).met is None


@pytest.mark.unit
def test_the_table_says_which_goals_are_met(capsys):
    import rich.console

    lines = [figure(), figure(1.5), figure(1.0, goal=None, samples=1)]
    rich.console.Console(width=120, file=sys.stdout).print(report.table("Time of a step", lines))
    title, _, _, *rows = [s for s in capsys.readouterr().out.splitlines() if s.strip()]
    assert title.strip() == "Time of a step"
    assert " ".join(rows[0].split()) == "mlp every=1 1.020 1.010 1.030 0.900 1.200 1.03 met"
    assert rows[1].split()[-1] == "missed"
    assert rows[2].split() == ["every=1", "1.000"]


@pytest.mark.unit
def test_no_word_of_a_table_is_cut(capsys):
    import rich.console

    line = dataclasses.replace(
        figure(1672.532, 1000.0), case="10,000 x 500, Python reader", name="first heatmap cold, s"
    )
    console = rich.console.Console(width=command.WIDTH, file=sys.stdout)
    console.print(report.table("Times", [line]))
    (row,) = [row for row in capsys.readouterr().out.splitlines() if "1672.532" in row]
    assert "10,000 x 500, Python reader   first heatmap cold, s" in row
    assert row.rstrip().endswith("1000.00 missed")


@pytest.mark.unit
def test_the_json_holds_figures_and_what_they_were_measured_on(tmp_path):
    path = tmp_path / "figures.json"
    report.write_json(path, [figure(), figure(goal=None)], Settings(rounds=7), {"speed": 1.5})
    content = json.loads(path.read_text())
    assert set(content) == {
        *("date", "python", "versions", "cores", "processor", "gpu", "settings", "seconds"),
        "figures",
    }
    assert content["seconds"] == {"speed": 1.5}
    assert content["processor"] == report.processor()
    assert [file.name for file in tmp_path.iterdir()] == ["figures.json"]
    assert content["versions"]["keras"] == keras.__version__
    assert set(content["versions"]) >= {"tensorflow", "keras", "disttrain"}
    assert content["cores"] >= 1
    assert content["gpu"] is None
    assert content["settings"]["rounds"] == 7
    first, second = content["figures"]
    assert first["summary"] == {
        "median": 1.02,
        "low": 1.01,
        "high": 1.03,
        "p10": 0.9,
        "p90": 1.2,
        "samples": 60,
    }
    assert (first["goal"], first["met"], first["details"]) == (1.03, True, {"steps": 3})
    assert second["met"] is None


@pytest.mark.unit
def test_figures_are_kept_when_a_later_benchmark_fails(tmp_path, monkeypatch, capsys):
    def fine(settings):
        """Fine."""
        yield figure()

    def broken(settings):
        """Broken."""
        raise OSError("no more")
        yield

    monkeypatch.setattr(command, "BENCHMARKS", {"fine": fine, "broken": broken})
    path = tmp_path / "figures.json"
    with pytest.raises(OSError, match="no more"):
        command.main(["--json", str(path)])
    content = json.loads(path.read_text())
    assert len(content["figures"]) == 1
    assert list(content["seconds"]) == ["fine"]
    assert capsys.readouterr().out.startswith("On ")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "name"),
    [
        (
            "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 1\nmodel name\t: AMD EPYC\n\n"
            "processor\t: 1\ncpu family\t: 26\nmodel name\t: other\n",
            "AMD EPYC (family 25, model 1)",
        ),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_the_processor_is_told_with_what_tells_it_from_its_like(text, name, tmp_path):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert report.processor(path) == name


# What telemetry costs


def write(logdir, tag, steps, numbers):
    """Writes records as a run does; returns the file's size after the first and the last."""
    writer = EventFileWriter(str(logdir))
    sizes = []
    for step in steps:
        tensor = tensor_util.make_tensor_proto(np.zeros(numbers, np.float32))
        value = summary_pb2.Summary.Value(tag=tag, tensor=tensor)
        if not sizes:
            value.metadata.plugin_data.content = b"x" * 1000
        writer.add_event(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=[value])))
        writer.flush()
        sizes.append(sum(os.path.getsize(logdir / name) for name in os.listdir(logdir)))
    writer.close()
    return sizes[0], sizes[-1]


@pytest.mark.unit
def test_recorded_bytes_are_those_by_which_the_file_grows(tmp_path):
    before, after = write(tmp_path, "disttrain/layers/0", range(1, 12), 30)
    assert telemetry.recorded(tmp_path) == (after - before, 10 * 30, 10)


@pytest.mark.unit
def test_scalars_of_other_pages_are_not_counted(tmp_path):
    write(tmp_path, "loss", range(5), 1)
    with pytest.raises(ValueError, match="no records"):
        telemetry.recorded(tmp_path)


@pytest.mark.unit
def test_a_run_that_was_recorded_too_seldom_is_an_error(tmp_path):
    write(tmp_path, "disttrain/layers/0", range(10, 1001, 10), 2)
    telemetry.check_recorded(tmp_path, 10, 1000)
    with pytest.raises(RuntimeError, match="99 steps of 1000, where every=5 asks for 200"):
        telemetry.check_recorded(tmp_path, 5, 1000)


@pytest.mark.graph
def test_the_plain_statistics_are_right_and_leave_the_training_as_it_is():
    bare, plain = telemetry.HandWritten(models.TINY), telemetry.HandWritten(models.TINY, True)
    for run in (bare, plain):
        run(2)
    before = plain.model.get_weights()
    for run in (bare, plain):
        run(1)
    after = plain.model.get_weights()
    for a, b in zip(bare.model.get_weights(), after, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    norms = [(np.linalg.norm(b - a), np.linalg.norm(b)) for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(plain.table.numpy()[:, 1:3], norms, **CLOSE)
    assert np.all(plain.table.numpy() > 0)


@pytest.mark.unit
def test_the_peak_of_a_process_never_goes_down():
    before = memory.peak_bytes()
    block = np.ones(2**23)
    during = memory.peak_bytes()
    del block
    # Linux counts pages by thread, and its sums are off by some of them.
    assert during <= memory.peak_bytes() + 2**20
    assert during >= before > 2**20


@pytest.mark.unit
@pytest.mark.parametrize("case", [*models.ALL, models.TINY], ids=lambda case: case.name)
def test_the_data_fit_the_models(case):
    x, y = case.dataset().element_spec
    model = case.build_model()
    assert model.compute_output_shape(x.shape)[:-1] == tuple(y.shape)


# The command


@pytest.mark.unit
def test_only_the_cases_that_are_asked_for_are_measured():
    assert [c.name for c in telemetry._cases(Settings(cases=("convnet",)))] == ["convnet"]
    assert list(telemetry._cases(Settings())) == list(models.ALL)


@pytest.mark.unit
@pytest.mark.parametrize("name", ["telemetry", "checkpoint", "page", "scaling", "growth"])
def test_the_first_part_of_a_name_stands_for_all_of_them(name):
    assert command.chosen([name]).keys() == {n for n in command.BENCHMARKS if n.startswith(name)}
    assert sorted(command.chosen([])) == sorted(command.BENCHMARKS)
    every = {name.partition("-")[0] for name in command.BENCHMARKS}
    assert sorted(command.chosen(every)) == sorted(command.BENCHMARKS)
    assert list(command.chosen(["telemetry-bytes"])) == ["telemetry-bytes"]


@pytest.mark.unit
def test_an_unknown_name_is_an_error_that_lists_the_others(capsys):
    with pytest.raises(SystemExit) as error:
        command.main(["speeed"])
    assert error.value.code == 2
    assert "no benchmark 'speeed'; there are speed, " in capsys.readouterr().err


@pytest.mark.graph
@pytest.mark.exhaustive
def test_quick_runs_from_end_to_end(tmp_path, capsys):
    path = tmp_path / "figures.json"
    # Memory needs processes of its own, which have to import TensorFlow first.
    names = ["telemetry-speed", "telemetry-bytes"]
    assert command.main([*names, "--quick", "--rounds", "2", "--json", str(path)]) == 0
    content = json.loads(path.read_text())
    assert content["settings"]["quick"] is True
    assert content["settings"]["rounds"] == 2
    found = {(f["benchmark"], f["name"]): f for f in content["figures"]}
    assert list(found) == [
        *(("telemetry-speed", n) for n in ("off again", "every=1", "defaults", "histograms")),
        ("telemetry-speed", "plain"),
        *(("telemetry-bytes", n) for n in ("every=1", "histograms")),
    ]
    assert {f["case"] for f in content["figures"]} == {"tiny"}
    assert found["telemetry-speed", "defaults"]["goal"] == telemetry.DEFAULTS
    assert found["telemetry-bytes", "every=1"]["summary"]["median"] > 4
    assert "telemetry-speed. Time of a step" in capsys.readouterr().out


@pytest.mark.graph
@pytest.mark.exhaustive
def test_checkpoints_are_measured_against_a_copy_and_an_interval():
    (save,) = checkpoint.save(harness.QUICK)
    assert save.goal == 2.0
    # A megabyte is copied in no time, so the ratio says nothing here.
    assert 0.5e6 < save.details["bytes"] < 2e6
    (resume,) = checkpoint.resume(harness.QUICK)
    assert resume.goal == 1.0
    assert 0 < resume.summary.median < 10
    assert resume.details["seconds"] > 0


@pytest.mark.unit
def test_false_claims_are_counted_over_repeats_whose_seeds_are_their_own(monkeypatch):
    asked = []

    def compared(optimizers, seeds):
        asked.append(list(seeds))
        return len(asked) % 4 == 0

    monkeypatch.setattr(comparison, "_comparison", compared)
    options = {"repeats": 20, "counts": lambda claimed: claimed, "goal": 0.05}
    found = comparison._share(Settings(), "false", "copies", "claimed", {"a": 1, "b": 2}, **options)
    assert [seed for seeds in asked for seed in seeds] == list(range(100))
    assert found.details == {"count": 5, "repeats": 20, "seeds": 5, "runs": 200}
    assert found.summary.median == 0.25
    # Clopper and Pearson (1934) for 5 of 20.
    assert found.summary.low == pytest.approx(0.0866, abs=1e-4)
    assert found.summary.high == pytest.approx(0.4910, abs=1e-4)
    assert found.met is False


@pytest.mark.graph
@pytest.mark.exhaustive
def test_copies_of_an_optimizer_are_compared_in_earnest():
    equal, noisy = comparison.false_claims(harness.QUICK)
    assert (equal.goal, noisy.goal) == (0.0, 0.05)
    assert (equal.details["runs"], noisy.details["runs"]) == (4, 6)
    assert equal.summary.median == 0.0
    copies = {name: comparison._noisy(number) for number, name in enumerate("ab")}
    found = comparison._comparison(copies, range(2))
    # Their noise makes them differ, each time in the same way.
    assert found.tests[0]["test"] == "t"
    assert found.tests == comparison._comparison(copies, range(2)).tests
