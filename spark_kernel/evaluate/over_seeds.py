"""The difference of a measure between two arms over several seeds, with an interval for problems and seeds together.

Problems are not the only chance: training with another seed ends elsewhere. Within a seed both arms answer the same
problems, so differences are paired; the interval of their mean is two-way cluster-robust, by seed and by problem.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from spark_kernel.evaluate.compare import FEWEST_PROBLEMS, Cells, measure_value
from spark_kernel.evaluate.intervals import t_quantile


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """Second minus first arm: the mean over seeds of each seed's difference on the problems both arms have.

    `first`, `second`: the arms' own means over the same seeds. `low`, `high`: 95 %, within -1 and 1. `seeds`:
    those with a difference; `by_seed`: each one's. `problems`: different ones in all. None where undefined.
    """

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    by_seed: Mapping[int, float]
    problems: int

    @property
    def is_evidence(self) -> bool:
        """Whether the interval leaves out 0 and rests on enough problems."""
        if self.low is None or self.high is None or self.problems < FEWEST_PROBLEMS:
            return False
        return self.low > 0 or self.high < 0


def over_seeds(first: Mapping[int, Cells], second: Mapping[int, Cells]) -> OverSeeds:
    """The mean paired difference over the seeds of both arms.

    With u(s, p) the influence of problem p on the difference of seed s, over K seeds, and d(s) that difference:

        V = V_seed + V_problem - V_both             (Cameron, Gelbach and Miller 2011, two-way clustering)
        V_seed    = sum_s (d(s) - mean d)^2 / (K (K - 1))
        V_problem = G/(G-1) sum_p (sum_s u(s, p) / K)^2
        V_both    = sum_s G(s)/(G(s)-1) sum_p u(s, p)^2 / K^2

    and never less than V_seed or V_problem; the quantile is t(K - 1). A single seed leaves V_problem with t(G - 1):
    such an interval says nothing of the chance in training. Where seeds have problems of their own, V is V_seed.

    Args:
        first, second: the cells of one measure by seed (`compare.problem_cells`).
    """
    found: dict[int, tuple[float, float, dict[str, float]]] = {}
    for seed in sorted(set(first) & set(second)):
        shared = sorted(set(first[seed]) & set(second[seed]))
        strata = sorted({name for arm in (first[seed], second[seed]) for p in shared for name in arm[p]})
        values = [measure_value((arm[p] for p in shared), strata) for arm in (first[seed], second[seed])]
        if values[0] is None or values[1] is None or len(shared) < 2:
            continue
        moved = [_influences(arm, shared, strata) for arm in (first[seed], second[seed])]
        found[seed] = (values[0], values[1], {p: moved[1][p] - moved[0][p] for p in shared})
    if not found:
        return OverSeeds(None, None, None, None, None, (), {}, 0)
    count = len(found)
    by_seed = {seed: after - before for seed, (before, after, _) in found.items()}
    mean = math.fsum(by_seed.values()) / count
    problems = sorted({p for _, _, moved in found.values() for p in moved})
    if count == 1:
        half = t_quantile(len(problems) - 1) * math.sqrt(_by_problem(found, problems))
    else:
        half = t_quantile(count - 1) * math.sqrt(_two_way(found, by_seed, problems, mean))
    return OverSeeds(
        first=math.fsum(before for before, _, _ in found.values()) / count,
        second=math.fsum(after for _, after, _ in found.values()) / count,
        difference=mean,
        low=max(-1.0, mean - half),
        high=min(1.0, mean + half),
        seeds=tuple(found),
        by_seed=by_seed,
        problems=len(problems),
    )


Found = Mapping[int, tuple[float, float, Mapping[str, float]]]


def _two_way(found: Found, by_seed: Mapping[int, float], problems: Sequence[str], mean: float) -> float:
    count = len(found)
    seeds = math.fsum((value - mean) ** 2 for value in by_seed.values()) / (count * (count - 1))
    shared = _by_problem(found, problems)
    both = math.fsum(_spread(moved.values()) for _, _, moved in found.values()) / count**2
    return max(seeds + shared - both, seeds, shared)


def _by_problem(found: Found, problems: Sequence[str]) -> float:
    """V_problem; of problems that each belong to one seed this is V_both, up to G/(G-1)."""
    count = len(found)
    moved = [math.fsum(each.get(p, 0.0) for _, _, each in found.values()) / count for p in problems]
    own = all(sum(p in each for _, _, each in found.values()) == 1 for p in problems)
    if own and count > 1:
        return math.fsum(_spread(each.values()) for _, _, each in found.values()) / count**2
    return _spread(moved)


def _spread(values: Iterable[float]) -> float:
    numbers = list(values)
    return len(numbers) / (len(numbers) - 1) * math.fsum(u * u for u in numbers)


def _influences(cells: Cells, problems: Sequence[str], strata: Sequence[str]) -> dict[str, float]:
    """How far each problem moves the measure, a mean over strata of ratios: mean of (total - n ratio) / N."""
    moved = dict.fromkeys(problems, 0.0)
    for stratum in strata:
        rows = {p: cells[p].get(stratum, (0.0, 0)) for p in problems}
        n = sum(count for _, count in rows.values())
        ratio = math.fsum(total for total, _ in rows.values()) / n
        for p, (total, count) in rows.items():
            moved[p] += (total - count * ratio) / n / len(strata)
    return moved
