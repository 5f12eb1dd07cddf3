"""A knock-out of a problem's sampled answers by pairwise verdicts, beside the best of them by pointwise ones.

V1 (arXiv 2603.04304) lets a model compare its samples in pairs. Both choose among the same samples here, and both say
what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spark_kernel.evaluate.cases import Candidate, Case, CaseMaker, by_problem
from spark_kernel.evaluate.intervals import clustered_proportion, mcnemar_exact, paired_difference
from spark_kernel.evaluate.judge_metrics import verdict_of
from spark_kernel.records import Exclusion, Group, Rollout, View
from spark_kernel.recycle.sources import normalise_answer
from spark_kernel.test_time.best_of import best_of

LINE = "tournament"
Ask = Callable[[str, Sequence[Case], int], tuple[tuple[Group, ...], list[Exclusion]]]


@dataclass(slots=True)
class Tournament:
    """What was asked and who won. `chosen`: a problem's winning sample by its place; absent where none could enter."""

    chosen: dict[str, int] = field(default_factory=dict)
    groups: list[Group] = field(default_factory=list)
    exclusions: list[Exclusion] = field(default_factory=list)
    undecided: int = 0
    """Pairs in which the two orders disagreed or could not be read: the answer that was sampled first went on."""


def hold_tournament(maker: CaseMaker, candidates: Sequence[Candidate], ask: Ask) -> Tournament:
    """Let each problem's candidates meet in pairs, in sampling order, until one is left.

    A pair is asked about in both orders, seeing the answers alone; two answers that are spelled alike do not meet, and
    an odd one out goes on. The label of such a task is that of a pair of which one is right, which these need not be.
    """
    found = Tournament()
    left = by_problem(candidates)
    while any(len(members) > 1 for members in left.values()):
        met: list[tuple[str, Candidate, Candidate]] = []
        after: dict[str, list[Candidate]] = {}
        cases: list[Case] = []
        for problem, members in left.items():
            after[problem] = [members[-1]] if len(members) % 2 else []
            for one, two in zip(members[::2], members[1::2], strict=False):
                if normalise_answer(one.answer) == normalise_answer(two.answer):
                    after[problem].append(one)
                    continue
                met.append((problem, one, two))
                cases += maker.pair(one, two, View.ANSWER)
        verdicts = _asked(found, ask, cases) if cases else {}
        for problem, one, two in met:
            votes = [verdicts.get((one.rollout_id, two.rollout_id)), verdicts.get((two.rollout_id, one.rollout_id))]
            for_one = (votes[0] == "A") + (votes[1] == "B")
            for_two = (votes[0] == "B") + (votes[1] == "A")
            found.undecided += for_one == for_two
            after[problem].append(two if for_two > for_one else one)
        left = {problem: sorted(members, key=lambda c: c.index) for problem, members in after.items()}
    found.chosen = {problem: members[0].index for problem, members in left.items()}
    return found


def tournament_lines(found: Tournament, solved: Sequence[Group], judged: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """The lines "tournament" and "best_of_all": the same samples, chosen by pairs and by single judgements.

    Args:
        solved: the sampled answers, a group per problem.
        judged: pointwise judgements of them, one rollout each, each task naming its source rollout.
    """
    judgements = {group.task.sources[0]: group.rollouts[0] for group in judged}
    samples = sum(len(rollout.token_ids) for group in solved for rollout in group.rollouts)
    by_pairs = [found.chosen.get(group.task.problem_id, 0) for group in solved]
    alone = [_best(group, judgements) for group in solved]
    pairs, singles = _line(solved, by_pairs), _line(solved, alone)
    pairs["tokens"] = samples + sum(len(rollout.token_ids) for group in found.groups for rollout in group.rollouts)
    singles["tokens"] = samples + sum(len(rollout.token_ids) for rollout in judgements.values())
    pairs |= {"matches": len(found.groups) // 2, "undecided": found.undecided}
    pairs["best_of_all"] = _beside(_outcomes(solved, alone), _outcomes(solved, by_pairs))
    return {LINE: pairs, "best_of_all": singles}


def _asked(found: Tournament, ask: Ask, cases: Sequence[Case]) -> Mapping[tuple[str, str], str | None]:
    """The verdict on each ordered pair; what was asked is kept."""
    groups, left_out = ask(LINE, cases, 1)
    found.groups += groups
    found.exclusions += left_out
    return {(group.task.sources[0], group.task.sources[1]): verdict_of(group.rollouts[0]) for group in groups}


def _best(group: Group, judgements: Mapping[str, Rollout]) -> int:
    """The first sample with the best verdict; one that could not be judged comes last."""
    given = [judgements.get(rollout.id) for rollout in group.rollouts]
    labels = [None if judge is None else place for place, judge in enumerate(given)]
    return best_of(labels, [None if judge is None else verdict_of(judge) for judge in given]).index


def _outcomes(solved: Sequence[Group], chosen: Sequence[int]) -> dict[str, list[float]]:
    found = {}
    for group, index in zip(solved, chosen, strict=True):
        score = group.rollouts[index].score
        if score is not None and score.correct is not None:
            found[group.task.problem_id] = [float(score.correct)]
    return found


def _line(solved: Sequence[Group], chosen: Sequence[int]) -> dict[str, Any]:
    found = _outcomes(solved, chosen)
    return {
        "n": len(found),
        "missing": len(solved) - len(found),
        "accuracy": clustered_proportion((problem, values[0]) for problem, values in found.items()).to_dict(),
        "samples_mean": sum(len(group.rollouts) for group in solved) / len(solved) if solved else None,
        "chosen": list(chosen),
    }


def _beside(alone: Mapping[str, Sequence[float]], by_pairs: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The tournament minus the best of all, and the exact p of the problems in which they differ."""
    difference = paired_difference(alone, by_pairs)
    both = [(alone[problem][0], by_pairs[problem][0]) for problem in alone if problem in by_pairs]
    better, worse = both.count((0.0, 1.0)), both.count((1.0, 0.0))
    return {
        "difference": difference.difference,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "tournament_only": better,
        "best_of_all_only": worse,
        "mcnemar_p": mcnemar_exact(better, worse) if both else None,
    }
