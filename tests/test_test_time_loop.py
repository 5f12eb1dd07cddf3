"""The test-time loop against a scripted engine: the exact steps of every branch."""

from __future__ import annotations

from pathlib import Path

import pytest

from spark_kernel.errors import InputError, Stopped
from spark_kernel.records import ImagePart, ImageRef, Kind, Parse, Problem, View
from spark_kernel.rollout.engine import Sampling
from spark_kernel.test_time.loop import self_correct
from spark_kernel.test_time.steps import LoopSettings, Stop
from tests.helpers.scripted_engine import ScriptedEngine, sum_problem

SOLVE, JUDGE, REFLECT = Sampling(50), Sampling(20), Sampling(60)
S, J, R = Kind.SOLVE, Kind.POINTWISE, Kind.REFLECTION


def kind_of(prompt):
    text = prompt.messages[0].text
    if "<answer>" not in text:
        return S
    return R if "earlier answer" in text or "Look at this answer again" in text else J


class Script:
    """Writes the next line of a problem's script; verdicts are written in the prompt's own words."""

    def __init__(self, **lines):
        self.lines = {name: list(texts) for name, texts in lines.items()}
        self.seen = []

    def __call__(self, prompt, seed):
        text = prompt.messages[0].text
        name = next(f"p{i}" for i in (10, *range(10)) if f"What is {i} plus" in text)
        kind, line = self.lines[name].pop(0)
        assert kind is kind_of(prompt), text
        self.seen.append((name, kind))
        if line in ("Yes", "No") and r"\boxed{A} means correct" in text:
            line = {"Yes": "A", "No": "B"}[line]
        elif line in ("Yes", "No") and r"\boxed{A} means not correct" in text:
            line = {"Yes": "B", "No": "A"}[line]
        return line if " " in line else rf"I say \boxed{{{line}}}"


def settings(**more):
    return LoopSettings(SOLVE, JUDGE, REFLECT, **more)


def faithful(**more):
    return LoopSettings.faithful(SOLVE, JUDGE, REFLECT, **more)


def run(lines, chosen, seed=0, **more):
    engine = ScriptedEngine(Script(p0=lines))
    (attempt,) = self_correct(engine, [sum_problem(0)], chosen, seed=seed, **more)
    assert not engine.write.lines["p0"], "the loop stopped before the script did"
    return attempt


def steps(attempt):
    return [(step.kind, step.answer or step.verdict, step.about) for step in attempt.steps]


@pytest.mark.parametrize("seed", range(6))
def test_yes_stops_at_the_first_answer(seed):
    attempt = run([(S, "1"), (J, "Yes")], settings(), seed)
    assert steps(attempt) == [(S, "1", None), (J, "Yes", 0)]
    assert (attempt.stop, attempt.final.index, attempt.final.answer) == (Stop.ACCEPTED, 0, "1")
    assert [(step.first, step.final) for step in attempt.steps] == [(True, True), (False, False)]


@pytest.mark.parametrize("seed", range(6))
def test_no_then_yes_returns_the_reflection(seed):
    attempt = run([(S, "5"), (J, "No"), (R, "1"), (J, "Yes")], settings(), seed)
    assert steps(attempt) == [(S, "5", None), (J, "No", 0), (R, "1", 0), (J, "Yes", 2)]
    assert (attempt.stop, attempt.final.index, attempt.final.answer) == (Stop.ACCEPTED, 2, "1")


@pytest.mark.parametrize(
    ("verdict", "parse"),
    [("I cannot tell", Parse.NONE), (r"\boxed{Yes} or \boxed{No} or \boxed{A} or \boxed{B}", Parse.AMBIGUOUS)],
)
def test_an_unreadable_verdict_keeps_the_answer(verdict, parse):
    attempt = run([(S, "5"), (J, verdict)], settings())
    assert steps(attempt) == [(S, "5", None), (J, None, 0)]
    assert attempt.steps[1].parse is parse
    assert (attempt.stop, attempt.final.answer) == (Stop.ABSTAINED, "5")


def test_an_unreadable_verdict_on_a_reflection_keeps_the_reflection():
    attempt = run([(S, "5"), (J, "No"), (R, "1"), (J, "no idea")], settings())
    assert (attempt.stop, attempt.final.index) == (Stop.ABSTAINED, 2)


def test_rejected_to_the_end_falls_back_to_the_first_answer():
    lines = [(S, "5"), (J, "No"), (R, "6"), (J, "No"), (R, "7"), (J, "No")]
    attempt = run(lines, settings())
    assert steps(attempt) == [(S, "5", None), (J, "No", 0), (R, "6", 0), (J, "No", 2), (R, "7", 2), (J, "No", 4)]
    assert (attempt.stop, attempt.final.index, attempt.final.answer) == (Stop.REJECTED, 0, "5")


def test_the_last_reflection_is_judged_and_kept_if_accepted_or_unreadable():
    lines = [(S, "5"), (J, "No"), (R, "6"), (J, "No"), (R, "1")]
    accepted = run([*lines, (J, "Yes")], settings())
    assert (accepted.stop, accepted.final.index) == (Stop.ACCEPTED, 4)
    unread = run([*lines, (J, "hm hm")], settings())
    assert (unread.stop, unread.final.index) == (Stop.ABSTAINED, 4)


def test_faithful_returns_the_last_reflection_unjudged():
    attempt = run([(S, "5"), (J, "No"), (R, "6"), (J, "No"), (R, "7")], faithful())
    assert steps(attempt) == [(S, "5", None), (J, "No", 0), (R, "6", 0), (J, "No", 2), (R, "7", 2)]
    assert (attempt.stop, attempt.final.index, attempt.final.answer) == (Stop.UNJUDGED, 4, "7")


def test_faithful_takes_an_unreadable_verdict_for_a_no():
    attempt = run([(S, "5"), (J, "no idea"), (R, "1"), (J, "Yes")], faithful())
    assert steps(attempt) == [(S, "5", None), (J, None, 0), (R, "1", 0), (J, "Yes", 2)]
    assert (attempt.stop, attempt.final.answer) == (Stop.ACCEPTED, "1")


def test_judging_the_last_with_unreadable_as_no_falls_back():
    attempt = run([(S, "5"), (J, "no idea"), (R, "6"), (J, "no idea")], settings(unparseable_is_no=True, reflections=1))
    assert (attempt.stop, attempt.final.answer) == (Stop.REJECTED, "5")


@pytest.mark.parametrize("seed", range(4))
def test_a_missing_answer_is_reflected_on_in_full_and_never_judged(seed):
    chosen = settings(reflection_view=View.ANSWER)
    attempt = run([(S, "well it may be many things"), (R, "1"), (J, "Yes")], chosen, seed)
    assert steps(attempt) == [(S, None, None), (R, "1", 0), (J, "Yes", 1)]
    assert attempt.steps[0].parse is Parse.NONE
    prompt = attempt.steps[1].messages[0].text
    assert "well it may be many things" in prompt
    assert "None" not in prompt
    assert "(no answer)" not in prompt
    assert attempt.steps[1].view is View.FULL
    assert (attempt.stop, attempt.final.answer) == (Stop.ACCEPTED, "1")


def test_a_missing_answer_in_the_last_reflection_falls_back_to_the_first():
    attempt = run([(S, "5"), (J, "No"), (R, "hm hm")], settings(reflections=1))
    assert steps(attempt) == [(S, "5", None), (J, "No", 0), (R, None, 0)]
    assert (attempt.stop, attempt.final.answer) == (Stop.NO_ANSWER, "5")


def test_there_is_no_falling_back_to_a_first_response_without_an_answer():
    rejected = run([(S, "hm hm"), (R, "7"), (J, "No")], settings(reflections=1))
    assert (rejected.stop, rejected.final.answer) == (Stop.REJECTED, "7")
    never = run([(S, "hm hm"), (R, "well well"), (R, "no no no")], settings())
    assert (never.stop, never.final.index, never.final.answer) == (Stop.NO_ANSWER, 2, None)


def test_faithful_with_missing_answers_reflects_at_once_and_returns_the_last():
    attempt = run([(S, "hm hm"), (R, "well well"), (R, "no no no")], faithful())
    assert (attempt.stop, attempt.final.index) == (Stop.UNJUDGED, 2)


def test_prompts_show_the_current_response_in_the_chosen_view():
    lines = [(S, r"secret steps \boxed{5}"), (J, "No"), (R, r"other steps \boxed{6}"), (J, "Yes")]
    attempt = run(lines, settings())
    first_judge, reflection, second_judge = (step.messages[0].text for step in attempt.steps[1:])
    assert "<answer>\n5\n</answer>" in first_judge
    assert "secret" not in first_judge
    assert "<answer>\nsecret steps \\boxed{5}\n</answer>" in reflection
    assert "<answer>\n6\n</answer>" in second_judge
    shown = run(lines, settings(judge_view=View.FULL, reflection_view=View.ANSWER))
    assert "secret steps" in shown.steps[1].messages[0].text
    assert "secret" not in shown.steps[2].messages[0].text


def test_gold_enters_no_prompt():
    problem = Problem("p", "What is 0 plus something?", "987654", "integer")
    engine = ScriptedEngine(lambda prompt, seed: r"\boxed{No} \boxed{A}" if kind_of(prompt) is J else r"\boxed{4}")
    (attempt,) = self_correct(engine, [problem], settings(unparseable_is_no=True), seed=1)
    assert len(attempt.steps) >= 3
    assert not any("987654" in step.messages[0].text for step in attempt.steps)


@pytest.mark.parametrize("seed", range(6))
def test_thinking_is_neither_read_nor_shown(seed):
    lines = [
        (S, r"<think>maybe \boxed{8} </think> so \boxed{5}"),
        (J, r"<think>\boxed{Yes} \boxed{A} \boxed{B}</think> who knows"),
    ]
    attempt = run(lines, settings(judge_view=View.FULL), seed)
    assert (attempt.first.answer, attempt.stop) == ("5", Stop.ABSTAINED)
    assert r"so \boxed{5}" in attempt.steps[1].messages[0].text
    assert "maybe" not in attempt.steps[1].messages[0].text


def test_problems_are_batched_by_stage_and_keep_their_own_ends():
    script = Script(
        p0=[(S, "1"), (J, "Yes")],
        p1=[(S, "9"), (J, "No"), (R, "2"), (J, "Yes")],
        p2=[(S, "hm hm"), (R, "3"), (J, "No"), (R, "4"), (J, "No")],
        p3=[(S, "4"), (J, "no idea")],
    )
    engine = ScriptedEngine(script)
    seen, counts = [], []
    attempts = self_correct(
        engine, [sum_problem(i) for i in range(4)], settings(), seed=0, on_step=seen.append, on_progress=counts.append
    )
    assert [attempt.stop for attempt in attempts] == [Stop.ACCEPTED, Stop.ACCEPTED, Stop.REJECTED, Stop.ABSTAINED]
    assert [attempt.problem_id for attempt in attempts] == ["p0", "p1", "p2", "p3"]
    batches = [(kind_of(prompts[0]), len(prompts), sampling) for prompts, sampling in engine.calls]
    assert batches == [(S, 4, SOLVE), (J, 3, JUDGE), (R, 2, REFLECT), (J, 2, JUDGE), (R, 1, REFLECT), (J, 1, JUDGE)]
    assert counts == [4, 3, 2, 2, 1, 1]
    assert sum(len(attempt.steps) for attempt in attempts) == len(seen) == 13
    assert [step.problem_id for step in seen[:4]] == ["p0", "p1", "p2", "p3"]
    assert all(attempt.tokens == sum(len(step.text.split()) for step in attempt.steps) for attempt in attempts)


def test_a_problem_s_draws_depend_on_nothing_else_in_the_batch():
    def write(prompt, seed):
        verdict = "Yes" if seed % 3 else "No"
        if kind_of(prompt) is J:
            letters = {"A": "Yes", "B": "No"} if r"\boxed{A} means correct" in prompt.messages[0].text else None
            return rf"\boxed{{{verdict}}}" if letters is None else rf"\boxed{{{'A' if verdict == 'Yes' else 'B'}}}"
        return rf"\boxed{{{seed % 50}}}"

    problems = [sum_problem(i) for i in range(8)]
    together = self_correct(ScriptedEngine(write), problems, settings(), seed=4)
    alone = [self_correct(ScriptedEngine(write), [problem], settings(), seed=4)[0] for problem in reversed(problems)]
    assert tuple(reversed(alone)) == together
    assert self_correct(ScriptedEngine(write), problems, settings(), seed=5) != together


def test_prompts_that_do_not_fit_fall_back_to_answer_view_or_end_the_chain():
    long = "word " * 60 + r"\boxed{5}"
    roomy = Sampling(100)
    tight = Sampling(100, max_prompt_tokens=50)
    fits = LoopSettings(roomy, tight, tight, judge_view=View.FULL)
    attempt = run([(S, long), (J, "No"), (R, "1"), (J, "Yes")], fits)
    assert [step.view for step in attempt.steps] == [None, View.ANSWER, View.ANSWER, View.FULL]
    nothing_fits = LoopSettings(roomy, Sampling(100, max_prompt_tokens=10), roomy)
    stuck = run([(S, "5")], nothing_fits)
    assert (stuck.stop, stuck.final.answer) == (Stop.PROMPT_TOO_LONG, "5")
    no_room_to_reflect = LoopSettings(roomy, roomy, Sampling(100, max_prompt_tokens=10))
    stuck = run([(S, "5"), (J, "No")], no_room_to_reflect)
    assert (stuck.stop, stuck.final.answer) == (Stop.PROMPT_TOO_LONG, "5")


def test_images_travel_with_every_step():
    problem = Problem("p", "<image> What is 0 plus 1?", "1", "integer", images=(ImageRef("ab", "images/ab.png"),))
    engine = ScriptedEngine(Script(p0=[(S, "5"), (J, "No"), (R, "1"), (J, "Yes")]))
    (attempt,) = self_correct(engine, [problem], settings(), seed=0, image_root=Path("/run"))
    prompts = [prompt for batch, _ in engine.calls for prompt in batch]
    assert [prompt.images for prompt in prompts] == [(Path("/run/images/ab.png"),)] * 4
    assert all(any(isinstance(part, ImagePart) for part in step.messages[0].parts) for step in attempt.steps)


def test_a_stop_request_is_honoured_and_bad_settings_refused():
    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        self_correct(ScriptedEngine(Script()), [sum_problem(0)], settings(), seed=0, check_stop=stop)
    with pytest.raises(InputError, match="reflections = 0"):
        settings(reflections=0)
    assert self_correct(ScriptedEngine(Script()), [], settings(), seed=0) == ()
