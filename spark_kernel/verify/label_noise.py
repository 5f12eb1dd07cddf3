"""Label noise on purpose: a keyed share of the verifier's verdicts turned round, in training only, and said so.

How much noise recycling bears is a question of its own: a judge task's label is what the verifier said of the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spark_kernel.keyed_random import keyed_random
from spark_kernel.records import FLIPPED, Group, Parse, Rollout


def flip_verdicts(groups: Sequence[Group], share: float, *, seed: int, round: int) -> tuple[list[Group], int, int]:
    """The groups with a share of their verdicts turned round, how many that are, and of how many.

    What is turned round: the verdict on an answer that was read, of solve and reflection tasks; a reward r becomes
    1 - r, and right becomes wrong. An output without an answer has no verdict, and a judge's output is compared with a
    label, which is wrong already where the verdict behind it was turned. `Score.flipped` tells; the reason says what
    the verifier found.

    Args:
        groups: scored; their advantages are no longer those of their rewards (`score_groups.with_advantages`).
        share: probability of each, drawn by (seed, round, rollout).
        seed: the run's.
        round: the round in flight.
    """
    flipped = among = 0
    noisy = []
    for group in groups:
        rollouts = list(group.rollouts)
        for place, rollout in enumerate(rollouts):
            if group.task.kind.judges or rollout.score is None or rollout.score.parse is not Parse.OK:
                continue
            among += 1
            if keyed_random(seed, "flip verdict", round, rollout.id).random() < share:
                flipped += 1
                rollouts[place] = _turned_round(rollout)
        noisy.append(group.with_rollouts(tuple(rollouts)))
    return noisy, flipped, among


def _turned_round(rollout: Rollout) -> Rollout:
    score = rollout.score
    if score is None or score.reward is None:
        return rollout
    found = "right" if score.correct else "wrong"
    reason = f"{FLIPPED}; the verifier found it {found} (reward {score.reward:g}). {score.reason}".strip()
    return replace(rollout, score=replace(score, reward=1.0 - score.reward, correct=not score.correct, reason=reason))
