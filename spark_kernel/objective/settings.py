"""The objective's settings as a plain dataclass; names and defaults as in `config.ObjectiveSection`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NamedLoss:
    """What a loss of the literature is made of: its surrogate, the level of its ratio, its aggregation."""

    surrogate: str
    ratio_level: str
    aggregation: str


LOSSES: Mapping[str, NamedLoss] = {
    "grpo": NamedLoss("clip", "token", "sequence_mean"),
    "dr_grpo": NamedLoss("clip", "token", "constant_length"),
    "dapo": NamedLoss("clip", "token", "token_mean"),
    "bnpo": NamedLoss("clip", "token", "token_mean"),
    "cispo": NamedLoss("cispo", "token", "token_mean"),
    "gspo": NamedLoss("clip", "sequence", "sequence_mean"),
}
"""Losses by their usual names (docs/objectives.md has formulas and sources)."""


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Which formulas make up the loss (algorithm.md section 3).

    `constant_length`: the divisor per sequence of aggregation "constant_length", in tokens. `dual_clip`: bound of the
    ratio under a negative advantage; None: none. `ratio_cap`: CISPO's bound. `importance_cap`: bound of pi_old over
    pi_sampler where `importance_correction` is "truncate" or "mask".
    """

    advantage: str = "group_std_ddof1"
    delta: float = 1e-4
    surrogate: str = "clip"
    ratio_level: str = "token"
    aggregation: str = "token_mean"
    constant_length: int = 1024
    eps_low: float = 0.2
    eps_high: float = 0.2
    dual_clip: float | None = None
    ratio_cap: float = 5.0
    beta: float = 0.0
    kl_estimator: str = "k3"
    kl_times_ratio: bool = False
    importance_correction: str = "off"
    importance_level: str = "token"
    importance_cap: float = 2.0
    pooled_kinds: bool = False
    kind_weights: Mapping[str, float] = field(default_factory=dict)
    negative_advantage_scale: float = 1.0
    mask_truncated: bool = True
    mask_zero_variance: bool = True
