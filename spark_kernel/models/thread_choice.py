"""How many CPU threads a run computes with: measured when it starts, because it depends on what else the machine does.

Two idle cores give a small model a quarter more speed; beside other work two threads wait for each other, and one alone
is several times faster. The number is stored with the run, because rounding depends on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from spark_kernel.models.policy import Policy

LEAST_GAIN = 1.05
"""More threads must be this much faster than fewer."""
SECONDS = 2.0
"""Longest measurement, unless fewer than `LEAST_TURNS` were had by then."""
LEAST_TURNS, MOST_TURNS = 3, 15
ARITHMETIC = 3e9
"""Multiplications and additions of a turn, about: enough that threads can help, little for a model of some size."""
MOST_TOKENS, LEAST_TOKENS, LENGTH = 512, 16, 16
MOST_PARAMETERS = 10**9
"""Above it a turn would take long on a CPU, and more threads are faster for certain."""


@dataclass(frozen=True, slots=True)
class ThreadChoice:
    """The number of threads that was chosen, and the median seconds of a turn with each that was tried."""

    threads: int
    seconds: Mapping[int, float]

    @property
    def line(self) -> str:
        """One line for a person."""
        if len(self.seconds) < 2:
            return f"Threads: {self.threads}."
        tried = ", ".join(f"{count}: {1000 * seconds:.1f} ms" for count, seconds in self.seconds.items())
        return f"Threads: {self.threads}, the fastest just now ({tried})."


def choose_threads(policy: Policy, most: int | None = None) -> ThreadChoice:
    """Try a training pass with 1, 2, 4, ... threads in turns, and set torch to the number that is fastest now.

    Turns of all numbers take place one after the other, so that a neighbour's work falls on all of them alike. Weights,
    gradients and random numbers are left as they were.

    Args:
        policy: the model as it will be trained.
        most: the largest number to try; None: torch's own, which is OMP_NUM_THREADS or the cores.
    """
    most = torch.get_num_threads() if most is None else most
    counts = thread_counts(most) if policy.device.type == "cpu" and _parameters(policy) <= MOST_PARAMETERS else [most]
    seconds = {} if len(counts) < 2 else measure(_turn(policy), counts)
    threads = fastest(seconds) if seconds else counts[-1]
    torch.set_num_threads(threads)
    return ThreadChoice(threads, seconds)


def thread_counts(most: int) -> list[int]:
    """1, 2, 4, ... and the largest."""
    return sorted({*(2**n for n in range(most.bit_length()) if 2**n <= most), most})


def fastest(seconds: Mapping[int, float]) -> int:
    """The number of threads with the least seconds; a larger one only where it gains enough."""
    best = min(seconds)
    for count in sorted(seconds)[1:]:
        if seconds[count] * LEAST_GAIN <= seconds[best]:
            best = count
    return best


def measure(
    turn: Callable[[], None], counts: Sequence[int], clock: Callable[[], float] = time.perf_counter
) -> dict[int, float]:
    """The median seconds of a turn with each number of threads, taken in rotation. Torch keeps the last number."""
    found: dict[int, list[float]] = {count: [] for count in counts}
    for count in counts:  # whatever is done once only (threads that start, buffers) is not counted
        torch.set_num_threads(count)
        turn()
    begun = clock()
    for done in range(MOST_TURNS):
        if done >= LEAST_TURNS and clock() - begun > SECONDS:
            break
        for count in counts:
            torch.set_num_threads(count)
            started = clock()
            turn()
            found[count].append(clock() - started)
    return {count: median(times) for count, times in found.items()}


def _turn(policy: Policy) -> Callable[[], None]:
    """A pass forward and backward over a small batch."""
    tokens = max(LEAST_TOKENS, min(MOST_TOKENS, int(ARITHMETIC / (6 * _parameters(policy)))))
    rows = max(1, tokens // LENGTH)
    ids = torch.arange(rows * LENGTH).remainder(100).reshape(rows, LENGTH)
    trained = [parameter for _, parameter in policy.trainable]

    def turn() -> None:
        logits = policy.network(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        torch.autograd.grad(logits.float().square().mean(), trained, allow_unused=True)

    return turn


def _parameters(policy: Policy) -> int:
    return sum(parameter.numel() for parameter in policy.network.parameters())
