"""Differences over seeds: against a paired t test, the one-seed interval, sums over pairs, and how often they cover."""

from __future__ import annotations

import math
import random
from itertools import chain
from statistics import mean, stdev

import pytest

from spark_kernel.evaluate.intervals import paired_difference, t_quantile
from spark_kernel.evaluate.over_seeds import OverSeeds, over_seeds

Cells = dict[str, dict[str, tuple[float, int]]]


def cells(outcomes: dict[str, list[float]]) -> Cells:
    return {problem: {"all": (math.fsum(values), len(values))} for problem, values in outcomes.items()}


def drawn(rng: random.Random, problems: list[str], samples: int = 4) -> dict[str, list[float]]:
    return {p: [float(rng.random() < 0.6) for _ in range(samples)] for p in problems}


def test_one_seed_is_the_paired_interval_over_problems() -> None:
    rng = random.Random(1)
    problems = [f"p{n}" for n in range(40)]
    first, second = drawn(rng, problems), drawn(rng, problems)
    expected = paired_difference(first, second)
    found = over_seeds({7: cells(first)}, {7: cells(second)})
    assert (found.difference, found.low, found.high) == pytest.approx(
        (expected.difference, expected.low, expected.high), abs=1e-12
    )
    assert (found.seeds, found.problems) == ((7,), 40)


def test_seeds_with_problems_of_their_own_are_a_paired_t_test_over_seeds() -> None:
    rng = random.Random(2)
    first = {s: drawn(rng, [f"{s}-{n}" for n in range(30)]) for s in range(4)}
    second = {s: drawn(rng, [f"{s}-{n}" for n in range(30)]) for s in range(4)}
    found = over_seeds({s: cells(v) for s, v in first.items()}, {s: cells(v) for s, v in second.items()})
    each = [mean(chain(*second[s].values())) - mean(chain(*first[s].values())) for s in range(4)]
    half = t_quantile(3) * stdev(each) / 2
    assert found.difference == pytest.approx(mean(each))
    # Where the spread of seeds is less than that of problems, the latter is the floor.
    assert found.high is not None
    assert found.high - mean(each) >= half * (1 - 1e-9)


def test_shared_problems_add_what_they_have_in_common_by_brute_force() -> None:
    """The three sums over pairs of (seed, problem) that share a seed, a problem, or both."""
    rng = random.Random(3)
    problems, count = [f"p{n}" for n in range(25)], 3
    first = {s: drawn(rng, problems) for s in range(count)}
    hard = {p: rng.random() < 0.5 for p in problems}  # the second arm gains on the same problems in every seed
    second = {s: {p: [1.0] * 4 if hard[p] else list(v) for p, v in first[s].items()} for s in range(count)}
    found = over_seeds({s: cells(v) for s, v in first.items()}, {s: cells(v) for s, v in second.items()})
    gain = {(s, p): mean(second[s][p]) - mean(first[s][p]) for s in range(count) for p in problems}
    each = {s: mean(gain[s, p] for p in problems) for s in range(count)}
    moved = {key: (value - each[key[0]]) / len(problems) / count for key, value in gain.items()}
    sizes = len(problems) / (len(problems) - 1)
    by_problem = sizes * sum(moved[a] * moved[b] for a in moved for b in moved if a[1] == b[1])
    both = sizes * sum(value * value for value in moved.values())
    by_seed = sum((value - mean(each.values())) ** 2 for value in each.values()) / (count * (count - 1))
    variance = max(by_seed + by_problem - both, by_seed, by_problem)
    assert by_problem > 2 * both  # the case that this is about
    assert found.difference == pytest.approx(mean(each.values()))
    assert found.low == pytest.approx(mean(each.values()) - t_quantile(count - 1) * math.sqrt(variance))


@pytest.mark.parametrize("shared", [True, False])
def test_it_covers_the_truth_about_as_often_as_it_says(shared: bool) -> None:
    """Seeds and problems each move the difference at random; 95 % is asked, the margin is that of 400 repetitions."""
    rng = random.Random(4)
    truth, covered, repetitions = 0.1, 0, 400
    for _ in range(repetitions):
        common = {n: rng.gauss(0, 0.15) for n in range(30)}
        arms: tuple[dict[int, Cells], dict[int, Cells]] = ({}, {})
        for seed in range(5):
            own = rng.gauss(0, 0.05)
            for n in range(30):
                moved = common[n] if shared else rng.gauss(0, 0.15)
                name = f"p{n}" if shared else f"{seed}-{n}"
                arms[0].setdefault(seed, {})[name] = {"all": (4 * 0.4, 4)}
                arms[1].setdefault(seed, {})[name] = {"all": (4 * (0.4 + truth + own + moved + rng.gauss(0, 0.1)), 4)}
        found = over_seeds(*arms)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / repetitions <= 1.0


def test_what_has_no_seed_in_common_has_no_difference() -> None:
    assert over_seeds({0: cells({"p": [1.0], "q": [0.0]})}, {1: cells({"p": [1.0], "q": [1.0]})}) == OverSeeds(
        None, None, None, None, None, (), {}, 0
    )
