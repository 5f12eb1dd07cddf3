"""Refilled batches: rows join and leave while others are decoded, and none of it shows in what is sampled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout import decoding
from spark_kernel.rollout.decode_cache import rows_can_join
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import ARCHITECTURES, save_talkative_llama, save_tiny_architecture

pytestmark = pytest.mark.slow
SAMPLING = Sampling(20)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Ends its outputs after 1 to 20 tokens, so that rows finish at all times."""
    return load_policy(ModelSection(path=str(save_talkative_llama(tmp_path_factory.mktemp("model")))))


def prompts(count: int = 14, samples: int = 3) -> list[Prompt]:
    """Of 20 to 100 tokens, the shorter ones in between."""
    return [
        Prompt(
            f"task-{i}",
            (Message.of("user", "hello " * (i * 5 % 13) + f"{i}?"),),
            tuple(range(100 * i, 100 * i + samples)),
        )
        for i in range(count)
    ]


@contextmanager
def forward_passes(policy: Policy) -> Iterator[list[tuple[int, int]]]:
    """(rows, columns) of the tokens that each forward pass is given."""
    shapes: list[tuple[int, int]] = []

    def note(_module: Any, _args: Any, keywords: dict[str, Any]) -> None:
        shapes.append(tuple(keywords["input_ids"].shape))

    handle = policy.network.base_model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        handle.remove()


def tokens(groups: list[list[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[c.token_ids for c in group] for group in groups]


def largest_difference(a: list[list[Completion]], b: list[list[Completion]]) -> float:
    """Between the log-probabilities of equal tokens, in nats; infinite where tokens differ."""
    if tokens(a) != tokens(b):
        return float("inf")
    pairs = [
        (x, y)
        for g, h in zip(a, b, strict=True)
        for c, d in zip(g, h, strict=True)
        for x, y in zip(c.logprobs, d.logprobs, strict=True)
    ]
    return max(abs(x - y) for x, y in pairs)


@pytest.fixture(scope="module")
def alone(policy: Policy) -> list[list[Completion]]:
    """The plain way: one prompt after the other."""
    return [TransformersEngine(policy, refill=False).sample([prompt], SAMPLING)[0] for prompt in prompts()]


@pytest.mark.parametrize("batch_size", [1, 7, 12, 100])
@pytest.mark.parametrize("refill", [True, False])
def test_outputs_are_those_of_prompts_sampled_alone(
    policy: Policy, alone: list[list[Completion]], batch_size: int, refill: bool
) -> None:
    engine = TransformersEngine(policy, batch_size=batch_size, refill=refill)
    sampled = engine.sample(prompts(), SAMPLING)
    assert largest_difference(sampled, alone) < 2e-5
    assert [[c.truncated for c in g] for g in sampled] == [[c.truncated for c in g] for g in alone]


def test_prefilling_in_several_passes_changes_nothing(
    policy: Policy, alone: list[list[Completion]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 150)
    with forward_passes(policy) as shapes:
        sampled = TransformersEngine(policy, batch_size=100).sample(prompts(), SAMPLING)
    assert largest_difference(sampled, alone) < 2e-5
    prefills = [shape for shape in shapes if shape[1] > 1]
    assert len(prefills) > 3
    assert all(rows * columns <= 150 or rows == 1 for rows, columns in prefills)


def test_a_refilled_batch_stays_fuller_within_its_size(policy: Policy) -> None:
    shapes = {}
    for refill in (True, False):
        with forward_passes(policy) as passes:
            TransformersEngine(policy, batch_size=12, refill=refill).sample(prompts(), SAMPLING)
        shapes[refill] = passes
    for passes in shapes.values():
        prefills = [rows for rows, columns in passes if columns > 1]
        assert sum(prefills) == len(prompts()), "every prompt is computed once"
        assert max(rows for rows, columns in passes if columns == 1) <= 12
    steps = {refill: [rows for rows, columns in passes if columns == 1] for refill, passes in shapes.items()}
    assert len(steps[True]) < 0.8 * len(steps[False])
    assert sum(steps[True]) / len(steps[True]) > sum(steps[False]) / len(steps[False])


@pytest.mark.parametrize("fault", ["padding is seen", "rows swapped", "flush left"])
def test_a_batch_put_together_wrongly_is_found_out(
    policy: Policy, alone: list[list[Completion]], monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Negative control: what the tests above would say if a joining row were not kept apart from the others."""
    original = decoding.joined
    if fault == "padding is seen":
        monkeypatch.setattr(
            decoding, "flush_right_mask", lambda lengths, width, room: lengths.new_ones(len(lengths), width + room)
        )
    elif fault == "rows swapped":
        monkeypatch.setattr(decoding, "joined", lambda cache, kept, *rest: original(cache, kept.flip(0), *rest))
    else:
        monkeypatch.setattr(
            decoding,
            "joined",
            lambda cache, kept, arrivals, width, room: original(cache, kept, arrivals, width + 1, room),
        )
    sampled = TransformersEngine(policy, batch_size=7).sample(prompts(), SAMPLING)
    assert largest_difference(sampled, alone) > 1e-3


def test_room_that_was_never_written_does_not_show(policy: Policy, alone: list[list[Completion]]) -> None:
    """PyTorch's deterministic mode fills fresh memory with NaN: one that reached attention would spread."""
    torch.use_deterministic_algorithms(True)
    try:
        sampled = TransformersEngine(policy, batch_size=7).sample(prompts(), SAMPLING)
    finally:
        torch.use_deterministic_algorithms(False)
    assert largest_difference(sampled, alone) < 2e-5


def test_the_same_call_repeats_to_the_last_bit(policy: Policy) -> None:
    """A phase that was broken off is sampled again after a resume, by an engine that has seen other calls or none."""
    engine = TransformersEngine(policy, batch_size=12)
    first = engine.sample(prompts(), SAMPLING)
    engine.sample(prompts(3, samples=5), Sampling(7))
    again = engine.sample(prompts(), SAMPLING)
    fresh_policy = load_policy(ModelSection(path=policy.encoder.name))
    fresh = TransformersEngine(fresh_policy, batch_size=12).sample(prompts(), SAMPLING)
    for other in (again, fresh):
        assert [[(c.token_ids, c.logprobs) for c in g] for g in other] == [
            [(c.token_ids, c.logprobs) for c in g] for g in first
        ]


def test_outputs_are_reported_as_they_finish(policy: Policy) -> None:
    counts: list[int] = []
    TransformersEngine(policy, batch_size=12).sample(prompts(), SAMPLING, on_progress=counts.append)
    assert sum(counts) == 14 * 3
    assert len(counts) > 5
    assert min(counts) > 0


def test_prompts_without_seeds_and_no_prompts_give_nothing(policy: Policy) -> None:
    engine = TransformersEngine(policy, batch_size=12)
    assert engine.sample([], SAMPLING) == []
    assert engine.sample(prompts(2, samples=0), SAMPLING) == [[], []]
    mixed = [prompts(1)[0], *prompts(2, samples=0)]
    assert [len(group) for group in engine.sample(mixed, SAMPLING)] == [3, 0, 0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_samples_as_alone(tmp_path: Path, name: str) -> None:
    """Layers with sliding windows keep too little for rows to join: there a batch is decoded to its end."""
    lora = LoraSection(enabled=True, rank=4) if name == "qwen3" else LoraSection()
    policy = load_policy(ModelSection(path=str(save_tiny_architecture(tmp_path, name)), lora=lora))
    policy.encoder.eos_ids = tuple(range(150, 256))
    assert rows_can_join(policy.network) is (name in ("llama", "qwen2", "qwen3"))
    expected = [TransformersEngine(policy, refill=False).sample([p], SAMPLING)[0] for p in prompts(8)]
    sampled = TransformersEngine(policy, batch_size=7).sample(prompts(8), SAMPLING)
    assert len({len(c.token_ids) for group in sampled for c in group}) > 2
    assert largest_difference(sampled, expected) < 2e-5
