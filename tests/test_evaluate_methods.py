"""Held-out evaluation of the probability of "Yes", and of methods that choose by votes or by judgement."""

from __future__ import annotations

import json
import math

import pytest

from spark_kernel.config.sections import EvaluationSection, RolloutSection
from spark_kernel.test_time.verdict_probability import verdict_opening, yes_by_rollout
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.scripted_judge import evaluate, half_right, knows, model

# ------------------------------------------------------------------------------------- the probability of "Yes"


class CharacterEngine(ScriptedEngine):
    """Scores characters: an A or Y costs 0.2, a B or N 1.2, every other character 5."""

    def score(self, prompts, outputs):
        cost = {"A": 0.2, "Y": 0.2, "B": 1.2, "N": 1.2, "e": 0.0, "s": 0.0, "o": 0.0, "}": 0.0}
        return [[[-cost.get(chr(token), 5.0) for token in row] for row in rows] for rows in outputs]


def characters(text):
    return [ord(character) for character in text]


def test_probability_of_yes_is_read_at_the_box_over_the_allowed_verdicts():
    found = evaluate(model(half_right, knows), lengths=RolloutSection(max_new_tokens=100))
    groups = found.groups["own/pointwise/answer"]
    engine = CharacterEngine(lambda prompt, seed: "")
    probabilities = yes_by_rollout(engine, characters, groups)
    assert len(probabilities) == 48
    cheap = 1 / (1 + math.exp(-1.0))
    for group in groups:
        yes_is_b = group.task.label_map is not None and group.task.label_map["B"] == "Yes"
        assert probabilities[group.rollouts[0].id] == pytest.approx(1 - cheap if yes_is_b else cheap)


def test_calibration_enters_the_summary_where_probabilities_can_be_had():
    plain = model(half_right, lambda *_: True)
    engine = CharacterEngine(plain.write)
    line = evaluate(engine, encode=characters).summary["lines"]["own/pointwise/answer"]
    assert line["calibration"]["n"] == 48
    assert 0 <= line["calibration"]["error"] <= 1
    assert "calibration" not in evaluate(plain).summary["lines"]["own/pointwise/answer"]
    silent = CharacterEngine(model(half_right, lambda *_: None).write)
    assert evaluate(silent, encode=characters).summary["lines"]["own/pointwise/answer"]["calibration"]["error"] is None


def test_the_opening_of_the_last_box_that_holds_a_verdict():
    assert (
        verdict_opening(r"He says \boxed{12}, I say \boxed{Yes}.", ("Yes", "No"))
        == r"He says \boxed{12}, I say \boxed{"
    )
    assert verdict_opening(r"\boxed{no} but he wrote \boxed{12}", ("Yes", "No")) == r"\boxed{"
    assert verdict_opening(r"<think>\boxed{No}</think>", ("Yes", "No")) is None
    assert verdict_opening("nothing", ("Yes", "No")) is None


def test_votes_and_best_of_n_at_the_loop_s_cost():
    """A solve output costs 4 tokens, a judgement 1; the loop accepts or corrects: 5 or 8 tokens a problem."""
    found = evaluate(CharacterEngine(model(half_right, knows).write), encode=characters)
    lines = found.summary["lines"]
    budget = sum(attempt.tokens for attempt in found.attempts)
    rows = [[r.score.correct for r in group.rollouts] for group in found.groups["solve"]]
    for name, cost in (("vote", 4), ("best_of", 5), ("weighted_vote", 5)):
        line = lines[name]
        bought = min(48, budget // cost)
        each, more = divmod(bought, 12)
        counts = [each + (place < more) for place in range(12)]
        assert (line["budget"], line["tokens"], line["n"], line["missing"]) == (budget, bought * cost, 12, 0)
        assert (line["samples_mean"], line["samples_max"]) == (bought / 12, max(counts))
        assert line["limited"] is False
        right = [row[place] for row, place in zip(rows, line["chosen"], strict=True)]
        assert line["accuracy"]["value"] == pytest.approx(sum(right) / 12)
        assert line["accuracy"]["low"] < line["accuracy"]["value"] < line["accuracy"]["high"]
        assert line["loop"]["difference"] == pytest.approx(1 - sum(right) / 12)
        missed = right.count(False)
        assert (line["loop"]["loop_only"], line["loop"]["method_only"]) == (missed, 0)
        assert line["loop"]["mcnemar_p"] == min(1, 2 / 2**missed)
        if name == "best_of":  # the judge knows: the first right one among those that were paid for
            first = [next((i for i in range(n) if row[i]), 0) for row, n in zip(rows, counts, strict=True)]
            assert line["chosen"] == first
        if name == "vote":  # one wrong answer there is, so the commoner outcome wins and the first breaks ties
            seen = [row[:n] for row, n in zip(rows, counts, strict=True)]
            expected = [
                row.index(row.count(True) > len(row) / 2 if row.count(True) * 2 != len(row) else row[0]) for row in seen
            ]
            assert line["chosen"] == expected
            assert line["ties"] == sum(row.count(True) * 2 == len(row) for row in seen)
    json.dumps(found.summary, allow_nan=False)


def test_methods_need_what_they_choose_by():
    engine = model(half_right, knows)
    lines = evaluate(engine).summary["lines"]
    assert "best_of" in lines
    assert "weighted_vote" not in lines  # no encoder, no probabilities
    unjudged = evaluate(model(lambda gold, seed: "x " * 200, knows)).summary["lines"]  # no output may be judged
    assert "vote" in unjudged
    assert "best_of" not in unjudged
    without = evaluate(engine, EvaluationSection(methods=False)).summary["lines"]
    assert not {"vote", "best_of", "weighted_vote"} & without.keys()
    assert evaluate(engine, EvaluationSection(samples=1)).summary["lines"]["vote"]["limited"] is True


def test_a_vote_may_take_equal_numbers_for_the_same_answer():
    def solves(gold, seed):
        return (gold + 7, f"{gold}", rf"\frac{{{2 * gold}}}{{2}}")[seed % 3]

    spelled = evaluate(model(solves, knows)).summary["lines"]["vote"]
    equal = evaluate(model(solves, knows), EvaluationSection(same_answers="mathematics"))
    assert equal.summary["lines"]["vote"]["ties"] < spelled["ties"]


def test_methods_disturb_no_other_line_and_sample_nothing():
    one, two = model(half_right, knows), model(half_right, knows)
    with_them = evaluate(one).summary["lines"]
    without = evaluate(two, EvaluationSection(methods=False)).summary["lines"]
    assert one.calls == two.calls
    assert {name: with_them[name] for name in without} == without
