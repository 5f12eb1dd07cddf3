"""Run it: make gpu-check, or python -m benchmarks.gpu.check [--tiny] [--only NAME ...] [--out FILE].

Needs torch with CUDA and transformers, no network and no vLLM. Every finding is a line of JSON on the screen and in
`benchmarks/results/`; a part that fails is a finding with its error, and the others go on.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.models import SAMPLES, Build, groups_of, make_learner, make_policy, training_flops
from benchmarks.main import RESULTS, describe
from benchmarks.measuring import matrix_rate
from benchmarks.shapes import NEVER, Scale, make_groups, make_model, make_prompts, output_lengths
from spark_kernel.config.sections import ModelSection, ObjectiveSection
from spark_kernel.learner.selection import select
from spark_kernel.models import memory
from spark_kernel.models.policy import load_policy
from spark_kernel.models.prefix_form import BATCHES, PrefixForm
from spark_kernel.records import Period
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine

GIB = 1 << 30
JUDGE = (2048, 768)
"""Tokens of prompt and output in the shape that performance is stated for."""


@dataclass
class Check:
    """Where findings go, and how large the work is."""

    device: torch.device
    tiny: bool
    out: Path
    started: float
    matrix_flops: float = 0.0

    def say(self, part: str, **finding: Any) -> None:
        """One finding: on the screen and in the file at once, so that a run that is cut off loses nothing."""
        line = json.dumps({"seconds": round(time.time() - self.started), "part": part, **finding})
        print(line, flush=True)
        with self.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def shape(self, prompt: int, output: int) -> tuple[int, int]:
        """Tokens of prompt and output, or few."""
        return (24, 8) if self.tiny else (prompt, output)

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds of one call, the device waited for."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def peak(self) -> float:
        """The most memory allocated since `forget`, in GiB."""
        return round(torch.cuda.max_memory_allocated() / GIB, 2) if self.device.type == "cuda" else 0.0

    def forget(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def tests(check: Check) -> None:
    """The tests that need a GPU, in a process of their own."""
    files = ("tests/test_slot_decoding.py", "tests/test_gpu_forms.py")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = (done.stdout + done.stderr)[-2500:] if done.returncode else ""
    check.say("tests", exit_code=done.returncode, summary=done.stdout.strip().splitlines()[-1:], errors=errors)


def equality(check: Check) -> None:
    """Each form's log-probabilities and gradients, and sampled tokens, in float32: the GPU against the CPU."""
    scale = Scale(groups=3, samples=4)
    with tempfile.TemporaryDirectory() as name:
        folder = make_model(Path(name) / "model", Scale(hidden=128, layers=3, vocabulary=512))
        found: dict[tuple[str, str], tuple[torch.Tensor, torch.Tensor]] = {}
        tokens = {}
        for device in ("cpu", check.device.type):
            policy = load_policy(ModelSection(path=str(folder), dtype="float32", device=device))
            policy.encoder.eos_ids = NEVER
            groups = make_groups(scale, 40, output_lengths(scale, 16, ragged=True))
            selected, _ = select(groups, ObjectiveSection(), round=1, images_root=Path())
            outputs = [[rollout.token_ids for rollout in group.rollouts] for group in selected]
            for form in PrefixForm:
                policy.network.zero_grad()
                batch = BATCHES[form](policy.encoder, [group.prompt for group in selected], outputs, policy.device)
                logprobs, _ = policy.group_forward(batch)
                logprobs.sum().backward()
                weight = policy.network.base_model.layers[0].mlp.up_proj.weight
                found[device, form] = (logprobs.detach().cpu(), weight.grad.cpu())
            drawn = TransformersEngine(policy).sample(make_prompts(scale, 40), Sampling(16))
            tokens[device] = [completion.token_ids for group in drawn for completion in group]
    expected = found["cpu", PrefixForm.PADDED]
    for form in PrefixForm:
        value, gradient = found[check.device.type, form]
        check.say(
            "equality",
            form=form,
            logprobs=float((value - expected[0]).abs().max()),
            gradient=float((gradient - expected[1]).abs().max() / expected[1].abs().max()),
        )
    check.say("equality", same_tokens=tokens["cpu"] == tokens[check.device.type])


def update(check: Check, build: Build, count: int, prompt: int, output: int, tokens: int) -> dict[str, Any]:
    """One update, timed at its second time: seconds, tokens/s, share of the matrix rate, peak against plan."""
    prompt, output = check.shape(prompt, output)
    policy = make_policy(build, check.device, tiny=check.tiny)
    learner = make_learner(policy, build.form, micro_batch_tokens=tokens)
    groups = groups_of(count, prompt, output)
    check.forget()
    held = check.peak()

    def once() -> None:
        learner.update(groups, period=Period.POLICY, round=1)

    first, seconds = check.timed(once), check.timed(once)
    flops = training_flops(policy, count, prompt, output) / seconds
    shape = memory.shape_of(policy.network, autocast=policy.loaded.autocast)
    if learner.form.form is PrefixForm.PACKED:
        per_token = memory.packed_bytes_per_token(shape, checkpointing=build.checkpointing)
    else:
        per_token = memory.training_bytes_per_token(shape, samples=SAMPLES, checkpointing=build.checkpointing)
    micro_batch = min(tokens, count * (prompt + SAMPLES * output))
    return {
        "model": build.name,
        "form": learner.form.form,
        "shape": f"{count} groups of {SAMPLES}, {prompt} + {output}",
        "first_s": round(first, 2),
        "update_s": round(seconds, 3),
        "tokens_per_s": round(count * (prompt + SAMPLES * output) / seconds),
        "tflops": round(flops / 1e12, 1),
        "of_matrix_rate": round(flops / check.matrix_flops, 3),
        "held_gib": held,
        "peak_gib": check.peak(),
        "planned_activations_gib": round(per_token * micro_batch / GIB, 2),
    }


def updates(check: Check) -> None:
    """The update of a 1.5B model on the judge shape, by what may be switched."""
    for build, tokens in (
        (Build("1.5b"), 8192),
        (Build("1.5b"), 16_384),
        (Build("1.5b", checkpointing=True), 32_768),
        (Build("1.5b", form=PrefixForm.CACHED), 8192),
    ):
        check.say("update", micro_batch_tokens=tokens, **update(check, build, 4, *JUDGE, tokens))
        check.forget()


def waits(check: Check) -> None:
    """How often a micro-batch waits for the device: once for each mask, and once a step to read its sums."""
    if check.device.type != "cuda":
        return
    learner = make_learner(make_policy(Build("1.5b"), check.device, tiny=True), None, micro_batch_tokens=8192)
    learner.update(groups_of(2, 24, 8), period=Period.POLICY, round=1)
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.update(groups_of(2, 24, 8), period=Period.POLICY, round=1)
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
    check.say("waits", count=len(places), at=places)


def memory_of_7b(check: Check) -> None:
    """One group of a 7B model with adapters on the judge shape: peak against what stays below it."""
    for build in (Build("7b", lora=True), Build("7b", lora=True, checkpointing=True)):
        check.say("memory", **update(check, build, 1, *JUDGE, 10**6))
        check.forget()


def against_padded_rows(check: Check) -> None:
    """Qwen3-4B with adapters, n 8, outputs 256: packed groups beside rows that repeat their prompt."""
    for prompt in (512, 2048):
        pair = {}
        for form in (PrefixForm.PACKED, PrefixForm.PADDED):
            build = Build("4b", lora=True, checkpointing=True, form=form)
            pair[form] = update(check, build, 4, prompt, 256, 20_000)
            check.forget()
        packed, padded = pair[PrefixForm.PACKED], pair[PrefixForm.PADDED]
        check.say(
            "padded rows",
            **packed,
            padded_s=padded["update_s"],
            padded_peak_gib=padded["peak_gib"],
            times_as_fast=round(padded["update_s"] / packed["update_s"], 2),
        )


def decoding(check: Check) -> None:
    """Milliseconds of a decode step, and how many times what reading the weights once takes."""
    bandwidth = read_rate(check)
    for build, rows in ((Build("1.5b"), 64), (Build("7b", lora=True), 64), (Build("7b", lora=True), 256)):
        policy = make_policy(build, check.device, tiny=check.tiny)
        engine = TransformersEngine(policy, batch_size=rows)
        prompts = make_prompts(Scale(groups=rows // SAMPLES, samples=SAMPLES), check.shape(512, 0)[0])
        check.forget()

        def sample(length: int, engine: TransformersEngine = engine, prompts: Any = prompts) -> float:
            return check.timed(lambda: engine.sample(prompts, Sampling(length)))

        sample(16)
        short, long = sample(16), sample(144)
        step = (long - short) / 128
        weights = sum(2 * parameter.numel() for parameter in policy.network.parameters())
        check.say(
            "decoding",
            model=build.name,
            rows=rows,
            ms_per_step=round(1e3 * step, 2),
            tokens_per_s=round(rows / step),
            of_weight_bound_step=round(step / (weights / bandwidth), 2) if bandwidth else None,
            first_16_tokens_s=round(short, 2),
            peak_gib=check.peak(),
        )
        del policy, engine
        check.forget()


def read_rate(check: Check) -> float:
    """Bytes a second that a copy on the device reads and writes; 0 without a device."""
    if check.device.type != "cuda":
        return 0.0
    source = torch.empty(1 << 30, dtype=torch.uint8, device=check.device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * 10 * source.numel() / check.timed(lambda: [target.copy_(source) for _ in range(10)])


def peer(check: Check) -> None:
    """Ours beside TRL's update on the same work, where TRL is installed: the row of `workbench bench`."""
    if find_spec("trl") is None:
        check.say("peer", left_out="TRL is not installed here: make bench ARGS='--rows update --device cuda'")
        return
    toy = ["--toy", "--out", tempfile.gettempdir()] if check.tiny else []
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.main", "--rows", "update", "--device", check.device.type, *toy],
        capture_output=True,
        text=True,
        check=False,
    )
    check.say("peer", exit_code=done.returncode, output=done.stdout[-2000:])


PARTS: dict[str, Callable[[Check], None]] = {
    "tests": tests,
    "equality": equality,
    "updates": updates,
    "waits": waits,
    "memory": memory_of_7b,
    "padded-rows": against_padded_rows,
    "decoding": decoding,
    "peer": peer,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts; 0, 1 where one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="models of no size, on a CPU too: only whether it runs")
    parser.add_argument("--out", type=Path, help="the file that findings are added to")
    args = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or args.tiny):
        print("make gpu-check: torch finds no CUDA device here (--tiny runs the parts on a CPU).", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    check = Check(device, args.tiny, args.out or RESULTS / f"{stamp}-gpu-check.jsonl", time.time())
    check.matrix_flops = matrix_rate(device.type, torch.bfloat16, "wall", size=512)
    check.say("machine", **describe(device.type, args.tiny), matrix_tflops=round(check.matrix_flops / 1e12, 1))
    failed = False
    for name in args.only:
        try:
            PARTS[name](check)
        except Exception as error:  # any: whatever a GPU does to one part, the others are to be measured
            failed = True
            last = [
                f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)
            ]
            check.say(name, failed=f"{type(error).__name__}: {str(error)[:600]}", at=last[-6:])
        check.forget()
    check.say("end")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
