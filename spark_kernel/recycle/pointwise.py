"""Pointwise judging: is this one answer correct?

A group whose sources are all correct gives one of them (label Yes), one whose sources are all wrong gives one of
those (label No); a mixed group that does not become a pair gives either, by a fair coin.
"""

from __future__ import annotations

from spark_kernel.records import ExclusionReason, Group, Kind, Origin, Problem
from spark_kernel.recycle.pairwise import becomes_pair
from spark_kernel.recycle.recycler import Context, Draft, Offer, Recycler
from spark_kernel.recycle.sources import is_mixed, no_source, usable


def propose(group: Group, problem: Problem, context: Context) -> tuple[Offer, ...]:
    """The pointwise task of a solve group, or nothing where its judge task is a pair."""
    if becomes_pair(group, context):
        return ()
    return (draft_pointwise(group, problem, Origin.SOLVE, context),)


def draft_pointwise(group: Group, problem: Problem, origin: Origin, context: Context) -> Offer:
    """One source of the group to be judged, with one of the other sort where the group has both."""
    if not context.settings.pointwise:
        return context.exclusion(ExclusionReason.KIND_OFF, group.task.id, Kind.POINTWISE)
    rng = context.rng("source", Kind.POINTWISE, group.task.id)
    drawn = [rng.choice(sources) for sources in (usable(group.correct), usable(group.wrong)) if sources]
    if not drawn:
        return no_source(group, group.rollouts, Kind.POINTWISE, "all", context)
    rng.shuffle(drawn)
    return Draft(
        kind=Kind.POINTWISE,
        problem=problem,
        sources=(drawn[0],),
        other=drawn[1] if len(drawn) == 2 else None,
        origin=origin,
        view=context.view(context.settings.judge_view, Kind.POINTWISE, group),
        mixed=is_mixed(group),
        group_id=group.task.id,
    )


POINTWISE = Recycler("pointwise", Origin.SOLVE, propose)
