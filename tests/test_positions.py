"""Positions along three axes, asked of the network: our forms and our sampler against the model's own forward pass."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from spark_kernel.models.policy import Policy
from spark_kernel.models.positions import NetworkPositions, TextPositions
from spark_kernel.models.prefix_form import BATCHES, PrefixForm
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import ImagePart, Message, TextPart
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_vision_models import QWEN_FAMILIES, tiny_qwen_vl

OUTPUTS = [[[5, 6, 7], [8, 9]], [[10], [11, 12, 13, 14]], [[15, 16], [17]]]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    """One image, two of different shape, none."""
    folder = tmp_path_factory.mktemp("images")
    files = []
    for index, size in enumerate([(32, 16), (16, 32), (24, 24)]):
        files.append(folder / f"{index}.png")
        Image.effect_noise(size, 90).convert("RGB").save(files[-1])
    one = Message("user", (TextPart("see "), ImagePart(0), TextPart(" what?")))
    two = Message("user", (ImagePart(0), TextPart("before"), ImagePart(1), TextPart("then")))
    return [
        Prompt("one", (one,), (1, 2), (files[0],)),
        Prompt("two", (two,), (3, 4), (files[1], files[2])),
        Prompt("none", (Message.of("user", "no image at all"),), (5, 6)),
    ]


@pytest.fixture(scope="module", params=QWEN_FAMILIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    return Policy(tiny_qwen_vl(request.param))


@torch.no_grad()
def by_the_model(policy: Policy, prompt: Prompt, output: list[int]) -> torch.Tensor:
    """Log-probabilities of an output by the model's own forward pass over one row, without positions of ours."""
    encoder = policy.encoder
    inputs = encoder.processor(
        text=[encoder.chat_text(prompt.messages)],
        images=[encoder.open_images(prompt)] if prompt.images else None,
        add_special_tokens=False,
        return_tensors="pt",
    )
    tail = torch.tensor([output])
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], tail], dim=1)
    for name in ("attention_mask", "mm_token_type_ids"):
        fill = torch.ones_like(tail) if name == "attention_mask" else torch.zeros_like(tail)
        inputs[name] = torch.cat([inputs[name], fill], dim=1)
    policy.network.base_model.rope_deltas = None  # what an earlier call left behind
    logits = policy.network(**inputs, use_cache=False).logits[0, length - 1 : -1]
    return logits.log_softmax(-1).gather(-1, tail[0, :, None])[:, 0]


@pytest.fixture(scope="module")
def expected(policy: Policy, prompts: list[Prompt]) -> torch.Tensor:
    return torch.cat(
        [by_the_model(policy, prompt, o) for prompt, group in zip(prompts, OUTPUTS, strict=True) for o in group]
    )


@torch.no_grad()
def by_a_form(policy: Policy, prompts: list[Prompt], form: PrefixForm) -> torch.Tensor:
    batch = BATCHES[form](policy.encoder, prompts, OUTPUTS, policy.device)
    return policy.group_forward(batch)[0]


@pytest.mark.parametrize("form", PrefixForm)
def test_every_form_equals_the_models_own_forward(
    policy: Policy, prompts: list[Prompt], expected: torch.Tensor, form: PrefixForm
) -> None:
    torch.testing.assert_close(by_a_form(policy, prompts, form), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("form", PrefixForm)
def test_text_positions_would_not(
    policy: Policy, prompts: list[Prompt], expected: torch.Tensor, form: PrefixForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: images counted as text."""

    class OneByOne(TextPositions):
        def model_inputs(self, extras):
            return NetworkPositions(None).model_inputs(extras)

    monkeypatch.setattr(policy.encoder, "_rule", OneByOne())
    differences = (by_a_form(policy, prompts, form) - expected).abs()
    assert float(differences.max()) > 1e-2
    assert float(differences[-3:].max()) < 1e-4  # where there is no image they are the same


def test_a_token_behind_an_image_stands_where_the_network_says(policy: Policy, prompts: list[Prompt]) -> None:
    batch = policy.encoder.collate(prompts, policy.device)
    assert batch.positions.prompt.shape == (3, *batch.input_ids.shape)
    # An image of 4 x 2 tokens takes 4 places instead of 8; text takes its length.
    assert batch.positions.after.tolist() == [batch.lengths[0] - 4, batch.lengths[1] - 4 - 6, batch.lengths[2]]
    behind = batch.positions.behind(torch.tensor([0, 0, 2]), 3)
    assert behind.shape == (3, 3, 3)
    assert behind[1].tolist() == [[int(batch.positions.after[k]) + i for i in range(3)] for k in (0, 0, 2)]


@pytest.mark.parametrize("rows", [2, 512])
def test_sampled_logprobs_are_the_models_own(policy: Policy, prompts: list[Prompt], rows: int) -> None:
    """Decoding counts on from there; with two rows side by side the second prompt joins a running batch."""
    engine = TransformersEngine(policy, batch_size=rows)
    for prompt, group in zip(prompts, engine.sample(prompts, Sampling(12)), strict=True):
        for completion in group:
            wanted = by_the_model(policy, prompt, list(completion.token_ids))
            torch.testing.assert_close(torch.tensor(completion.logprobs), wanted, atol=1e-4, rtol=0)


def test_scores_do_not_depend_on_what_was_sampled_before(policy: Policy, prompts: list[Prompt]) -> None:
    """The network keeps the offset of its last call; ours are given with every pass."""
    before = policy.score(prompts[:1], OUTPUTS[:1])
    TransformersEngine(policy).sample([replace(prompts[1], seeds=(9,))], Sampling(3))
    assert policy.score(prompts[:1], OUTPUTS[:1]) == before
