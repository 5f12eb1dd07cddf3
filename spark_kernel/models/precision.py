"""Whether weights that are trained in bfloat16 move at all at a learning rate, before they are loaded."""

from __future__ import annotations

import math

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError

TYPICAL_WEIGHT = 0.02
"""The standard deviation that most language models' weights start from, as the size of a weight that must move."""
FRACTION_BITS = 7
"""Bits of a bfloat16's fraction."""


def half_spacing(weight: float) -> float:
    """Half the distance between neighbouring bfloat16 values at a weight: a smaller step is rounded away.

    2^(floor(log2 |w|) - 7) / 2, for a normal number.
    """
    return 2.0 ** (math.floor(math.log2(abs(weight))) - FRACTION_BITS - 1)


def rounds_away(model: ModelSection, learning_rate: float) -> bool:
    """Whether a step of this size leaves a typical trained weight where it is. Adapters are trained in float32."""
    full_weights = model.dtype == "bfloat16" and not model.lora.enabled
    return full_weights and learning_rate < half_spacing(TYPICAL_WEIGHT)


def check_precision(model: ModelSection, learning_rate: float) -> None:
    """Refuse to train weights at a rate that their precision rounds away.

    Raises:
        InputError: says the arithmetic and what to do.
    """
    if not rounds_away(model, learning_rate):
        return
    spacing = 2 * half_spacing(TYPICAL_WEIGHT)
    raise InputError(
        f"model.dtype = bfloat16 with all weights trained at learner.learning_rate = {learning_rate:g} is refused: at "
        f"a weight of {TYPICAL_WEIGHT:g} neighbouring bfloat16 values are {spacing:.2g} apart, AdamW moves it by about "
        f"the rate a step, and less than half the distance, {spacing / 2:.2g}, is rounded away: use model.dtype = auto "
        f"(float32 weights), model.lora.enabled = true, or a rate of at least {spacing / 2:.2g}."
    )
