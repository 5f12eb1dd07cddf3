"""Held-out evaluation over a scripted engine whose behaviour is known exactly, so that every number can be foretold."""

from __future__ import annotations

import json
import math
import re

import pytest

from spark_kernel.config.sections import EvaluationSection, RolloutSection
from spark_kernel.errors import InputError, Stopped
from spark_kernel.evaluate.cases import Candidate, candidates_of
from spark_kernel.evaluate.compare import Checkpoint, RunResult, compare_runs, line_cells
from spark_kernel.evaluate.held_out import evaluate_held_out
from spark_kernel.evaluate.verdict_probability import yes_probabilities
from spark_kernel.records import ExclusionReason, Kind, Origin, Parse, View
from spark_kernel.test_time.steps import Stop
from spark_kernel.test_time.verdict_probability import verdict_opening
from spark_kernel.verify import VerifierPool
from tests.helpers.scripted_engine import LocalScorer, ScriptedEngine, sum_problem

PROBLEMS = [sum_problem(i) for i in range(12)]
LENGTHS = RolloutSection(max_new_tokens=100, verdict_max_new_tokens=20)
AMOUNT = EvaluationSection()
NUMBER = re.compile(r"What is (\d+) plus")
SHOWN = re.compile(r"<answer(?:_[ab])?>\n(.*?)\n</answer", re.DOTALL)


def last_number(text):
    return int(re.findall(r"\d+", text)[-1])


def kind_of(prompt):
    text = prompt.messages[0].text
    if "<answer_a>" in text:
        return Kind.PAIRWISE
    if "<answer>" not in text:
        return Kind.SOLVE
    asks_again = "earlier answer" in text or "Look at this answer again" in text
    return Kind.REFLECTION if asks_again else Kind.POINTWISE


def verdict(prompt, yes):
    """A verdict in the prompt's own words."""
    text = prompt.messages[0].text
    if r"\boxed{A} means correct" in text:
        return "A" if yes else "B"
    if r"\boxed{A} means not correct" in text:
        return "B" if yes else "A"
    return "Yes" if yes else "No"


def model(solves, judges, compares=lambda shown, gold, seed: "A" if last_number(shown[0]) == gold else "B"):
    """An engine that solves, judges and reflects as told; a reflection corrects what it sees."""

    def write(prompt, seed):
        text = prompt.messages[0].text
        gold = int(NUMBER.search(text).group(1)) + 1
        shown = SHOWN.findall(text)
        kind = kind_of(prompt)
        if kind is Kind.SOLVE:
            return rf"so it is \boxed{{{solves(gold, seed)}}}"
        if kind is Kind.REFLECTION:
            return rf"really \boxed{{{gold}}}"
        if kind is Kind.PAIRWISE:
            return rf"\boxed{{{compares(shown, gold, seed)}}}"
        said = judges(last_number(shown[0]), gold, seed)
        return "unsure" if said is None else rf"\boxed{{{verdict(prompt, said)}}}"

    return ScriptedEngine(write)


def half_right(gold, seed):
    return gold if seed % 2 else gold + 7


def knows(shown, gold, seed):
    return shown == gold


def evaluate(engine, amount=AMOUNT, lengths=LENGTHS, problems=PROBLEMS, seed=5, round=2, **more):
    return evaluate_held_out(engine, LocalScorer(), problems, lengths, amount, seed=seed, round=round, **more)


def test_a_model_that_judges_perfectly():
    found = evaluate(model(half_right, knows))
    lines = found.summary["lines"]
    outcomes = [r.score.correct for group in found.groups["solve"] for r in group.rollouts]
    assert len(outcomes) == 48
    assert lines["solve"]["accuracy"]["value"] == pytest.approx(sum(outcomes) / 48)
    for view in View:
        line = lines[f"own/pointwise/{view}"]
        assert (line["n"], line["accuracy"], line["balanced_accuracy"], line["coverage"]) == (48, 1.0, 1.0, 1.0)
        assert line["base_rate"] == pytest.approx(sum(outcomes) / 48)
        assert lines[f"own/pairwise/{view}"]["swapped"]["agreement"] == 1.0
    mixed = sum(group.is_mixed for group in found.groups["solve"])
    assert lines["own/pairwise/answer"]["n"] == 2 * mixed
    assert lines["own/pairwise/answer"]["base_rate"] == 0.5
    assert lines["own/pairwise/answer"]["swapped"]["pairs"] == mixed
    assert lines["reflection"]["from_wrong"]["value"] == lines["reflection"]["from_correct"]["value"] == 1.0
    assert lines["loop"]["after"]["value"] == 1.0


def test_the_loop_s_table_p_value_and_tokens():
    found = evaluate(model(lambda gold, seed: gold if gold % 3 == 0 else gold + 7, knows))
    loop = found.summary["lines"]["loop"]
    assert loop["before"]["value"] == pytest.approx(4 / 12)
    assert loop["after"]["value"] == 1.0
    assert loop["transitions"] == {"right_right": 4, "wrong_right": 8, "right_wrong": 0, "wrong_wrong": 0}
    assert loop["mcnemar_p"] == 2 / 2**8
    assert loop["difference"] == pytest.approx(8 / 12)
    assert (loop["judgements"], loop["reflections"], loop["stops"]) == (20, 8, {"accepted": 12})
    assert loop["tokens_first"] == 12 * 4
    assert loop["tokens"] == 12 * 4 + 20 * 1 + 8 * 2
    assert loop["judge"]["accuracy"] == 1.0
    assert found.summary["lines"]["greedy"]["accuracy"]["value"] == pytest.approx(4 / 12)


def test_reflections_that_harm_show_up_as_right_to_wrong():
    def write(prompt, seed):
        if kind_of(prompt) is Kind.REFLECTION:
            return r"\boxed{99}"
        if kind_of(prompt) is Kind.SOLVE:
            return rf"\boxed{{{int(NUMBER.search(prompt.messages[0].text).group(1)) + 1}}}"
        right = "99" in SHOWN.findall(prompt.messages[0].text)[0]
        return rf"\boxed{{{verdict(prompt, right)}}}"

    loop = evaluate(ScriptedEngine(write)).summary["lines"]["loop"]
    assert loop["transitions"]["right_wrong"] == 12
    assert (loop["before"]["value"], loop["after"]["value"], loop["mcnemar_p"]) == (1.0, 0.0, 2 / 2**12)
    assert loop["judge"]["accuracy"] == 0.0


def test_unreadable_verdicts_count_as_wrong_and_the_loop_abstains():
    found = evaluate(model(half_right, lambda *_: None))
    line = found.summary["lines"]["own/pointwise/answer"]
    assert (line["accuracy"], line["balanced_accuracy"], line["coverage"], line["accuracy_parsed"]) == (0, 0, 0, None)
    assert line["unparseable"] == 1.0
    assert found.summary["lines"]["loop"]["stops"] == {"abstained": 12}
    assert all(attempt.stop is Stop.ABSTAINED for attempt in found.attempts)


def test_a_judge_that_always_says_yes_is_flagged_in_the_summary():
    line = evaluate(model(half_right, lambda *_: True)).summary["lines"]["own/pointwise/full"]
    assert line["one_sided"] is True
    assert line["balanced_accuracy"] == 0.5
    assert line["yes_rate"] == 1.0


def test_a_judge_of_places_never_agrees_with_itself_when_swapped():
    found = evaluate(model(half_right, knows, compares=lambda shown, gold, seed: "A"))
    swapped = found.summary["lines"]["own/pairwise/answer"]["swapped"]
    assert (swapped["agreement"], swapped["both_right"], swapped["first_rate"]) == (0.0, 0.0, 1.0)
    assert found.summary["lines"]["own/pairwise/answer"]["accuracy"] == 0.5


def test_the_two_orders_of_a_pair_are_the_same_words_with_the_answers_swapped():
    found = evaluate(model(half_right, knows))
    groups = found.groups["own/pairwise/full"]
    assert groups
    for one, two in zip(groups[::2], groups[1::2], strict=True):
        assert one.task.sources == two.task.sources[::-1]
        assert {one.task.label, two.task.label} == {"A", "B"}
        texts = [group.task.messages[0].text for group in (one, two)]
        assert SHOWN.findall(texts[0]) == SHOWN.findall(texts[1])[::-1]
        assert SHOWN.sub("", texts[0]) == SHOWN.sub("", texts[1])


def test_an_unchanged_model_gets_the_same_evaluation_in_every_round():
    engines = [model(half_right, knows) for _ in range(2)]
    one, two = (evaluate(engine, round=r) for engine, r in zip(engines, (0, 7), strict=True))
    assert one.summary == two.summary
    prompts = [[(p.messages, p.seeds) for batch, _ in engine.calls for p in batch] for engine in engines]
    assert prompts[0] == prompts[1]
    ids = [{g.task.id for groups in found.groups.values() for g in groups} for found in (one, two)]
    assert ids[0].isdisjoint(ids[1])
    assert evaluate(model(half_right, knows), seed=6).summary != one.summary


def test_a_problem_s_draws_do_not_depend_on_the_other_problems():
    whole, part = (evaluate(model(half_right, knows), problems=chosen) for chosen in (PROBLEMS, PROBLEMS[3:5]))
    for line, groups in part.groups.items():
        wanted = {group.task.id: group for group in whole.groups[line]}
        assert all(wanted[group.task.id] == group for group in groups)


def test_ids_are_unique_and_sources_point_to_rollouts_of_the_evaluation():
    found = evaluate(model(half_right, knows))
    rollouts = [r for groups in found.groups.values() for group in groups for r in group.rollouts]
    tasks = [group.task for groups in found.groups.values() for group in groups]
    ids = {rollout.id for rollout in rollouts}
    assert len(ids) == len(rollouts)
    assert len({task.id for task in tasks}) == len(tasks)
    assert all(set(task.sources) <= ids for task in tasks)
    assert all(rollout.policy_version == 3 for rollout in rollouts)


def test_the_frozen_pool_is_judged_beside_the_fresh_answers():
    first = evaluate(model(half_right, knows), round=0)
    assert not any(line.startswith("frozen/") for line in first.groups)
    better = evaluate(model(lambda gold, seed: gold, knows), round=3, frozen=first.candidates)
    lines = better.summary["lines"]
    assert lines["own/pointwise/answer"]["base_rate"] == 1.0
    assert lines["own/pointwise/answer"]["balanced_accuracy"] is None
    frozen = lines["frozen/pointwise/answer"]
    assert frozen["base_rate"] == first.summary["lines"]["own/pointwise/answer"]["base_rate"]
    assert frozen["balanced_accuracy"] == 1.0
    assert "own/pairwise/answer" not in lines
    assert lines["frozen/pairwise/answer"]["n"] == first.summary["lines"]["own/pairwise/answer"]["n"]
    labels = {g.task.sources: g.task.label for g in better.groups["frozen/pointwise/answer"]}
    assert labels == {(c.rollout_id,): "Yes" if c.correct else "No" for c in first.candidates}
    assert candidates_of(first.groups["solve"])[0] == first.candidates


def test_a_frozen_pool_of_other_problems_is_refused():
    first = evaluate(model(half_right, knows), round=0)
    with pytest.raises(InputError, match=r"frozen pool .* same problems"):
        evaluate(model(half_right, knows), problems=PROBLEMS[:3], frozen=first.candidates)


def test_outputs_that_cannot_be_judged_are_left_out_with_their_reason():
    def write(prompt, seed):
        if kind_of(prompt) is not Kind.SOLVE:
            return r"\boxed{1}"
        return ["no box here", r"\boxed{2} " + "word " * 200, r"\boxed{1}"][seed % 3]

    found = evaluate(ScriptedEngine(write))
    outputs = [r for group in found.groups["solve"] for r in group.rollouts]
    reasons = [exclusion.reason for exclusion in found.exclusions]
    assert reasons.count(ExclusionReason.TRUNCATED) == sum(r.truncated for r in outputs)
    assert reasons.count(ExclusionReason.NO_ANSWER) == sum(r.score.parse is Parse.NONE for r in outputs)
    assert len(reasons) + len(found.candidates) == len(outputs) == 48
    assert sum(found.summary["exclusions"].values()) == len(reasons)


def test_a_pair_is_two_different_answers_or_an_exclusion():
    pool = [
        Candidate(f"p{i}", place, f"{i}-{place}", 0, rf"\boxed{{{answer}}}", answer, correct, True)
        for i, answers in enumerate([(("1", True), ("1", False)), (("2", True), ("02", False), ("9", False))])
        for place, (answer, correct) in enumerate(answers)
    ]
    found = evaluate(model(half_right, knows), frozen=pool)
    equal = [e for e in found.exclusions if e.reason is ExclusionReason.EQUAL_ANSWERS]
    assert [(e.subject_id, e.kind) for e in equal] == [("p0", Kind.PAIRWISE)]
    assert {g.task.sources for g in found.groups["frozen/pairwise/full"]} == {("1-0", "1-2"), ("1-2", "1-0")}


def test_steps_of_the_loop_are_labelled_by_what_they_are_about():
    found = evaluate(model(lambda gold, seed: gold + 7, lambda shown, gold, seed: shown == gold and seed % 2 == 0))
    groups = {g.rollouts[0].id: g for line in found.groups if line.startswith("loop/") for g in found.groups[line]}
    judged = [group for group in groups.values() if group.task.kind is Kind.POINTWISE]
    assert {group.task.origin for group in judged} == {Origin.SOLVE, Origin.REFLECTION}
    for group in judged:
        about = groups[group.task.sources[0]]
        assert group.task.label == ("Yes" if about.rollouts[0].score.correct else "No")
        assert group.task.origin is (Origin.SOLVE if about.task.kind is Kind.SOLVE else Origin.REFLECTION)


def test_prompts_that_do_not_fit_are_exclusions_not_errors():
    lengths = RolloutSection(max_new_tokens=100, max_prompt_tokens=30)
    long = "step " * 40

    def write(prompt, seed):
        return long + r"\boxed{4}" if kind_of(prompt) is Kind.SOLVE else r"\boxed{Yes}"

    found = evaluate(ScriptedEngine(write), EvaluationSection(reflections=1), lengths)
    counts = dict.fromkeys(Kind, 0)
    for exclusion in found.exclusions:
        assert exclusion.reason is ExclusionReason.PROMPT_TOO_LONG
        counts[exclusion.kind] += 1
    assert counts[Kind.POINTWISE] >= 48
    assert counts[Kind.REFLECTION] == len({(c.problem_id, c.correct) for c in found.candidates})
    assert found.summary["lines"]["own/pointwise/full"]["n"] == 0
    assert found.summary["lines"]["own/pointwise/full"]["accuracy"] is None
    nothing = evaluate(ScriptedEngine(write), lengths=RolloutSection(max_new_tokens=9, max_prompt_tokens=3))
    assert len(nothing.exclusions) == 12
    assert nothing.summary["lines"]["loop"]["n"] == 0


def test_settings_bound_the_work():
    engine = model(half_right, knows)
    found = evaluate(engine, EvaluationSection(samples=3, reflections=1))
    assert {len(group.rollouts) for group in found.groups["solve"]} == {3}
    assert len(found.groups["own/pointwise/answer"]) == len(found.groups["own/pointwise/full"]) == 36
    never = evaluate(model(half_right, lambda *_: False), EvaluationSection(reflections=3))
    assert {sum(step.kind is Kind.REFLECTION for step in attempt.steps) for attempt in never.attempts} == {3}
    with pytest.raises(InputError, match="at least one problem"):
        evaluate(engine, problems=[])


def test_the_loop_is_greedy_and_everything_else_sampled_at_temperature_1():
    engine = model(half_right, knows)
    evaluate(engine)
    by_temperature = [sampling.temperature for _, sampling in engine.calls]
    assert by_temperature[:6] == [1.0] * 6
    assert set(by_temperature[6:]) == {0.0}
    limits = {kind_of(prompts[0]): sampling.max_new_tokens for prompts, sampling in engine.calls}
    assert limits == {Kind.SOLVE: 100, Kind.POINTWISE: 20, Kind.PAIRWISE: 20, Kind.REFLECTION: 100}


def test_greedy_and_sampled_answers_are_asked_for_in_the_same_words():
    found = evaluate(model(half_right, knows))
    assert [g.task.messages for g in found.groups["loop/solve"]] == [g.task.messages for g in found.groups["solve"]]


def test_progress_is_reported_by_line_and_a_stop_is_honoured():
    seen, totals = {}, {}

    def progress(line, count, total):
        seen[line] = seen.get(line, 0) + count
        assert totals.setdefault(line, total) == total

    found = evaluate(model(half_right, knows), on_progress=progress)
    assert seen["solve"] == 48
    assert seen["loop"] == sum(len(attempt.steps) for attempt in found.attempts)
    assert totals == {**seen, "loop": 0}
    assert {"solve", "reflection", "own/pairwise/full"} < set(totals)
    calls = []

    def stop():
        calls.append(1)
        if len(calls) > 3:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(model(half_right, knows), check_stop=stop)


def test_the_summary_is_plain_json_without_nan():
    for problems in (PROBLEMS, PROBLEMS[:1]):
        summary = evaluate(model(half_right, knows), problems=problems).summary
        assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_scores_come_from_real_worker_processes_too():
    engine = model(half_right, knows)
    with VerifierPool(workers=1, deadline_seconds=20.0) as pool:
        found = evaluate_held_out(engine, pool, PROBLEMS, LENGTHS, AMOUNT, seed=5, round=2)
    assert found == evaluate(model(half_right, knows))


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
    probabilities = yes_probabilities(engine, characters, groups)
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


def test_two_evaluations_compare_through_their_lines():
    good, bad = (evaluate(model(half_right, judge)) for judge in (knows, lambda shown, gold, seed: True))
    runs = [
        RunResult(name, (Checkpoint(5, 100, 10, line_cells(found.groups)),))
        for name, found in (("blind", bad), ("sighted", good))
    ]
    row = compare_runs(*runs, ["own/pointwise/answer/balanced_accuracy"])[0]
    assert (row.result.first, row.result.second) == (0.5, 1.0)
    assert row.result.is_evidence
    assert row.conclusion.startswith("sighted is better than blind")


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
