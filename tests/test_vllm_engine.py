"""The vLLM engine, on real vLLM: the very distribution that the learner trains, however its weights get there."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection, VllmSection
from spark_kernel.errors import ModelError, StaleEngineError, Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.vllm_engine import VllmEngine
from tests.helpers.tiny_models import save_tiny_idefics3, save_tiny_llama
from tests.helpers.vllm import (
    QUESTION,
    Tampered,
    assert_ends_are_marked,
    assert_greedy_as_transformers,
    assert_images_as_learner,
    assert_seeds_decide,
    image_prompts,
    killed_and_resumed,
    largest_difference,
    moved,
    prompts,
    synced,
)

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CONTEXT = 400


def make_engine(
    policy: Any,
    section: VllmSection = VllmSection(),
    *,
    context: int = CONTEXT,
    cache_bytes: int = 2**27,
    device: str = "cpu",
) -> VllmEngine:
    return VllmEngine(
        policy.encoder,
        policy,
        section,
        device=device,
        dtype="float32",
        max_model_len=context,
        cache_bytes=cache_bytes,
    )


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelSection(path="builtin:starter"))


@pytest.fixture(scope="module")
def engine(policy: Policy) -> Iterator[VllmEngine]:
    made = make_engine(policy)
    yield made
    made.close()


def test_greedy_outputs_are_those_of_the_transformers_engine(engine: VllmEngine, policy: Policy) -> None:
    assert_greedy_as_transformers(engine, policy, 6)


def test_an_output_depends_on_its_seed_and_not_on_its_neighbours(engine: VllmEngine) -> None:
    assert_seeds_decide(engine, 5)


def test_seeds_sample_the_policys_distribution(engine: VllmEngine, policy: Policy) -> None:
    (prompt,) = prompts(1, 3000)
    first = torch.tensor([c.token_ids[0] for c in engine.sample([prompt], Sampling(1))[0]])
    with torch.no_grad():
        expected = policy.network(torch.tensor([policy.encoder.prompt_ids(prompt)])).logits[0, -1].softmax(-1)
    observed = torch.bincount(first, minlength=len(expected)) / len(first)
    likely = expected.topk(8).indices  # a standard deviation of these shares is at most 0.009
    torch.testing.assert_close(observed[likely], expected[likely], atol=0.04, rtol=0)


@pytest.mark.parametrize("sampling", [Sampling(24), Sampling(24, temperature=0.6), Sampling(24, top_p=0.8, top_k=20)])
def test_logprobs_are_those_of_the_sampled_distribution(engine: VllmEngine, policy: Policy, sampling: Sampling) -> None:
    for prompt, group in zip(prompts(3), engine.sample(prompts(3), sampling), strict=True):
        prefix = list(policy.encoder.prompt_ids(prompt))
        for completion in group:
            ids = torch.tensor([prefix + list(completion.token_ids)])
            with torch.no_grad():
                logits = policy.network(ids).logits[0, len(prefix) - 1 : -1] / sampling.temperature
            if sampling.top_k:
                logits[logits < logits.topk(sampling.top_k).values[:, -1:]] = -torch.inf
                ordered = logits.softmax(-1).sort(descending=True)
                dropped = ordered.values.cumsum(-1) - ordered.values > sampling.top_p
                logits[torch.zeros_like(dropped).scatter(1, ordered.indices, dropped)] = -torch.inf
            expected = logits.log_softmax(-1).gather(-1, ids[0, len(prefix) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-3, rtol=0)


def test_the_prompt_of_a_group_is_computed_once(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in tokens that vLLM itself says it took from its prefix cache."""
    from vllm.v1.engine.llm_engine import LLMEngine

    cached: dict[str, int] = {}
    step = LLMEngine.step

    def counting(self: LLMEngine) -> list[object]:
        outputs = step(self)
        cached.update({output.request_id: output.num_cached_tokens for output in outputs if output.finished})
        return outputs

    monkeypatch.setattr(LLMEngine, "step", counting)
    prompt = Prompt("long", (Message.of("user", "What is 1 + 1? " * 20),), tuple(range(8)))
    engine.sample([replace(prompt, seeds=(0,))], Sampling(2))  # in the cache from here on
    cached.clear()
    engine.sample([prompt], Sampling(2))
    length = engine.count_tokens([prompt])[0]
    assert len(cached) == 8
    assert all(tokens > 0.8 * length for tokens in cached.values())


def test_outputs_end_at_the_end_of_sequence_or_are_marked_truncated(engine: VllmEngine, policy: Policy) -> None:
    asked = Prompt("ends", (Message.of("user", QUESTION),), tuple(range(60)))
    completions = engine.sample([asked], Sampling(24))[0]
    assert_ends_are_marked(completions, policy.encoder.eos_ids)
    assert all(len(completion.token_ids) == 24 for completion in completions if completion.truncated)


@pytest.mark.parametrize("reason", [Stopped, KeyboardInterrupt])
def test_whatever_stops_sampling_leaves_no_request_behind(engine: VllmEngine, reason: type[BaseException]) -> None:
    checks = iter(range(3))

    def stop() -> None:
        if next(checks, None) is None:
            raise reason

    with pytest.raises(reason):
        engine.sample(prompts(6), Sampling(60), check_stop=stop)
    finished: list[int] = []
    groups = engine.sample(prompts(2), Sampling(8), on_progress=finished.append)
    assert sum(finished) == sum(map(len, groups)) == 8


def test_prompts_that_do_not_fit_are_refused_by_name(engine: VllmEngine) -> None:
    with pytest.raises(ModelError, match=r"task-1 .* vLLM's context of 400"):
        engine.sample(prompts(1), Sampling(399))
    with pytest.raises(ModelError, match="max_prompt_tokens = 3"):
        engine.sample(prompts(1), Sampling(4, max_prompt_tokens=3))


def test_an_output_that_fills_the_context_leaves_the_next_sync_something_to_be_checked_on(
    engine: VllmEngine, policy: Policy
) -> None:
    """vLLM scores tokens only together with one more, for which there is no room behind such an output."""
    asked = Prompt("long", (Message.of("user", "What is 17 times 23? " * 40),), tuple(range(8)))
    room = CONTEXT - engine.count_tokens([asked])[0]
    assert 0 < room < 60
    (group,) = engine.sample([asked], Sampling(room, temperature=2.0))
    assert any(completion.truncated for completion in group)
    synced(engine, policy)


def test_full_weights_are_taken_over_and_checked(engine: VllmEngine, policy: Policy) -> None:
    assert largest_difference(engine, policy) < 1e-3
    version = engine.version
    moved(policy)
    assert largest_difference(engine, policy) > 0.1  # what a missing sync looks like
    synced(engine, policy)
    assert engine.version == version + 1
    assert largest_difference(engine, policy) < 1e-3


def test_weights_that_did_not_arrive_or_do_not_fit_are_found(engine: VllmEngine, policy: Policy) -> None:
    engine.sample(prompts(2), Sampling(30))
    with pytest.raises(StaleEngineError, match=r"After the full weights of policy .* of task-\d, more than 0.01 for f"):
        synced(engine, Tampered(policy, "value"))
    with pytest.raises(StaleEngineError, match=r"call take\(.*\) first"):
        engine.sample(prompts(1), Sampling(4))
    synced(engine, policy)
    with pytest.raises(ModelError, match=r"down_proj.weight has shape .* not \("):
        synced(engine, Tampered(policy, "shape"))
    version = policy.version
    policy.begin_update()
    with pytest.raises(StaleEngineError, match="mid-update"):
        synced(engine, policy)
    policy.finish_update(version)
    synced(engine, policy)
    assert largest_difference(engine, policy) < 1e-3


@pytest.mark.parametrize("pushes_adapters", [False, True])
def test_a_gpus_memory_is_given_up_for_an_update_and_taken_back_in_order(
    engine: VllmEngine, policy: Policy, monkeypatch: pytest.MonkeyPatch, pushes_adapters: bool
) -> None:
    """What is asked of vLLM: its CPU build cannot sleep. The test below does it on a GPU."""
    from vllm import LLM

    asked: list[object] = []
    monkeypatch.setattr(LLM, "sleep", lambda self, level: asked.append(("sleep", level)))
    monkeypatch.setattr(LLM, "wake_up", lambda self, tags: asked.append(("wake", *tags)))
    reload = LLM.collective_rpc
    monkeypatch.setattr(LLM, "collective_rpc", lambda self, *a, **k: (asked.append(a[0]), reload(self, *a, **k))[1])
    monkeypatch.setattr(engine, "_device", "cuda")
    monkeypatch.setattr(engine, "_pushes_adapters", pushes_adapters)
    engine.sleep()
    engine.sleep()
    with pytest.raises(StaleEngineError, match="no finished weights"):
        engine.sample(prompts(1), Sampling(4))
    engine.wake()
    synced(engine, policy)
    level = 1 if pushes_adapters else 2
    assert asked == [("sleep", level), ("wake", "weights"), "reload_weights", ("wake", "kv_cache")]
    assert engine.sample(prompts(1, 1), Sampling(4))


@pytest.mark.gpu
@pytest.mark.parametrize("lora", [LoraSection(), LoraSection(enabled=True, rank=4)], ids=["full", "adapter"])
def test_on_a_gpu_sleep_frees_memory_and_the_next_sync_brings_the_new_weights(lora: LoraSection) -> None:
    policy = load_policy(ModelSection(path="builtin:starter", device="cuda", dtype="float32", lora=lora))
    engine = make_engine(policy, device="cuda", cache_bytes=2**30)
    try:
        free = torch.cuda.mem_get_info()[0]
        engine.sleep()
        assert torch.cuda.mem_get_info()[0] > free + 2**29
        engine.wake()
        synced(engine, moved(policy))
        assert largest_difference(engine, policy) < 1e-2
    finally:
        engine.close()
    torch.cuda.empty_cache()
    assert torch.cuda.mem_get_info()[0] > free + 2**29


@pytest.mark.parametrize(
    ("lora", "adapter_only", "pushes_adapter"),
    [
        (LoraSection(enabled=True, rank=4), True, True),
        (LoraSection(enabled=True, rank=4, rslora=True, target_modules=("q_proj", "down_proj")), True, True),
        (LoraSection(enabled=True, rank=4), False, False),
        (LoraSection(enabled=True, rank=4, dora=True), True, False),
    ],
    ids=["adapter", "rslora-some-modules", "merged", "dora-is-merged"],
)
def test_adapters_are_pushed_alone_or_merged(lora: LoraSection, adapter_only: bool, pushes_adapter: bool) -> None:
    policy = load_policy(ModelSection(path="builtin:starter", lora=lora))
    section = VllmSection(lora_sync="adapter" if adapter_only else "merged")
    engine = make_engine(policy, section, cache_bytes=2**26)
    try:
        for version in (1, 2):
            moved(policy, 0.05)
            assert largest_difference(engine, policy) > 0.05
            watched = Tampered(policy)
            synced(engine, watched)
            assert bool(watched.pushed) is not pushes_adapter
            assert engine.version == version
            assert largest_difference(engine, policy) < 1e-3
        assert_greedy_as_transformers(engine, policy, 1, tokens=20)
    finally:
        engine.close()


def test_images_are_seen_as_the_learner_sees_them(tmp_path: Path) -> None:
    policy = load_policy(ModelSection(path=str(save_tiny_idefics3(tmp_path, heads=1))))
    asked = image_prompts(tmp_path, 4)
    engine = make_engine(policy)
    try:
        assert largest_difference(engine, policy, asked) < 1e-3
        swapped = assert_images_as_learner(engine, policy, asked)
        one, other = (engine.score([prompt], [[(65, 66)]])[0][0] for prompt in (asked[0], swapped[0]))
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.01  # the image counts
        synced(engine, moved(policy, 0.05))  # checked on a prompt with an image
        assert largest_difference(engine, policy, asked) < 1e-3
    finally:
        engine.close()


def test_closing_or_an_interrupted_start_leaves_nothing_behind(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    me = psutil.Process()
    children = {child.pid for child in me.children(recursive=True)}
    threads = torch.get_num_threads()
    make_engine(policy).close()  # whatever a process keeps of its first vLLM
    gc.collect()
    memory = me.memory_info().rss

    engine = make_engine(policy, cache_bytes=2**30)
    engine.sample(prompts(8, 16), Sampling(60))
    assert list(tmp_path.iterdir())
    engine.close()
    engine.close()
    with pytest.raises(KeyboardInterrupt):
        make_engine(Tampered(policy, "interrupt"), cache_bytes=2**30)
    gc.collect()

    assert list(tmp_path.iterdir()) == []
    assert {child.pid for child in me.children(recursive=True)} <= children
    assert me.memory_info().rss < memory + 2**28
    torch.set_num_threads(threads)
    assert torch.get_num_threads() == threads  # vLLM had replaced the function
    with pytest.raises(StaleEngineError, match="closed"):
        engine.sample(prompts(1), Sampling(4))


def test_the_same_cell_run_twice_closes_the_first_engine(policy: Policy) -> None:
    first, second = (make_engine(policy, context=50) for _ in range(2))  # the first check has to be cut to fit
    try:
        with pytest.raises(StaleEngineError, match="closed, perhaps by a newer one"):
            first.sample(prompts(1), Sampling(4))
        first.close()
        assert second.sample(prompts(1, 1), Sampling(4))[0][0].token_ids
        synced(second, policy)
    finally:
        second.close()


def test_a_model_that_vllm_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    policy = load_policy(ModelSection(path=str(save_tiny_llama(tmp_path))))  # heads of 8, which vLLM's CPU kernels lack
    with pytest.raises(ModelError, match=r'cannot run .* \(.+\): use rollout.engine = "transformers"'):
        make_engine(policy)


def test_a_run_is_sampled_by_vllm_killed_and_resumed(tmp_path: Path) -> None:
    flags = ["--rollout.engine", "vllm", "--rollout.vllm.cache-gib", "0.2"]
    reports, said = killed_and_resumed(tmp_path / "run", flags)
    assert [report["policy_version"] for report in reports] == [2, 4]
    for report in reports:
        for update in report["updates"]:
            assert 0.0 < update["sampler_mismatch"]["mean_abs_logprob"] < 1e-3
    assert "Sampler against learner" in said
