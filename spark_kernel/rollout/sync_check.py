"""After a weight sync: an engine that runs on other kernels must give the learner's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spark_kernel.errors import StaleEngineError
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import PolicyWeights, RolloutEngine

TOLERANCES = {"float32": 0.01, "bfloat16": 0.15, "float16": 0.05}
"""Mean absolute difference per token, in nats, that rounding may cause; failed syncs differ by far more."""
PROBE_TEXT = "What is 12 + 30? Explain in one sentence."
PROBE_TOKENS = 64


@dataclass(frozen=True, slots=True)
class Probe:
    """A prompt and output tokens [T] on which two sides are compared."""

    prompt: Prompt
    output: tuple[int, ...]


def first_probe(token_ids: Sequence[int]) -> Probe:
    """What is compared before anything was sampled: a fixed prompt, and tokens for it to score."""
    return Probe(Prompt("sync-check", (Message.of("user", PROBE_TEXT),), (0,)), tuple(token_ids[:PROBE_TOKENS]))


def check_synced(engine: RolloutEngine, weights: PolicyWeights, probe: Probe, dtype: str) -> float:
    """Compare the engine with the weights it was given; the mean absolute difference per token, in nats.

    Raises:
        StaleEngineError: they differ by more than the precision explains.
    """
    ours = weights.score([probe.prompt], [[probe.output]])[0][0]
    theirs = engine.score([probe.prompt], [[probe.output]])[0][0]
    difference = sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
    if not difference <= TOLERANCES[dtype]:  # NaN is not
        raise StaleEngineError(
            f"After the weight sync the engine's log-probabilities differ from the learner's by {difference:.3g} nats "
            f"per token over {len(ours)} tokens of {probe.prompt.task_id}, more than {TOLERANCES[dtype]} for {dtype}: "
            "the engine does not hold the weights of this policy version. The run can be resumed; if it happens again, "
            'use rollout.engine = "transformers" and report the model\'s architecture.'
        )
    return difference
