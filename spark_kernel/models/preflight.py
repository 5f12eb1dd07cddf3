"""Before weights are loaded: does the run fit into the memory that is free, and with which settings would it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations
from typing import Any

import torch

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import InputError, ModelError
from spark_kernel.models import memory
from spark_kernel.models.estimate import MemoryDemand, MemoryEstimate, Weights, estimate_memory, weigh
from spark_kernel.models.load import has_bfloat16, pick_device
from spark_kernel.models.precision import rounds_away

MIB, GIB = 2**20, 2**30
SHORTEST = 64
"""No proposal makes outputs shorter than this many tokens."""
PROPOSALS = 3
"""Most alternatives that a refusal names."""
MARGIN = 0.9
"""Of the parameters that would fit in proportion: embeddings and logits of a smaller model are not as much smaller."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """A run that can fit: what it needs at the least, what is free, and what may be too much all the same."""

    estimate: MemoryEstimate
    free: int
    device: str
    warnings: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line for a person."""
        estimate = self.estimate
        counts = f"{show_count(estimate.parameters)} parameters, {show_count(estimate.trainable)} trained"
        need = f"at least {show_bytes(estimate.needed)} ({_list(estimate.parts)})"
        return " ".join((f"Memory: {need} of {show_bytes(self.free)} free on {self.device}; {counts}.", *self.warnings))


@dataclass(frozen=True, slots=True)
class Change:
    """A change of settings, in words and as fields of `ModelSection` and `MemoryDemand`."""

    words: str
    model: Mapping[str, Any] = field(default_factory=dict)
    demand: Mapping[str, Any] = field(default_factory=dict)


def check_memory(settings: ModelSection, demand: MemoryDemand) -> Preflight | None:
    """Compare what a run needs at the least with the memory that is free now.

    None where the need cannot be told beforehand (weights that are stored quantized).

    Raises:
        InputError: it cannot fit; says how much is needed and free, and which settings would fit.
        ModelError: the model's configuration cannot be had, no module matches the adapter's targets, or bfloat16 is
            asked of a card that has none.
    """
    device = pick_device(settings.device)
    _check_arithmetic(settings, device)
    weights = weigh(settings)
    if weights is None:
        return None
    if device.type != "cpu":
        _check_main_memory(settings, weights, device)
    estimate = estimate_memory(weights, settings, demand)
    free = memory.free_bytes(device)
    if estimate.needed > free:
        raise InputError(_refusal(weights, settings, demand, free, device))
    return Preflight(estimate, free, str(device), _warnings(estimate, demand, free))


def check_sampling_memory(settings: ModelSection, demand: MemoryDemand) -> None:
    """Compare what sampling alone needs at the least, without training, with the memory that is free now.

    Raises:
        InputError: it cannot fit; says how much is needed and free.
        ModelError: as `check_memory`.
    """
    device = pick_device(settings.device)
    _check_arithmetic(settings, device)
    weights = weigh(settings)
    if weights is None:
        return
    if device.type != "cpu":
        _check_main_memory(settings, weights, device)
    estimate = estimate_memory(weights, settings, demand)
    parts = {name: size for name, size in {"weights": weights.all_bytes, **estimate.sampling}.items() if size}
    needed, free = sum(parts.values()), memory.free_bytes(device)
    if needed > free:
        halved = "" if settings.dtype == "bfloat16" else "set model.dtype = bfloat16, or "
        raise InputError(
            f"{settings.path} needs at least {show_bytes(needed)} ({_list(parts)}), and {show_bytes(free)} "
            f"{'of main memory' if device.type == 'cpu' else f'on {device}'} are free: {halved}choose a smaller model."
        )


def show_bytes(size: float) -> str:
    """1.2 GiB, or 34 MiB where it is less than one."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / MIB:.0f} MiB" if size >= 10 * MIB else f"{size / MIB:.1f} MiB"


def show_count(count: float) -> str:
    """7.6B, 135M, 654k."""
    for unit, value in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= value:
            return f"{count / value:.0f}{unit}" if count >= 10 * value else f"{count / value:.1f}{unit}"
    return f"{count:.0f}"


def proposals(
    weights: Weights, settings: ModelSection, demand: MemoryDemand, free: int
) -> tuple[list[tuple[tuple[Change, ...], int]], int]:
    """The fewest changes that fit into `free` bytes, each with what it needs; and the least that any change needs.

    Changes of equal number are alternatives; fewer of them always come before more.
    """
    weighed = cache(lambda lora, dtype: weigh(settings.model_copy(update={"lora": lora, "dtype": dtype})) or weights)
    found: list[tuple[tuple[Change, ...], int]] = []
    least = 0
    for changes in _combinations(_changes(settings, demand, weights)):
        if found and len(changes) > len(found[0][0]):
            break
        changed, demanded = apply(changes, settings, demand)
        if demand.learning_rate is not None and rounds_away(changed, demand.learning_rate):
            continue  # it would fit and not train
        needed = estimate_memory(weighed(changed.lora, changed.dtype), changed, demanded).needed
        least = min(least or needed, needed)
        if needed <= free:
            found.append((changes, needed))
    return found[:PROPOSALS], least


def apply(
    changes: tuple[Change, ...], settings: ModelSection, demand: MemoryDemand
) -> tuple[ModelSection, MemoryDemand]:
    """The settings with changes made."""
    for change in changes:
        settings, demand = settings.model_copy(update=dict(change.model)), replace(demand, **change.demand)
    return settings, demand


def _changes(settings: ModelSection, demand: MemoryDemand, weights: Weights) -> list[Change]:
    """What could be changed to need less, the first first."""
    found = []
    if not settings.lora.enabled:
        found.append(Change("model.lora.enabled = true", model={"lora": LoraSection(enabled=True)}))
    if settings.dtype != "bfloat16":
        found.append(Change("model.dtype = bfloat16", model={"dtype": "bfloat16"}))
    if demand.optimizer == "adamw":
        found.append(Change("learner.optimizer = adamw_8bit", demand={"optimizer": "adamw_8bit"}))
    if not settings.gradient_checkpointing and weights.can_recompute:
        found.append(Change("model.gradient_checkpointing = true", model={"gradient_checkpointing": True}))
    for length in (demand.max_new_tokens // part for part in (2, 4, 8)):
        if length >= SHORTEST:
            found.append(Change(f"rollout.max_new_tokens = {length}", demand={"max_new_tokens": length}))
    return found


def _combinations(changes: list[Change]) -> Iterator[tuple[Change, ...]]:
    """One change, then two together, and so on; of several lengths only one at a time."""
    for count in range(1, len(changes) + 1):
        for chosen in combinations(changes, count):
            if sum("max_new_tokens" in change.demand for change in chosen) <= 1:
                yield chosen


def _refusal(weights: Weights, settings: ModelSection, demand: MemoryDemand, free: int, device: torch.device) -> str:
    estimate = estimate_memory(weights, settings, demand)
    where = "of main memory" if device.type == "cpu" else f"on {device}"
    said = (
        f"{settings.path} needs at least {show_bytes(estimate.needed)} ({_list(estimate.parts)}), and "
        f"{show_bytes(free)} {where} are free{_held_by_others(device)}"
    )
    fitting, least = proposals(weights, settings, demand, free)
    if fitting:
        named = ", or ".join(
            f"{' and '.join(change.words for change in changes)} (at least {show_bytes(needed)})"
            for changes, needed in fitting
        )
        return f"{said}: set {named}; or choose a smaller model."
    largest = show_count(MARGIN * estimate.parameters * free / (least or estimate.needed))
    return (
        f"{said}; by no change of settings does it need less than {show_bytes(least or estimate.needed)}: choose a "
        f"model of about {largest} parameters at most, or free some memory."
    )


def _held_by_others(device: torch.device) -> str:
    """What other processes hold of a card, as a clause; empty where that is next to nothing."""
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return f" (other processes hold {show_bytes(others)} of this card)" if others > total / 20 else ""


def _check_arithmetic(settings: ModelSection, device: torch.device) -> None:
    if settings.dtype == "bfloat16" and device.type == "cuda" and not has_bfloat16(device):
        raise ModelError(
            f"model.dtype = bfloat16, but {torch.cuda.get_device_name(device)} has no bfloat16 arithmetic (compute "
            "capability 8.0 or newer has it): set model.dtype = float32."
        )


def _warnings(estimate: MemoryEstimate, demand: MemoryDemand, free: int) -> tuple[str, ...]:
    """What is configured larger than would fit, and no reason to refuse because it is an estimate."""
    tokens = demand.micro_batch_tokens
    if tokens is None:
        return ()
    others = sum(size for name, size in estimate.training.items() if name != "activations")
    left = free - sum(estimate.fixed.values()) - others
    if tokens * estimate.bytes_per_token <= left:
        return ()
    fitting = max(memory.LEAST_TOKENS, left // estimate.bytes_per_token // 256 * 256)
    return (
        f"learner.micro_batch_tokens = {tokens} may take {show_bytes(tokens * estimate.bytes_per_token)} of "
        f"activations, more than is left: lower it to about {fitting}.",
    )


def _check_main_memory(settings: ModelSection, weights: Weights, device: torch.device) -> None:
    """Weights on their way to a GPU pass through main memory.

    Raises:
        InputError: they do not fit there.
    """
    free, size = memory.free_bytes(torch.device("cpu")), weights.all_bytes
    if size > free:
        halved = "" if settings.dtype == "bfloat16" or size / 2 > free else "set model.dtype = bfloat16, or "
        raise InputError(
            f"The weights of {settings.path} take {show_bytes(size)} of main memory on their way to {device}, and "
            f"{show_bytes(free)} are free: {halved}choose a smaller model."
        )


def _list(parts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {show_bytes(size)}" for name, size in parts.items())
