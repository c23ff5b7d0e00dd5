"""What seeds may say of optimizers: intervals, tests, corrections, sentences."""

import math

import numpy as np
import pytest
from scipy import stats

from disttrain.experiments.comparisons import statistics
from disttrain.experiments.comparisons.conclusions import conclusion
from disttrain.experiments.comparisons.statistics import correct, interval, paired_test

pytestmark = pytest.mark.unit

NAN = math.nan


def said(first, second, mode="min", comparisons=1):
    """The sentence about two lists of numbers, in a family of equal tests."""
    test = correct([paired_test(first, second, mode)] * comparisons)[0]
    diverged = tuple(int((~np.isfinite(np.asarray(v))).sum()) for v in (first, second))
    return conclusion("adam", "sgd", test, "val_loss", mode, diverged)


# Intervals.


def test_the_interval_is_students_t():
    values = np.random.default_rng(0).normal(2, 3, 7)
    mean, low, high = interval(values)
    expected = stats.t.interval(0.95, 6, values.mean(), stats.sem(values))
    np.testing.assert_allclose([low, high], expected)
    assert mean == pytest.approx(values.mean())


def test_one_number_has_no_interval_and_none_no_mean():
    mean, low, high = interval([1.5])
    assert mean == 1.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert all(math.isnan(end) for end in interval([]))


def test_numbers_that_are_not_finite_are_left_out_of_an_interval():
    assert interval([1.0, NAN, 3.0, math.inf]) == interval([1.0, 3.0])


# The paired t-test.


def test_finite_runs_get_the_paired_t_test():
    rng = np.random.default_rng(1)
    common = rng.normal(0, 10, 6)
    first, second = common + rng.normal(0, 1, 6), common + rng.normal(1, 1, 6)
    found = paired_test(first, second)
    expected = stats.ttest_rel(first, second)
    ends = expected.confidence_interval(0.95)
    assert found.test == "t"
    np.testing.assert_allclose(
        [found.p, found.low, found.high, found.difference],
        [expected.pvalue, ends.low, ends.high, (first - second).mean()],
    )
    assert found.first_better == (first < second).sum()
    assert found.second_better == (first > second).sum()


def test_the_effect_is_hedges_g_of_the_differences():
    found = paired_test([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0])
    # Mean 2.5, standard deviation 1.29099, and 1 - 3 / (4 * 3 - 1).
    assert found.effect == pytest.approx(2.5 / 1.2909944 * (1 - 3 / 11))


def test_what_is_better_depends_on_the_metric():
    first, second = [0.9, 0.8, 0.95], [0.5, 0.6, 0.55]
    assert paired_test(first, second, "max").first_better == 3
    assert paired_test(first, second, "min").first_better == 0


def test_results_over_several_magnitudes_are_compared_by_their_ratios():
    first, second = np.asarray([1e-3, 2e-3, 1e-3, 4e-3]), np.asarray([1e3, 5e9, 2e4, 1e6])
    found = paired_test(first, second)
    assert found.ratio
    assert found.p == pytest.approx(stats.ttest_rel(np.log(first), np.log(second)).pvalue)
    assert found.p < 0.05 < stats.ttest_rel(first, second).pvalue
    text = said(first, second)
    assert text.startswith("adam ended with a lower val_loss than sgd, by a factor of 3.34e+08")
    # Below 0 there are no logarithms, and 50 is not yet several magnitudes.
    assert not paired_test(-first, second).ratio
    assert not paired_test([1.0, 2.0], [50.0, 3.0]).ratio


def test_a_ratio_that_is_not_shown_is_told_as_one():
    text = said([1.0, 200.0, 3.0, 40.0], [2.0, 90.0, 5.0, 33.0])
    assert "(ratio 0.948, 95% interval 0.319 to 2.82;" in text
    assert "a true ratio below about" in text


def test_equal_runs_claim_nothing():
    (found,) = correct([paired_test([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])])
    assert found.test == "identical"
    assert not found.significant
    assert "same val_loss with every seed" in said([1.0, 2.0], [1.0, 2.0])


def test_seeds_that_change_nothing_are_no_repetitions():
    first = [1.0, 1.0, 1.0]
    found = paired_test(first, [2.0, 2.0, 2.0])
    assert found.test == "constant"
    assert math.isnan(found.p)
    assert "not several independent runs" in said(first, [2.0, 2.0, 2.0])


def test_one_seed_says_nothing_of_chance():
    assert paired_test([1.0], [2.0]).test == "one seed"
    assert "Run five seeds or more" in said([1.0], [2.0])


def test_pairs_need_a_number_of_each():
    with pytest.raises(ValueError, match="two lists of one length"):
        paired_test([1.0, 2.0], [1.0])


# Runs that diverge.


def test_a_diverged_run_ranks_worst_whatever_is_better():
    for mode in ("min", "max"):
        found = paired_test([1.0, 2.0, 3.0, 4.0, 5.0], [NAN] * 5, mode)
        assert found.test == "ranks"
        assert (found.first_better, found.second_better) == (5, 0)
        # All of one before all of the other: 2 of the 10 over 5 orders.
        assert found.p == pytest.approx(2 / 252)
        assert found.smallest_p == pytest.approx(2 / 252)


def test_the_rank_test_is_mann_and_whitneys():
    rng = np.random.default_rng(2)
    first, second = rng.normal(0, 1, 6), rng.normal(0.7, 1, 6)
    first[2] = np.inf
    expected = stats.mannwhitneyu(first, second, method="exact").pvalue
    assert paired_test(first, second).p == pytest.approx(expected)


def test_the_rank_test_goes_on_with_many_seeds():
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, 20), rng.normal(2, 1, 20)
    second[:3] = NAN
    assert paired_test(first, second).p < 1e-4


def test_runs_that_all_diverge_are_equal():
    found = correct([paired_test([NAN, NAN], [NAN, math.inf])])[0]
    assert found.test == "identical"
    assert not found.significant
    assert "diverged alike" in said([NAN, NAN], [NAN, NAN])


def test_a_sentence_says_when_the_seeds_are_too_few_for_any_claim():
    text = said([1.0, 2.0, 3.0], [NAN, NAN, NAN], comparisons=3)
    assert "No difference" in text
    assert "Nor could one have been" in text
    assert "0.3 at the least. Run 5 seeds or more" in text
    assert "3 of 3 runs of sgd diverged" in text


@pytest.mark.parametrize("comparisons", [1, 3, 10])
def test_the_seeds_that_are_asked_for_are_enough(comparisons):
    n = statistics.seeds_for_ranks(comparisons)

    def claimed(seeds):
        tests = [paired_test(np.arange(seeds, dtype=float), [NAN] * seeds)] * comparisons
        return correct(tests)[0].significant

    assert claimed(n)
    assert not claimed(n - 1)


# Families of tests.


def with_p(p):
    return statistics.PairedTest("t", 5, difference=1.0, low=0.0, high=2.0, p=p)


def test_the_correction_is_holms():
    """The example of Holm's method in R's manual of p.adjust, by hand."""
    found = correct([with_p(p) for p in (0.01, 0.04, 0.03, 0.005)])
    np.testing.assert_allclose([test.corrected_p for test in found], [0.03, 0.06, 0.06, 0.02])
    assert [test.significant for test in found] == [True, False, False, True]
    assert {test.comparisons for test in found} == {4}


def test_a_pair_without_a_test_counts_in_its_family():
    found = correct([with_p(0.02), paired_test([1.0, 2.0], [1.0, 2.0])])
    assert found[0].corrected_p == pytest.approx(0.04)
    assert math.isnan(found[1].corrected_p)


def family(rng, shifts, seeds=5, of=lambda numbers: numbers):
    """The corrected tests between all pairs of normal results with something in common."""
    common = rng.normal(0, 5, seeds)
    runs = [of(common + rng.normal(shift, 1, seeds)) for shift in shifts]
    return correct(
        [paired_test(runs[i], runs[j]) for i in range(len(runs)) for j in range(i + 1, len(runs))]
    )


@pytest.mark.parametrize("of", [lambda numbers: numbers, np.exp], ids=["normal", "log-normal"])
@pytest.mark.parametrize(
    # Of 1000 families 50 may; more than 70 would be chance once in 300 times, as 22 of 250 would.
    ("families", "least", "most"),
    [(250, 2, 22), pytest.param(1000, 10, 70, marks=pytest.mark.exhaustive)],
)
def test_any_false_claim_in_a_family_is_rarer_than_one_in_twenty(of, families, least, most):
    rng = np.random.default_rng(4)
    false = [any(t.significant for t in family(rng, (0, 0, 0), of=of)) for _ in range(families)]
    assert least <= sum(false) <= most


def test_a_difference_of_the_size_that_is_told_is_found_four_times_in_five():
    rng = np.random.default_rng(5)
    told = np.mean([family(rng, (0, 0))[0].unnoticed for _ in range(200)])
    found = [family(rng, (0, told))[0].significant for _ in range(600)]
    assert 0.7 < np.mean(found) < 0.9


# Sentences.


def test_a_claim_names_the_better_one_whichever_comes_first():
    low, high = [1.0, 1.2, 0.9, 1.1, 1.05], [2.0, 2.3, 1.9, 2.2, 2.1]
    assert said(low, high).startswith("adam ended with a lower val_loss than sgd, by 1.05")
    assert said(high, low).startswith("sgd ended with a lower val_loss than adam, by 1.05")
    assert said(high, low, "max").startswith("adam ended with a higher val_loss than sgd")
    assert "better with 5 of 5 seeds" in said(low, high)
    assert "a large effect" in said(low, high)
    assert "these data and these settings alone" in said(low, high)


def test_what_is_not_shown_is_not_called_equal():
    text = said([1.0, 1.2, 0.9, 1.1], [1.1, 1.0, 1.0, 1.15])
    assert text.startswith("No difference in val_loss between adam and sgd is shown")
    assert "That does not make them equal" in text
    assert "below about" in text


def test_a_claim_over_diverged_runs_says_so():
    text = said([1.0, 2.0, 3.0, 4.0, 5.0], [NAN] * 5)
    assert text.startswith("adam ended with a lower val_loss than sgd (better with 5 of 5 seeds")
    assert "5 of 5 runs of sgd diverged" in text
