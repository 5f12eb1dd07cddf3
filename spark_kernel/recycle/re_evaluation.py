"""Re-evaluation: what reflections answered is judged in its turn ("evaluation conditioned on further reflection").

Every scored reflection group offers a pointwise task on a reflected answer, and a pair of the first answer against a
reflected one of the other correctness. The tasks are judge tasks, so nothing is ever made of their outputs.
"""

from __future__ import annotations

from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Origin, Problem, Rollout
from spark_kernel.recycle.pairwise import draft_pair, draw_pair
from spark_kernel.recycle.pointwise import draft_pointwise
from spark_kernel.recycle.recycler import Context, Offer, Recycler
from spark_kernel.recycle.sources import no_source, unusable, usable


def propose_pointwise(group: Group, problem: Problem, context: Context) -> tuple[Offer, ...]:
    """One reflected answer to be judged, by the same rule as a solve group that does not become a pair."""
    if not context.settings.re_evaluation:
        return (context.exclusion(ExclusionReason.KIND_OFF, group.task.id, Kind.POINTWISE),)
    return (draft_pointwise(group, problem, Origin.REFLECTION, context),)


def propose_pair(group: Group, problem: Problem, context: Context) -> tuple[Offer, ...]:
    """The first answer against a random reflected answer, exactly one of the two correct."""
    if not (context.settings.re_evaluation and context.settings.pairwise):
        return (context.exclusion(ExclusionReason.KIND_OFF, group.task.id, Kind.PAIRWISE),)
    first = _first_answer(group, context)
    if isinstance(first, Exclusion):
        return (first,)
    is_correct = first.score is not None and first.score.correct is True
    opposite, wanted = (group.wrong, "wrong") if is_correct else (group.correct, "correct")
    reflected = usable(opposite)
    if not reflected:
        return (no_source(group, opposite, Kind.PAIRWISE, wanted, context),)
    correct, wrong = ((first,), reflected) if is_correct else (reflected, (first,))
    pair = draw_pair(correct, wrong, group, context)
    return (draft_pair(pair, group, problem, Origin.REFLECTION, context),)


def _first_answer(group: Group, context: Context) -> Rollout | Exclusion:
    """The rollout the group reflected on."""
    first_id = group.task.sources[0] if group.task.sources else "(none)"
    first = context.sources.get(first_id)
    if first is None:
        detail = f"the first answer, rollout {first_id}, is not at hand"
        return context.exclusion(ExclusionReason.NO_SOURCE, group.task.id, Kind.PAIRWISE, detail)
    reason = unusable(first)
    if reason is not None:
        return context.exclusion(reason, group.task.id, Kind.PAIRWISE, f"the first answer, rollout {first_id}")
    return first


RE_EVALUATION = (
    Recycler("re_evaluation_pointwise", Origin.REFLECTION, propose_pointwise),
    Recycler("re_evaluation_pairwise", Origin.REFLECTION, propose_pair),
)
