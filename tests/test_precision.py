"""Which steps bfloat16 rounds away: the arithmetic against torch, what is refused, and what is no longer proposed."""

from __future__ import annotations

import random

import pytest
import torch

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import InputError
from spark_kernel.models.estimate import MemoryDemand, estimate_memory, weigh
from spark_kernel.models.precision import check_precision, half_spacing, rounds_away
from spark_kernel.models.preflight import proposals

BFLOAT16 = ModelSection(dtype="bfloat16")


def moves(weight: float, step: float) -> bool:
    start = torch.tensor(weight, dtype=torch.bfloat16)
    return bool((start.double() + step).to(torch.bfloat16) != start)


def test_half_the_spacing_is_where_torch_begins_to_move() -> None:
    rng = random.Random(0)
    for _ in range(300):
        size = 2.0 ** rng.uniform(-12, 3)
        weight = float(torch.tensor(rng.choice([1, -1]) * size, dtype=torch.bfloat16))
        away = 1 if weight > 0 else -1  # towards 0 the spacing halves at a power of two
        assert moves(weight, away * 1.01 * half_spacing(weight))
        assert not moves(weight, away * 0.99 * half_spacing(weight))
    assert half_spacing(0.02) == 2.0**-14


def test_what_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"5e-07 is refused.*0.02.*0.00012 apart.*6.1e-05, is rounded away.*dtype = auto"
    ):
        check_precision(BFLOAT16, 5e-7)
    check_precision(BFLOAT16, 6.2e-5)
    check_precision(ModelSection(dtype="float32"), 5e-7)
    check_precision(ModelSection(dtype="auto"), 5e-7)
    check_precision(ModelSection(dtype="bfloat16", lora=LoraSection(enabled=True)), 5e-7)


@pytest.mark.parametrize(("rate", "proposed"), [(5e-7, False), (1e-3, True), (None, True)])
def test_preflight_proposes_nothing_that_would_not_train(rate: float | None, proposed: bool) -> None:
    settings = ModelSection(dtype="float32")
    demand = MemoryDemand("adamw", False, 32, 1, learning_rate=rate)
    halved = settings.model_copy(update={"dtype": "bfloat16"})
    weights, smaller = weigh(settings), weigh(halved)
    assert weights is not None
    assert smaller is not None
    free = estimate_memory(smaller, halved, demand).needed
    found, _ = proposals(weights, settings, demand, free)
    changed = [[change.model for change in changes] for changes, _ in found]
    assert ([{"dtype": "bfloat16"}] in changed) is proposed
    for changes in changed:
        merged = settings.model_copy(update={k: v for change in changes for k, v in change.items()})
        assert rate is None or not rounds_away(merged, rate)
