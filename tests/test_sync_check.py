"""What a sync is checked on: a probe that vLLM can score in its context, however short that is."""

from __future__ import annotations

import pytest

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.policy import load_policy
from spark_kernel.models.published_weights import Probe
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.sync_check import FEWEST_TOKENS, PROBE_TOKENS, first_probe, longest_probe
from spark_kernel.rollout.vllm_requests import sent_ids


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return load_policy(ModelSection(path="builtin:starter")).encoder


def scored(encoder: PromptEncoder, probe: Probe, context: int) -> int:
    """Tokens of a scoring request, which is refused where it does not fit; vLLM samples one more."""
    sent, _ = sent_ids(encoder, probe.prompt, Sampling(len(probe.output) + 1), context, probe.output)
    return len(sent) + 1


def completion(*ids: int) -> Completion:
    return Completion(ids, (0.0,) * len(ids), "", True, 0.0)


def shortest(encoder: PromptEncoder) -> int:
    """The shortest context that is accepted, found by trying."""
    for context in range(1, 400):
        try:
            first_probe(encoder, context)
        except ModelError:
            continue
        return context
    raise AssertionError("none")


def test_the_first_probe_fits_every_context_down_to_a_minimum(encoder: PromptEncoder) -> None:
    least = shortest(encoder)
    whole = first_probe(encoder, 10_000)
    assert least < 40 < scored(encoder, whole, 10_000)
    for context in range(least, 200):
        probe = first_probe(encoder, context)
        assert scored(encoder, probe, context) <= context
        assert FEWEST_TOKENS <= len(probe.output) <= PROBE_TOKENS
        assert probe.output == whole.output[: len(probe.output)]
    assert first_probe(encoder, scored(encoder, whole, 10_000)) == whole


def test_a_context_below_the_minimum_is_one_sentence_with_what_it_takes(encoder: PromptEncoder) -> None:
    least = shortest(encoder)
    for context in (least - 1, 1):
        with pytest.raises(ModelError, match=rf"context of {context} tokens is too short .* takes {least}: raise roll"):
            first_probe(encoder, context)


def test_a_sampled_probe_is_the_longest_output_cut_to_what_can_be_scored(encoder: PromptEncoder) -> None:
    asked = [Prompt(name, (Message.of("user", f"{name}?"),), (0, 1)) for name in "ab"]
    before = first_probe(encoder, 400)
    groups = [[completion(5), completion(*range(5, 9))], [completion(*range(5, 14)), completion(5, 6)]]
    length = encoder.count_tokens(asked[1])
    assert longest_probe(encoder, 400, asked, groups, before) == Probe(asked[1], tuple(range(5, 14)))
    filled = longest_probe(encoder, length + 9, asked, groups, before)  # the output took the last token there is
    assert filled == Probe(asked[1], tuple(range(5, 13)))
    assert scored(encoder, filled, length + 9) == length + 9
    assert longest_probe(encoder, length + 1, asked, groups, before) is before
    assert longest_probe(encoder, 400, [], [], before) is before
    endless = [[completion(*[5] * 200)], []]
    assert len(longest_probe(encoder, 400, asked, endless, before).output) == PROBE_TOKENS
