"""Recycling, the stage: scored groups in, new tasks and the fate of every other opportunity out.

    offers (a rule at a time) -> balance of labels and sources -> prompts that fit -> balance -> cap

Every offer of a rule ends as exactly one task or one exclusion (docs/recycling.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from spark_kernel.config import Quotas
from spark_kernel.config.sections import RecycleSection
from spark_kernel.errors import InputError, PhaseError
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Origin, Problem, Recycled, Rollout, Task, View
from spark_kernel.recycle import mixer
from spark_kernel.recycle.pairwise import PAIRWISE
from spark_kernel.recycle.pointwise import POINTWISE
from spark_kernel.recycle.re_evaluation import RE_EVALUATION
from spark_kernel.recycle.recycler import Context, Draft, Offer, Recycler, extra_recyclers
from spark_kernel.recycle.reflection import REFLECTION
from spark_kernel.recycle.sources import unusable

BUILT_IN: tuple[Recycler, ...] = (POINTWISE, PAIRWISE, REFLECTION, *RE_EVALUATION)

Fits = Callable[[Sequence[Task]], Sequence[bool]]
"""Whether each task's prompt fits the prompt limit and, with an output, the context."""


def recycle(
    groups: Sequence[Group],
    problems: Mapping[str, Problem],
    settings: RecycleSection,
    quotas: Quotas,
    *,
    seed: int,
    round: int,
    fits: Fits,
) -> Recycled:
    """Judge and reflection tasks from the scored solve groups of a round; other groups offer nothing.

    At most J judge and R reflection tasks, a random subsample, where the queue is `fifo`; J + R of either where it is
    `mixed_first`, because there `take` lets the quotas borrow from each other; none of what has a quota of 0.

    Args:
        problems: the problem of every group, by id.
        fits: see `Fits`; called at most twice.

    Raises:
        PhaseError: a group has rollouts that were not verified.
        InputError: a problem is missing, or an extra recycler is unknown or proposes what cannot be a source.
    """
    chosen = [group for group in groups if group.task.kind is Kind.SOLVE]
    judges, reflections = quotas.judge, quotas.reflection
    if settings.order == "mixed_first":
        both = judges + reflections
        judges, reflections = (both if judges else 0), (both if reflections else 0)
    return _run(chosen, problems, Origin.SOLVE, Context(settings, seed, round), fits, judges, reflections)


def re_evaluate(
    groups: Sequence[Group],
    problems: Mapping[str, Problem],
    sources: Mapping[str, Rollout],
    settings: RecycleSection,
    quotas: Quotas,
    *,
    seed: int,
    round: int,
    fits: Fits,
) -> Recycled:
    """Judge tasks, at most J, from the scored reflection groups of a reward period; other groups offer nothing.

    Reflections that were themselves recycled from reflections are not recycled again.

    Args:
        sources: the rollouts the reflections were made from, by id; one that is missing costs its pair, as an
            exclusion.

    Raises:
        PhaseError, InputError: as `recycle`.
    """
    chosen = [g for g in groups if g.task.kind is Kind.REFLECTION and g.task.origin is Origin.SOLVE]
    context = Context(settings, seed, round, sources)
    return _run(chosen, problems, Origin.REFLECTION, context, fits, quotas.judge, quotas.reflection)


def offers(
    groups: Sequence[Group], problems: Mapping[str, Problem], origin: Origin, context: Context
) -> tuple[Offer, ...]:
    """What the rules for groups of this origin offer, built-in and extra; independent of the order of groups.

    Raises:
        PhaseError, InputError: as `recycle`.
    """
    rules = [r for r in (*BUILT_IN, *extra_recyclers(context.settings.extra)) if r.origin is origin]
    found: list[Offer] = []
    for group in sorted(groups, key=lambda group: group.task.id):
        problem = _problem_of(group, problems)
        for rule in rules:
            for offer in rule.propose(group, problem, context):
                _check_sources(rule, offer)
                found.append(offer)
    return tuple(found)


def _run(
    groups: Sequence[Group],
    problems: Mapping[str, Problem],
    origin: Origin,
    context: Context,
    fits: Fits,
    judge_limit: int,
    reflection_limit: int,
) -> Recycled:
    all_offers = offers(groups, problems, origin, context)
    exclusions = [offer for offer in all_offers if isinstance(offer, Exclusion)]
    drafts: Sequence[Draft] = [offer for offer in all_offers if isinstance(offer, Draft)]
    before = mixer.label_counts(drafts)
    if context.settings.balance_pointwise:
        drafts = mixer.choose_labels(drafts, context)
    drafts, not_selected = mixer.choose_reflections(drafts, context)
    built, not_built = _build(drafts, fits, context)
    surplus: tuple[Exclusion, ...] = ()
    if context.settings.balance_pointwise:
        built, surplus = mixer.drop_surplus(built, context)
    if context.settings.balance_pairs:
        built, one_sided = mixer.balance_pairs(built, context)
        surplus = (*surplus, *one_sided)
    tasks, capped = mixer.cap([task for _, task in built], judge_limit, reflection_limit, context)
    kept = {task.id for task in tasks}
    return Recycled(
        tasks=tasks,
        exclusions=(*exclusions, *not_selected, *not_built, *surplus, *capped),
        balance_before=before,
        balance_after=mixer.label_counts([draft for draft, task in built if task.id in kept]),
    )


def _build(
    drafts: Sequence[Draft], fits: Fits, context: Context
) -> tuple[tuple[mixer.Built, ...], tuple[Exclusion, ...]]:
    """The drafts as tasks whose prompts fit: in full view where that was drawn and fits, else in answer view."""
    built: dict[str, mixer.Built] = {}
    exclusions = []
    for draft in drafts:
        task = draft.task(context)
        if task.id in built:
            exclusions.append(
                context.exclusion(ExclusionReason.NOT_SELECTED, task.id, task.kind, "the same task was already made")
            )
        else:
            built[task.id] = (draft, task)
    for task_id in _too_long([task for _, task in built.values() if task.view is View.FULL], fits):
        draft, _ = built[task_id]
        built[task_id] = (draft, draft.task(context, View.ANSWER))
    for task_id in _too_long([task for _, task in built.values() if task.view is View.ANSWER], fits):
        _, task = built.pop(task_id)
        exclusions.append(context.exclusion(ExclusionReason.PROMPT_TOO_LONG, task_id, task.kind))
    return tuple(built.values()), tuple(exclusions)


def _too_long(tasks: Sequence[Task], fits: Fits) -> list[str]:
    if not tasks:
        return []
    return [task.id for task, fit in zip(tasks, fits(tasks), strict=True) if not fit]


def _problem_of(group: Group, problems: Mapping[str, Problem]) -> Problem:
    if any(rollout.score is None for rollout in group.rollouts):
        raise PhaseError(f"Task {group.task.id} has outputs that were not verified: verify before recycling.")
    if group.task.problem_id not in problems:
        raise InputError(f"Problem {group.task.problem_id} of task {group.task.id} is not among the problems given.")
    return problems[group.task.problem_id]


def _check_sources(rule: Recycler, offer: Offer) -> None:
    if isinstance(offer, Exclusion):
        return
    for source in (*offer.sources, *((offer.other,) if offer.other else ())):
        reason = unusable(source)
        if reason is not None:
            raise InputError(f'Recycler "{rule.name}" proposes rollout {source.id}, which is no source: {reason}.')
