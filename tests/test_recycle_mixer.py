"""Decisions over a whole round: label balance, share of correct sources, caps."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config import Quotas
from spark_kernel.config.sections import RecycleSection
from spark_kernel.records import ExclusionReason, Group, Kind, Recycled
from spark_kernel.recycle.recycle import re_evaluate, recycle
from tests.helpers.recycling import (
    CODES,
    SOURCES,
    changed,
    everything_fits,
    make_groups,
    make_reflections,
    plausible,
    problems_of,
    quotas_of,
    settings_of,
)

DEFAULT = settings_of()
NO_PAIRS = settings_of(pairwise=False)
POINTWISE_ONLY = settings_of(pairwise=False, reflection=False)
REFLECTION_ONLY = settings_of(pointwise=False, pairwise=False)
any_codes = st.lists(st.text(alphabet=CODES, min_size=1, max_size=6), max_size=20)
seeds = st.integers(0, 2**31 - 1)


def run(groups: list[Group], settings: RecycleSection, seed: int = 0, round: int = 1) -> Recycled:
    return recycle(
        groups, problems_of(groups), settings, quotas_of(settings), seed=seed, round=round, fits=everything_fits
    )


def labels(recycled: Recycled) -> Counter[str]:
    return Counter(task.label for task in recycled.tasks if task.kind is Kind.POINTWISE)


def rows(codes: list[str]) -> Counter[str]:
    """How many groups have sources of both sorts, correct ones only, wrong ones only."""
    found: Counter[str] = Counter()
    for text in codes:
        sorts = {SOURCES[code] for code in text if code in SOURCES}
        found["both" if len(sorts) == 2 else "correct" if True in sorts else "wrong" if sorts else "none"] += 1
    return found


@given(codes=any_codes, seed=seeds)
def test_labels_are_balanced_at_the_least_cost(codes: list[str], seed: int) -> None:
    """Oracle: mixed groups may take either label, the others are paired off; an odd mixed one pairs with them."""
    recycled = run(make_groups(codes), POINTWISE_ONLY, seed)
    count, found = rows(codes), labels(recycled)
    fewer, more = sorted((count["correct"], count["wrong"]))
    odd = count["both"] % 2
    assert found.total() == count["both"] + 2 * fewer + (odd if more > fewer else 0)
    assert abs(found["Yes"] - found["No"]) == (odd if more == fewer else 0)
    dropped = [e for e in recycled.exclusions if e.reason is ExclusionReason.BALANCE]
    assert found.total() + len(dropped) == count["both"] + count["correct"] + count["wrong"]
    assert recycled.balance_after == {"Yes": found["Yes"], "No": found["No"]}
    assert sum(recycled.balance_before.values()) == found.total() + len(dropped)


@given(codes=st.lists(st.sampled_from(["ccww", "cw", "cccc", "ww", "wwww"]), max_size=30), seed=seeds)
def test_mixed_groups_keep_their_pointwise_tasks_and_are_balanced_among_themselves(codes: list[str], seed: int) -> None:
    recycled = run(make_groups(codes), POINTWISE_ONLY, seed)
    mixed = Counter(task.label for task in recycled.tasks if task.source_group_mixed)
    assert mixed.total() == rows(codes)["both"]
    assert abs(mixed["Yes"] - mixed["No"]) <= 1


def test_an_odd_mixed_task_has_a_fair_label() -> None:
    group = make_groups(["ccww"])
    yes = sum(labels(run(group, POINTWISE_ONLY, seed))["Yes"] for seed in range(600))
    assert plausible(yes, 600, 0.5)


def test_an_odd_mixed_task_takes_the_label_that_is_lacking() -> None:
    for seed in range(20):
        assert labels(run(make_groups(["ccww", "cccc", "cccc"]), POINTWISE_ONLY, seed)) == {"Yes": 1, "No": 1}


def test_one_sided_labels_leave_no_pointwise_task() -> None:
    recycled = run(make_groups(["cc"] * 5), POINTWISE_ONLY)
    assert not recycled.tasks
    assert recycled.balance_before == {"Yes": 5, "No": 0}
    assert recycled.balance_after == {"Yes": 0, "No": 0}


def test_without_balance_labels_follow_the_groups() -> None:
    recycled = run(make_groups(["cc"] * 5 + ["ww"]), changed(POINTWISE_ONLY, balance_pointwise=False))
    assert labels(recycled) == {"Yes": 5, "No": 1}
    assert recycled.balance_before == recycled.balance_after == {"Yes": 5, "No": 1}


def test_re_evaluations_are_balanced_too() -> None:
    groups, sources = make_reflections(["wccc"] * 9 + ["wwww"] * 4)
    recycled = re_evaluate(
        groups, problems_of(groups), sources, NO_PAIRS, quotas_of(NO_PAIRS), seed=0, round=1, fits=everything_fits
    )
    assert labels(recycled) == {"Yes": 4, "No": 4}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(
    "codes",
    [
        ["ccww"] * 50,
        ["cccc"] * 200 + ["wwww"] * 50,
        ["ccww"] * 40 + ["cccc"] * 200 + ["wwww"] * 20,
    ],
)
def test_the_share_of_correct_sources_is_kept(codes: list[str], share: float) -> None:
    recycled = run(make_groups(codes), changed(REFLECTION_ONLY, reflection_correct_share=share))
    correct = sum(task.source_correct[0] for task in recycled.tasks)
    assert abs(correct - share * len(recycled.tasks)) <= 2
    mixed = [task.source_correct[0] for task in recycled.tasks if task.source_group_mixed]
    assert abs(sum(mixed) - share * len(mixed)) <= 1


def test_a_lack_of_all_correct_groups_is_made_up_by_at_most_half_of_the_mixed_ones() -> None:
    for wrong, expected in ((10, 9), (100, 10)):
        tasks = run(make_groups(["ccww"] * 20 + ["ww"] * wrong), REFLECTION_ONLY).tasks
        assert len(tasks) == 20 + wrong
        assert sum(task.source_correct[0] for task in tasks) == expected


def test_small_rounds_keep_the_share_on_average() -> None:
    groups = make_groups(["ccww", "cwww"])
    correct = sum(
        task.source_correct[0] for round in range(500) for task in run(groups, REFLECTION_ONLY, round=round).tasks
    )
    assert abs(correct / 1000 - 0.3) < 0.03


@given(codes=any_codes, seed=seeds)
def test_reflections_from_wrong_sources_are_never_given_up_for_the_share(codes: list[str], seed: int) -> None:
    count = rows(codes)
    recycled = run(make_groups(codes), REFLECTION_ONLY, seed)
    assert sum(task.source_correct == (False,) for task in recycled.tasks) >= count["wrong"]
    assert len(recycled.tasks) >= count["wrong"] + count["both"]
    left_out = [e for e in recycled.exclusions if e.reason is ExclusionReason.NOT_SELECTED]
    assert len(left_out) == count["wrong"] + count["both"] + count["correct"] - len(recycled.tasks)


def test_a_share_of_one_takes_correct_sources_only() -> None:
    settings = changed(REFLECTION_ONLY, reflection_correct_share=1.0)
    recycled = run(make_groups(["cw", "cc", "ww"]), settings)
    assert [task.source_correct for task in recycled.tasks] == [(True,), (True,)]
    assert {e.reason for e in recycled.exclusions if e.kind is Kind.REFLECTION} == {ExclusionReason.NOT_SELECTED}


def test_faithful_caps_are_j_and_r_at_random() -> None:
    settings = settings_of("faithful", judge_quota=32, reflection_quota=32)
    groups = make_groups(["ww"] * 64)
    taken: Counter[str] = Counter()
    for seed in range(24):
        recycled = run(groups, settings, seed)
        assert Counter(task.kind for task in recycled.tasks) == {Kind.POINTWISE: 32, Kind.REFLECTION: 32}
        assert Counter(e.reason for e in recycled.exclusions) == {ExclusionReason.CAPPED: 64}
        taken.update(task.problem_id for task in recycled.tasks)
    assert all(plausible(taken[f"problem-{number}"], 48, 0.5) for number in range(64))


def test_default_caps_leave_what_borrowing_could_use_and_prefer_mixed_groups() -> None:
    settings = settings_of(judge_quota=6, reflection_quota=4, mixed_pairwise_share=1.0)
    recycled = run(make_groups(["cw"] * 8 + ["ww"] * 20 + ["cc"] * 20), settings)
    for judges in (True, False):
        tasks = [task for task in recycled.tasks if task.kind.judges is judges]
        assert len(tasks) == 10
        assert sum(task.source_group_mixed is True for task in tasks) == 8


def test_re_evaluations_stay_within_j() -> None:
    groups, sources = make_reflections(["wcw"] * 30)
    recycled = re_evaluate(
        groups, problems_of(groups), sources, DEFAULT, Quotas(16, 10**6), seed=0, round=1, fits=everything_fits
    )
    assert len(recycled.tasks) == 16
    assert Counter(e.reason for e in recycled.exclusions) == {
        ExclusionReason.BALANCE: 30,  # in every pair the reflection is right
        ExclusionReason.CAPPED: 14,
    }
