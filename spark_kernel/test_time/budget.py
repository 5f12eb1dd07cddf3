"""How many samples a token budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest


@dataclass(frozen=True, slots=True)
class Spending:
    """What a method used: samples of each question [P], output tokens of all together, and the budget it had.

    `limited`: all samples there are were used and tokens were left, so the method had less than the loop.
    """

    samples: tuple[int, ...]
    tokens: int
    budget: int
    limited: bool


def spend(costs: Sequence[Sequence[int]], budget: int) -> Spending:
    """Spend a budget of output tokens evenly: each question's first sample, then each one's second, and so on.

    It ends before the sample that would exceed the budget, so the questions' numbers of samples differ by one at most
    and the total by less than a sample. Every question gets its first sample even where that exceeds the budget.

    Args:
        costs: tokens of each sample, judgement included where the method needs one, [P][samples], in drawing order.
    """
    samples = [min(1, len(row)) for row in costs]
    tokens = sum(row[0] for row in costs if row)
    for turn, wave in enumerate(zip_longest(*(row[1:] for row in costs)), start=1):
        for place, cost in enumerate(wave):
            if cost is None:
                continue
            if tokens + cost > budget:
                return Spending(tuple(samples), tokens, budget, limited=False)
            samples[place] = turn + 1
            tokens += cost
    return Spending(tuple(samples), tokens, budget, limited=tokens < budget)
