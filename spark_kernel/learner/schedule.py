"""The learning rate as a function of real optimizer steps."""

from __future__ import annotations

import math

from spark_kernel.config.sections import LearnerSection


def learning_rate(step: int, settings: LearnerSection, horizon_steps: int) -> float:
    """The rate of optimizer step `step` (0, 1, ...): linear warm-up, then the schedule down to the floor.

    The floor is reached at `horizon_steps` and kept: the rate never rises again.
    """
    warmup = math.ceil(settings.warmup_share * horizon_steps)
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, horizon_steps - warmup))
    if settings.schedule == "constant":
        return settings.learning_rate
    remaining = 1.0 - progress if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (settings.floor_share + (1.0 - settings.floor_share) * remaining)
