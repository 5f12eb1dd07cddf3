"""After weights were taken: an engine that runs on other kernels must give the learner's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from spark_kernel.errors import ModelError, StaleEngineError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.published_weights import Probe, PublishedWeights, ScoredProbe
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Completion

TOLERANCES = {"float32": 0.01, "bfloat16": 0.15, "float16": 0.05}
"""Mean absolute difference per token, in nats, that rounding may cause; failed syncs differ by far more."""
PROBE_TEXTS = ("What is 12 + 30? Explain in one sentence.", "12 + 30?", "1")
"""Questions to check the first sync on: the first one that leaves room in the context for an output."""
PROBE_OUTPUT = "It is 42, because 12 and 30 make 42 together."
PROBE_TOKENS = 64
"""Most output tokens that are compared."""
FEWEST_TOKENS = 8
"""Fewest output tokens that the first sync is checked on."""


def first_probe(encoder: PromptEncoder, context: int) -> Probe:
    """What is compared before anything was sampled: a fixed prompt and output, cut to what fits.

    Args:
        encoder: the learner's.
        context: most tokens that the sampler takes, prompt and output together.

    Raises:
        ModelError: not even the shortest prompt leaves room for an output.
    """
    output = encoder.text_ids(PROBE_OUTPUT)[:PROBE_TOKENS]
    fewest = min(FEWEST_TOKENS, len(output))
    for text in PROBE_TEXTS:
        prompt = Prompt("sync-check", (Message.of("user", text),), (0,))
        room = _room(encoder, prompt, context)
        if room >= fewest:
            return Probe(prompt, output[:room])
    raise ModelError(
        f"A context of {context} tokens is too short to check that vLLM holds the weights of {encoder.name}, which "
        f"takes {context + fewest - room}: raise rollout.max_prompt_tokens or rollout.max_new_tokens, or where the "
        'model itself takes no more, use rollout.engine = "transformers".'
    )


def longest_probe(
    encoder: PromptEncoder,
    context: int,
    prompts: Sequence[Prompt],
    groups: Sequence[Sequence[Completion]],
    otherwise: Probe,
) -> Probe:
    """What the next sync is checked on: the longest of some sampled outputs, cut to a bound and to what fits.

    Args:
        encoder: the learner's.
        context: most tokens that the sampler takes, prompt and output together.
        prompts: what was asked.
        groups: the outputs of each prompt.
        otherwise: the probe where nothing was sampled, or nothing that fits.
    """
    sampled = [(prompt, output) for prompt, group in zip(prompts, groups, strict=True) for output in group]
    if not sampled:
        return otherwise
    prompt, output = max(sampled, key=lambda pair: min(PROBE_TOKENS, len(pair[1].token_ids)))
    fits = output.token_ids[: max(0, min(PROBE_TOKENS, _room(encoder, prompt, context)))]
    return Probe(prompt, fits) if fits else otherwise


def _room(encoder: PromptEncoder, prompt: Prompt, context: int) -> int:
    """How many output tokens can be scored, if above 0: vLLM scores tokens only with one more that follows them."""
    return context - encoder.count_tokens(prompt) - 1


class Scores(Protocol):
    """Whatever gives log-probabilities of tokens: an engine, or one of its servers."""

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """As `RolloutEngine.score`."""
        ...


def difference(scorer: Scores, scored: ScoredProbe) -> float:
    """Mean absolute difference per token between a sampler's and the learner's log-probabilities, in nats."""
    probe = scored.probe
    theirs = scorer.score([probe.prompt], [[probe.output]])[0][0]
    return sum(abs(a - b) for a, b in zip(scored.logprobs, theirs, strict=True)) / len(scored.logprobs)


def probe_of(published: PublishedWeights) -> ScoredProbe:
    """What weights are checked on.

    Raises:
        StaleEngineError: they were published without.
    """
    if published.scored is None:
        raise StaleEngineError(
            f"Policy version {published.version} was published without log-probabilities to check it by: publish what "
            "the engine's `wanted` says."
        )
    return published.scored


def check_taken(scorer: Scores, published: PublishedWeights, dtype: str, *, who: str, pushed: str) -> None:
    """Compare a sampler with the weights it was given.

    Args:
        scorer: the sampler.
        published: the weights, with the learner's log-probabilities.
        dtype: the sampler's precision, or the learner's if that is coarser.
        who: the sampler in the error.
        pushed: what was pushed, in the error.

    Raises:
        StaleEngineError: they differ by more than the precision explains.
    """
    scored = probe_of(published)
    found = difference(scorer, scored)
    if not found <= TOLERANCES[dtype]:  # NaN is not
        raise StaleEngineError(
            f"After {pushed} of policy version {published.version} were pushed to {who}, its log-probabilities differ "
            f"from the learner's by {found:.3g} nats per token over {len(scored.logprobs)} tokens of "
            f"{scored.probe.prompt.task_id}, more than {TOLERANCES[dtype]} for {dtype}: it does not hold these "
            'weights. The run can be resumed; if it happens again, use rollout.engine = "transformers" and report the '
            "model's architecture."
        )
