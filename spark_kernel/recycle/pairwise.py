"""Pairwise judging: of a mixed group, one random correct rollout against one random wrong one.

Which stands first is a fair coin of `prompts.build`. A pair whose answers are the same is rejected.
"""

from __future__ import annotations

from collections.abc import Sequence

from spark_kernel.records import ExclusionReason, Group, Kind, Origin, Problem, Rollout
from spark_kernel.recycle.recycler import Context, Draft, Offer, Recycler
from spark_kernel.recycle.sources import answer_keys, is_mixed, usable


def becomes_pair(group: Group, context: Context) -> bool:
    """Whether the group's one judge task is a pair (else it is pointwise).

    A mixed group: with probability `mixed_pairwise_share` if both kinds are on, always if only
    pairwise is on. Every other group: never.
    """
    settings = context.settings
    if not (settings.pairwise and is_mixed(group)):
        return False
    if not settings.pointwise:
        return True
    return context.rng("kind", group.task.id).random() < settings.mixed_pairwise_share


def propose(group: Group, problem: Problem, context: Context) -> tuple[Offer, ...]:
    """The pair of a solve group, or nothing where its judge task is pointwise."""
    if not becomes_pair(group, context):
        return ()
    pair = draw_pair(usable(group.correct), usable(group.wrong), group, context)
    return (draft_pair(pair, group, problem, Origin.SOLVE, context),)


def draw_pair(
    correct: Sequence[Rollout], wrong: Sequence[Rollout], group: Group, context: Context
) -> tuple[Rollout, Rollout] | None:
    """A random correct and a random wrong rollout whose answers differ; None if every pair has equal answers.

    Equal answers with different scores (a graded or unsteady verifier) have no better half.
    """
    rng = context.rng("pair", group.task.id)
    wrong_with_keys = [(rollout, answer_keys(rollout)) for rollout in wrong]
    for one in rng.sample(correct, len(correct)):
        read, shown = answer_keys(one)
        different = [rollout for rollout, keys in wrong_with_keys if keys[0] != read and keys[1] != shown]
        if different:
            return one, rng.choice(different)
    return None


def draft_pair(
    pair: tuple[Rollout, Rollout] | None, group: Group, problem: Problem, origin: Origin, context: Context
) -> Offer:
    """The draft of a (correct, wrong) pair, or the exclusion of a pair with equal answers."""
    if pair is None:
        detail = "a correct and a wrong output give the same answer"
        return context.exclusion(ExclusionReason.EQUAL_ANSWERS, group.task.id, Kind.PAIRWISE, detail)
    return Draft(
        kind=Kind.PAIRWISE,
        problem=problem,
        sources=pair,
        origin=origin,
        view=context.view(context.settings.judge_view, Kind.PAIRWISE, group),
        mixed=is_mixed(group),
        group_id=group.task.id,
    )


PAIRWISE = Recycler("pairwise", Origin.SOLVE, propose)
