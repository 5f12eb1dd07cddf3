"""The numbers of each line of a held-out evaluation, as plain mappings: None where undefined (docs/measures.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from spark_kernel.evaluate.intervals import clustered_proportion, mcnemar_exact, paired_difference
from spark_kernel.evaluate.judge_metrics import calibration, calibration_pairs, judge_metrics, swapped_agreement
from spark_kernel.evaluate.kind_stats import reward_estimate
from spark_kernel.evaluate.shortcut import shortcut
from spark_kernel.records import Group, Kind, Parse, Rollout
from spark_kernel.test_time.steps import Attempt

TRANSITIONS = ("right_right", "wrong_right", "right_wrong", "wrong_wrong")


def answer_summary(groups: Sequence[Group]) -> dict[str, Any]:
    """Accuracy and mean reward with intervals, and how the outputs look."""
    rows = [
        (group.task.problem_id, float(rollout.score.correct))
        for group in groups
        for rollout in group.rollouts
        if rollout.score is not None and rollout.score.correct is not None
    ]
    return {
        "accuracy": clustered_proportion(rows).to_dict(),
        "reward": reward_estimate(groups).to_dict(),
        **output_shape(groups),
        "mixed": _share(group.is_mixed for group in groups if group.scored),
    }


def judge_summary(groups: Sequence[Group], kind: Kind, probabilities: Mapping[str, float] | None) -> dict[str, Any]:
    """The judge's figures; for pairs agreement under swapped order; calibration where probabilities are given."""
    summary: dict[str, Any] = judge_metrics(groups, kind).to_dict() | output_shape(groups)
    if kind is Kind.PAIRWISE:
        summary["swapped"] = swapped_agreement(groups).to_dict()
    summary["shortcut"] = shortcut((group.task for group in groups), kind)
    if probabilities is not None:
        summary["calibration"] = calibration(calibration_pairs(groups, probabilities)).to_dict()
    return summary


def reflection_summary(groups: Sequence[Group]) -> dict[str, Any]:
    """Success after reflecting on wrong and on correct answers, and the transition table."""
    rows = [
        (group.task.problem_id, group.task.source_correct[0], rollout.score.correct)
        for group in groups
        for rollout in group.rollouts
        if rollout.score is not None and rollout.score.correct is not None
    ]
    return {
        "from_wrong": clustered_proportion((p, float(after)) for p, before, after in rows if not before).to_dict(),
        "from_correct": clustered_proportion((p, float(after)) for p, before, after in rows if before).to_dict(),
        "transitions": transitions((before, after) for _, before, after in rows),
        "shortcut": shortcut((group.task for group in groups), Kind.REFLECTION),
        **output_shape(groups),
    }


def loop_summary(attempts: Sequence[Attempt], chains: Sequence[Group]) -> dict[str, Any]:
    """Accuracy before and after the loop, transitions, exact McNemar p, tokens, and how the chains went.

    Args:
        chains: the attempts' steps as scored groups (`chains.chain_groups`), in the same order.

    Chains whose first or final answer has no finding (timeout, crash) count as `missing` and in no comparison.
    """
    before: dict[str, list[float]] = {}
    after: dict[str, list[float]] = {}
    missing = 0
    for problem_id, first, final in _ends(attempts, chains):
        if first is None or final is None:
            missing += 1
            continue
        before[problem_id] = [float(first)]
        after[problem_id] = [float(final)]
    table = transitions((bool(before[p][0]), bool(after[p][0])) for p in before)
    difference = paired_difference(before, after)
    judged = [group for group in chains if group.task.kind.judges]
    return {
        "n": len(before),
        "missing": missing,
        "before": clustered_proportion((p, values[0]) for p, values in before.items()).to_dict(),
        "after": clustered_proportion((p, values[0]) for p, values in after.items()).to_dict(),
        "difference": difference.difference,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "transitions": table,
        "mcnemar_p": mcnemar_exact(table["wrong_right"], table["right_wrong"]) if before else None,
        "tokens_first": sum(attempt.first.tokens for attempt in attempts),
        "tokens": sum(attempt.tokens for attempt in attempts),
        "judgements": len(judged),
        "reflections": sum(group.task.kind is Kind.REFLECTION for group in chains),
        "stops": dict(sorted(Counter(str(attempt.stop) for attempt in attempts).items())),
        "judge": judge_metrics(judged, Kind.POINTWISE).to_dict(),
        "shortcut": shortcut((group.task for group in judged), Kind.POINTWISE),
    }


def final_correct(attempts: Sequence[Attempt], chains: Sequence[Group]) -> dict[str, bool]:
    """Whether the loop's final answer was right, by problem; problems without a finding are left out."""
    return {problem_id: final for problem_id, _, final in _ends(attempts, chains) if final is not None}


def transitions(pairs: Iterable[tuple[bool, bool]]) -> dict[str, int]:
    """Counts of (right before, right after), by "right_right", "wrong_right", "right_wrong" and "wrong_wrong"."""
    counts = Counter(f"{'right' if before else 'wrong'}_{'right' if after else 'wrong'}" for before, after in pairs)
    return {name: counts[name] for name in TRANSITIONS}


def output_shape(groups: Sequence[Group]) -> dict[str, float | int | None]:
    """Counts, share unparseable (of the scored), share truncated and mean tokens (of all)."""
    rollouts: list[Rollout] = [rollout for group in groups for rollout in group.rollouts]
    scores = [rollout.score for group in groups for rollout in group.scored if rollout.score is not None]
    return {
        "n": len(scores),
        "missing": len(rollouts) - len(scores),
        "unparseable": _share(score.parse in (Parse.NONE, Parse.AMBIGUOUS) for score in scores),
        "truncated": _share(rollout.truncated for rollout in rollouts),
        "length_mean": sum(len(r.token_ids) for r in rollouts) / len(rollouts) if rollouts else None,
    }


def _ends(attempts: Sequence[Attempt], chains: Sequence[Group]) -> Iterable[tuple[str, bool | None, bool | None]]:
    """Problem, and whether the first and the final answer were right; None without a finding."""
    steps = iter(chains)
    for attempt in attempts:
        found = [next(steps).rollouts[0].score for _ in attempt.steps]
        first, final = found[0], found[attempt.final.index]
        before = None if first is None else first.correct
        yield attempt.problem_id, before, None if final is None else final.correct


def _share(flags: Iterable[bool]) -> float | None:
    found = list(flags)
    return sum(found) / len(found) if found else None
