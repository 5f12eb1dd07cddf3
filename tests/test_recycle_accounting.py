"""Every opportunity ends as a task or an exclusion with a reason, whatever the groups, settings and prompt limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config.sections import RecycleSection
from spark_kernel.records import ExclusionReason, Group, Kind, Recycled, Task, View
from spark_kernel.recycle.recycle import Fits, re_evaluate, recycle
from tests.helpers.recycling import (
    CODES,
    everything_fits,
    make_groups,
    make_reflections,
    problems_of,
    quotas_of,
    settings_of,
)

JUDGES = (Kind.POINTWISE, Kind.PAIRWISE)
shares = st.sampled_from([0.0, 0.3, 0.7, 1.0])
views = st.sampled_from(["answer", "full", "both"])
any_settings = st.builds(
    settings_of,
    pointwise=st.booleans(),
    pairwise=st.booleans(),
    reflection=st.booleans(),
    re_evaluation=st.booleans(),
    judge_quota=st.integers(0, 6),
    reflection_quota=st.integers(0, 6),
    order=st.sampled_from(["mixed_first", "fifo"]),
    mixed_pairwise_share=shares,
    judge_view=views,
    reflection_view=views,
    reflection_correct_share=shares,
    balance_pointwise=st.booleans(),
)
any_codes = st.lists(st.text(alphabet=CODES, min_size=1, max_size=6), max_size=12)
seeds = st.integers(0, 2**31 - 1)


def limit_of(characters: int) -> Fits:
    """A prompt limit in characters: full views of these groups need about 30 more than answer views."""

    def fits(tasks: Sequence[Task]) -> list[bool]:
        return [len(task.messages[0].text) <= characters for task in tasks]

    return fits


def run(groups: list[Group], settings: RecycleSection, seed: int, fits: Fits = everything_fits) -> Recycled:
    return recycle(groups, problems_of(groups), settings, quotas_of(settings), seed=seed, round=7, fits=fits)


def fates(recycled: Recycled) -> Counter[str]:
    """Opportunities by sort, each counted once, as the task or the exclusion it became."""
    return Counter("judge" if x.kind in JUDGES else str(x.kind) for x in (*recycled.tasks, *recycled.exclusions))


@given(codes=any_codes, settings=any_settings, seed=seeds, characters=st.integers(100, 350))
def test_a_solve_group_offers_one_judgement_and_one_reflection(
    codes: list[str], settings: RecycleSection, seed: int, characters: int
) -> None:
    recycled = run(make_groups(codes), settings, seed, limit_of(characters))
    assert fates(recycled) == Counter({"judge": len(codes), "reflection": len(codes)} if codes else {})
    ids = [task.id for task in recycled.tasks]
    assert len(set(ids)) == len(ids)
    assert all(exclusion.stage == "recycle" and exclusion.round == 7 for exclusion in recycled.exclusions)
    assert not set(ids) & {exclusion.subject_id for exclusion in recycled.exclusions}


@given(
    codes=st.lists(st.text(alphabet=CODES, min_size=2, max_size=6), max_size=8),
    settings=any_settings,
    seed=seeds,
    characters=st.integers(100, 350),
)
def test_a_reflection_group_offers_one_judgement_and_one_pair(
    codes: list[str], settings: RecycleSection, seed: int, characters: int
) -> None:
    groups, sources = make_reflections(codes)
    recycled = re_evaluate(
        groups,
        problems_of(groups),
        sources,
        settings,
        quotas_of(settings),
        seed=seed,
        round=7,
        fits=limit_of(characters),
    )
    by_kind = Counter(item.kind for item in (*recycled.tasks, *recycled.exclusions))
    assert by_kind == Counter({Kind.POINTWISE: len(codes), Kind.PAIRWISE: len(codes)} if codes else {})
    assert len(recycled.tasks) <= quotas_of(settings).judge


@given(codes=any_codes, settings=any_settings, seed=seeds, data=st.data())
def test_the_order_of_groups_changes_nothing(
    codes: list[str], settings: RecycleSection, seed: int, data: st.DataObject
) -> None:
    groups = make_groups(codes)
    shuffled = data.draw(st.permutations(groups))
    assert run(shuffled, settings, seed) == run(groups, settings, seed)


@given(codes=any_codes, settings=any_settings, seed=seeds, characters=st.integers(100, 350))
def test_only_tasks_that_fit_leave_and_full_views_fall_back(
    codes: list[str], settings: RecycleSection, seed: int, characters: int
) -> None:
    groups = make_groups(codes)
    recycled = run(groups, settings, seed, limit_of(characters))
    assert all(limit_of(characters)(recycled.tasks))
    too_long = {e.subject_id for e in recycled.exclusions if e.reason is ExclusionReason.PROMPT_TOO_LONG}
    free = run(groups, settings_of("chains", **_without_limits(settings)), seed)
    shortest = {task.id: task for task in free.tasks}
    for task_id in too_long & set(shortest):
        assert not limit_of(characters)([shortest[task_id]])[0]


def _without_limits(settings: RecycleSection) -> dict[str, object]:
    """The same settings, all in answer view, without balance and quotas."""
    names = ("pointwise", "pairwise", "reflection", "mixed_pairwise_share", "reflection_correct_share")
    return {name: getattr(settings, name) for name in names} | {
        "judge_view": "answer",
        "reflection_view": "answer",
        "balance_pointwise": False,
    }


def test_a_full_view_that_does_not_fit_is_asked_in_answer_view_with_the_same_draws() -> None:
    groups = make_groups(["ccww"] * 40)
    settings = settings_of("chains", judge_view="full", reflection_view="full")
    full, answer = run(groups, settings, 1), run(groups, settings, 1, lambda ts: [t.view is View.ANSWER for t in ts])
    assert {task.view for task in full.tasks} == {View.FULL}
    assert {task.view for task in answer.tasks} == {View.ANSWER}
    assert [(t.id, t.template_id, t.label, t.label_map, t.sources) for t in full.tasks] == [
        (t.id, t.template_id, t.label, t.label_map, t.sources) for t in answer.tasks
    ]


def test_prompts_are_counted_in_two_calls() -> None:
    calls: list[int] = []

    def fits(tasks: Sequence[Task]) -> list[bool]:
        calls.append(len(tasks))
        return [task.view is View.ANSWER for task in tasks]

    run(make_groups(["cw"] * 30), settings_of(), 0, fits)
    assert len(calls) == 2
    assert calls[1] == 60


def test_another_seed_or_round_draws_anew() -> None:
    groups, settings = make_groups(["ccccwwww"] * 20), settings_of()
    problems, quotas = problems_of(groups), quotas_of(settings)

    def sources(seed: int, round: int) -> list[tuple[str, ...]]:
        recycled = recycle(groups, problems, settings, quotas, seed=seed, round=round, fits=everything_fits)
        return sorted(task.sources for task in recycled.tasks)

    assert len({tuple(sources(*key)) for key in ((0, 1), (1, 1), (0, 2))}) == 3


def test_a_group_keeps_its_faithful_tasks_whatever_else_is_in_the_round() -> None:
    groups = make_groups(["ccww", "wwww", "cccc", "cwnt"] * 4)
    together = set(map(_essence, run(groups, settings_of("faithful"), 3).tasks))
    alone = {_essence(task) for group in groups for task in run([group], settings_of("faithful"), 3).tasks}
    assert alone == together


def _essence(task: Task) -> tuple[object, ...]:
    return task.id, task.label, task.sources, task.messages, task.view
