"""One question's chain as events: their order, their content, and the same chain as without them."""

from __future__ import annotations

import math

import pytest

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import Stopped
from spark_kernel.models.policy import load_policy
from spark_kernel.records import Kind
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.test_time.events import (
    ChainEnded,
    StepFinished,
    StepStarted,
    TextDelta,
    VerdictProbability,
)
from spark_kernel.test_time.loop import self_correct, self_correct_live
from spark_kernel.test_time.steps import LoopSettings, Stop
from tests.helpers.scripted_engine import ScriptedEngine, sum_problem
from tests.helpers.tiny_models import save_talkative_llama
from tests.test_test_time_loop import J, R, S, Script, run, settings

YES, NO = 0.8, 0.3


class ScoringEngine(ScriptedEngine):
    """Says "Yes" with probability 0.8 where it wrote "I say" before the verdict, else 0.3. Tokens are characters."""

    def score(self, prompts, outputs):
        return [[self._row(prompt, row) for row in rows] for prompt, rows in zip(prompts, outputs, strict=True)]

    def _row(self, prompt, row):
        text = "".join(map(chr, row))
        means_yes = text.endswith("{Yes}")
        if text[-2] in "AB":
            means_yes = rf"\boxed{{{text[-2]}}} means correct" in prompt.messages[0].text
        share = YES if "I say" in text else NO
        share = share if means_yes else 1 - share
        # A third of the mass lies on other words; the common beginning costs the same in both.
        return [-0.5] * (text.rindex("{") + 1) + [0.0] * (len(text) - text.rindex("{") - 2) + [math.log(share * 2 / 3)]


def characters(text):
    return tuple(map(ord, text))


def chain(lines, seed=0, **more):
    events = []
    engine = ScoringEngine(Script(p0=lines))
    attempt = self_correct_live(engine, sum_problem(0), settings(), events.append, seed=seed, **more)
    return attempt, events


LINES = [(S, "5"), (J, "No"), (R, "1"), (J, "Yes")]


@pytest.mark.parametrize("seed", range(4))
def test_events_tell_the_chain_in_order(seed):
    attempt, events = chain(LINES, seed, encode=characters)
    plain = [type(event) for event in events]
    step = [StepStarted, TextDelta, StepFinished]
    assert plain == [*step, *step, VerdictProbability, *step, *step, VerdictProbability, ChainEnded]
    assert events[-1].attempt == attempt
    started = [event for event in events if isinstance(event, StepStarted)]
    finished = [event.step for event in events if isinstance(event, StepFinished)]
    assert [event.kind for event in started] == [S, J, R, J]
    assert [event.about for event in started] == [None, 0, 0, 2]
    for begun, step in zip(started, finished, strict=True):
        assert (begun.index, begun.template_id, begun.messages) == (step.index, step.template_id, step.messages)
        assert (begun.label_map, begun.view) == (step.label_map, step.view)
        text = "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == step.index)
        assert text == step.text


@pytest.mark.parametrize("seed", range(6))
def test_the_chain_is_the_one_without_events(seed):
    live, _ = chain(list(LINES), seed)
    assert live == run(list(LINES), settings(), seed)


@pytest.mark.parametrize("seed", range(6))
def test_a_judgement_carries_its_probability_of_yes_whatever_its_letters(seed):
    attempt, events = chain([(S, "5"), (J, "No"), (R, "1"), (J, "Yes")], seed, encode=characters)
    assert [step.yes_probability for step in attempt.steps] == [None, pytest.approx(YES), None, pytest.approx(YES)]
    told = [(event.index, event.yes) for event in events if isinstance(event, VerdictProbability)]
    assert told == [(1, pytest.approx(YES)), (3, pytest.approx(YES))]


def test_an_unreadable_verdict_has_no_probability():
    attempt, events = chain([(S, "5"), (J, "who knows")], encode=characters)
    assert attempt.stop is Stop.ABSTAINED
    assert [event.yes for event in events if isinstance(event, VerdictProbability)] == [None]


def test_without_an_encoder_there_is_no_probability():
    attempt, events = chain(list(LINES))
    assert not [event for event in events if isinstance(event, VerdictProbability)]
    assert {step.yes_probability for step in attempt.steps} == {None}


def test_batches_get_the_same_probabilities():
    engine = ScoringEngine(Script(p0=LINES, p1=[(S, "2"), (J, "hm hm")]))
    first, second = self_correct(engine, [sum_problem(0), sum_problem(1)], settings(), seed=0, encode=characters)
    assert [step.yes_probability for step in first.steps] == [None, pytest.approx(YES), None, pytest.approx(YES)]
    assert [step.yes_probability for step in second.steps] == [None, None]


def test_a_stop_ends_the_chain_without_further_events():
    events = []

    def check():
        if len(events) == 4:
            raise Stopped

    with pytest.raises(Stopped):
        self_correct_live(
            ScoringEngine(Script(p0=LINES)), sum_problem(0), settings(), events.append, seed=0, check_stop=check
        )
    assert [type(event) for event in events] == [StepStarted, TextDelta, StepFinished, StepStarted]


@pytest.mark.slow
def test_a_real_model_streams_the_chain_that_it_samples(tmp_path):
    policy = load_policy(ModelSection(path=str(save_talkative_llama(tmp_path, seed=3))))
    engine, encode = TransformersEngine(policy), policy.encoder.text_ids
    sampling = Sampling(30, 1.0)
    chosen = LoopSettings(sampling, sampling, sampling)
    judged = 0
    for seed in range(12):
        events = []
        live = self_correct_live(engine, sum_problem(0), chosen, events.append, seed=seed, encode=encode)
        (plain,) = self_correct(engine, [sum_problem(0)], chosen, seed=seed, encode=encode)
        for told, step in zip(live.steps, plain.steps, strict=True):
            assert (told.text, told.answer, told.verdict) == (step.text, step.answer, step.verdict)
            assert told.yes_probability == step.yes_probability
            assert "".join(e.text for e in events if isinstance(e, TextDelta) and e.index == step.index) == step.text
        assert (live.stop, live.final.index) == (plain.stop, plain.final.index)
        judged += sum(step.kind is Kind.POINTWISE and step.yes_probability is not None for step in live.steps)
    assert judged
