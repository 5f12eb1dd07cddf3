"""Majority vote, best of n and weighted vote on held-out problems, at the token cost of the test-time loop.

They choose among the answers that were sampled and judged anyway (lines "solve" and "own/pointwise/answer"), so they
cost no further token. Each gets as many of a problem's samples as the loop's output tokens pay for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_kernel.evaluate.intervals import clustered_proportion, mcnemar_exact, paired_difference
from spark_kernel.evaluate.judge_metrics import verdict_of
from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Group, Rollout
from spark_kernel.test_time.budget import spend
from spark_kernel.test_time.equality import LabelAnswers, Labels
from spark_kernel.test_time.methods import Method, choose_among
from spark_kernel.test_time.steps import Attempt

LINES = {Method.VOTE: "vote", Method.BEST_OF: "best_of", Method.WEIGHTED: "weighted_vote"}
"""The name of each method's line in an evaluation's summary."""


def method_lines(
    solved: Sequence[Group],
    judged: Sequence[Group],
    probabilities: Mapping[str, float] | None,
    attempts: Sequence[Attempt],
    loop_correct: Mapping[str, bool],
    label: LabelAnswers,
) -> dict[str, dict[str, Any]]:
    """The lines of all methods that can be had: without judgements only the vote, without probabilities no weights.

    Args:
        solved: the sampled answers, a group per problem.
        judged: pointwise judgements of them, one rollout each, each task naming its source rollout.
        probabilities: of "Yes", by the judgement's rollout id.
        attempts: the loop on the same problems; its output tokens are the budget.
        loop_correct: whether the loop's final answer was right, by problem; a problem without a finding is absent.
        label: says which answers are the same.
    """
    judgements = {group.task.sources[0]: group.rollouts[0] for group in judged}
    labels = label([[read_answer(rollout.text) for rollout in group.rollouts] for group in solved])
    budget = sum(attempt.tokens for attempt in attempts)
    lines = {}
    for method, name in LINES.items():
        if (method.judges and not judgements) or (method is Method.WEIGHTED and not probabilities):
            continue
        lines[name] = _line(method, solved, labels, judgements, probabilities or {}, budget, loop_correct)
    return lines


def _line(
    method: Method,
    solved: Sequence[Group],
    labels: Sequence[Labels],
    judgements: Mapping[str, Rollout],
    probabilities: Mapping[str, float],
    budget: int,
    loop_correct: Mapping[str, bool],
) -> dict[str, Any]:
    def judgement(rollout: Rollout) -> Rollout | None:
        return judgements.get(rollout.id)

    def cost(rollout: Rollout) -> int:
        judge = judgement(rollout) if method.judges else None
        return len(rollout.token_ids) + (0 if judge is None else len(judge.token_ids))

    spending = spend([[cost(rollout) for rollout in group.rollouts] for group in solved], budget)
    chosen: list[int] = []
    found: dict[str, list[float]] = {}
    ties = missing = 0
    for group, own, count in zip(solved, labels, spending.samples, strict=True):
        given = [judgement(rollout) for rollout in group.rollouts[:count]]
        verdicts = [None if judge is None else verdict_of(judge) for judge in given]
        yes = [None if judge is None else probabilities.get(judge.id) for judge in given]
        choice = choose_among(method, own[:count], verdicts, yes)
        rollout = group.rollouts[choice.index]
        chosen.append(choice.index)
        ties += choice.tied > 1
        if rollout.score is None or rollout.score.correct is None:
            missing += 1
        else:
            found[group.task.problem_id] = [float(rollout.score.correct)]
    return {
        "n": len(found),
        "missing": missing,
        "accuracy": clustered_proportion((problem, values[0]) for problem, values in found.items()).to_dict(),
        "samples_mean": sum(spending.samples) / len(solved) if solved else None,
        "samples_max": max(spending.samples, default=0),
        "tokens": spending.tokens,
        "budget": spending.budget,
        "limited": spending.limited,
        "ties": ties,
        "loop": _beside_the_loop(found, loop_correct),
        "chosen": chosen,
    }


def _beside_the_loop(found: Mapping[str, Sequence[float]], loop_correct: Mapping[str, bool]) -> dict[str, Any]:
    """The loop minus the method on the problems both have, and the exact p of the discordant ones."""
    loop = {problem: [float(correct)] for problem, correct in loop_correct.items()}
    both = [(bool(found[problem][0]), correct) for problem, correct in loop_correct.items() if problem in found]
    better, worse = both.count((False, True)), both.count((True, False))
    difference = paired_difference(found, loop)
    return {
        "difference": difference.difference,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "loop_only": better,
        "method_only": worse,
        "mcnemar_p": mcnemar_exact(better, worse) if both else None,
    }
