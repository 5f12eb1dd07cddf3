"""The real SmolLM2-135M: a round of its preset with each engine, as a user starts it at small n; both engines agree."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spark_kernel.models.load import computes_in_bfloat16
from spark_kernel.runs.reader import RunReader

pytestmark = [pytest.mark.model, pytest.mark.slow]
SMALL = [
    "--rounds=1",
    "--problems.per_round=2",
    "--rollout.samples=4",
    "--rollout.max_new_tokens=24",
    "--rollout.verdict_max_new_tokens=24",
    "--recycle.judge_quota=1",
    "--recycle.reflection_quota=1",
    "--evaluation.every=0",
    "--threads=2",
]


VLLM = ["--rollout.engine=vllm", "--rollout.vllm.cache-gib=0.25"]


@pytest.mark.parametrize("engine", [[], pytest.param(VLLM, marks=pytest.mark.vllm)], ids=["transformers", "vllm"])
def test_a_round_of_smollm2(tmp_path: Path, engine: list[str]) -> None:
    # The preset's bfloat16 where the processor has it; elsewhere it is emulated, and this takes six minutes.
    dtype = "bfloat16" if computes_in_bfloat16(torch.device("cpu"), 135_000_000) else "float32"
    command = [sys.executable, "-m", "workbench", "run", "smollm2", "--out", str(tmp_path / "run"), *SMALL, *engine]
    command.append(f"--model.dtype={dtype}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    reader = RunReader(tmp_path / "run")
    (report,) = reader.reports()
    solve = next(line for line in report.kinds if line.kind == "solve")
    assert solve.n == 8
    assert solve.length_mean
    assert solve.length_mean > 3
    rows = reader.table("rollouts").to_pylist()
    assert any(row["answer"] for row in rows), "the model boxes some answers"
    assert all(len(row["logprobs"]) == len(row["token_ids"]) for row in rows)
    kinds = {line.kind for line in report.kinds if line.n}
    assert "solve" in kinds
    assert kinds & {"pointwise", "pairwise", "reflection"}, "something was recycled"
    mismatches = [u.sampler_mismatch["mean_abs_logprob"] for u in report.updates if u.loss_tokens]
    assert all(0 < mismatch < 0.1 for mismatch in mismatches), "another order of sums, or bfloat16, and no more"

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from spark_kernel.models.load import models_folder

    base = AutoModelForCausalLM.from_pretrained(models_folder() / "smollm2-135m")
    adapted = PeftModel.from_pretrained(base, reader.checkpoints[-1].path)
    adapter = [p for name, p in adapted.named_parameters() if "lora_B" in name]
    assert adapter
    if any(update.optimizer_steps for update in report.updates):
        assert any(bool(p.abs().max() > 0) for p in adapter)


@pytest.mark.vllm
def test_greedy_outputs_of_both_engines_agree_also_after_an_update() -> None:
    """In float32, where no two tokens are close enough for rounding to choose between them."""
    import torch

    from spark_kernel.config.sections import LoraSection, ModelSection, VllmSection
    from spark_kernel.models.policy import load_policy
    from spark_kernel.prompts.prompt import Prompt
    from spark_kernel.records import Message
    from spark_kernel.rollout.engine import Sampling
    from spark_kernel.rollout.transformers_engine import TransformersEngine
    from spark_kernel.rollout.vllm_engine import VllmEngine

    prompts = [
        Prompt(f"task-{a}", (Message.of("user", f"What is {a} + {a + 3}? Say how, then give the number."),), (0,))
        for a in range(2, 7)
    ]
    greedy = Sampling(24, temperature=0)
    policy = load_policy(
        ModelSection(path="smollm2-135m", dtype="float32", device="cpu", lora=LoraSection(enabled=True, rank=8))
    )
    ours = TransformersEngine(policy, batch_size=3)  # some prompts join a running batch
    theirs = VllmEngine(
        policy.encoder, policy, VllmSection(), device="cpu", dtype="float32", max_model_len=256, cache_bytes=2**28
    )

    def outputs(engine: TransformersEngine | VllmEngine) -> list[tuple[int, ...]]:
        return [completion.token_ids for (completion,) in engine.sample(prompts, greedy)]

    try:
        before = outputs(ours)
        assert outputs(theirs) == before
        policy.begin_update()
        torch.manual_seed(0)
        with torch.no_grad():
            for name, parameter in policy.trainable:
                if "lora_B" in name:
                    parameter.add_(torch.randn_like(parameter) * 0.02)
        policy.finish_update(1)
        ours.take(policy.publish(ours.wanted))
        after = outputs(ours)
        assert after != before
        assert outputs(theirs) == before, "vLLM's weights are its own until it takes new ones"
        theirs.take(policy.publish(theirs.wanted))
        assert outputs(theirs) == after
    finally:
        theirs.close()
