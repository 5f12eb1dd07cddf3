"""The vLLM engine, on real vLLM: the very distribution that the learner trains, however its weights get there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spark_kernel.errors import ModelError, StaleEngineError, Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.settings import LoraSettings, ModelSettings
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.rollout.vllm_engine import VllmEngine, VllmSettings

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

SETTINGS = VllmSettings("cpu", "float32", max_model_len=400, cache_bytes=2**27)


def prompts(count: int, samples: int = 4) -> list[Prompt]:
    return [
        Prompt(
            f"task-{i}",
            (Message.of("user", "3 + " * i + "4 ="),),
            tuple(range(100 * i, 100 * i + samples)),
        )
        for i in range(1, count + 1)
    ]


def moved(policy: Policy, amount: float = 0.02) -> Policy:
    """The policy after an update that moves every trained weight."""
    torch.manual_seed(1)
    version = policy.version
    policy.begin_update()
    with torch.no_grad():
        for _, parameter in policy.trainable:
            parameter.add_(torch.randn_like(parameter) * amount)
    policy.finish_update(version + 1)
    return policy


def largest_difference(engine: VllmEngine, policy: Policy) -> float:
    """Between the engine's and the policy's log-probabilities of some fixed outputs, in nats."""
    outputs = [[policy.encoder.text_ids("7 + 8 = 15"), policy.encoder.text_ids("No, it is 9")] for _ in range(3)]
    rows = [engine.score(prompts(3), outputs), policy.score(prompts(3), outputs)]
    theirs, ours = (torch.tensor([v for group in row for values in group for v in values]) for row in rows)
    return float((theirs - ours).abs().max())


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(ModelSettings("builtin:starter"))


@pytest.fixture(scope="module")
def engine(policy: Policy) -> Iterator[VllmEngine]:
    made = VllmEngine(policy.encoder, policy, SETTINGS)
    yield made
    made.close()


def test_greedy_outputs_are_those_of_the_transformers_engine(engine: VllmEngine, policy: Policy) -> None:
    sampling = Sampling(40, temperature=0)
    theirs = engine.sample(prompts(6, 1), sampling)
    ours = TransformersEngine(policy).sample(prompts(6, 1), sampling)
    for (a,), (b,) in zip(theirs, ours, strict=True):
        assert (a.token_ids, a.text, a.truncated) == (b.token_ids, b.text, b.truncated)
        torch.testing.assert_close(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-3, rtol=0)


def test_an_output_depends_on_its_seed_and_not_on_its_neighbours(engine: VllmEngine) -> None:
    together = engine.sample(prompts(5), Sampling(24))
    again = engine.sample(prompts(5)[::-1], Sampling(24))[::-1]
    assert [[c.token_ids for c in g] for g in together] == [[c.token_ids for c in g] for g in again]
    assert len({c.token_ids for c in together[4]}) > 1


@pytest.mark.parametrize("sampling", [Sampling(24), Sampling(24, temperature=0.6)])
def test_logprobs_are_those_of_the_sampled_distribution(engine: VllmEngine, policy: Policy, sampling: Sampling) -> None:
    for prompt, group in zip(prompts(3), engine.sample(prompts(3), sampling), strict=True):
        prefix = list(policy.encoder.prompt_ids(prompt))
        for completion in group:
            ids = torch.tensor([prefix + list(completion.token_ids)])
            with torch.no_grad():
                logits = policy.network(ids).logits[0, len(prefix) - 1 : -1] / sampling.temperature
            expected = logits.log_softmax(-1).gather(-1, ids[0, len(prefix) :, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-3, rtol=0)


def test_outputs_end_at_the_end_of_sequence_or_are_marked_truncated(engine: VllmEngine, policy: Policy) -> None:
    completions = [c for group in engine.sample(prompts(6, 12), Sampling(12)) for c in group]
    assert {c.truncated for c in completions} == {True, False}
    for completion in completions:
        ends = [token in policy.encoder.eos_ids for token in completion.token_ids]
        assert ends[-1] is not completion.truncated
        assert not any(ends[:-1])


def test_a_stop_leaves_no_request_behind(engine: VllmEngine) -> None:
    checks = iter(range(3))

    def stop() -> None:
        if next(checks, None) is None:
            raise Stopped

    with pytest.raises(Stopped):
        engine.sample(prompts(6), Sampling(60), check_stop=stop)
    finished: list[int] = []
    groups = engine.sample(prompts(2), Sampling(8), on_progress=finished.append)
    assert sum(finished) == sum(map(len, groups)) == 8


def test_prompts_that_do_not_fit_are_refused_by_name(engine: VllmEngine) -> None:
    with pytest.raises(ModelError, match=r"task-1 .* vLLM's context of 400"):
        engine.sample(prompts(1), Sampling(399))
    with pytest.raises(ModelError, match="max_prompt_tokens = 3"):
        engine.sample(prompts(1), Sampling(4, max_prompt_tokens=3))


def test_full_weights_are_taken_over_and_checked(engine: VllmEngine, policy: Policy) -> None:
    assert largest_difference(engine, policy) < 1e-3
    version = engine.version
    moved(policy)
    assert largest_difference(engine, policy) > 0.1  # what a missing sync looks like
    engine.sync(policy)
    assert engine.version == version + 1
    assert largest_difference(engine, policy) < 1e-3


class Tampered:
    """A policy that pushes other tensors than it computes with."""

    def __init__(self, policy: Policy, change: str) -> None:
        self._policy = policy
        self._change = change

    def __getattr__(self, name: str) -> object:
        return getattr(self._policy, name)

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._policy.named_tensors(merged=merged):
            if name.endswith("layers.0.mlp.down_proj.weight"):
                tensor = -tensor if self._change == "value" else tensor[:, :-1]
            yield name, tensor


def test_weights_that_did_not_arrive_or_do_not_fit_are_found(engine: VllmEngine, policy: Policy) -> None:
    with pytest.raises(StaleEngineError, match="differ from the learner's by"):
        engine.sync(Tampered(policy, "value"))
    with pytest.raises(StaleEngineError, match=r"call sync\(policy\) first"):
        engine.sample(prompts(1), Sampling(4))
    engine.sync(policy)
    with pytest.raises(ModelError, match=r"down_proj.weight has shape .* not \("):
        engine.sync(Tampered(policy, "shape"))
    policy.begin_update()
    with pytest.raises(StaleEngineError, match="mid-update"):
        engine.sync(policy)
    policy.finish_update(2)
    engine.sync(policy)
    assert largest_difference(engine, policy) < 1e-3


@pytest.mark.parametrize(
    ("lora", "adapter_only", "pushes"),
    [
        (LoraSettings(rank=4), True, True),
        (LoraSettings(rank=4, rslora=True, target_modules=("q_proj", "down_proj")), True, True),
        (LoraSettings(rank=4), False, False),
        (LoraSettings(rank=4, dora=True), True, False),
    ],
    ids=["adapter", "rslora-some-modules", "merged", "dora-is-merged"],
)
def test_adapters_are_pushed_alone_or_merged(lora: LoraSettings, adapter_only: bool, pushes: bool) -> None:
    policy = load_policy(ModelSettings("builtin:starter", lora=lora))
    settings = VllmSettings("cpu", "float32", 400, cache_bytes=2**26, adapter_only=adapter_only)
    engine = VllmEngine(policy.encoder, policy, settings)
    try:
        assert engine.pushes_adapters is pushes
        for version in (1, 2):
            moved(policy, 0.05)
            assert largest_difference(engine, policy) > 0.05
            engine.sync(policy)
            assert engine.version == version
            assert largest_difference(engine, policy) < 1e-3
        (sampled,) = engine.sample(prompts(1, 1), Sampling(20, temperature=0))[0]
        (expected,) = TransformersEngine(policy, version=2).sample(prompts(1, 1), Sampling(20, temperature=0))[0]
        assert sampled.token_ids == expected.token_ids
    finally:
        engine.close()


def test_closing_leaves_nothing_behind_and_another_engine_can_start(policy: Policy) -> None:
    import psutil

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    threads = torch.get_num_threads()
    engine = VllmEngine(policy.encoder, policy, SETTINGS)
    folder = Path(engine.folder)
    assert folder.is_dir()
    engine.close()
    engine.close()
    assert not folder.exists()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    torch.set_num_threads(threads)
    assert torch.get_num_threads() == threads  # vLLM had replaced the function
    with pytest.raises(StaleEngineError, match="first"):
        engine.sample(prompts(1), Sampling(4))
    second = VllmEngine(policy.encoder, policy, SETTINGS)
    assert second.sample(prompts(1, 1), Sampling(4))[0][0].token_ids
    second.close()


def test_a_model_that_vllm_cannot_run_is_one_sentence(tmp_path: Path) -> None:
    from tests.helpers.tiny_models import save_tiny_llama

    policy = load_policy(ModelSettings(str(save_tiny_llama(tmp_path))))  # heads of 8, which vLLM's CPU kernels lack
    with pytest.raises(ModelError, match=r'cannot run .* \(.+\): use rollout.engine = "transformers"'):
        VllmEngine(policy.encoder, policy, SETTINGS)


def test_a_run_is_sampled_by_vllm_killed_and_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "workbench", "run", "quickstart", "--rounds", "2", "--out", str(run)]
    command += ["--rollout.engine", "vllm", "--problems.per-round", "4", "--recycle.judge-quota", "2"]
    command += ["--recycle.reflection-quota", "2", "--evaluation.every", "0", "--rollout.vllm.cache-gib", "0.2"]
    environment = os.environ | {"COLUMNS": "150"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "sampler" in done.stdout
    resumed = [sys.executable, "-m", "workbench", "resume", str(run), "--rounds", "1"]
    done = subprocess.run(resumed, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    reports = [json.loads((run / "rounds" / f"{k:06d}" / "report.json").read_text()) for k in (1, 2, 3)]
    assert [report["policy_version"] for report in reports] == [2, 4, 6]
    for report in reports:
        for update in report["updates"]:
            assert 0.0 < update["sampler_mismatch"]["mean_abs_logprob"] < 1e-3
