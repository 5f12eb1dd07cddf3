"""Comparison of runs: against brute force, closed forms and simulation at a fixed seed."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError
from spark_kernel.evaluate.compare import (
    Budget,
    Checkpoint,
    RunResult,
    compare_runs,
    measure_value,
    paired_bootstrap,
    problem_cells,
)
from spark_kernel.evaluate.intervals import paired_difference
from spark_kernel.records import Group, Kind, Origin, Parse, Rollout, Score, Task


def plain(values):
    """Cells of one stratum from {problem: outcomes}."""
    return {p: {"all": (sum(v), len(v))} for p, v in values.items()}


def judged(name, label, *verdicts):
    task = Task(f"{name}-{label}", Kind.POINTWISE, Origin.SOLVE, name, (), label, "verdict", "t", 1)
    rollouts = []
    for index, verdict in enumerate(verdicts):
        if verdict is Parse.CRASH:
            score = Score(None, None, Parse.CRASH)
        else:
            score = Score(float(verdict == label), verdict == label, Parse.OK if verdict else Parse.NONE, verdict)
        rollouts.append(Rollout(f"{task.id}-{index}", task.id, index, 1, (), (), "", False, 0.0, score))
    return Group(task, tuple(rollouts))


def test_cells_count_outcomes_by_problem_and_label():
    groups = [
        judged("p", "Yes", "Yes", "No", None),
        judged("p", "No", "No"),
        judged("q", "Yes", Parse.CRASH, "Yes"),
        judged("r", "No", Parse.CRASH),
    ]
    assert problem_cells(groups) == {"p": {"all": (2.0, 4)}, "q": {"all": (1.0, 1)}}
    assert problem_cells(groups, balanced=True) == {
        "p": {"Yes": (1.0, 3), "No": (1.0, 1)},
        "q": {"Yes": (1.0, 1), "No": (0.0, 0)},
    }


def test_balanced_accuracy_is_the_mean_over_labels_and_undefined_without_one():
    cells = problem_cells([judged("p", "Yes", "Yes", "No", None), judged("q", "No", "No", "No")], balanced=True)
    assert measure_value(cells.values(), ("Yes", "No")) == pytest.approx((1 / 3 + 1) / 2)
    only_yes = problem_cells([judged("p", "Yes", "Yes")], balanced=True)
    assert measure_value(only_yes.values(), ("Yes", "No")) is None
    assert paired_bootstrap(only_yes, only_yes, seed=0, measure="m").difference is None


def test_bootstrap_agrees_with_full_enumeration_of_resamples():
    first = plain({"a": [0.0], "b": [1.0], "c": [0.0], "d": [1.0]})
    second = plain({"a": [1.0], "b": [1.0], "c": [0.0], "d": [0.0]})
    differences = {"a": 1.0, "b": 0.0, "c": 0.0, "d": -1.0}
    everything = sorted(sum(differences[p] for p in drawn) / 4 for drawn in itertools.product("abcd", repeat=4))
    found = paired_bootstrap(first, second, seed=3, measure="m", draws=20000)
    assert found.difference == 0.0
    # the exact 2.5 % and 97.5 % points of the 256 equally likely resamples
    assert found.low == everything[int(0.025 * 256)]
    assert found.high == everything[int(0.975 * 256)]


def test_bootstrap_agrees_with_the_linearised_interval_on_many_problems():
    rng = random.Random(2)
    first = {f"p{i}": [float(rng.random() < 0.5) for _ in range(rng.randint(1, 6))] for i in range(150)}
    second = {p: [float(rng.random() < 0.6) for _ in range(rng.randint(1, 6))] for p in first}
    found = paired_bootstrap(plain(first), plain(second), seed=0, measure="m")
    expected = paired_difference(first, second)
    assert found.difference == pytest.approx(expected.difference)
    assert found.low == pytest.approx(expected.low, abs=0.012)
    assert found.high == pytest.approx(expected.high, abs=0.012)


def test_bootstrap_is_keyed_by_seed_and_measure_and_not_by_the_order_of_problems():
    rng = random.Random(0)
    first = plain({f"p{i}": [rng.random() for _ in range(i % 5 + 1)] for i in range(30)})
    second = plain({p: [rng.random()] for p in first})
    one = paired_bootstrap(first, second, seed=0, measure="m")
    assert paired_bootstrap(dict(reversed(first.items())), second, seed=0, measure="m") == one
    for seed, measure in ((1, "m"), (0, "k")):
        other = paired_bootstrap(first, second, seed=seed, measure=measure)
        assert other.low != one.low
        assert other.low == pytest.approx(one.low, abs=0.03)


OUTCOMES = st.lists(st.sampled_from([0.0, 1.0]), min_size=1)


@given(st.dictionaries(st.sampled_from("abcdefghijklmnop"), OUTCOMES, min_size=2))
def test_a_run_never_differs_from_itself_and_arms_swap_sign(values):
    cells = plain(values)
    same = paired_bootstrap(cells, cells, seed=0, measure="m", draws=50)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    assert not same.is_evidence
    flipped = plain({p: [1 - x for x in v] for p, v in values.items()})
    there = paired_bootstrap(cells, flipped, seed=0, measure="m", draws=50)
    back = paired_bootstrap(flipped, cells, seed=0, measure="m", draws=50)
    assert (there.difference, there.low, there.high) == pytest.approx((-back.difference, -back.high, -back.low))


def test_problems_of_one_arm_only_are_left_out_and_counted():
    first = plain({"a": [0.0], "b": [1.0], "x": [1.0]})
    second = plain({"a": [1.0], "b": [1.0], "y": [0.0], "z": [0.0]})
    found = paired_bootstrap(first, second, seed=0, measure="m")
    assert (found.difference, found.problems, found.left_out) == (0.5, 2, 3)
    assert paired_bootstrap(plain({"a": [1.0]}), plain({"b": [1.0]}), seed=0, measure="m").difference is None


def test_a_label_that_hangs_on_one_problem_gives_no_interval():
    cells = {f"p{i}": {"Yes": (1.0, 1), "No": (0.0, 0)} for i in range(20)} | {"q": {"Yes": (0.0, 0), "No": (1.0, 1)}}
    found = paired_bootstrap(cells, cells, seed=0, measure="m")
    assert (found.difference, found.low) == (0.0, None)
    assert 0.5 * 2000 < found.usable_draws < 0.75 * 2000


def test_few_problems_are_no_evidence_however_clear_they_look():
    few = paired_bootstrap(
        plain({f"p{i}": [0.0] for i in range(5)}), plain({f"p{i}": [1.0] for i in range(5)}), seed=0, measure="m"
    )
    assert (few.low, few.high) == (1.0, 1.0)
    assert not few.is_evidence


def test_coverage_of_the_paired_bootstrap_of_balanced_accuracy():
    rng = random.Random(5)
    trials, covered, false_alarms = 100, 0, 0
    for _ in range(trials):
        arms = [{}, {}]
        for i in range(50):
            ease = rng.random()
            for arm, gain in zip(arms, (0.0, 0.1), strict=True):
                arm[f"p{i}"] = {
                    "Yes": (float(sum(rng.random() < 0.4 + 0.4 * ease + gain for _ in range(2))), 2),
                    "No": (float(rng.random() < 0.3 + 0.4 * ease), 1),
                }
        found = paired_bootstrap(arms[0], arms[1], seed=0, measure="m", draws=200)
        covered += found.low <= 0.05 <= found.high
        false_alarms += found.low > 0.05 or found.high < 0.05
    assert 0.88 * trials <= covered <= 0.99 * trials
    assert covered + false_alarms == trials


def _run(name, cost, *rates, problems=40):
    checkpoints = []
    for i, rate in enumerate(rates):
        cells = plain({f"p{k}": [float(k < rate * problems)] for k in range(problems)})
        checkpoints.append(Checkpoint(i, i * cost, i * cost // 10, {"m": cells}))
    return RunResult(name, tuple(checkpoints))


def test_runs_are_matched_by_rounds_by_rollouts_and_by_optimizer_steps():
    spark = _run("spark", 200, 0.2, 0.5, 0.7, 0.8)
    policy = _run("policy-only", 100, 0.2, 0.4, 0.5, 0.6)
    by_rounds, by_rollouts, by_steps = compare_runs(policy, spark, ["m"])
    assert [row.matched_by for row in (by_rounds, by_rollouts, by_steps)] == list(Budget)
    assert (by_rounds.budget, by_rounds.first_round, by_rounds.second_round) == (3, 3, 3)
    assert by_rounds.result.difference == pytest.approx(0.8 - 0.6)
    # policy-only spent 300 rollouts in 3 rounds; spark had spent 200 after round 1 and 400 after round 2
    assert (by_rollouts.budget, by_rollouts.first_round, by_rollouts.second_round) == (300, 3, 1)
    assert (by_rollouts.first_rollouts, by_rollouts.second_rollouts) == (300, 200)
    assert by_rollouts.result.difference == pytest.approx(0.5 - 0.6)
    assert (by_steps.budget, by_steps.first_optimizer_steps, by_steps.second_optimizer_steps) == (30, 30, 20)


def test_two_evaluations_that_cost_no_training_are_compared_once():
    model, other, run = _run("model", 100, 0.2), _run("other", 100, 0.5), _run("run", 200, 0.2, 0.5)
    for second in (other, run):
        (row,) = compare_runs(model, second, ["m"])
        assert row.untrained
        assert (row.first_round, row.second_round, row.budget) == (0, 0, 0)
    assert [row.untrained for row in compare_runs(run, _run("again", 150, 0.2, 0.7), ["m"])] == [False, False, False]
    # free of optimizer steps but not of rollouts: no matter which way round, both rows say something of their own
    idle = RunResult("idle", (*run.checkpoints[:1], Checkpoint(1, 80, 0, run.checkpoints[1].cells)))
    assert [row.second_round for row in compare_runs(model, idle, ["m"])] == [0, 0, 1]


def test_the_conclusion_says_which_is_better_or_that_there_is_not_enough_evidence():
    low, high, same = _run("low", 100, 0.1), _run("high", 100, 0.7), _run("same", 100, 0.125)
    better = compare_runs(low, high, ["m"])[0]
    assert better.conclusion.startswith("high is better than low: high minus low is +60.0 points (95 % interval +")
    worse = compare_runs(high, low, ["m"])[0]
    assert worse.conclusion.startswith("high is better than low: low minus high is -60.0 points")
    unsure = compare_runs(low, same, ["m"])[0]
    assert unsure.conclusion.startswith("Not enough evidence that low and same differ: +2.5 points")
    tiny = compare_runs(_run("a", 1, 0.0, problems=1), _run("b", 1, 1.0, problems=1), ["m"])[0]
    assert tiny.conclusion == "Not enough evidence: +100.0 points, but too few problems for an interval (1)."


def test_runs_that_cannot_be_compared_say_why():
    run = _run("a", 100, 0.1)
    with pytest.raises(InputError, match="Run b has no held-out evaluation"):
        compare_runs(run, RunResult("b", ()), ["m"])
    with pytest.raises(InputError, match='has no measure "k"; it has m'):
        compare_runs(run, run, ["k"])
    late = RunResult("late", (Checkpoint(5, 900, 90, run.checkpoints[0].cells),))
    with pytest.raises(InputError, match="Run late has no evaluation within 0 rounds"):
        compare_runs(run, late, ["m"])
