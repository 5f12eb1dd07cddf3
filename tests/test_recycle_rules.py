"""The recycling rules, group by group: which task, from which source, with which label, in which view."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config.sections import RecycleSection
from spark_kernel.errors import InputError, PhaseError
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Origin, Recycled, Task, View
from spark_kernel.recycle.recycle import re_evaluate, recycle
from spark_kernel.recycle.sources import normalise_answer
from tests.helpers.recycling import (
    CODES,
    GOLD,
    SOURCES,
    changed,
    everything_fits,
    make_group,
    make_groups,
    make_reflections,
    make_rollout,
    plausible,
    problems_of,
    quotas_of,
    rollouts_of,
    settings_of,
)

FAITHFUL = settings_of("faithful")
DEFAULT = settings_of()
NO_BALANCE = changed(DEFAULT, balance_pointwise=False, balance_pairs=False)
JUDGES = (Kind.POINTWISE, Kind.PAIRWISE)
group_codes = st.text(alphabet=CODES, min_size=1, max_size=8)


def run(groups: list[Group], settings: RecycleSection, seed: int = 0, round: int = 5) -> Recycled:
    return recycle(
        groups, problems_of(groups), settings, quotas_of(settings), seed=seed, round=round, fits=everything_fits
    )


def run_re_evaluation(codes: list[str], settings: RecycleSection = NO_BALANCE, seed: int = 0) -> Recycled:
    groups, sources = make_reflections(codes)
    return re_evaluate(
        groups, problems_of(groups), sources, settings, quotas_of(settings), seed=seed, round=5, fits=everything_fits
    )


def judge_of(recycled: Recycled) -> Task | Exclusion:
    (found,) = [item for item in (*recycled.tasks, *recycled.exclusions) if item.kind in JUDGES]
    return found


def reflection_of(recycled: Recycled) -> Task | Exclusion:
    (found,) = [item for item in (*recycled.tasks, *recycled.exclusions) if item.kind is Kind.REFLECTION]
    return found


def faithful_table(codes: str) -> tuple[set[tuple[str, str]], bool]:
    """Oracle, straight from the table: the possible (kind, what the sources were) and whether there is a reflection.

    Rows go by the outputs that may be sources: complete, and with an answer.
    """
    sources = [code for code in codes if code in SOURCES]
    correct = any(SOURCES[code] for code in sources)
    wrong = any(not SOURCES[code] for code in sources)
    if correct and wrong:
        return {("pairwise", "correct+wrong"), ("pointwise", "correct"), ("pointwise", "wrong")}, True
    if correct:
        return {("pointwise", "correct")}, False
    if wrong:
        return {("pointwise", "wrong")}, True
    return set(), False


@given(codes=group_codes, seed=st.integers(0, 2**31 - 1))
def test_faithful_settings_follow_the_table(codes: str, seed: int) -> None:
    rows, reflects = faithful_table(codes)
    recycled = run([make_group("p", codes)], FAITHFUL, seed)
    judge, reflection = judge_of(recycled), reflection_of(recycled)
    if isinstance(judge, Task):
        given_codes = sorted(SOURCES[codes[int(source.rsplit("-", 1)[1])]] for source in judge.sources)
        assert (str(judge.kind), "+".join("correct" if ok else "wrong" for ok in reversed(given_codes))) in rows
        assert judge.view is View.ANSWER
    else:
        assert not rows
    assert isinstance(reflection, Task) == reflects
    if isinstance(reflection, Task):
        assert reflection.source_correct == (False,)
        assert reflection.label == GOLD
        assert reflection.verifier == "exact"


def test_the_coins_of_mixed_groups_are_as_stated() -> None:
    groups = make_groups(["ccwwwwcc"] * 1500)
    judges = [task for task in run(groups, FAITHFUL).tasks if task.kind.judges]
    pairs = [task for task in judges if task.kind is Kind.PAIRWISE]
    pointwise = [task for task in judges if task.kind is Kind.POINTWISE]
    assert plausible(len(pairs), len(judges), 0.7)
    assert plausible(sum(task.label == "Yes" for task in pointwise), len(pointwise), 0.5)
    assert plausible(sum(task.label == "A" for task in pairs), len(pairs), 0.5)
    for index in range(8):
        assert plausible(sum(any(s.endswith(f"-{index}") for s in task.sources) for task in pairs), len(pairs), 0.25)
    letters = [task for task in pointwise if task.label_map]
    assert plausible(sum(task.label_map["A"] == "Yes" for task in letters if task.label_map), len(letters), 0.5)


def test_reflections_draw_any_wrong_output_and_either_view() -> None:
    tasks = [t for t in run(make_groups(["cwww"] * 1000), FAITHFUL).tasks if t.kind is Kind.REFLECTION]
    assert len(tasks) == 1000
    assert plausible(sum(task.view is View.FULL for task in tasks), 1000, 0.5)
    assert plausible(sum(task.sources[0].endswith("-1") for task in tasks), 1000, 1 / 3)


@pytest.mark.parametrize("kind", [Kind.POINTWISE, Kind.PAIRWISE, Kind.REFLECTION])
@pytest.mark.parametrize("setting", ["answer", "full", "both"])
def test_views_are_as_configured(setting: str, kind: Kind) -> None:
    settings = settings_of(judge_view=setting, reflection_view=setting, balance_pointwise=False)
    tasks = [t for t in run(make_groups(["ccww"] * 400), settings).tasks if t.kind is kind]
    full = sum(task.view is View.FULL for task in tasks)
    if setting == "both":
        assert plausible(full, len(tasks), 0.5)
    else:
        assert full == (len(tasks) if setting == "full" else 0)
    for task in tasks:
        assert ("Steps of output" in task.messages[0].text) == (task.view is View.FULL)


@given(codes=st.lists(group_codes, min_size=1, max_size=6), seed=st.integers(0, 2**31 - 1))
def test_labels_are_the_verifiers_findings_and_gold_stays_out(codes: list[str], seed: int) -> None:
    groups = make_groups(codes)
    rollouts = rollouts_of(groups)
    for task in run(groups, NO_BALANCE, seed).tasks + run(groups, DEFAULT, seed).tasks:
        found = [rollouts[source].score for source in task.sources]
        assert task.source_correct == tuple(score.correct for score in found)
        if task.kind is Kind.POINTWISE:
            assert task.label == ("Yes" if found[0].correct else "No")
        elif task.kind is Kind.PAIRWISE:
            assert found["AB".index(task.label)].correct
            assert not found["BA".index(task.label)].correct
            assert task.gold_position == task.label
        for source, score in zip(task.sources, found, strict=True):
            assert codes[int(source.split("-")[1])][int(source.split("-")[2])] in SOURCES
            assert score.answer in task.messages[0].text
        assert GOLD not in task.messages[0].text
        assert task.origin is Origin.SOLVE
        assert task.round == 5
        assert task.source_policy_version == 3


@given(codes=st.lists(group_codes, min_size=1, max_size=6))
def test_tasks_know_whether_their_group_had_sources_of_both_sorts(codes: list[str]) -> None:
    for task in run(make_groups(codes), NO_BALANCE).tasks:
        sorts = {SOURCES[code] for code in codes[int(task.sources[0].split("-")[1])] if code in SOURCES}
        assert task.source_group_mixed == (len(sorts) == 2)


@pytest.mark.parametrize(
    ("codes", "reason", "detail"),
    [
        ("nnaa", ExclusionReason.NO_ANSWER, "all outputs: 4 no_answer"),
        ("tTt", ExclusionReason.TRUNCATED, "all outputs: 3 truncated"),
        ("xx", ExclusionReason.VERIFIER_TIMEOUT, "all outputs: 2 verifier_timeout"),
        ("kk", ExclusionReason.VERIFIER_CRASH, "all outputs: 2 verifier_crash"),
        ("ntt", ExclusionReason.NO_SOURCE, "all outputs: 1 no_answer, 2 truncated"),
    ],
)
def test_a_group_without_sources_says_what_was_the_matter(codes: str, reason: ExclusionReason, detail: str) -> None:
    recycled = run([make_group("p", codes)], DEFAULT)
    assert not recycled.tasks
    assert [(e.reason, e.kind, e.stage, e.subject_id, e.round) for e in recycled.exclusions] == [
        (reason, Kind.POINTWISE, "recycle", "solve-p", 5),
        (reason, Kind.REFLECTION, "recycle", "solve-p", 5),
    ]
    assert {e.detail for e in recycled.exclusions} == {detail}


def test_without_correct_sources_wanted_an_all_correct_group_has_no_reflection() -> None:
    excluded = reflection_of(run([make_group("p", "ccc")], FAITHFUL))
    assert isinstance(excluded, Exclusion)
    assert excluded.reason is ExclusionReason.NO_SOURCE


def test_an_answer_that_no_prompt_can_show_is_no_source() -> None:
    group = make_group("p", "w")
    group = group.with_rollouts((replace(group.rollouts[0], text="The answer is wrong-0, unboxed."),))
    assert not run([group], DEFAULT).tasks
    hidden = replace(group.rollouts[0], text=r"<think>\boxed{wrong-0}</think> Done.")
    assert not run([group.with_rollouts((hidden,))], DEFAULT).tasks


@pytest.mark.parametrize(
    ("pointwise", "pairwise", "expected"),
    [
        (True, True, {"mixed": {"pointwise", "pairwise"}, "uniform": {"pointwise"}}),
        (True, False, {"mixed": {"pointwise"}, "uniform": {"pointwise"}}),
        (False, True, {"mixed": {"pairwise"}, "uniform": {"kind_off"}}),
        (False, False, {"mixed": {"kind_off"}, "uniform": {"kind_off"}}),
    ],
)
def test_a_kind_that_is_off_leaves_mixed_groups_to_the_other(
    pointwise: bool, pairwise: bool, expected: dict[str, set[str]]
) -> None:
    settings = changed(NO_BALANCE, pointwise=pointwise, pairwise=pairwise, reflection=False)
    for row, codes in (("mixed", "cw"), ("uniform", "ww")):
        recycled = run(make_groups([codes] * 60), settings)
        found = {str(t.kind) for t in recycled.tasks}
        found |= {str(e.reason) for e in recycled.exclusions if e.kind in JUDGES}
        assert found == expected[row]
        assert Counter(e.reason for e in recycled.exclusions if e.kind is Kind.REFLECTION) == {
            ExclusionReason.KIND_OFF: 60
        }


@pytest.mark.parametrize(
    ("one", "two"),
    [("7", "7."), ("x + 1", "x+1"), ("7.50", "+07.5"), ("-0", "0"), (r"\text{Paris}", "paris"), ("$3$", "3")],
)
def test_a_pair_with_equal_answers_is_rejected(one: str, two: str) -> None:
    group = make_group("p", "cw")
    group = group.with_rollouts((make_rollout(group.task.id, 0, "c", one), make_rollout(group.task.id, 1, "w", two)))
    excluded = judge_of(run([group], changed(DEFAULT, mixed_pairwise_share=1.0)))
    assert isinstance(excluded, Exclusion)
    assert excluded.reason is ExclusionReason.EQUAL_ANSWERS


def test_a_pair_is_drawn_from_those_whose_answers_differ() -> None:
    group = make_group("p", "cwcw")
    answers = ("7", "7", "7", "8")
    group = group.with_rollouts(
        tuple(make_rollout(group.task.id, i, code, answers[i]) for i, code in enumerate("cwcw"))
    )
    for seed in range(30):
        task = judge_of(run([group], changed(DEFAULT, mixed_pairwise_share=1.0), seed))
        assert isinstance(task, Task)
        assert f"{group.task.id}-3" in task.sources


@pytest.mark.parametrize(("one", "two"), [("7", "-7"), ("7.5", "75"), ("70", "7"), ("1/2", "1/3"), ("0.05", "0.5")])
def test_different_answers_stay_different(one: str, two: str) -> None:
    assert normalise_answer(one) != normalise_answer(two)


@given(
    whole=st.integers(0, 10**12),
    zeros=st.integers(0, 3),
    fraction=st.from_regex(r"\A[0-9]{0,4}\Z"),
    negative=st.booleans(),
)
def test_numbers_are_equal_exactly_when_their_values_are(whole: int, zeros: int, fraction: str, negative: bool) -> None:
    sign = "-" if negative else ""
    written = f"{sign}{'0' * zeros}{whole}.{fraction}00"
    plain = normalise_answer(written)
    assert float(plain) == float(written)
    assert normalise_answer(plain) == plain
    assert normalise_answer(f"{sign}{whole}1.{fraction}") != plain


def test_only_solve_groups_are_recycled_and_only_first_reflections_re_evaluated() -> None:
    groups = [
        make_group("0", "cw", kind=Kind.POINTWISE, origin=Origin.SOLVE),
        make_group("1", "cw", kind=Kind.PAIRWISE, origin=Origin.REFLECTION),
        make_group("2", "cw", kind=Kind.REFLECTION, origin=Origin.SOLVE),
    ]
    assert run(groups, DEFAULT) == Recycled((), (), {"Yes": 0, "No": 0}, {"Yes": 0, "No": 0})
    again = [*groups[:2], make_group("3", "cw", kind=Kind.REFLECTION, origin=Origin.REFLECTION), make_group("4", "cw")]
    found = re_evaluate(
        again, problems_of(again), {}, DEFAULT, quotas_of(DEFAULT), seed=0, round=1, fits=everything_fits
    )
    assert not found.tasks
    assert not found.exclusions


def test_an_unverified_group_and_a_missing_problem_are_refused() -> None:
    group = make_group("p", "cw")
    unscored = group.with_rollouts(tuple(replace(rollout, score=None) for rollout in group.rollouts))
    with pytest.raises(PhaseError, match="verify before recycling"):
        run([unscored], DEFAULT)
    with pytest.raises(InputError, match="problem-p"):
        recycle([group], {}, DEFAULT, quotas_of(DEFAULT), seed=0, round=1, fits=everything_fits)


@given(first=st.sampled_from(CODES), codes=group_codes, seed=st.integers(0, 2**31 - 1))
def test_re_evaluation_judges_the_reflected_answer_and_sets_it_against_the_first(
    first: str, codes: str, seed: int
) -> None:
    recycled = run_re_evaluation([first + codes], seed=seed)
    reflected = {SOURCES[code] for code in codes if code in SOURCES}
    pointwise = [task for task in recycled.tasks if task.kind is Kind.POINTWISE]
    pairs = [task for task in recycled.tasks if task.kind is Kind.PAIRWISE]
    assert len(recycled.tasks) + len(recycled.exclusions) == 2
    assert len(pointwise) == bool(reflected)
    assert len(pairs) == (first in SOURCES and (not SOURCES[first]) in reflected)
    for task in pointwise:
        assert task.sources[0].startswith("reflection-0-")
        assert (task.label == "Yes") == SOURCES[codes[int(task.sources[0].rsplit("-", 1)[1])]]
    for task in pairs:
        own = task.sources.index("solve-0-99")
        assert task.sources[1 - own].startswith("reflection-0-")
        assert task.source_correct[own] == SOURCES[first]
        assert task.source_correct["AB".index(task.label)] is True
        assert task.source_correct["BA".index(task.label)] is False
    assert all(task.origin is Origin.REFLECTION for task in recycled.tasks)


def test_re_evaluation_pairs_stand_in_fair_order_and_equal_ones_are_rejected() -> None:
    pairs = [t for t in run_re_evaluation(["wcc"] * 800).tasks if t.kind is Kind.PAIRWISE]
    assert plausible(sum(task.sources[0].startswith("solve") for task in pairs), 800, 0.5)
    groups, sources = make_reflections(["wc"])
    (first,) = sources
    sources[first] = make_rollout("solve-0", 99, "w", "right-0")
    found = re_evaluate(
        groups, problems_of(groups), sources, DEFAULT, quotas_of(DEFAULT), seed=0, round=1, fits=everything_fits
    )
    assert ExclusionReason.EQUAL_ANSWERS in {e.reason for e in found.exclusions}


def test_a_first_answer_that_is_not_at_hand_costs_the_pair_only() -> None:
    groups, _ = make_reflections(["wcw"])
    found = re_evaluate(
        groups, problems_of(groups), {}, NO_BALANCE, quotas_of(NO_BALANCE), seed=0, round=1, fits=everything_fits
    )
    assert [task.kind for task in found.tasks] == [Kind.POINTWISE]
    assert [(e.reason, e.kind) for e in found.exclusions] == [(ExclusionReason.NO_SOURCE, Kind.PAIRWISE)]
    assert "solve-0-99" in found.exclusions[0].detail


@pytest.mark.parametrize(
    ("changes", "off"),
    [
        ({"re_evaluation": False}, {Kind.POINTWISE, Kind.PAIRWISE}),
        ({"pointwise": False}, {Kind.POINTWISE}),
        ({"pairwise": False}, {Kind.PAIRWISE}),
    ],
)
def test_re_evaluation_respects_its_switches(changes: dict[str, bool], off: set[Kind]) -> None:
    recycled = run_re_evaluation(["wcw"], changed(NO_BALANCE, **changes))
    assert {e.kind for e in recycled.exclusions if e.reason is ExclusionReason.KIND_OFF} == off
    assert {task.kind for task in recycled.tasks} == {Kind.POINTWISE, Kind.PAIRWISE} - off
