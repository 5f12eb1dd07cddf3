"""Interleaved timing, and what one row of the table holds."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant's repeats; the warm-up is not among them.

    `peak_bytes`: on a GPU, the most memory allocated during a repeat above what was held before it; None on a CPU.
    """

    name: str
    seconds: tuple[float, ...]
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Row:
    """A line of the table: the first contestant is ours.

    `values`: by contestant, in `unit`. `ratio`: peer over ours, so that above 1 is in our favour; `target` in the same
    measure, with `at_least` or at most. `tokens_per_second` and `flops_utilisation` are ours (`flops` over the rate of
    a large matrix product); `peak_mib` by contestant, on a GPU. `details`: anything else worth keeping. `left_out`: why
    it was not measured.
    """

    name: str
    unit: str = "s"
    values: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    ratio: float | None = None
    target: float | None = None
    at_least: bool = True
    tokens_per_second: int | None = None
    flops_utilisation: float | None = None
    peak_mib: dict[str, int] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    left_out: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
"""Seconds that pass, or seconds of this process on all cores: the second says the same whatever else runs here."""


def interleaved(
    contestants: dict[str, Callable[[], Any]], repeats: int, device: str, clock: str = "wall"
) -> dict[str, Timing]:
    """In turns; garbage is collected between, and not timed. The first turn warms up and does not count."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    peaks: dict[str, int] = {}
    for turn in range(repeats + 1):
        for name, work in contestants.items():
            gc.collect()
            synchronise(device)
            held = _held(device)
            started = now()
            work()
            synchronise(device)
            if turn:
                seconds[name].append(now() - started)
                if device.startswith("cuda"):
                    peaks[name] = max(peaks.get(name, 0), torch.cuda.max_memory_allocated() - held)
    return {name: Timing(name, tuple(values), peaks.get(name)) for name, values in seconds.items()}


def _held(device: str) -> int:
    """Bytes allocated on the GPU now; its peak is counted from here."""
    if not device.startswith("cuda"):
        return 0
    torch.cuda.reset_peak_memory_stats()
    return int(torch.cuda.memory_allocated())


def seconds_of(work: Callable[[], Any], device: str, clock: str) -> float:
    """Seconds of one call, for choosing between configurations; infinity where it does not fit the GPU."""
    synchronise(device)
    now = CLOCKS[clock]
    started = now()
    try:
        work()
        synchronise(device)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return math.inf
    return now() - started


def timed_row(
    name: str, timings: dict[str, Timing], *, target: float | None, tokens: int | None = None, **more: Any
) -> Row:
    """Ours is the first of the timings, the peer the fastest of the others; `tokens`: computed in a repeat of ours."""
    ours, *peers = timings.values()
    best = min(peers, key=lambda timing: timing.median)
    return Row(
        name,
        values={timing.name: timing.median for timing in timings.values()},
        spread={timing.name: (min(timing.seconds), max(timing.seconds)) for timing in timings.values()},
        ratio=best.median / ours.median,
        target=target,
        tokens_per_second=None if tokens is None else round(tokens / ours.median),
        peak_mib={t.name: t.peak_bytes >> 20 for t in timings.values() if t.peak_bytes is not None},
        **more,
    )


def synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matrix_rate(device: str, dtype: torch.dtype, clock: str, size: int = 2048) -> float:
    """Multiply-add operations a second of a square matrix product, times 2: FLOP/s as this machine gives them now."""
    size = 8192 if device.startswith("cuda") else size
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    timing = interleaved({"product": lambda: a @ b}, 5, device, clock)["product"]
    return 2.0 * size**3 / min(timing.seconds)
