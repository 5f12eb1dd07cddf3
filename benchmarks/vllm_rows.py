"""The rows that need vLLM, in a process of their own: python -m benchmarks.vllm_rows MODEL DEVICE SCALE CLOCK OUT.

vLLM binds threads to cores and starts PyTorch's process groups; ending with it, none of that reaches the other rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.measuring import Row, interleaved, timed_row
from benchmarks.shapes import SCALES, Scale, make_prompts
from spark_kernel.config.sections import LoraSection, ModelSection, VllmSection
from spark_kernel.errors import InputError
from spark_kernel.models.adapter import Adapter
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.models.publishing import publish_weights
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.vllm_engine import VllmEngine
from spark_kernel.rollout.vllm_install import check_vllm

VLLM_TARGET = 0.97
CACHE_BYTES = {"cpu": 2**28, "cuda": 2**33}


def in_a_process(model: Path, device: str, scale: str, clock: str, folder: Path) -> list[Row]:
    """The rows, measured in another process; one row that says why where there is no vLLM that works here."""
    try:
        check_vllm()
    except InputError as error:
        return [Row("vLLM engine and weight sync", left_out=str(error))]
    out = folder / "vllm-rows.json"
    command = [sys.executable, "-m", "benchmarks.vllm_rows", str(model), device, scale, clock, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The benchmark's vLLM rows failed: {done.stderr[-2000:]}")
    return [Row(**row) for row in json.loads(out.read_text(encoding="utf-8"))]


def engine_rows(model: Path, device: str, scale: Scale, clock: str) -> list[Row]:
    """Sampling through our engine beside the same vLLM asked directly, by the same requests."""
    policy = _policy(model, device)
    engine = _engine(policy, device, scale)
    try:
        return [_engine_row(engine, device, scale, clock, *shape) for shape in scale.shapes]
    finally:
        engine.close()


def _engine_row(engine: VllmEngine, device: str, scale: Scale, clock: str, shape: str, prompt: int, output: int) -> Row:
    prompts = make_prompts(scale, prompt)
    sampling = Sampling(output)
    bare = engine._required  # the peer is the very same vLLM, so that both have its settings and its memory

    def ours() -> list[tuple[int, ...]]:
        bare.reset_prefix_cache()
        return [c.token_ids for group in engine.sample(prompts, sampling) for c in group]

    def theirs(together: bool) -> list[tuple[int, ...]]:
        bare.reset_prefix_cache()
        outputs = bare.generate(*_requests(engine, prompts, output, together=together), use_tqdm=False)
        return [tuple(o.token_ids) for result in outputs for o in result.outputs]

    # Equal work: with a seed of its own each, both sides draw the same tokens.
    assert ours() == theirs(False)
    assert sum(map(len, theirs(True))) == scale.groups * scale.samples * output
    contestants: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "bare vLLM": lambda: theirs(False),
        "bare vLLM, n outputs a request": lambda: theirs(True),
    }
    timings = interleaved(contestants, max(5, scale.repeats), device, clock)
    return timed_row(
        f"our vLLM engine, {shape} shape ({prompt} + {output}, n {scale.samples})",
        timings,
        target=VLLM_TARGET,
        tokens=scale.groups * scale.samples * output,
    )


def _requests(engine: VllmEngine, prompts: list[Prompt], output: int, *, together: bool) -> tuple[list[Any], list[Any]]:
    """Inputs and parameters: a request for each seed as our engine makes them, or one of n outputs for each prompt."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    def params(seed: int, n: int) -> SamplingParams:
        return SamplingParams(
            n=n,
            seed=seed,
            temperature=1.0,
            max_tokens=output,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    if together:
        wanted = [(prompt, prompt.seeds[0], len(prompt.seeds)) for prompt in prompts]
    else:
        wanted = [(prompt, seed, 1) for prompt in prompts for seed in prompt.seeds]
    inputs = [{"prompt_token_ids": list(engine._encoder.prompt_ids(prompt))} for prompt, _, _ in wanted]
    return inputs, [params(seed, n) for _, seed, n in wanted]


class Counted:
    """A policy's weights as an engine pulls them, with the bytes that it was given."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        return publish_weights(self, wanted)

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self._policy.named_tensors(merged=merged):
            self.bytes += tensor.numel() * tensor.element_size()
            yield name, tensor

    def adapter(self) -> Adapter | None:
        adapter = self._policy.adapter()
        self.bytes += sum(t.numel() * t.element_size() for t in adapter.tensors.values()) if adapter else 0
        return adapter


def sync_rows(model: Path, device: str, scale: Scale, clock: str) -> list[Row]:
    """What one weight sync moves and takes: all weights, an adapter merged into them, an adapter alone."""
    lora = LoraSection(enabled=True)
    ways = {"adapter alone": (lora, True), "adapter merged": (lora, False), "full weights": (LoraSection(), False)}
    mib, timings = {}, {}
    for name, (adapter, alone) in ways.items():
        policy = _policy(model, device, adapter)
        engine = _engine(policy, device, scale, adapter_only=alone)
        try:
            weights = Counted(policy)
            engine.take(weights.publish(engine.wanted))
            mib[name] = weights.bytes / 2**20
            push = {name: lambda e=engine, p=policy: e.take(p.publish(e.wanted))}
            timings |= interleaved(push, max(3, scale.repeats), device, clock)
        finally:
            engine.close()
        if name == "adapter alone":
            trained = sum(p.numel() * p.element_size() for _, p in policy.trainable) / 2**20
    seconds = timed_row("weight sync, time with its check", timings, target=None)
    moved = Row(
        "weight sync, bytes moved",
        unit="MiB",
        values=mib,
        ratio=mib["adapter alone"] / trained,
        target=1.0,
        at_least=False,
        details={"ratio_is": "what an adapter-only sync moves over the adapter's size"},
    )
    return [moved, seconds]


def _policy(model: Path, device: str, lora: LoraSection = LoraSection()) -> Policy:
    dtype = "float32" if device == "cpu" else "auto"
    policy = load_policy(ModelSection(path=str(model), dtype=dtype, device=device, lora=lora))
    policy.encoder.eos_ids = ()  # every output has exactly the wanted length; vLLM refuses ids that no token has
    return policy


def _engine(policy: Policy, device: str, scale: Scale, *, adapter_only: bool = False) -> VllmEngine:
    longest = max(prompt + output for _, prompt, output in scale.shapes) + 1
    longest = max(longest, 256)  # the check after a sync has a prompt of its own
    return VllmEngine(
        policy.encoder,
        policy,
        VllmSection(enforce_eager=device == "cpu", lora_sync="adapter" if adapter_only else "merged", sleep=False),
        device=device,
        dtype="float32" if device == "cpu" else "bfloat16",
        max_model_len=longest,
        cache_bytes=CACHE_BYTES[device],
    )


def main() -> None:
    model, device, scale, clock, out = sys.argv[1:]
    rows = engine_rows(Path(model), device, SCALES[scale], clock) + sync_rows(Path(model), device, SCALES[scale], clock)
    Path(out).write_text(json.dumps([row.to_json() for row in rows]), encoding="utf-8")


if __name__ == "__main__":
    main()
