"""What arms are compared at equal amounts of, and where each of them stood then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from spark_kernel.evaluate.compare import Cells


class Match(StrEnum):
    """An amount that two runs may have in common."""

    ROUNDS = "rounds"
    """Rounds: the paper's comparison. A SPARK round costs about twice what a policy-only round costs."""
    ROLLOUTS = "rollouts"
    """Outputs sampled in training."""
    TOKENS = "tokens"
    """Output tokens sampled in training."""
    SECONDS = "seconds"
    """Seconds of training, evaluations not counted."""


@dataclass(frozen=True, slots=True)
class Point:
    """A held-out evaluation of a run: after which round, what training had cost by then, and the cells by measure."""

    round: int
    spent: Mapping[Match, float]
    cells: Mapping[str, Cells]


def matched(first: Sequence[Point], second: Sequence[Point], match: Match) -> tuple[Point, Point] | None:
    """The last evaluation of each run within the amount that both reached; None where a run has none.

    Both runs' points are in the order of their rounds.
    """
    if not first or not second:
        return None
    common = min(points[-1].spent[match] for points in (first, second))
    within = [[point for point in points if point.spent[match] <= common] for points in (first, second)]
    return (within[0][-1], within[1][-1]) if within[0] and within[1] else None
