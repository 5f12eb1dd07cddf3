"""Reflection: look at an earlier answer again and give a final one; the label is gold.

A group with a wrong source offers that. Where correct sources are wanted too (`reflection_correct_share` > 0), a mixed
group offers either and an all-correct group offers a correct one; how many of these are taken is decided over the
whole round (`mixer.choose_reflections`).
"""

from __future__ import annotations

from spark_kernel.records import ExclusionReason, Group, Kind, Origin, Problem
from spark_kernel.recycle.recycler import Context, Draft, Offer, Recycler
from spark_kernel.recycle.sources import is_mixed, no_source, usable


def propose(group: Group, problem: Problem, context: Context) -> tuple[Offer, ...]:
    """The one reflection a solve group offers, from a wrong source if it has one."""
    settings = context.settings
    if not settings.reflection:
        return (context.exclusion(ExclusionReason.KIND_OFF, group.task.id, Kind.REFLECTION),)
    pools = [usable(group.wrong)]
    if settings.reflection_correct_share > 0:
        pools.append(usable(group.correct))
    rng = context.rng("source", Kind.REFLECTION, group.task.id)
    drawn = [rng.choice(sources) for sources in pools if sources]
    if not drawn:
        if settings.reflection_correct_share > 0:
            return (no_source(group, group.rollouts, Kind.REFLECTION, "all", context),)
        not_correct = [r for r in group.rollouts if r.score is None or r.score.correct is not True]
        return (no_source(group, not_correct, Kind.REFLECTION, "not correct", context),)
    draft = Draft(
        kind=Kind.REFLECTION,
        problem=problem,
        sources=(drawn[0],),
        other=drawn[1] if len(drawn) == 2 else None,
        origin=Origin.SOLVE,
        view=context.view(settings.reflection_view, Kind.REFLECTION, group),
        mixed=is_mixed(group),
        group_id=group.task.id,
    )
    return (draft,)


REFLECTION = Recycler("reflection", Origin.SOLVE, propose)
