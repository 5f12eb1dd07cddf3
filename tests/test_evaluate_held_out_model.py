"""Held-out evaluation with a real, tiny, random model: sampled text, real token ids, real log-probabilities."""

from __future__ import annotations

import json
import math

import pytest
import torch

from spark_kernel.config.sections import EvaluationSection, ModelSection, RolloutSection
from spark_kernel.evaluate.held_out import evaluate_held_out
from spark_kernel.models.policy import load_policy
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Kind, Parse
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.test_time.verdict_probability import spellings, verdict_opening, yes_by_rollout
from tests.helpers.scripted_engine import LocalScorer
from tests.helpers.tiny_models import save_talkative_llama

pytestmark = pytest.mark.slow

PROBLEMS = [ArithmeticSource().problem(index) for index in range(6)]
LENGTHS = RolloutSection(max_new_tokens=24, verdict_max_new_tokens=24, max_prompt_tokens=1500)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    folder = save_talkative_llama(tmp_path_factory.mktemp("model"), seed=3)
    return load_policy(ModelSection(path=str(folder), dtype="float32", device="cpu"))


def evaluate(policy, **more):
    engine = TransformersEngine(policy, batch_size=64)
    encode, amount = policy.encoder.text_ids, EvaluationSection()
    return evaluate_held_out(engine, LocalScorer(), PROBLEMS, LENGTHS, amount, seed=1, round=0, encode=encode, **more)


@pytest.fixture(scope="module")
def found(policy):
    return evaluate(policy)


def test_a_whole_evaluation_counts_up(found):
    outputs = [rollout for group in found.groups["solve"] for rollout in group.rollouts]
    assert len(outputs) == 24
    assert len({output.text for output in outputs}) > 12
    unread = sum(exclusion.kind is Kind.POINTWISE for exclusion in found.exclusions)
    assert len(found.candidates) + unread == 24
    for view in ("answer", "full"):
        line = found.summary["lines"][f"own/pointwise/{view}"]
        assert line["n"] == len(found.candidates) > 6
        assert line["calibration"]["n"] == line["parsed"]
    assert found.summary["lines"]["loop"]["n"] == len(found.attempts) == 6
    assert found.summary["lines"]["loop"]["tokens"] == sum(attempt.tokens for attempt in found.attempts)
    json.dumps(found.summary, allow_nan=False)


def test_evaluating_twice_gives_the_same_records_apart_from_seconds(policy, found):
    again = evaluate(policy)
    assert again.summary == found.summary
    for line, groups in found.groups.items():
        for a, b in zip(groups, again.groups[line], strict=True):
            assert a.task == b.task
            assert [r.token_ids for r in a.rollouts] == [r.token_ids for r in b.rollouts]


def test_probability_of_yes_equals_that_of_a_plain_forward_pass(policy, found):
    groups = found.groups["own/pointwise/full"]
    probabilities = yes_by_rollout(TransformersEngine(policy), policy.encoder.text_ids, groups)
    read = [group for group in groups if group.rollouts[0].score.parse is Parse.OK]
    assert set(probabilities) == {group.rollouts[0].id for group in read}
    assert read
    for group in read[:6]:
        rollout, words = group.rollouts[0], spellings(group.task.label_map)
        start = policy.encoder.prompt_ids(Prompt(group.task.id, group.task.messages, ()))
        opening = verdict_opening(rollout.text, words)
        logprobs = [
            _plain_logprobs(policy, [*start], [*policy.encoder.text_ids(opening + word + "}")]) for word in words
        ]
        # the shared start adds the same to both sums, so whole sums differ as the verdicts do
        expected = 1 / (1 + math.exp(logprobs[1] - logprobs[0]))
        assert probabilities[rollout.id] == pytest.approx(expected, abs=1e-4)


@torch.inference_mode()
def _plain_logprobs(policy, prompt, output):
    logits = policy.loaded.model(torch.tensor([prompt + output])).logits[0, len(prompt) - 1 : -1].double()
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(output)[:, None]).sum())
