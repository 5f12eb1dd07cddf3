"""Intervals and tests: against tables, exact arithmetic, textbook formulas and simulation at fixed seeds."""

from __future__ import annotations

import itertools
import math
import random
import statistics
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.evaluate.intervals import (
    Z,
    balanced_proportion,
    clustered_mean,
    clustered_proportion,
    mcnemar_exact,
    paired_difference,
    t_quantile,
    wilson,
)

OBSERVATIONS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from([0.0, 0.25, 1.0])), max_size=40)


@pytest.mark.parametrize(
    ("freedom", "published"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (10, 2.228), (29, 2.045), (60, 2.000), (120, 1.980)],
)
def test_t_quantile_agrees_with_the_published_table(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(
    ("freedom", "scipy"),
    [
        (1, 12.706204736174694),
        (2, 4.302652729749462),
        (7, 2.364624251592784),
        (41, 2.019540970441376),
        (199, 1.9719565442517533),
        (200, 1.9718962236339088),
        (1000, 1.9623390808264083),
    ],
)
def test_t_quantile_is_scipy_s(freedom, scipy):
    """`scipy.stats.t.ppf(0.975, freedom)` of SciPy 1.17.1 (docs/dependencies.md says why it is not called)."""
    assert t_quantile(freedom) == pytest.approx(scipy, rel=1e-11)


@pytest.mark.parametrize(
    ("gained", "lost", "scipy"),
    [(3, 11, 0.057373046875), (40, 61, 0.046044066929342785), (5, 5, 1.0), (120, 71, 0.0004824523038258795)],
)
def test_mcnemar_is_scipy_s(gained, lost, scipy):
    """`scipy.stats.binomtest(gained, gained + lost).pvalue` of SciPy 1.17.1."""
    assert mcnemar_exact(gained, lost) == pytest.approx(scipy, rel=1e-12)


@pytest.mark.parametrize("freedom", [1, 2, 7, 30, 199, 200, 500])
def test_t_quantile_holds_975_per_mille_of_the_density(freedom):
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def density(t):
        return scale * (1 + t * t / freedom) ** (-(freedom + 1) / 2)

    end, steps = t_quantile(freedom), 4000
    width = end / steps
    odd = sum(density(width * k) for k in range(1, steps, 2))
    even = sum(density(width * k) for k in range(2, steps, 2))
    simpson = width / 3 * (density(0) + 4 * odd + 2 * even + density(end))
    assert simpson == pytest.approx(0.475, abs=1e-8)


def test_t_quantile_falls_towards_the_normal_quantile_without_a_jump_at_200():
    values = [t_quantile(freedom) for freedom in range(1, 400)]
    assert values == sorted(values, reverse=True)
    assert values[-1] > Z
    gaps = [a - b for a, b in itertools.pairwise(values)]
    assert gaps == sorted(gaps, reverse=True)
    with pytest.raises(ValueError, match="degrees"):
        t_quantile(0)


def test_clustered_mean_with_one_value_per_problem_is_the_classical_t_interval():
    values = [3.0, 5.0, 4.0, 8.0, -1.0]
    estimate = clustered_mean((f"p{i}", v) for i, v in enumerate(values))
    half = 2.7764451 * statistics.stdev(values) / math.sqrt(5)
    assert estimate.value == pytest.approx(3.8)
    assert estimate.high - estimate.value == pytest.approx(half, rel=1e-6)
    assert (estimate.n, estimate.clusters) == (5, 5)


def test_clustered_mean_of_unequal_clusters_by_hand():
    # a: 1, 1, 0 (sum 2 of 3), b: 0 (sum 0 of 1): mean 1/2, residual sums 2 - 1.5 = 0.5 and 0 - 0.5 = -0.5
    estimate = clustered_mean([("a", 1.0), ("a", 1.0), ("a", 0.0), ("b", 0.0)])
    variance = 2 / 1 * (0.25 + 0.25) / 16
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 12.7062047 * math.sqrt(variance), rel=1e-6)


def test_repeating_every_rollout_of_a_problem_does_not_narrow_the_interval():
    once = [(f"p{i}", float(i % 3 == 0)) for i in range(20)]
    for interval in (clustered_mean, clustered_proportion):
        single, repeated = interval(once), interval(once * 8)
        assert repeated.n == 8 * single.n
        assert (repeated.low, repeated.high) == pytest.approx((single.low, single.high))


def test_no_observations_and_a_single_problem_have_no_interval():
    for interval in (clustered_mean, clustered_proportion):
        assert interval([]).value is None
        lonely = interval([("a", 1.0), ("a", 0.0)])
        assert (lonely.value, lonely.low, lonely.high, lonely.clusters) == (0.5, None, None, 1)


@given(OBSERVATIONS)
def test_clustered_proportion_stays_inside_and_around_its_value(rows):
    estimate = clustered_proportion(rows)
    if estimate.low is None:
        assert estimate.clusters < 2
    else:
        assert 0 <= estimate.low <= estimate.value + 1e-12
        assert estimate.value - 1e-12 <= estimate.high <= 1
        assert estimate.high - estimate.low > 0.01


@given(OBSERVATIONS, st.randoms())
def test_the_order_of_observations_changes_nothing(rows, shuffler):
    shuffled = list(rows)
    shuffler.shuffle(shuffled)
    one, two = clustered_proportion(rows), clustered_proportion(shuffled)
    assert (one.n, one.clusters) == (two.n, two.clusters)
    for a, b in ((one.value, two.value), (one.low, two.low), (one.high, two.high)):
        assert a == b or a == pytest.approx(b)


def test_unanimous_problems_count_once_each():
    estimate = clustered_proportion([(f"p{i}", 1.0) for i in range(10) for _ in range(8)])
    assert estimate.high == 1.0
    assert estimate.low == pytest.approx(10 / (10 + t_quantile(9) ** 2))


def test_values_outside_the_unit_range_are_refused():
    with pytest.raises(ValueError, match="outside"):
        clustered_proportion([("a", 2.0), ("b", 0.0)])


def test_wilson_against_its_defining_equation_and_published_values():
    low, high = wilson(5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    for bound in wilson(81, 263):
        p = 81 / 263
        assert (p - bound) ** 2 == pytest.approx(Z**2 * bound * (1 - bound) / 263)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="successes"):
        wilson(11, 10)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_exact_enumeration(gained, lost):
    n = gained + lost
    tail = sum(Fraction(math.comb(n, k), 2**n) for k in range(n + 1) if min(k, n - k) <= min(gained, lost))
    assert mcnemar_exact(gained, lost) == pytest.approx(float(tail))
    assert mcnemar_exact(gained, lost) == mcnemar_exact(lost, gained)


def test_mcnemar_by_hand_and_at_the_ends():
    assert mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(6, 0) == 2 / 64
    assert mcnemar_exact(10, 2) == 2 * (1 + 12 + 66) / 4096
    assert 0 < mcnemar_exact(1100, 900) < 1e-4
    with pytest.raises(ValueError, match="negative"):
        mcnemar_exact(-1, 2)


def test_paired_difference_with_one_value_each_is_the_paired_t_interval():
    first = {f"p{i}": [v] for i, v in enumerate([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])}
    second = {f"p{i}": [v] for i, v in enumerate([1.0, 1.0, 0.0, 1.0, 0.0, 1.0])}
    differences = [1.0, 0.0, 0.0, 0.0, -1.0, 1.0]
    found = paired_difference(first, second)
    half = t_quantile(5) * statistics.stdev(differences) / math.sqrt(6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.high - found.difference == pytest.approx(half)


def test_paired_difference_keeps_problem_difficulty_out():
    rng = random.Random(1)
    easy = {f"p{i}": [float(i % 2)] * 4 for i in range(40)}
    shifted = {p: [*v[:3], 1 - v[3] if rng.random() < 0.3 else v[3]] for p, v in easy.items()}
    paired = paired_difference(easy, shifted)
    alone = clustered_mean((p, v) for p, values in shifted.items() for v in values)
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_paired_difference_uses_shared_problems_only_and_says_what_it_left_out():
    found = paired_difference({"a": [0.0], "b": [1.0], "x": [1.0]}, {"a": [1.0], "b": [1.0], "y": [0.0], "z": []})
    assert (found.difference, found.clusters, found.only_first, found.only_second) == (0.5, 2, 1, 1)
    assert paired_difference({"a": [1.0]}, {"b": [1.0]}).difference is None
    lonely = paired_difference({"a": [0.0]}, {"a": [1.0]})
    assert (lonely.difference, lonely.low) == (1.0, None)


def test_balanced_proportion_weighs_strata_equally():
    rows = [(f"p{i}", "Yes", 1.0) for i in range(30)] + [(f"q{i}", "No", float(i < 2)) for i in range(10)]
    found = balanced_proportion(rows, ("Yes", "No"))
    assert found.value == pytest.approx((1.0 + 0.2) / 2)
    yes = clustered_proportion((p, v) for p, s, v in rows if s == "Yes")
    no = clustered_proportion((p, v) for p, s, v in rows if s == "No")
    # disjoint problems: the square-and-add rule without correlation
    below = math.hypot(yes.value - yes.low, no.value - no.low) / 2
    above = math.hypot(yes.high - yes.value, no.high - no.value) / 2
    assert (found.low, found.high) == pytest.approx((found.value - below, found.value + above))


def test_balanced_proportion_of_one_stratum_is_the_plain_one():
    rows = [(f"p{i % 7}", float(i % 3 == 0)) for i in range(30)]
    plain = clustered_proportion(rows)
    found = balanced_proportion([(p, "all", v) for p, v in rows], ("all",))
    assert (found.value, found.low, found.high) == pytest.approx((plain.value, plain.low, plain.high))


def test_balanced_proportion_without_a_stratum_is_undefined_and_never_of_width_zero():
    assert balanced_proportion([("a", "Yes", 1.0)], ("Yes", "No")).value is None
    always_yes = [(f"p{i}", s, float(s == "Yes")) for i in range(20) for s in ("Yes", "No")]
    found = balanced_proportion(always_yes, ("Yes", "No"))
    assert found.value == 0.5
    assert found.high - found.low > 0.05
    with pytest.raises(ValueError, match="stratum"):
        balanced_proportion([("a", "Maybe", 1.0)], ("Yes", "No"))


def _alike_rollouts(rng, problems, samples, mean):
    """Rollouts whose problems differ in difficulty: beta-distributed rates with the given mean."""
    rates = [rng.betavariate(2 * mean, 2 * (1 - mean)) for _ in range(problems)]
    return [(f"p{i}", float(rng.random() < rate)) for i, rate in enumerate(rates) for _ in range(samples)]


@pytest.mark.parametrize("mean", [0.5, 0.9])
def test_coverage_of_clustered_intervals_and_lack_of_it_when_clusters_are_ignored(mean):
    rng = random.Random(7)
    covered = {"t": 0, "score": 0, "naive": 0}
    trials = 600
    for _ in range(trials):
        rows = _alike_rollouts(rng, 40, 8, mean)
        plain, score = clustered_mean(rows), clustered_proportion(rows)
        naive = wilson(sum(v for _, v in rows), len(rows))
        covered["t"] += plain.low <= mean <= plain.high
        covered["score"] += score.low <= mean <= score.high
        covered["naive"] += naive[0] <= mean <= naive[1]
    assert 0.92 * trials <= covered["t"] <= 0.98 * trials
    assert 0.93 * trials <= covered["score"] <= 0.98 * trials
    assert covered["naive"] < 0.80 * trials


def test_coverage_of_the_balanced_interval_and_the_paired_difference():
    rng = random.Random(11)
    trials, balanced, paired = 500, 0, 0
    for _ in range(trials):
        rows, first, second = [], {}, {}
        for i in range(40):
            rate = rng.betavariate(1, 1)
            rows += [(f"p{i}", "Yes", float(rng.random() < rate)) for _ in range(3)]
            rows += [(f"p{i}", "No", float(rng.random() < 1 - rate / 2)) for _ in range(2)]
            first[f"p{i}"] = [float(rng.random() < rate) for _ in range(4)]
            second[f"p{i}"] = [float(rng.random() < rate * 0.8) for _ in range(4)]
        found = balanced_proportion(rows, ("Yes", "No"))
        balanced += found.low <= 0.625 <= found.high
        difference = paired_difference(first, second)
        paired += difference.low <= -0.1 <= difference.high
    assert 0.92 * trials <= balanced <= 0.985 * trials
    assert 0.92 * trials <= paired <= 0.98 * trials
