"""Advantages: how the rewards of a group of rollouts become a direction for each.

Rewards are few and small, so this is plain Python in double precision, without tensors. A rollout without a reward
(timeout, crash) leaves the statistics and has no advantage. Where all rewards of a group are equal every advantage
is exactly 0: rounding of equal fractions over a tiny delta must not become an advantage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Rewards = Sequence[float | None]
Advantages = tuple[float | None, ...]


def advantages(rewards_P_G: Sequence[Rewards], *, estimator: str, delta: float) -> list[Advantages]:
    """Advantages of every group, `[P][G]`, by the named estimator.

    - "group_std_ddof1": (r - mean) / (std + delta) with the sample standard deviation (GRPO, arXiv 2402.03300; TRL).
    - "group_std_ddof0": the same with the population standard deviation.
    - "mean_only": r - mean (Dr. GRPO, arXiv 2503.20783).
    - "batch_std": r - group mean, over the sample standard deviation of all rewards of the batch plus delta.
    - "leave_one_out": r - mean of the others (RLOO, arXiv 2402.14740).

    Raises:
        ValueError: unknown estimator.
    """
    if estimator == "group_std_ddof1":
        return [_normalised(rewards, 1, delta) for rewards in rewards_P_G]
    if estimator == "group_std_ddof0":
        return [_normalised(rewards, 0, delta) for rewards in rewards_P_G]
    if estimator == "mean_only":
        return [_scaled(rewards, 1.0) for rewards in rewards_P_G]
    if estimator == "batch_std":
        everything = [r for rewards in rewards_P_G for r in rewards if r is not None]
        scale = _deviation(everything, 1) + delta
        return [_scaled(rewards, scale) for rewards in rewards_P_G]
    if estimator == "leave_one_out":
        return [_leave_one_out(rewards) for rewards in rewards_P_G]
    raise ValueError(
        f"advantage = {estimator!r} is unknown: group_std_ddof1, group_std_ddof0, mean_only, batch_std, leave_one_out"
    )


def has_zero_variance(rewards: Rewards) -> bool:
    """Whether all rewards that exist are equal (also where fewer than two exist)."""
    return len({r for r in rewards if r is not None}) < 2


def _normalised(rewards: Rewards, ddof: int, delta: float) -> Advantages:
    present = [r for r in rewards if r is not None]
    return _scaled(rewards, _deviation(present, ddof) + delta)


def _scaled(rewards: Rewards, scale: float) -> Advantages:
    if has_zero_variance(rewards):
        return _zeros(rewards)
    present = [r for r in rewards if r is not None]
    mean = math.fsum(present) / len(present)
    return tuple(None if r is None else (r - mean) / scale for r in rewards)


def _leave_one_out(rewards: Rewards) -> Advantages:
    if has_zero_variance(rewards):
        return _zeros(rewards)
    present = [r for r in rewards if r is not None]
    total, others = math.fsum(present), len(present) - 1
    return tuple(None if r is None else r - (total - r) / others for r in rewards)


def _deviation(values: Sequence[float], ddof: int) -> float:
    if len(values) <= ddof:
        return 0.0
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - ddof))


def _zeros(rewards: Rewards) -> Advantages:
    return tuple(None if r is None else 0.0 for r in rewards)
