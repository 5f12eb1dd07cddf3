"""One output, scored in this process, and the rule that turns a reward into `correct`."""

from __future__ import annotations

import math
from dataclasses import replace

from spark_kernel.records import Parse, Score
from spark_kernel.verify.registry import get_verifier
from spark_kernel.verify.verifier import Verifier, VerifyRequest


def score_request(request: VerifyRequest, correct_threshold: float = 1.0, verifier: Verifier | None = None) -> Score:
    """Score one output without a deadline and without a worker; exceptions of the verifier are not caught.

    Training scores through `VerifierPool`, which calls this in its workers.

    Args:
        request: what to score; `request.task.verifier` names the verifier.
        correct_threshold: `correct` is an answer that was read and a reward of at least this.
        verifier: the verifier, where it is already loaded.

    Raises:
        InputError: the task names an unknown verifier.
        ValueError, TypeError: the verifier broke its contract.
    """
    score = (verifier or get_verifier(request.task.verifier)).score(request)
    return _settled(score, correct_threshold)


def _settled(score: Score, correct_threshold: float) -> Score:
    if not isinstance(score, Score):
        raise TypeError(f"the verifier returned {type(score).__name__} instead of a Score")
    if score.parse in (Parse.TIMEOUT, Parse.CRASH) or score.reward is None:
        raise ValueError("the verifier returned a score without a reward; only the pool may do that")
    reward = float(score.reward)
    if not math.isfinite(reward):
        raise ValueError(f"the verifier returned the reward {reward}")
    correct = score.parse is Parse.OK and reward >= correct_threshold
    if score.correct is correct and type(score.reward) is float:
        return score
    return replace(score, reward=reward, correct=correct)
