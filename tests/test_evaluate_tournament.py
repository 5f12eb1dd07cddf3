"""The knock-out of sampled answers: who wins, what is asked, and what it is put beside."""

from __future__ import annotations

from typing import Any

import pytest

from spark_kernel.config.sections import EvaluationSection
from spark_kernel.records import Kind
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.scripted_judge import PROBLEMS, SHOWN, evaluate, half_right, kind_of, knows, last_number, model

AMOUNT = EvaluationSection(tournament=True, samples=5)


def hardly_right(gold: int, seed: int) -> int:
    """One sample in five or so is right, and wrong ones differ."""
    return gold if seed % 5 == 0 else gold + 1 + seed % 4


def lines_of(found: Any) -> Any:
    return found.summary["lines"]


def test_a_judge_who_knows_finds_a_right_answer_wherever_there_is_one() -> None:
    found = evaluate(model(hardly_right, knows), AMOUNT)
    solved = found.groups["solve"]
    possible = [bool(group.correct) for group in solved]
    assert 0 < sum(possible) < len(possible)
    line = lines_of(found)["tournament"]
    right = [group.rollouts[at].score.correct for group, at in zip(solved, line["chosen"], strict=True)]
    # Between two wrong answers it says "B", so every right one goes on whichever place it has.
    assert right == possible
    assert line["accuracy"]["value"] == pytest.approx(sum(possible) / len(possible))
    assert lines_of(found)["best_of_all"]["accuracy"]["value"] == line["accuracy"]["value"]


def test_a_judge_of_places_decides_nothing_and_the_first_sample_wins() -> None:
    found = evaluate(model(hardly_right, knows, compares=lambda shown, gold, seed: "A"), AMOUNT)
    line = lines_of(found)["tournament"]
    assert line["chosen"] == [0] * len(PROBLEMS)
    assert line["undecided"] == line["matches"] > 0
    beside = line["best_of_all"]
    greedy = [group.rollouts[0].score.correct for group in found.groups["solve"]]
    best = [any(r.score.correct for r in group.rollouts) for group in found.groups["solve"]]
    assert beside["difference"] == pytest.approx((sum(greedy) - sum(best)) / len(best))
    assert (beside["tournament_only"], beside["best_of_all_only"]) == (0, sum(best) - sum(greedy))


def test_pairs_are_asked_in_both_orders_and_equal_answers_do_not_meet() -> None:
    found = evaluate(model(hardly_right, knows), AMOUNT)
    asked = found.groups["tournament/pairwise"]
    pairs = [group.task.sources for group in asked]
    assert len(set(pairs)) == len(pairs)
    assert {(second, first) for first, second in pairs} == set(pairs)
    assert all(group.task.kind is Kind.PAIRWISE for group in asked)
    for group in asked:
        first, second = SHOWN.findall(group.task.messages[0].text)
        assert last_number(first) != last_number(second)
    alike = evaluate(model(lambda gold, seed: gold, knows), AMOUNT)
    assert alike.groups["tournament/pairwise"] == ()
    assert lines_of(alike)["tournament"]["accuracy"]["value"] == 1.0


def test_tokens_are_the_samples_and_what_was_asked_about_them() -> None:
    found = evaluate(model(hardly_right, knows), AMOUNT)

    def tokens(name: str) -> int:
        return sum(len(rollout.token_ids) for group in found.groups[name] for rollout in group.rollouts)

    assert lines_of(found)["tournament"]["tokens"] == tokens("solve") + tokens("tournament/pairwise")
    assert lines_of(found)["best_of_all"]["tokens"] == tokens("solve") + tokens("own/pointwise/answer")


def test_it_disturbs_no_other_line_and_is_left_out_unless_asked_for() -> None:
    without = evaluate(model(half_right, knows), AMOUNT.model_copy(update={"tournament": False}))
    found = evaluate(model(half_right, knows), AMOUNT)
    own = {"tournament", "best_of_all"}
    assert not own & lines_of(without).keys()
    assert {name: line for name, line in lines_of(found).items() if name not in own} == lines_of(without)
    ids = [group.task.id for groups in found.groups.values() for group in groups]
    assert len(ids) == len(set(ids))


def test_a_problem_without_a_usable_answer_has_its_first_sample() -> None:
    def write(prompt: Any, seed: int) -> str:
        return "nothing" if kind_of(prompt) is Kind.SOLVE else r"\boxed{A}"

    line = lines_of(evaluate(ScriptedEngine(write), AMOUNT))["tournament"]
    assert (line["chosen"], line["matches"]) == ([0] * len(PROBLEMS), 0)
