"""The learner's settings as a plain dataclass; names and defaults as in `config.LearnerSection`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """Optimizer, schedule and how a batch is cut.

    `horizon_steps`: planned optimizer steps of the whole run, the length of the schedule. `temperature`: the
    sampling temperature of the rollouts, under which log-probabilities are taken. `seed` keys the order of groups.
    """

    learning_rate: float
    horizon_steps: int
    optimizer: str = "adamw"
    schedule: str = "cosine"
    warmup_share: float = 0.03
    floor_share: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    minibatch_sequences: int | None = 64
    epochs: int = 1
    micro_batch_tokens: int = 16384
    shared_prefix: bool = True
    temperature: float = 1.0
    seed: int = 0
