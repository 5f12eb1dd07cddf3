"""Held-out evaluation over a scripted engine whose behaviour is known exactly, so that every number can be foretold."""

from __future__ import annotations

import json

import pytest

from spark_kernel.config.sections import EvaluationSection, RolloutSection
from spark_kernel.errors import InputError, Stopped
from spark_kernel.evaluate.cases import Candidate, candidates_of
from spark_kernel.evaluate.compare import Checkpoint, RunResult, compare_runs, line_cells
from spark_kernel.evaluate.held_out import evaluate_held_out
from spark_kernel.records import ExclusionReason, Kind, Origin, Parse, View
from spark_kernel.test_time.steps import Stop
from spark_kernel.verify import VerifierPool
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.scripted_judge import (
    AMOUNT,
    LENGTHS,
    NUMBER,
    PROBLEMS,
    SHOWN,
    evaluate,
    half_right,
    kind_of,
    knows,
    model,
    verdict,
)


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
