"""After a weight sync: an engine that runs on other kernels must give the learner's log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from spark_kernel.errors import StaleEngineError
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import PolicyWeights

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


class Scores(Protocol):
    """Whatever gives log-probabilities of tokens: an engine, or one of its servers."""

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """As `RolloutEngine.score`."""
        ...


def difference(scorer: Scores, weights: PolicyWeights, probe: Probe) -> float:
    """Mean absolute difference per token between the two sides' log-probabilities of a probe, in nats."""
    ours = weights.score([probe.prompt], [[probe.output]])[0][0]
    theirs = scorer.score([probe.prompt], [[probe.output]])[0][0]
    return sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)


def check_synced(scorer: Scores, weights: PolicyWeights, probe: Probe, dtype: str, *, who: str, pushed: str) -> None:
    """Compare a sampler with the weights it was given.

    Args:
        scorer: the sampler.
        weights: the learner's.
        probe: what is compared.
        dtype: the sampler's precision, or the learner's if that is coarser.
        who: the sampler in the error.
        pushed: what was pushed, in the error.

    Raises:
        StaleEngineError: they differ by more than the precision explains.
    """
    found = difference(scorer, weights, probe)
    if not found <= TOLERANCES[dtype]:  # NaN is not
        raise StaleEngineError(
            f"After {pushed} of policy version {weights.version} were pushed to {who}, its log-probabilities differ "
            f"from the learner's by {found:.3g} nats per token over {len(probe.output)} tokens of "
            f"{probe.prompt.task_id}, more than {TOLERANCES[dtype]} for {dtype}: it does not hold these weights. The "
            'run can be resumed; if it happens again, use rollout.engine = "transformers" and report the model\'s '
            "architecture."
        )
