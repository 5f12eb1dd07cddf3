"""Interleaved timing, and what one row of the table holds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant's repeats; the warm-up is not among them."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """A line of the table: the first contestant is ours.

    `values`: by contestant, in `unit`. `ratio`: peer over ours, so that above 1 is in our favour; `target` in the same
    measure, with `at_least` or at most. `details`: anything else worth keeping. `left_out`: why it was not measured.
    """

    name: str
    unit: str = "s"
    values: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    ratio: float | None = None
    target: float | None = None
    at_least: bool = True
    details: dict[str, Any] = field(default_factory=dict)
    left_out: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def interleaved(contestants: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, Timing]:
    """In turns; garbage is collected between, and not timed. The first turn warms up and does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            gc.collect()
            synchronise(device)
            started = time.perf_counter()
            work()
            synchronise(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: Timing(name, tuple(values)) for name, values in seconds.items()}


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds of one call, for choosing between configurations."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed_row(name: str, timings: dict[str, Timing], *, target: float | None, **details: Any) -> Row:
    """Ours is the first of the timings, the peer the fastest of the others."""
    ours, *peers = timings.values()
    best = min(peers, key=lambda timing: timing.median)
    return Row(
        name,
        values={timing.name: timing.median for timing in timings.values()},
        spread={timing.name: (min(timing.seconds), max(timing.seconds)) for timing in timings.values()},
        ratio=best.median / ours.median,
        target=target,
        details=details,
    )


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matrix_rate(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """Multiply-add operations a second of a square matrix product, times 2: FLOP/s as this machine gives them now."""
    size = 8192 if device.startswith("cuda") else size
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    timing = interleaved({"product": lambda: a @ b}, 5, device)["product"]
    return 2.0 * size**3 / min(timing.seconds)
