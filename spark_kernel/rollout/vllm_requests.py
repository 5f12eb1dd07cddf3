"""What both vLLM engines ask vLLM, and how they read its answers: token ids in, token ids and log-probabilities out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_kernel.errors import ModelError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, Sampling


def sampling_fields(sampling: Sampling, seed: int, eos_ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's sampling parameters for one output: only `eos_ids` end it, as in the learner's own engine."""
    return {
        "seed": seed % 2**63,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or -1,
        "max_tokens": sampling.max_new_tokens,
        "stop_token_ids": list(eos_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "detokenize": False,
    }


SCORING_FIELDS: Mapping[str, Any] = {"max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
"""vLLM's sampling parameters for scoring given tokens: it does so only together with one more that it samples."""


def sent_ids(
    encoder: PromptEncoder, prompt: Prompt, sampling: Sampling, context: int, tail: Sequence[int] = ()
) -> tuple[list[int], list[int]]:
    """The token ids to send, and those that vLLM must make of them.

    They differ where there are images: vLLM itself expands the one token that stands for an image.

    Args:
        encoder: the learner's.
        prompt: the prompt.
        sampling: its limits are held to.
        context: most tokens that vLLM takes, prompt and output together.
        tail: output tokens that follow the prompt, for scoring.

    Raises:
        ModelError: the prompt is too long.
    """
    ids = encoder.prompt_ids(prompt)
    if sampling.max_prompt_tokens is not None and len(ids) > sampling.max_prompt_tokens:
        raise ModelError(
            f"The prompt of {prompt.task_id} has {len(ids)} tokens, more than max_prompt_tokens = "
            f"{sampling.max_prompt_tokens}."
        )
    if len(ids) + sampling.max_new_tokens > context:
        raise ModelError(
            f"The prompt of {prompt.task_id} has {len(ids)} tokens; with max_new_tokens = {sampling.max_new_tokens} it "
            f"does not fit vLLM's context of {context}: shorten the prompt, or lower rollout.max_new_tokens."
        )
    sent = encoder.unexpanded_ids(prompt) if prompt.images else ids
    return [*sent, *tail], [*ids, *tail]


def check_expanded(prompt: Prompt, expected: Sequence[int], got: Sequence[int]) -> None:
    """Images must have become the very tokens that the learner trains on.

    Raises:
        ModelError: they did not.
    """
    if list(got) != list(expected):
        raise ModelError(
            f"vLLM makes {len(got)} tokens of {prompt.task_id} with its images, the learner's processor "
            f"{len(expected)} or others: this model cannot be sampled by vLLM here, use rollout.engine = "
            '"transformers".'
        )


@dataclass(frozen=True, slots=True)
class Output:
    """What vLLM sampled: token ids [T], their log-probabilities [T], and whether it ended by itself."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool


def completions(
    encoder: PromptEncoder, prompts: Sequence[Prompt], outputs: Sequence[Output], started: float
) -> list[list[Completion]]:
    """Outputs as completions, one group per prompt with one per seed.

    Args:
        encoder: turns tokens into text.
        prompts: what was asked.
        outputs: of all seeds of the first prompt, then of the second, and so on.
        started: when sampling began (`time.perf_counter`); each output has an equal share of the time since.
    """
    texts = encoder.decode([output.token_ids for output in outputs])
    share = (time.perf_counter() - started) / max(1, len(outputs))
    flat = iter(
        Completion(output.token_ids, output.logprobs, text, truncated=not output.ended, seconds=share)
        for output, text in zip(outputs, texts, strict=True)
    )
    return [[next(flat) for _ in prompt.seeds] for prompt in prompts]


def one_line(error: BaseException | str) -> str:
    """An error of someone else's as one line of bounded length."""
    return " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
