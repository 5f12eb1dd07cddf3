"""The model, the prompts and the rollouts that both sides work on."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Group, Kind, Message, Origin, Parse, Rollout, Score, Task

RAGGED = Path(__file__).with_name("ragged_lengths.json")
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class Scale:
    """How large the work is. `toy` sizes are for the test of this suite, not for numbers."""

    hidden: int = 384
    layers: int = 8
    vocabulary: int = 8192
    groups: int = 4
    samples: int = 8
    repeats: int = 2
    shapes: tuple[tuple[str, int, int], ...] = (("solver", 64, 64), ("judge", 512, 16))


CPU = Scale()
CUDA = Scale(hidden=896, layers=24, vocabulary=151_936, groups=16, repeats=5)
TOY = Scale(
    hidden=64, layers=2, vocabulary=512, groups=2, samples=4, repeats=1, shapes=(("solver", 12, 8), ("judge", 40, 4))
)
SCALES = {"cpu": CPU, "cuda": CUDA, "toy": TOY}
NEVER = (10**9,)
"""End-of-sequence ids that no token has, so that outputs have exactly the wanted length."""


def make_model(folder: Path, scale: Scale) -> Path:
    """A random Qwen2 with a byte tokenizer whose chat template adds nothing: a prompt of n letters has n tokens."""
    tokenizer = byte_tokenizer()
    config = Qwen2Config(
        vocab_size=scale.vocabulary,
        hidden_size=scale.hidden,
        intermediate_size=scale.hidden * 8 // 3,
        num_hidden_layers=scale.layers,
        num_attention_heads=max(2, scale.hidden // 64),
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def prompt_texts(count: int, tokens: int) -> list[str]:
    """Different prompts of exactly so many tokens."""
    rng = random.Random(0)
    return ["".join(rng.choice("abcdefghij ") for _ in range(tokens)) for _ in range(count)]


def output_lengths(scale: Scale, longest: int, *, ragged: bool) -> list[list[int]]:
    """Tokens of every output [group][sample]: all the longest, or spread as in a recorded run of the quickstart."""
    if not ragged:
        return [[longest] * scale.samples for _ in range(scale.groups)]
    recorded = json.loads(RAGGED.read_text(encoding="utf-8"))
    shares = iter(recorded["share_of_longest"] * 100)
    return [[max(1, round(next(shares) * longest)) for _ in range(scale.samples)] for _ in range(scale.groups)]


def make_groups(scale: Scale, prompt: int, lengths: list[list[int]]) -> list[Group]:
    """Scored groups with random outputs of the given lengths; every group has right and wrong ones."""
    rng = random.Random(1)
    groups = []
    for index, (text, row) in enumerate(zip(prompt_texts(scale.groups, prompt), lengths, strict=True)):
        rollouts = []
        for k, length in enumerate(row):
            reward = float(k % 2)
            advantage = (reward - 0.5) / 0.5
            ids = tuple(rng.randrange(0, 256) for _ in range(length))
            logprobs = tuple(-5.0 for _ in ids)
            score = Score(reward, reward == 1.0, Parse.OK, "x")
            rollouts.append(
                Rollout(f"g{index}#{k}", f"g{index}", k, 0, ids, logprobs, "x", False, 0.0, score, advantage)
            )
        groups.append(Group(_task(index, text), tuple(rollouts)))
    return groups


def make_prompts(scale: Scale, prompt: int, samples: int | None = None) -> list[Prompt]:
    """The same prompts, to be sampled `samples` times."""
    seeds = tuple(range(samples or scale.samples))
    return [
        Prompt(f"g{i}", (Message.of("user", text),), seeds) for i, text in enumerate(prompt_texts(scale.groups, prompt))
    ]


def _task(index: int, text: str) -> Task:
    values: dict[str, Any] = {
        "id": f"g{index}",
        "kind": Kind.SOLVE,
        "origin": Origin.PROBLEM,
        "problem_id": f"p{index}",
        "messages": (Message.of("user", text),),
        "label": "x",
        "verifier": "exact",
        "template_id": "bench",
        "round": 1,
    }
    return Task(**values)


def parameter_count(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
