"""Images are processed once, whatever is asked of them, and put together as the processor itself would have."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from spark_kernel.config.sections import ModelSection
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.load import load_encoder
from spark_kernel.models.policy import Policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import ImagePart, Message, TextPart
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import save_tiny_idefics3
from tests.helpers.tiny_vision_models import tiny_qwen_vl

CPU = torch.device("cpu")


def draw(path: Path, size: tuple[int, int]) -> Path:
    Image.effect_noise(size, 90).convert("RGB").save(path)
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    """Two with one image, two with two; one image is shown by three of them."""
    files = [draw(tmp_path / f"{k}.png", size) for k, size in enumerate([(32, 16), (16, 32), (24, 24), (20, 20)])]
    one = Message("user", (TextPart("see "), ImagePart(0), TextPart(" what?")))
    two = Message("user", (ImagePart(1), TextPart("before"), ImagePart(0)))
    return [
        Prompt("a", (one,), (1, 2), (files[0],)),
        Prompt("b", (one, Message.of("assistant", "a"), Message.of("user", "sure?")), (3, 4), (files[1],)),
        Prompt("c", (two,), (5, 6), (files[0], files[2])),
        Prompt("d", (two,), (7, 8), (files[3], files[0])),
    ]


def idefics(folder: Path) -> PromptEncoder:
    return load_encoder(ModelSection(path=str(save_tiny_idefics3(folder / "model"))))[0]


def qwen(folder: Path) -> PromptEncoder:
    return tiny_qwen_vl("qwen2.5-vl").encoder


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[PromptEncoder], list[int]]:
    """How many images each call of a processor was given."""

    def watch(encoder: PromptEncoder) -> list[int]:
        counted: list[int] = []
        kind = type(encoder.processor)
        original = kind.__call__

        def counting(self: Any, *given: Any, **named: Any) -> Any:
            counted.append(sum(map(len, named["images"])))
            return original(self, *given, **named)

        monkeypatch.setattr(kind, "__call__", counting)
        return counted

    return watch


@pytest.mark.parametrize("make", [idefics, qwen])
def test_an_image_is_processed_once_for_counting_sampling_and_training(
    make: Callable[[Path], PromptEncoder], prompts: list[Prompt], calls: Any, tmp_path: Path
) -> None:
    encoder = make(tmp_path)
    counted = calls(encoder)
    for prompt in prompts:
        encoder.count_tokens(prompt)
    # Four images alone, and each kind of prompt (one image, two) once to compare.
    assert sorted(counted) == [1, 1, 1, 1, 1, 2]
    for batch in (prompts[:2], prompts[2:], prompts[1:3], prompts):
        encoder.collate(batch, CPU)
    del counted[:]
    for batch in (prompts, prompts[::-1], prompts[:3], [prompts[2], prompts[0]]):
        encoder.collate(batch, CPU)
        encoder.count_tokens(batch[0])
    again = replace(prompts[0], messages=(Message("user", (TextPart("another question "), ImagePart(0))),))
    encoder.collate([again, prompts[3]], CPU)
    assert counted == []


def test_a_whole_engine_asks_the_processor_for_nothing_twice(prompts: list[Prompt], calls: Any) -> None:
    policy = Policy(tiny_qwen_vl("qwen3-vl"))
    counted = calls(policy.encoder)
    engine = TransformersEngine(policy)
    groups = engine.sample(prompts, Sampling(6))
    outputs = [[completion.token_ids for completion in group] for group in groups]
    first = engine.score(prompts, outputs)
    del counted[:]
    engine.sample(prompts, Sampling(6))
    assert engine.score(prompts, outputs) == first
    assert counted == []


@pytest.mark.parametrize("make", [idefics, qwen])
def test_batches_are_what_the_processor_makes_of_them(
    make: Callable[[Path], PromptEncoder], prompts: list[Prompt], tmp_path: Path
) -> None:
    encoder = make(tmp_path)
    inputs = encoder._images
    assert inputs is not None
    text = Prompt("text", (Message.of("user", "no image at all"),), ())
    for batch in (prompts[:1], prompts[:2], prompts[2:], prompts, [*prompts[::-1], prompts[0]], [text, *prompts]):
        found, expected = inputs.tensors(batch), inputs._by_processor(batch)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-5, rtol=0)
    assert None not in inputs._layouts.values()
    assert len(inputs._layouts) >= 2


def test_a_processor_that_lays_out_otherwise_is_asked_every_time(
    prompts: list[Prompt], calls: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that numbers the prompts of a batch: it cannot be put together from single ones."""
    encoder = idefics(tmp_path)
    kind = type(encoder.processor)
    original = kind.__call__

    def numbering(self: Any, *given: Any, **named: Any) -> Any:
        batch = original(self, *given, **named)
        batch["pixel_values"] += torch.arange(len(batch["pixel_values"]))[:, None, None, None, None]
        return batch

    monkeypatch.setattr(kind, "__call__", numbering)
    counted = calls(encoder)
    assert encoder.count_tokens(prompts[0]) == encoder.collate(prompts[:1], CPU).lengths[0]
    del counted[:]
    for _ in range(3):
        batch = encoder.collate(prompts[:2], CPU)
    assert counted.count(2) == 1 + 3  # once to find out
    assert float(batch.images["pixel_values"][1].mean() - batch.images["pixel_values"][0].mean()) > 0.5


def test_a_file_that_was_replaced_is_another_image(prompts: list[Prompt], tmp_path: Path) -> None:
    encoder = qwen(tmp_path)
    before = encoder.collate(prompts[:1], CPU)
    path = draw(prompts[0].images[0], (16, 16))
    os.utime(path, ns=(1, 1))
    after = encoder.collate(prompts[:1], CPU)
    assert after.lengths[0] < before.lengths[0]
    assert encoder.count_tokens(prompts[0]) == after.lengths[0]


def test_what_is_kept_is_bounded_by_bytes(prompts: list[Prompt], calls: Any, tmp_path: Path) -> None:
    encoder = qwen(tmp_path)
    inputs = encoder._images
    assert inputs is not None
    whole = encoder.collate(prompts, CPU)
    assert [encoder.count_tokens(prompt) for prompt in prompts] == list(whole.lengths)
    inputs.cache_bytes = 1
    encoder.collate([replace(prompts[0], images=(draw(tmp_path / "new.png", (8, 8)),))], CPU)
    assert len(inputs._tensors) == 1
    assert inputs._held == sum(t.numel() * t.element_size() for one in inputs._tensors.values() for t in one.values())
    counted = calls(encoder)
    assert [encoder.count_tokens(prompt) for prompt in prompts] == list(whole.lengths)
    assert counted == []  # the number of its tokens is remembered
    for name, tensor in encoder.collate(prompts, CPU).images.items():
        assert torch.equal(tensor, whole.images[name])
    assert counted
