"""The objective's settings as a plain dataclass; names and defaults as in `config.ObjectiveSection`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Which formulas make up the loss (algorithm.md section 3).

    `constant_length`: the divisor per sequence of aggregation "constant_length", in tokens.
    """

    advantage: str = "group_std_ddof1"
    delta: float = 1e-4
    aggregation: str = "token_mean"
    constant_length: int = 1024
    eps_low: float = 0.2
    eps_high: float = 0.2
    beta: float = 0.0
    kl_estimator: str = "k3"
    pooled_kinds: bool = False
    kind_weights: Mapping[str, float] = field(default_factory=dict)
    negative_advantage_scale: float = 1.0
    mask_truncated: bool = True
    mask_zero_variance: bool = True
