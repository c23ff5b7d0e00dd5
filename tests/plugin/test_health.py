"""Each rule finds its fault, and keeps silent on the healthy twin."""

import dataclasses
import json
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from tensorboard_plugin import health, metadata
from tensorboard_plugin.health import evidence, finding
from tests.plugin.health_runs import ADAM, DYNAMIC, SGD, Training

pytestmark = pytest.mark.unit

KERNEL = "block_2/kernel"
BIAS = "block_2/bias"


def only(found, rule, severity=None):
    """The one finding that there is, which must be of the rule."""
    assert [(f.rule) for f in found] == [rule], [f.message for f in found]
    assert severity is None or found[0].severity == severity
    return found[0]


def of_rule(found, rule):
    return [f for f in found if f.rule == rule]


# Healthy runs.


@pytest.mark.parametrize("optimizer", [ADAM, SGD, DYNAMIC], ids=["adam", "sgd", "loss_scale"])
@pytest.mark.parametrize("every", [1, 10, 50])
@pytest.mark.parametrize("seed", range(3))
def test_a_healthy_run_gives_no_finding(optimizer, every, seed):
    training = Training(every=every, optimizer=optimizer, seed=seed)
    for rows in (slice(None), slice(100), slice(100, 200), slice(300, None)):
        assert training.findings(rows) == []


@pytest.mark.parametrize("records", range(5))
def test_a_short_run_gives_no_finding(records):
    training = Training(5)
    training.layer("update_ratio")[:] = 1
    training.layer("gradient_norm")[:] = 0
    training.quantity("clip_factor")[:] = 0.1
    assert training.findings(slice(records)) == []


def test_an_empty_run_gives_no_finding():
    assert health.findings(health.Run()) == []


def test_a_run_without_layers_or_replicas_is_judged_by_the_rest():
    training = Training(optimizer=SGD)
    training.quantity("clip_factor")[:] = 0.1
    run = health.Run(quantities=training.run().quantities, optimizer=SGD)
    only(health.findings(run), "clip_always")


# Not finite.


def test_a_gradient_that_is_not_finite_names_the_variables_it_began_in():
    training = Training()
    training.layer("nonfinite", KERNEL)[200] = 12
    training.layer("nonfinite")[201] = 3
    training.layer("gradient_norm")[200:202] = np.nan
    found = only(training.findings(), "not_finite", "warning")
    assert (found.layer, found.first_step, found.last_step) == (KERNEL, 201, 202)
    assert found.layers[0].numbers == {"records": 2, "elements": 12, "share": 12 / 64**2}
    assert "in 2 of 400 records, first at step 201" in found.message
    assert found.place == health.Place("overview", "nonfinite")


def test_gradients_that_stay_not_finite_are_an_error():
    training = Training()
    training.layer("nonfinite", KERNEL)[-3:] = 1
    only(training.findings(), "not_finite", "error")


def test_overflows_are_no_finding_where_a_loss_scale_provokes_them():
    """A healthy run with a loss scale has some; twenty in a row at the end are another thing."""
    training = Training(optimizer=DYNAMIC)
    training.layer("nonfinite", KERNEL)[-19:] = 1
    assert training.findings() == []
    training.layer("nonfinite", KERNEL)[-20:] = 1
    only(training.findings(), "not_finite", "error")


def test_weights_that_are_not_finite_are_an_error_however_few_records_there_are():
    training = Training(5)
    training.layer("weight_norm", BIAS)[3:] = np.nan
    training.layer("weight_norm", KERNEL)[4:] = np.inf
    found = only(training.findings(), "not_finite", "error")
    assert [item.path for item in found.layers] == [BIAS, KERNEL]
    assert found.first_step == 4
    assert found.message.startswith("2 of 11 variables hold weights that are NaN or infinite")


def test_a_row_that_was_not_recorded_is_not_taken_for_nan():
    training = Training()
    training.layers[:100, training.paths.index(KERNEL)] = np.nan
    assert training.findings() == []


def test_steps_that_were_skipped_between_records_are_found():
    training = Training(every=10)
    training.quantity("skipped")[[150, 250]] = 1, 2
    found = only(training.findings(), "not_finite", "warning")
    assert "3 steps were skipped" in found.message
    assert found.numbers == {"skipped": 3}


def test_a_loss_that_is_not_finite_is_found_without_a_gradient_that_is():
    training = Training()
    training.quantity("loss")[50] = np.nan
    only(training.findings(), "not_finite", "warning")


# Gradients.


def test_a_gradient_that_grows_and_stays_large_explodes():
    training = Training()
    training.layer("gradient_norm", KERNEL)[350:] *= 10.0 ** np.linspace(0, 6, 50)
    found = only(training.findings(), "exploding_gradient", "error")
    assert found.layer == KERNEL
    assert 351 < found.first_step < 391
    assert found.last_step == 400
    assert found.numbers["factor"] > 1e4


def test_an_explosion_that_is_over_is_a_warning():
    training = Training()
    training.layer("gradient_norm", KERNEL)[300:320] *= 1e4
    found = only(training.findings(), "exploding_gradient", "warning")
    assert (found.first_step, found.last_step) == (301, 320)


@pytest.mark.parametrize("records", [1, 3, 8])
def test_a_few_odd_batches_are_no_explosion(records):
    training = Training()
    training.layer("gradient_norm")[200 : 200 + records] *= 1e4
    assert training.findings() == []


def test_a_layer_that_wakes_up_does_not_explode():
    """As one behind a kernel that was initialised with 0 does."""
    training = Training()
    training.layer("gradient_norm", KERNEL)[:250] *= 1e-3
    assert training.findings() == []


def test_a_gradient_that_falls_by_a_thousand_is_no_explosion_at_its_beginning():
    training = Training()
    training.layer("gradient_norm")[:] *= 10 ** np.linspace(0, -3, 400)[:, None]
    assert training.findings() == []


def test_a_gradient_far_below_the_others_vanishes():
    training = Training()
    training.layer("gradient_norm", KERNEL)[:] *= 1e-5
    training.layer("slot/velocity", KERNEL)[:] *= 1e-10
    (found,) = of_rule(training.findings(), "vanishing_gradient")
    assert found.layer == KERNEL
    assert found.numbers["factor"] < 1e-4


@pytest.mark.parametrize("factor", [1e-3, 0.1])
def test_layers_may_differ_by_a_thousand(factor):
    training = Training(blocks=10)
    training.layer("gradient_norm", KERNEL)[:] *= factor
    assert training.findings() == []


def test_an_embedding_counts_by_the_rows_that_a_batch_holds():
    training = Training(seed=0)
    training.layer("gradient_norm", "embedding/embeddings")[:] *= 1e-3
    training.layer("zero_fraction", "embedding/embeddings")[:] = 0.99999
    assert training.findings() == []


@pytest.mark.parametrize("value", [0, np.nan])
def test_a_variable_without_gradient_is_found(value):
    training = Training()
    training.layer("gradient_norm", KERNEL)[:] = value
    training.layer("update_norm", KERNEL)[:] = 0
    training.layer("update_ratio", KERNEL)[:] = 0
    training.layer("slot/velocity", KERNEL)[:] = 0
    found = only(training.findings(), "no_gradient", "warning")
    assert found.layer == KERNEL
    assert found.numbers == {"recorded": 400 if value == 0 else 0, "records": 400}


def test_a_variable_that_is_not_trained_needs_no_gradient():
    training = Training()
    training.layer("gradient_norm", KERNEL)[:] = np.nan
    training.layer("update_norm", KERNEL)[:] = 0
    training.variables[training.paths.index(KERNEL)]["trainable"] = False
    assert training.findings() == []


def test_a_loss_that_nobody_knows_is_no_finding():
    """As of the rest of an accumulation that `Model.fit` applies at the end of an epoch."""
    training = Training()
    for name in ("loss", "examples_per_second"):
        training.quantity(name)[99::100] = np.nan
    assert training.findings() == []


def test_one_gradient_is_enough_to_be_reached_by_the_loss():
    training = Training()
    norms = training.layer("gradient_norm", KERNEL)
    norms[np.arange(400) % 50 != 0] = 0
    assert of_rule(training.findings(), "no_gradient") == []


def test_a_bias_whose_gradient_is_rounding_is_a_note_and_nothing_else():
    """As the key bias of attention, which softmax does not see."""
    training = Training()
    training.variables[training.paths.index(BIAS)]["shape"] = [4, 16]
    training.layer("gradient_norm", BIAS)[:] *= 1e-8
    training.layer("slot/velocity", BIAS)[:] *= 1e-16
    found = only(training.findings(), "rounding_gradient", "note")
    assert found.layer == BIAS


# Updates.


def test_a_variable_that_stands_still_for_long_is_found():
    training = Training()
    training.layer("update_norm", KERNEL)[200:] = 0
    found = only(training.findings(), "no_update", "warning")
    # At the last step the learning rate is 0, and nothing can move.
    assert (found.layer, found.first_step, found.last_step) == (KERNEL, 201, 399)
    assert "learning rate of 0" in found.advice


def test_dead_units_are_told_from_an_optimizer_that_does_not_move():
    training = Training()
    training.layer("update_norm", KERNEL)[200:] = 0
    training.layer("gradient_norm", KERNEL)[200:] = 0
    assert "dead ReLUs" in only(training.findings(), "no_update").advice


def test_updates_that_half_precision_rounds_away_are_named_so():
    training = Training()
    training.variables[training.paths.index(KERNEL)]["dtype"] = "bfloat16"
    training.layer("update_norm", KERNEL)[200:] = 0
    found = only(training.findings(), "no_update")
    assert "rounded away" in found.why
    assert "float32" in found.advice


def test_a_short_rest_is_no_standstill():
    training = Training()
    training.layer("update_norm", KERNEL)[200:280] = 0
    assert training.findings() == []


def test_nothing_moves_where_the_learning_rate_is_0():
    training = Training()
    training.layer("update_norm")[200:] = 0
    training.layer("update_ratio")[200:] = 0
    training.quantity("learning_rate")[200:] = 0
    assert training.findings() == []


def test_a_frozen_group_may_stand_still():
    group = {"pattern": "block_2/*", "frozen": True}
    grouped = {"class_name": "Grouped", "config": {"inner": ADAM, "groups": [group]}}
    training = Training(optimizer=grouped)
    training.layer("update_norm", KERNEL)[:] = 0
    training.layer("update_ratio", KERNEL)[:] = 0
    assert training.findings() == []
    training.layer("update_norm", KERNEL)[:200] = 1
    only(training.findings(), "no_update")


def test_a_ratio_that_stays_high_is_found():
    training = Training(800)
    training.layer("update_ratio", KERNEL)[100:700] = 0.03
    found = only(training.findings(), "update_ratio_high", "warning")
    assert (found.layer, found.first_step, found.last_step) == (KERNEL, 101, 700)
    assert found.numbers["median"] == pytest.approx(0.03)
    assert "by a factor of up to 30" in found.advice


def test_a_ratio_that_tears_weights_apart_is_found_sooner():
    training = Training()
    training.layer("update_ratio", KERNEL)[120:260] = 0.3
    only(training.findings(), "update_ratio_high")


def test_a_ratio_that_is_high_for_some_hundred_steps_settles():
    training = Training(800)
    training.layer("update_ratio", KERNEL)[:500] = 0.03
    assert training.findings() == []


def test_biases_may_have_high_ratios():
    training = Training()
    training.layer("update_ratio", BIAS)[:] = 0.5
    assert training.findings() == []


def test_a_ratio_that_is_low_all_along_is_found():
    training = Training()
    training.layer("update_ratio", KERNEL)[:] = 2e-6
    found = only(training.findings(), "update_ratio_low", "warning")
    assert found.layer == KERNEL
    assert found.numbers["median"] == pytest.approx(2e-6, rel=0.1)  # of what is not 0
    assert "Only some layers" in found.advice


def test_where_all_ratios_are_low_the_learning_rate_is():
    training = Training()
    training.layer("update_ratio")[:] *= 1e-4
    found = only(training.findings(), "update_ratio_low")
    assert len(found.layers) == 6  # the matrices
    assert "All layers are slow" in found.advice


def test_a_ratio_may_be_low_at_the_end():
    training = Training()
    training.layer("update_ratio")[250:] *= 1e-4
    assert training.findings() == []
    # A window without the beginning cannot know.
    assert training.findings(slice(250, None)) == []


def test_a_ratio_may_be_low_in_a_long_warmup():
    training = Training()
    training.quantity("learning_rate")[:] = 1e-6 * np.arange(1, 401)
    training.layer("update_ratio")[:] = 1e-6
    assert training.findings() == []


# Clip, epsilon, loss scale.


def test_a_clip_that_always_acts_is_the_learning_rate_of_sgd():
    training = Training(optimizer=SGD)
    training.quantity("clip_factor")[:] = 0.2
    found = only(training.findings(), "clip_always", "warning")
    assert found.message.startswith("ClipByGlobalNorm acted on 100% of 300 recorded steps")
    assert "the clip is your learning rate" in found.why
    assert found.numbers["norm_p90"] == pytest.approx(
        np.quantile(training.quantity("gradient_norm")[100:], 0.9)
    )


def test_a_clip_that_always_acts_is_a_note_for_adam():
    training = Training(optimizer=ADAM)
    training.quantity("clip_factor")[:] = 0.2
    assert "Adam does not mind" in only(training.findings(), "clip_always", "note").why


@pytest.mark.parametrize("acting", [0.5, 0.8])
def test_a_clip_may_act_often(acting):
    training = Training(optimizer=SGD)
    training.quantity("clip_factor")[: int(400 * acting)] = 0.2
    assert training.findings() == []


def test_a_clip_that_hardly_changes_anything_may_always_act():
    training = Training(optimizer=SGD)
    training.quantity("clip_factor")[:] = 0.95
    assert training.findings() == []


def test_autoclip_always_acts_by_design():
    training = Training(optimizer={**SGD, "clip": "AutoClip(percentile=10.0)"})
    training.quantity("clip_factor")[:] = 0.2
    assert training.findings() == []


def plant_velocity(training, elements, path=KERNEL):
    """Writes the norm of a second moment with these elements, as if it had been there for ever."""
    norm = np.sqrt(np.sum(np.square(elements, dtype=np.float64)))
    correction = 1 - 0.999 ** training.steps.astype(float)
    training.layer("slot/velocity", path)[:] = norm * correction
    training.layer("zero_fraction", path)[:] = np.mean(elements == 0)


@pytest.mark.parametrize("scale", [1e-9, 1e-10])
def test_epsilon_above_the_second_moment_is_found(scale):
    training = Training()
    rng = np.random.default_rng(0)
    plant_velocity(training, (scale * rng.normal(size=64**2)) ** 2)
    found = only(training.findings(), "epsilon_dominates", "warning")
    assert found.layer == KERNEL
    assert found.numbers["epsilon"] == 1e-7
    assert scale < found.numbers["root"] < 2 * scale


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    strategies.floats(-3, 3), strategies.floats(0.01, 4), strategies.integers(0, 2**32 - 1)
)
def test_where_epsilon_is_said_to_dominate_half_of_the_elements_lie_below_it(level, spread, seed):
    """Whatever the distribution of the second moment; the rule knows its norm alone."""
    rng = np.random.default_rng(seed)
    velocity = (1e-7 * np.exp(rng.normal(level, spread, 64**2))) ** 2
    training = Training(200)
    plant_velocity(training, velocity)
    if of_rule(training.findings(), "epsilon_dominates"):
        assert np.mean(np.sqrt(velocity) < 1e-7) >= 0.5


def test_rows_of_an_embedding_that_never_occur_do_not_make_epsilon_dominate():
    training = Training()
    velocity = np.zeros(1000 * 64)
    velocity[:64] = (3e-7) ** 2
    plant_velocity(training, velocity, "embedding/embeddings")
    assert training.findings() == []


def test_a_second_moment_that_only_begins_to_fill_is_not_taken_for_small():
    training = Training()
    training.layer("slot/velocity", KERNEL)[:] = 64 * 2e-14 * (1 - 0.999**training.steps)
    assert training.findings() == []


def test_after_a_switch_the_second_moment_fills_again():
    training = Training()
    fill = 1 - 0.999 ** np.maximum(training.steps - 250 + 1.0, 0)
    training.layer("slot/velocity", KERNEL)[:] = 64 * 2e-14 * fill
    training.since = 250
    assert training.findings() == []


def test_rmsprop_adds_epsilon_before_the_root():
    rmsprop = {"class_name": "RMSprop", "config": {"epsilon": 1e-7, "rho": 0.9}}
    training = Training(optimizer=rmsprop)
    training.layer("slot/velocity")[:] = 64 * 1e-6
    training.layer("slot/velocity", KERNEL)[:] = 64 * 1e-9
    assert only(training.findings(), "epsilon_dominates").layer == KERNEL


def test_a_large_epsilon_was_chosen_and_is_a_note():
    chosen = {**ADAM, "config": {"epsilon": 0.1, "beta_2": 0.999}}
    only(Training(optimizer=chosen).findings(), "epsilon_dominates", "note")


@pytest.mark.parametrize("epsilon", [None, "1e-7", 0, float("nan")])
def test_an_epsilon_that_is_none_is_left_alone(epsilon):
    training = Training(optimizer={**ADAM, "config": {"epsilon": epsilon}})
    training.layer("slot/velocity")[:] = 1e-30
    assert training.findings() == []


def test_the_epsilon_of_an_optimizer_inside_of_a_wrapper_counts():
    training = Training(optimizer={"class_name": "Lookahead", "config": {"inner": ADAM}})
    training.layer("slot/velocity", KERNEL)[:] = 1e-30
    only(training.findings(), "epsilon_dominates")


def test_a_loss_scale_that_falls_and_stays_low_is_found():
    training = Training(optimizer=DYNAMIC)
    scale = training.quantity("loss_scale")
    scale[280:] = np.maximum(1, 2.0**13 / 2.0 ** np.arange(120))
    training.quantity("skipped")[280:] = np.arange(120) < 13
    found = only(training.findings(), "loss_scale_collapses", "warning")
    assert found.numbers["last"] == 1
    assert found.first_step < 295
    training.quantity("skipped")[-10:] = 1
    assert training.findings()[0].severity == "error"


def test_a_loss_scale_that_recovers_has_not_collapsed():
    training = Training(optimizer=DYNAMIC)
    training.quantity("loss_scale")[150:250] = 2
    assert training.findings() == []


def test_a_fixed_loss_scale_does_not_collapse():
    training = Training(optimizer={**ADAM, "loss_scale": "FixedLossScale(2)"})
    training.quantity("loss_scale")[:] = 2
    assert training.findings() == []


@pytest.mark.parametrize(("steps", "severity"), [(30, "warning"), (200, "error")])
def test_many_skipped_steps_are_found(steps, severity):
    training = Training(optimizer=DYNAMIC)
    training.quantity("skipped")[150 : 150 + steps] = 1
    found = only(training.findings(), "skipped_steps", severity)
    assert found.numbers["steps"] == 300
    assert found.numbers["skipped"] - steps in (0, 1)  # with that of the healthy run


def test_steps_skipped_while_a_loss_scale_finds_its_value_are_not_counted():
    training = Training(optimizer=DYNAMIC)
    training.quantity("skipped")[:50] = 1
    training.quantity("skipped")[200:205] = 1
    assert training.findings() == []


# Loss and batch size.


def test_a_loss_that_rises_again_is_found():
    training = Training()
    training.quantity("loss")[250:] += np.linspace(0, 3, 150)
    found = only(training.findings(), "loss_rises", "warning")
    assert 200 < found.first_step < 300
    assert found.numbers["last"] > found.numbers["lowest"] + 1


def test_a_loss_that_ends_above_its_beginning_is_found():
    """As that of a network whose units have died in the first steps."""
    training = Training()
    training.quantity("loss")[:] = 9.3
    training.quantity("loss")[0] = 2.3
    training.quantity("loss")[1:6] = 1e9
    found = only(training.findings(), "loss_rises", "warning")
    assert found.message == "The loss began at 2.3 and has risen to 9.3."


def test_a_loss_that_does_not_fall_is_a_note():
    training = Training()
    training.quantity("loss")[:] = 2.3 + np.random.default_rng(0).normal(0, 0.05, 400)
    only(training.findings(), "loss_flat", "note")


def test_a_loss_may_be_flat_in_a_window_without_the_beginning():
    training = Training()
    training.quantity("loss")[:] = 2.3 + np.random.default_rng(0).normal(0, 0.05, 400)
    assert training.findings(slice(150, None)) == []


def test_a_bump_in_the_loss_is_no_divergence():
    training = Training()
    training.quantity("loss")[200:230] += 5
    assert training.findings() == []


def test_a_batch_far_above_the_noise_scale_is_a_note():
    training = Training()
    training.quantity("noise_scale")[:] /= 40
    found = only(training.findings(), "batch_above_noise_scale", "note")
    assert found.numbers["batch"] == pytest.approx(256, rel=0.01)


def test_a_batch_far_below_the_noise_scale_is_a_note():
    training = Training()
    training.quantity("noise_scale")[:] *= 100
    only(training.findings(), "batch_below_noise_scale", "note")


@pytest.mark.parametrize("value", [np.nan, -5.0])
def test_without_a_noise_scale_nothing_is_said_of_the_batch(value):
    training = Training()
    training.quantity("noise_scale")[:] = value
    assert training.findings() == []


# Replicas.


@pytest.mark.parametrize("name", ["loss", "gradient_norm"])
@pytest.mark.parametrize("replicas", [2, 3, 8])
def test_a_replica_that_sees_other_data_is_found(name, replicas):
    training = Training(replicas=replicas)
    training.replica(name)[150:, 1] *= 8
    found = only(training.findings(), "replica_diverges", "warning")
    assert found.place == health.Place("replicas", name)
    assert 130 < found.first_step <= 151
    assert found.numbers["replica"] == 1
    if replicas > 2:
        assert found.numbers["factor"] == pytest.approx(8, rel=0.3)


def test_a_replica_that_alone_is_not_finite_is_an_error():
    training = Training()
    training.replica("loss")[300:340:2, 2] = np.nan
    assert only(training.findings(), "replica_diverges", "error").numbers["replica"] == 2


def test_a_replica_may_have_no_examples_of_a_last_batch():
    training = Training()
    training.replica("loss")[::10, 3] = np.nan
    training.replica("gradient_norm")[::10, 3] = 0
    assert training.findings() == []


def test_a_replica_may_have_odd_batches():
    training = Training()
    training.replica("loss")[150::3, 1] *= 100
    assert training.findings() == []


@pytest.mark.parametrize("replicas", [2, 8])
def test_a_straggler_is_the_one_that_does_not_wait(replicas):
    training = Training(replicas=replicas)
    training.replica("wait_seconds")[150:] += 0.05
    training.replica("wait_seconds")[150:, 1] = 0.001
    found = only(training.findings(), "straggler", "warning")
    assert found.numbers["replica"] == 1
    assert found.numbers["share"] == pytest.approx(0.6, rel=0.1)
    assert "spent 60" in found.message or "spent 59" in found.message


def test_waiting_for_another_replica_each_time_is_no_straggler():
    training = Training()
    waits = training.replica("wait_seconds")
    waits[:] += 0.05
    waits[np.arange(400), np.arange(400) % 4] = 0.001
    assert training.findings() == []


def test_a_single_replica_has_no_others():
    training = Training(replicas=1)
    training.replica("loss")[:] = 100
    assert training.findings() == []


# Grouping, order, form.


def test_one_finding_speaks_of_many_variables_and_names_the_worst():
    training = Training(800, blocks=30)
    for block in range(30):
        training.layer("update_ratio", f"block_{block}/kernel")[:] = 0.02 + 0.001 * block
    found = only(training.findings(), "update_ratio_high")
    assert found.message.startswith("30 of 61 variables changed by more than 0.01")
    assert "worst: block_29/kernel (0.049), block_28/kernel (0.048)" in found.message
    assert len(found.message) < 200
    assert found.layer == "block_29/kernel"
    assert [item.path for item in found.layers[:2]] == ["block_29/kernel", "block_28/kernel"]
    assert found.layers[-1].numbers["median"] == pytest.approx(0.02)
    assert len(found.layers) == 30


def test_the_worst_comes_first():
    training = Training(800, optimizer=SGD)
    training.quantity("noise_scale")[:] /= 40
    training.layer("update_ratio", KERNEL)[:] = 0.03
    training.layer("weight_norm", BIAS)[-1] = np.nan
    training.quantity("clip_factor")[:] = 0.2
    found = [(f.severity, f.rule) for f in training.findings()]
    assert found == [
        ("error", "not_finite"),
        ("warning", "update_ratio_high"),
        ("warning", "clip_always"),
        ("note", "batch_above_noise_scale"),
    ]


def test_a_finding_is_json():
    training = Training(800, optimizer=SGD)
    training.layer("update_ratio")[:] = 0.03
    training.layer("nonfinite")[300] = 1
    training.quantity("clip_factor")[:] = 0.2
    for found in training.findings():
        content = json.loads(json.dumps(found.to_json()))
        assert content["place"]["tab"] in finding.TABS
        assert content["severity"] in health.SEVERITIES
        assert content["rule"] == found.rule
        for text in (found.message, found.why, found.advice):
            assert text.endswith(".")
            assert "  " not in text
            assert "{" not in text


def test_a_long_path_is_shortened_in_the_message_alone():
    training = Training(800)
    path = "x" * 10_000 + "/kernel"
    training.variables[1]["path"] = path
    training.layer("update_ratio", path)[:] = 0.03
    found = only(training.findings(), "update_ratio_high")
    assert found.layer == path
    assert len(found.message) < 300
    assert "xxx/kernel changed" in found.message


def test_a_hostile_path_is_no_format():
    training = Training(800)
    path = "{numbers}{0}%s"
    training.variables[1]["path"] = path
    training.layer("update_ratio", path)[:] = 0.03
    assert only(training.findings(), "update_ratio_high").message.startswith(path)


def test_every_rule_says_where_to_look_in_the_schema():
    statistics = {s.name for s in metadata.layer_statistics(["momentum", "velocity"])}
    statistics |= {s.name for s in (*metadata.STEP_QUANTITIES, *metadata.REPLICA_QUANTITIES)}
    training = Training(800, optimizer=SGD)
    training.layer("update_ratio")[:] = 0.03
    training.layer("gradient_norm", KERNEL)[:] *= 1e-6
    training.replica("loss")[:, 1] *= 8
    for found in training.findings():
        assert found.place.statistic in statistics


# Robustness and cost.


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    strategies.integers(0, 2**32 - 1),
    strategies.sampled_from([0, 1, 2, 19, 60, 150]),
    strategies.sampled_from([ADAM, SGD, DYNAMIC, {}, {"config": None}, {"config": {"inner": {}}}]),
)
def test_no_values_make_a_rule_fail(seed, records, optimizer):
    rng = np.random.default_rng(seed)
    training = Training(max(records, 1), every=int(rng.integers(1, 20)), optimizer=optimizer)
    odd = np.array([np.nan, np.inf, -np.inf, 0, -1, 1e-45, 3e38, 1e-7], np.float32)
    for values in (training.layers, training.quantities, training.replicas):
        where = rng.uniform(size=values.shape) < rng.choice([0.01, 0.3, 1])
        values[where] = rng.choice(odd, size=values.shape)[where]
        values[..., rng.integers(values.shape[-1])] = rng.choice(odd)
    for found in training.findings(slice(records)):
        assert found.message.endswith(".")


def test_unusual_descriptions_of_variables_are_taken():
    training = Training()
    training.variables = [{"path": path, "shape": None} for path in training.paths]
    assert training.findings() == []


def count_calls(run):
    """How many Python functions are called to judge a run."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        health.findings(run)
    finally:
        sys.setprofile(None)
    return calls


def test_the_work_in_python_grows_neither_with_records_nor_with_layers():
    """So that a thousand layers by five thousand records are arrays for NumPy, not loops."""
    small = count_calls(Training(300, blocks=5).run())
    assert count_calls(Training(1200, blocks=5).run()) < 1.2 * small
    per_variable = (count_calls(Training(300, blocks=105).run()) - small) / 200
    assert per_variable < 10  # Their paths and shapes are read one by one.


def test_the_rules_look_at_no_other_statistics_than_they_say():
    looked = set()

    class Columns(dict):
        def get(self, name):
            looked.add(name)
            return super().get(name)

    for name in ("Adam", "Adagrad"):
        for amsgrad in (False, True):
            config = {**ADAM["config"], "amsgrad": amsgrad}
            run = Training(optimizer={**ADAM, "class_name": name, "config": config}).run()
            table = health.Table(run.layers.steps, Columns(run.layers.columns))
            health.findings(dataclasses.replace(run, layers=table))
    assert looked == set(health.STATISTICS)


def test_a_condition_lasts_over_gaps_but_not_over_pauses():
    holds = np.ones((100, 3), bool)
    holds[::12, 1] = False
    holds[::4, 2] = False
    columns, first, last = evidence.lasting(holds, 20)
    assert columns.tolist() == [0, 1]
    assert first.tolist() == [0, 1]
    assert last.tolist() == [99, 99]


def test_the_bounds_of_a_condition_are_records_that_hold():
    holds = np.zeros((100, 1), bool)
    holds[30:60] = True
    assert [x.tolist() for x in evidence.lasting(holds, 20)] == [[0], [30], [59]]
