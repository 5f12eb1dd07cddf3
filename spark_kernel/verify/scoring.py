"""One output, scored in this process, and the rule that turns a reward into `correct`."""

from __future__ import annotations

import math
from dataclasses import replace

from spark_kernel.prompts.thinking import DEFAULT_TAGS, Tags, final_part
from spark_kernel.records import Parse, Score
from spark_kernel.verify.golds import other_requests
from spark_kernel.verify.registry import get_verifier
from spark_kernel.verify.verifier import Verifier, VerifyRequest


def score_request(
    request: VerifyRequest,
    correct_threshold: float = 1.0,
    verifier: Verifier | None = None,
    thinking: Tags = DEFAULT_TAGS,
) -> Score:
    """Score one output without a deadline and without a worker; exceptions of the verifier are not caught.

    Where the problem has several acceptable golds (`golds`), the best finding counts.

    Training scores through `VerifierPool`, which calls this in its workers.

    Args:
        request: what to score; `request.task.verifier` names the verifier.
        correct_threshold: `correct` is an answer that was read and a reward of at least this.
        verifier: the verifier, where it is already loaded.
        thinking: tags of thinking, see `prompts.thinking.read_tags`.

    Raises:
        InputError: the task names an unknown verifier.
        ValueError, TypeError: the verifier broke its contract.
    """
    verifier = verifier or get_verifier(request.task.verifier)
    if thinking != DEFAULT_TAGS:  # the verifiers know the usual tags themselves
        request = replace(request, output=final_part(request.output, tags=thinking))
    score = _settled(verifier.score(request), correct_threshold)
    if request.problem.meta.get("golds") and not score.correct:
        for other in other_requests(request):
            found = _settled(verifier.score(other), correct_threshold)
            if (found.reward or 0.0) > (score.reward or 0.0):
                score = found
    return score


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
