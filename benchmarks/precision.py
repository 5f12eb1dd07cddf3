"""The precision that a model is sampled and trained fastest in on a CPU: python -m benchmarks.precision MODEL.

CPU seconds of one process, so that a machine shared with others can be measured; medians of turns after a warm-up. The
table in docs/sampling.md is this one.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.shapes import NEVER, Scale, make_groups, output_lengths
from spark_kernel.config.sections import LearnerSection, LoraSection, ModelSection, ObjectiveSection
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message, Period
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine

WAYS = {
    "float32": ("float32", False),
    "float32, arithmetic in bfloat16": ("float32", True),
    "bfloat16": ("bfloat16", False),
}
GROUPS, SAMPLES, OUTPUT = 6, 8, 16
TRAINED = Scale(groups=2)
TRAINED_PROMPT, TRAINED_OUTPUT = 64, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="as model.path")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    policies = {
        (name, lora): _policy(args.model, dtype, autocast, lora)
        for lora in (False, True)
        for name, (dtype, autocast) in WAYS.items()
    }
    sampled = _cpu_seconds({key: _sampling(policy) for key, policy in policies.items()}, args.repeats)
    trained = _cpu_seconds({key: _update(policy) for key, policy in policies.items()}, args.repeats)
    print(f"{args.model}, {args.threads} thread(s), tokens per second of CPU time\n")
    print("| weights | trained | sampling | update |\n| --- | --- | --- | --- |")
    for name, lora in policies:
        rates = (
            GROUPS * SAMPLES * OUTPUT / sampled[name, lora],
            TRAINED.groups * TRAINED.samples * TRAINED_OUTPUT / trained[name, lora],
        )
        print(f"| {name} | {'adapter' if lora else 'all'} | {rates[0]:.0f} | {rates[1]:.0f} |")


def _policy(model: str, dtype: str, autocast: bool, lora: bool) -> Policy:
    policy = load_policy(ModelSection(path=model, dtype=dtype, device="cpu", lora=LoraSection(enabled=lora)))
    policy.loaded = replace(policy.loaded, autocast=autocast)
    policy.encoder.eos_ids = NEVER
    return policy


def _sampling(policy: Policy) -> Callable[[], Any]:
    engine = TransformersEngine(policy)
    text = "What is {} + {}? Think step by step and box the answer. " * 6
    prompts = [
        Prompt(f"t{i}", (Message.of("user", text.format(*[i, i + 3] * 6)),), tuple(range(100 * i, 100 * i + SAMPLES)))
        for i in range(GROUPS)
    ]
    return lambda: engine.sample(prompts, Sampling(OUTPUT))


def _update(policy: Policy) -> Callable[[], Any]:
    settings = LearnerSection(learning_rate=1e-6, minibatch_sequences=None)
    learner = TorchLearner(
        policy, ObjectiveSection(importance_correction="off"), settings, horizon_steps=1000, images_root=Path()
    )
    groups = make_groups(TRAINED, TRAINED_PROMPT, output_lengths(TRAINED, TRAINED_OUTPUT, ragged=False))
    return lambda: learner.update(groups, period=Period.POLICY, round=1)


def _cpu_seconds(contestants: dict[Any, Callable[[], Any]], repeats: int) -> dict[Any, float]:
    """Median CPU seconds of each, in turns; the first turn warms up."""
    seconds: dict[Any, list[float]] = {key: [] for key in contestants}
    for turn in range(repeats + 1):
        for key, work in contestants.items():
            started = time.process_time()
            work()
            if turn:
                seconds[key].append(time.process_time() - started)
    return {key: statistics.median(values) for key, values in seconds.items()}


if __name__ == "__main__":
    main()
