"""Decoding in slots, as on a GPU: the plain decoder's tokens, whatever the number of slots and however rows end.

Here the steps are launched one by one; `-m gpu` and `make gpu-check` replay them as a graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout import slot_decoding
from spark_kernel.rollout.decoding import DecodedRow, Decoder
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.slot_decoding import SlotDecoder, has_fixed_steps
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.tiny_models import save_talkative_llama, save_tiny_architecture


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Ends its outputs after 1 to 20 tokens, so that rows finish at all times."""
    return load_policy(ModelSection(path=str(save_talkative_llama(tmp_path_factory.mktemp("model"))), device="cpu"))


def prompts(shapes: Sequence[tuple[int, int]]) -> list[Prompt]:
    """One for each (words, samples), the shorter ones first, as the engine hands them over."""
    return [
        Prompt(f"t{i}", (Message.of("user", "hello " * words + f"{i}?"),), tuple(range(100 * i, 100 * i + samples)))
        for i, (words, samples) in enumerate(sorted(shapes))
    ]


def decoded(
    policy: Policy, kind: type, wanted: list[Prompt], sampling: Sampling, rows: int, **more: bool
) -> list[DecodedRow]:
    finished: list[int] = []
    with torch.inference_mode(), policy.loaded.arithmetic():
        found = kind(policy, wanted, sampling, batch_size=rows, **more).run(finished.append, lambda: None)
    assert sum(finished) == len(found) == sum(len(prompt.seeds) for prompt in wanted)
    return found


def assert_alike(found: list[DecodedRow], expected: list[DecodedRow]) -> None:
    assert [row.token_ids for row in found] == [row.token_ids for row in expected]
    assert [row.ended for row in found] == [row.ended for row in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-4)


MANY = [(5 * i % 13, 3) for i in range(14)]


@pytest.mark.parametrize("rows", [1, 4, 7, 64])
def test_the_plain_decoders_tokens(policy: Policy, rows: int) -> None:
    expected = decoded(policy, Decoder, prompts(MANY), Sampling(20), 64)
    assert {row.ended for row in expected} == {True, False}
    assert_alike(decoded(policy, SlotDecoder, prompts(MANY), Sampling(20), rows, graph=False), expected)


@pytest.mark.parametrize("sampling", [Sampling(12, temperature=0.0), Sampling(12, temperature=0.8, top_k=9, top_p=0.7)])
def test_other_ways_to_choose(policy: Policy, sampling: Sampling) -> None:
    expected = decoded(policy, Decoder, prompts(MANY[:4]), sampling, 5)
    assert_alike(decoded(policy, SlotDecoder, prompts(MANY[:4]), sampling, 5, graph=False), expected)


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 5)), min_size=1, max_size=8),
    st.integers(1, 9),
    st.integers(1, 30),
)
def test_any_shapes(policy: Policy, shapes: list[tuple[int, int]], rows: int, tokens: int) -> None:
    expected = decoded(policy, Decoder, prompts(shapes), Sampling(tokens), 64)
    assert_alike(decoded(policy, SlotDecoder, prompts(shapes), Sampling(tokens), rows, graph=False), expected)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_adapters_and_other_families(tmp_path: Path, name: str) -> None:
    settings_ = ModelSection(
        path=str(save_tiny_architecture(tmp_path, name)), lora=LoraSection(enabled=True, rank=4), device="cpu"
    )
    policy = load_policy(settings_)
    assert has_fixed_steps(policy.network)
    expected = decoded(policy, Decoder, prompts(MANY[:5]), Sampling(12), 9)
    assert_alike(decoded(policy, SlotDecoder, prompts(MANY[:5]), Sampling(12), 6, graph=False), expected)


def test_under_autocast_states_are_held_in_its_precision(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: float32 weights, bfloat16 arithmetic. Tokens may differ by rounding; most do not."""
    held: list[torch.dtype] = []
    original = slot_decoding.SlotLayer.move
    monkeypatch.setattr(
        slot_decoding.SlotLayer, "move", lambda self, columns: (held.append(self.keys.dtype), original(self, columns))
    )
    loaded = policy.loaded
    monkeypatch.setattr(policy, "loaded", dataclasses.replace(loaded, autocast=True))
    expected = decoded(policy, Decoder, prompts(MANY), Sampling(8), 64)
    found = decoded(policy, SlotDecoder, prompts(MANY), Sampling(8), 7, graph=False)
    same = [mine.token_ids == theirs.token_ids for mine, theirs in zip(found, expected, strict=True)]
    assert set(held) == {torch.bfloat16}
    assert sum(same) >= 0.8 * len(same)


def test_a_slot_that_shows_its_last_rows_tokens_is_noticed(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: a mask that forgets to hide what stood in a slot before."""
    original = SlotDecoder._place

    def careless(self: SlotDecoder, slots: slot_decoding._Slots, *rest: object) -> None:
        before = slots.mask.clone()
        original(self, slots, *rest)  # type: ignore[arg-type]
        slots.mask |= before

    expected = decoded(policy, Decoder, prompts(MANY), Sampling(20), 64)
    monkeypatch.setattr(SlotDecoder, "_place", careless)
    found = decoded(policy, SlotDecoder, prompts(MANY), Sampling(20), 7, graph=False)
    assert [row.token_ids for row in found] != [row.token_ids for row in expected]


def test_tokens_are_handed_over_as_they_are_drawn(policy: Policy) -> None:
    seen: list[int] = []
    (prompt,) = prompts([(3, 1)])
    with torch.inference_mode():
        decoder = SlotDecoder(policy, [prompt], Sampling(20), batch_size=4, graph=False)
        (row,) = decoder.run(lambda _: None, lambda: None, seen.append)
    assert tuple(seen) == row.token_ids


def test_a_stop_ends_it(policy: Policy) -> None:
    def stop() -> None:
        raise Stopped

    with torch.inference_mode(), pytest.raises(Stopped):
        SlotDecoder(policy, prompts(MANY), Sampling(20), batch_size=4, graph=False).run(lambda _: None, stop)


@pytest.mark.parametrize(("name", "fixed"), [("llama", True), ("gemma3", False), ("mistral-sliding", False)])
def test_networks_whose_steps_differ_are_told_apart(tmp_path: Path, name: str, fixed: bool) -> None:
    network = load_policy(ModelSection(path=str(save_tiny_architecture(tmp_path, name)))).network
    assert has_fixed_steps(network) is fixed
    network.config.get_text_config().rope_parameters = {"rope_type": "longrope"}
    assert not has_fixed_steps(network)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_on_a_gpu_it_is_the_cpus(tmp_path: Path, policy: Policy) -> None:
    there = load_policy(ModelSection(path=str(save_talkative_llama(tmp_path)), device="cuda", dtype="float32"))
    engine = TransformersEngine(there, batch_size=7)
    assert type(engine._decoder(prompts(MANY), Sampling(20))) is SlotDecoder
    expected = decoded(policy, Decoder, prompts(MANY), Sampling(20), 64)
    assert_alike(decoded(there, SlotDecoder, prompts(MANY), Sampling(20), 7), expected)
