"""The queue: what a round takes, what waits, what grows too old; nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config import Quotas
from spark_kernel.config.sections import RecycleSection
from spark_kernel.errors import SparkError
from spark_kernel.records import ExclusionReason, Kind, Message, Origin, Task
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.recycle.recycle import re_evaluate, recycle
from tests.helpers.recycling import (
    changed,
    everything_fits,
    make_groups,
    make_reflections,
    problems_of,
    quotas_of,
    settings_of,
)

QUOTAS = Quotas(judge=3, reflection=2)
KINDS = [Kind.POINTWISE, Kind.PAIRWISE, Kind.REFLECTION]


def make_task(
    number: int,
    kind: Kind = Kind.POINTWISE,
    *,
    mixed: bool | None = False,
    round: int = 1,
    origin: Origin = Origin.SOLVE,
) -> Task:
    return Task(
        id=f"task-{number}",
        kind=kind,
        origin=origin,
        problem_id="p",
        messages=(Message.of("user", "?"),),
        label="Yes",
        verifier="verdict",
        template_id="t",
        round=round,
        source_group_mixed=mixed,
    )


def settings(**changes: object) -> RecycleSection:
    return settings_of("chains", **({"judge_quota": QUOTAS.judge, "reflection_quota": QUOTAS.reflection} | changes))


some_tasks = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from([True, False, None]),
        st.integers(1, 5),
        st.sampled_from([Origin.SOLVE, Origin.REFLECTION]),
    ),
    max_size=20,
).map(
    lambda rows: tuple(
        make_task(number, kind, mixed=mixed, round=round, origin=origin)
        for number, (kind, mixed, round, origin) in enumerate(rows)
    )
)
some_settings = st.builds(
    settings,
    judge_quota=st.integers(0, 8),
    reflection_quota=st.integers(0, 8),
    minimum=st.integers(1, 8),
    max_age=st.one_of(st.none(), st.integers(0, 4)),
    order=st.sampled_from(["mixed_first", "fifo"]),
)


@given(tasks=some_tasks, settings=some_settings)
def test_nothing_is_lost(tasks: tuple[Task, ...], settings: RecycleSection) -> None:
    queue, old = TaskQueue().add(tasks).drop_old(5, settings.max_age)
    taken, rest = queue.take(settings, quotas_of(settings), 5)
    ids = [task.id for task in taken] + [task.id for task in rest.tasks] + [e.subject_id for e in old]
    assert sorted(ids) == sorted(task.id for task in tasks)
    assert [task for task in tasks if task in set(rest.tasks)] == list(rest.tasks)
    assert len(rest) == len(rest.tasks)


@given(tasks=some_tasks, max_age=st.one_of(st.none(), st.integers(0, 5)), round=st.integers(5, 7))
def test_tasks_beyond_the_age_limit_leave_with_a_reason(
    tasks: tuple[Task, ...], max_age: int | None, round: int
) -> None:
    queue, exclusions = TaskQueue(tasks).drop_old(round, max_age)
    expected = {task.id for task in tasks if max_age is not None and task.round < round - max_age}
    assert {e.subject_id for e in exclusions} == expected
    assert {task.id for task in queue.tasks} == {task.id for task in tasks} - expected
    kinds = {task.id: task.kind for task in tasks}
    for exclusion in exclusions:
        assert (exclusion.stage, exclusion.reason) == ("queue", ExclusionReason.TOO_OLD)
        assert (exclusion.round, exclusion.kind) == (round, kinds[exclusion.subject_id])


@given(tasks=some_tasks, minimum=st.integers(1, 12))
def test_fifo_takes_exactly_the_minimum_in_order_or_nothing(tasks: tuple[Task, ...], minimum: int) -> None:
    taken, rest = TaskQueue(tasks).take(settings(order="fifo", minimum=minimum), QUOTAS, 5)
    assert taken == (tasks[:minimum] if len(tasks) >= minimum else ())
    assert rest.tasks == tasks[len(taken) :]


@given(tasks=some_tasks, settings=some_settings)
def test_quotas_borrow_from_each_other_when_one_runs_dry(tasks: tuple[Task, ...], settings: RecycleSection) -> None:
    settings = changed(settings, order="mixed_first")
    taken, _ = TaskQueue(tasks).take(settings, quotas_of(settings), 5)
    if len(tasks) < settings.minimum:
        assert not taken
        return
    waiting = {True: 0, False: 0}
    got = {True: 0, False: 0}
    for task in tasks:
        waiting[task.kind.judges] += 1
    for task in taken:
        got[task.kind.judges] += 1
    quotas = quotas_of(settings)
    quota = {True: quotas.judge, False: quotas.reflection}
    open_to = sum(waiting[sort] for sort in (True, False) if quota[sort])
    assert len(taken) == min(open_to, sum(quota.values()))
    for sort in (True, False):
        assert quota[sort] or not got[sort]
        assert got[sort] >= min(waiting[sort], quota[sort])


def test_a_quota_of_0_takes_none_and_borrows_none() -> None:
    tasks = tuple(make_task(i, kind) for i, kind in enumerate([Kind.POINTWISE, Kind.PAIRWISE, Kind.REFLECTION] * 4))
    for order in ("mixed_first", "fifo"):
        chosen = changed(settings(), order=order, minimum=1)
        made = recycle(
            groups := make_groups(["cw", "cc", "ww"] * 6),
            problems_of(groups),
            chosen,
            Quotas(0, 9),
            seed=0,
            round=1,
            fits=everything_fits,
        )
        assert {task.kind for task in made.tasks} == {Kind.REFLECTION}
        assert any(e.reason is ExclusionReason.CAPPED and e.kind is Kind.POINTWISE for e in made.exclusions)
    chosen = changed(settings(), order="mixed_first", minimum=1)
    for quotas, kinds in ((Quotas(0, 9), {Kind.REFLECTION}), (Quotas(9, 0), {Kind.POINTWISE, Kind.PAIRWISE})):
        taken, rest = TaskQueue(tasks).take(chosen, quotas, 1)
        assert {task.kind for task in taken} == kinds
        assert len(taken) + len(rest) == len(tasks)


@given(tasks=some_tasks, settings=some_settings)
def test_nothing_waits_that_goes_before_what_was_taken(tasks: tuple[Task, ...], settings: RecycleSection) -> None:
    taken, rest = TaskQueue(tasks).take(changed(settings, order="mixed_first"), quotas_of(settings), 5)

    def rank(task: Task) -> tuple[bool, int]:
        rounds_it_could_be_taken_in = 5 - task.round - (1 if task.origin is Origin.REFLECTION else 0)
        return task.source_group_mixed is not True, rounds_it_could_be_taken_in

    for sort in (True, False):
        ranks = [rank(task) for task in taken if task.kind.judges is sort]
        assert ranks == sorted(ranks)
        waiting = [rank(task) for task in rest.tasks if task.kind.judges is sort]
        assert not ranks or not waiting or max(ranks) <= min(waiting)


def test_mixed_groups_go_before_fresh_ones_and_fresh_ones_before_left_overs() -> None:
    old_mixed = make_task(0, mixed=True, round=4)
    fresh = make_task(1, round=5)
    left_over = make_task(2, round=4)
    re_evaluation = make_task(3, round=4, origin=Origin.REFLECTION)
    queue = TaskQueue((left_over, re_evaluation, fresh, old_mixed))
    taken, rest = queue.take(settings(), Quotas(judge=3, reflection=0), 5)
    assert taken == (old_mixed, fresh, re_evaluation)
    assert rest.tasks == (left_over,)


def test_a_task_waits_once_only() -> None:
    queue = TaskQueue().add([make_task(1)])
    with pytest.raises(SparkError, match="task-1"):
        queue.add([make_task(1)])


@pytest.mark.parametrize("preset", ["chains", "chains+faithful"])
def test_rounds_in_a_row_account_for_every_task(preset: str) -> None:
    """The whole story of a round, six times: what was made is taken, waits, or was dropped with a reason."""
    config = settings_of(preset, judge_quota=8, reflection_quota=8, minimum=1 if preset == "chains" else 16)
    quotas = quotas_of(config)
    queue, made, taken_ids, dropped = TaskQueue(), 0, set(), 0
    groups = make_groups(["ccww", "cwww", "cccw", "cccc", "wwww", "wnnt", "ccxx", "ntxk"] * 3)
    for round in range(1, 7):
        recycled = recycle(groups, problems_of(groups), config, quotas, seed=0, round=round, fits=everything_fits)
        queue, old = queue.add(recycled.tasks).drop_old(round, config.max_age)
        taken, queue = queue.take(config, quotas, round)
        assert len(taken) == 16
        assert not taken_ids & {task.id for task in taken}
        taken_ids |= {task.id for task in taken}
        made, dropped = made + len(recycled.tasks), dropped + len(old)
        reflections, sources = make_reflections(["wcwc", "cwww", "wccc"])
        again = re_evaluate(
            reflections, problems_of(reflections), sources, config, quotas, seed=0, round=round, fits=everything_fits
        )
        queue, made = queue.add(again.tasks), made + len(again.tasks)
    assert made == len(taken_ids) + len(queue) + dropped
    assert (dropped > 0) == (preset == "chains")


def test_re_evaluations_do_not_crowd_out_judgements_of_fresh_answers() -> None:
    waiting = [make_task(i, round=4, origin=Origin.REFLECTION) for i in range(40)]
    fresh = [make_task(100 + i, round=5) for i in range(40)]
    taken, _ = TaskQueue((*waiting, *fresh)).take(settings(), Quotas(judge=20, reflection=0), 5)
    assert [task.origin for task in taken] == [Origin.SOLVE, Origin.REFLECTION] * 10
