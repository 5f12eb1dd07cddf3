"""What is decided over all opportunities of a round: balance of labels, share of correct sources, cap, order.

Everything here is independent of the order in which groups arrive: ties are broken by a keyed shuffle.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from spark_kernel.records import Exclusion, ExclusionReason, Kind, Task
from spark_kernel.recycle.recycler import Context, Draft

Built = tuple[Draft, Task]
"""A draft and the task that was made of it."""


def label_counts(drafts: Sequence[Draft]) -> Mapping[str, int]:
    """How many of the pointwise drafts would have the label "Yes" and "No"."""
    counts = Counter("Yes" if draft.starts_correct else "No" for draft in drafts if draft.kind is Kind.POINTWISE)
    return {"Yes": counts["Yes"], "No": counts["No"]}


def choose_labels(drafts: Sequence[Draft], context: Context) -> tuple[Draft, ...]:
    """Of the pointwise drafts of mixed groups, which may have either label, half take each. Nothing is lost by it.

    They are balanced among themselves: if they made up for a surplus of all-correct groups, difficulty would tell
    the label, and `take`, which prefers mixed groups, would deliver a one-sided batch. An odd one takes the label
    that the other groups lack, else a fair coin decides.
    """
    pointwise = [draft for draft in drafts if draft.kind is Kind.POINTWISE]
    free = [draft for draft in pointwise if draft.other is not None]
    lead = _lead([draft for draft in pointwise if draft.other is None])
    odd_is_yes = context.rng("odd label").random() < 0.5 if lead == 0 else lead < 0
    chosen = _pick(free, (len(free) + odd_is_yes) // 2, context)
    return tuple(
        draft.starting(correct=draft.id in chosen) if draft.kind is Kind.POINTWISE else draft for draft in drafts
    )


def choose_reflections(drafts: Sequence[Draft], context: Context) -> tuple[tuple[Draft, ...], tuple[Exclusion, ...]]:
    """Which reflections start from a correct source, so that about `reflection_correct_share` s of them do.

    Mixed groups start from a correct source with share s among themselves, so that difficulty does not tell which
    it was. For every group with wrong sources only, s/(1-s) groups with correct sources only join; the others are
    NOT_SELECTED. Where these are too few, more mixed groups start from a correct source, but no more than half of
    them. Groups with wrong sources only all stay, unless s is 1. Fractions are rounded by a keyed coin, so that
    small rounds keep the share on average.
    """
    share = context.settings.reflection_correct_share
    reflections = [draft for draft in drafts if draft.kind is Kind.REFLECTION]
    free = [draft for draft in reflections if draft.other is not None]
    only_correct = [draft for draft in reflections if draft.other is None and draft.starts_correct]
    only_wrong = [draft for draft in reflections if draft.other is None and not draft.starts_correct]
    rng = context.rng("reflection share")
    mixed_coin, joining_coin = rng.random(), rng.random()
    from_mixed = math.floor(share * len(free) + mixed_coin)
    if share < 1:
        wanted = math.floor(share / (1 - share) * len(only_wrong) + joining_coin)
        left_out = {draft.id for draft in only_correct} - _pick(only_correct, wanted, context)
        if wanted > len(only_correct):
            lacking = math.floor(share * len(reflections) + mixed_coin) - len(only_correct)
            from_mixed = max(from_mixed, min(lacking, len(free) // 2))
    else:
        left_out = {draft.id for draft in only_wrong}
    correct = _pick(free, from_mixed, context)
    kept = tuple(
        draft.starting(correct=draft.id in correct) if draft.kind is Kind.REFLECTION else draft
        for draft in drafts
        if draft.id not in left_out
    )
    detail = f"reflections start from correct sources with share {share:g}"
    return kept, tuple(
        context.exclusion(ExclusionReason.NOT_SELECTED, draft.group_id, Kind.REFLECTION, detail)
        for draft in drafts
        if draft.id in left_out
    )


def drop_surplus(built: Sequence[Built], context: Context) -> tuple[tuple[Built, ...], tuple[Exclusion, ...]]:
    """Equally many pointwise "Yes" and "No": the surplus of the larger label is left out, mixed groups' tasks last.

    One may be over where the groups that are not mixed balance: then a coin drew its label (`choose_labels`).
    """
    pointwise = [item for item in built if item[0].kind is Kind.POINTWISE]
    lead = _lead([draft for draft, _ in pointwise])
    tolerated = 1 if _lead([draft for draft, _ in pointwise if draft.other is None]) == 0 else 0
    larger = [item for item in pointwise if item[0].starts_correct is (lead > 0)]
    larger.sort(key=lambda item: (item[0].other is not None, _rank(item[1].id, context)))
    ids = {task.id for _, task in larger[: max(0, abs(lead) - tolerated)]}
    kept = tuple(item for item in built if item[1].id not in ids)
    exclusions = [context.exclusion(ExclusionReason.BALANCE, t.id, t.kind) for _, t in built if t.id in ids]
    return kept, tuple(exclusions)


def balance_pairs(built: Sequence[Built], context: Context) -> tuple[tuple[Built, ...], tuple[Exclusion, ...]]:
    """Of the pairs of an earlier and a reflected answer, equally many in which either is right; the surplus goes.

    A reflection is right more often than what it looked at, and it reads differently: left alone, a judge would learn
    to choose by form. Pairs of mixed groups are balanced among themselves, because `take` prefers them.
    """
    ids: set[str] = set()
    for mixed in (True, False):
        pairs = [item for item in built if item[0].later_is_right is not None and item[0].mixed is mixed]
        sides = [[task.id for draft, task in pairs if draft.later_is_right is later] for later in (True, False)]
        larger = max(sides, key=len)
        ids |= set(sorted(larger, key=lambda name: _rank(name, context))[: abs(len(sides[0]) - len(sides[1]))])
    exclusions = [
        context.exclusion(ExclusionReason.BALANCE, task.id, task.kind, "which of the two answers is right")
        for _, task in built
        if task.id in ids
    ]
    return tuple(item for item in built if item[1].id not in ids), tuple(exclusions)


def cap(
    tasks: Sequence[Task], judge_limit: int, reflection_limit: int, context: Context
) -> tuple[tuple[Task, ...], tuple[Exclusion, ...]]:
    """At most so many judge and other tasks, in the order in which they enter the queue (a keyed shuffle).

    Faithful (`fifo`): a random subsample. `mixed_first`: tasks of mixed groups before others, each at random.
    """
    prefer_mixed = context.settings.order == "mixed_first"
    ordered = sorted(tasks, key=lambda task: _rank(task.id, context))
    preferred = sorted(ordered, key=lambda task: prefer_mixed and not task.source_group_mixed)
    kept: set[str] = set()
    for judges, limit in ((True, judge_limit), (False, reflection_limit)):
        kept |= {task.id for task in [t for t in preferred if t.kind.judges is judges][:limit]}
    capped = [task for task in ordered if task.id not in kept]
    exclusions = tuple(context.exclusion(ExclusionReason.CAPPED, task.id, task.kind) for task in capped)
    return tuple(task for task in ordered if task.id in kept), exclusions


def _lead(drafts: Sequence[Draft]) -> int:
    """By how many "Yes" outnumber "No"."""
    return sum(1 if draft.starts_correct else -1 for draft in drafts)


def _rank(item_id: str, context: Context) -> float:
    return context.rng("order", item_id).random()


def _pick(drafts: Sequence[Draft], count: int, context: Context) -> set[str]:
    """The ids of `count` drafts, at random."""
    return {draft.id for draft in sorted(drafts, key=lambda draft: _rank(draft.id, context))[:count]}
