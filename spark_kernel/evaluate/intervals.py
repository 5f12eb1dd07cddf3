"""Intervals and tests for figures whose observations come in clusters: several rollouts of one problem.

Rollouts of the same problem are alike, so the problem is the unit that counts (docs/measures.md). Means carry a
cluster-robust standard error with a t quantile: deterministic, cheap enough for every line of every round, and equal
to the classical interval where every cluster has one member. Its weakness, a width of 0 where all outcomes agree, is
cured for proportions by Wilson's form on the effective sample size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval. `n` observations in `clusters` problems; None where undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: int

    def to_dict(self) -> dict[str, float | int | None]:
        """The fields as plain numbers."""
        return {"value": self.value, "low": self.low, "high": self.high, "n": self.n, "clusters": self.clusters}


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Second arm minus first arm on the problems both have; `only_first`, `only_second`: problems left out."""

    difference: float | None
    low: float | None
    high: float | None
    clusters: int
    only_first: int
    only_second: int


@dataclass(frozen=True, slots=True)
class _Cluster:
    total: float
    n: int


def clustered_mean(observations: Iterable[tuple[str, float]]) -> Estimate:
    """Mean of (problem, value) with m +- t(G-1) * sqrt(V), V = G/(G-1) * sum_g (S_g - n_g m)^2 / N^2.

    S_g, n_g: sum and number of the values of problem g; N = sum n_g; G problems. This is the linearised variance of a
    ratio of sums, the intercept-only case of the cluster-robust variance (Liang and Zeger 1986; Cameron and Miller
    2015, section II). One problem alone has no interval.
    """
    clusters = _clusters(observations)
    n = sum(cluster.n for cluster in clusters.values())
    if not n:
        return Estimate(None, None, None, 0, 0)
    mean = sum(cluster.total for cluster in clusters.values()) / n
    if len(clusters) < 2:
        return Estimate(mean, None, None, n, len(clusters))
    half = t_quantile(len(clusters) - 1) * math.sqrt(_variance(_influences(clusters, mean, n).values()))
    return Estimate(mean, mean - half, mean + half, n, len(clusters))


def clustered_proportion(observations: Iterable[tuple[str, float]]) -> Estimate:
    """Mean of (problem, value) with values in [0, 1], and an interval that stays in [0, 1] and never has width 0.

    Wilson's interval with t(G-1) for z and the effective sample size n* = min(N, m (1-m) / V), V as in
    `clustered_mean` (after Korn and Graubard 1998, who do this with the exact binomial interval). Where all values are
    0 or all are 1 the data cannot tell how alike a problem's rollouts are: n* = G, as if each problem counted once.

    Raises:
        ValueError: a value outside [0, 1].
    """
    return _proportion(_clusters(observations))[0]


def balanced_proportion(observations: Iterable[tuple[str, str, float]], strata: Sequence[str]) -> Estimate:
    """Unweighted mean over strata of the proportion in each; observations are (problem, stratum, value in [0, 1]).

    With the strata "Yes" and "No" this is balanced accuracy. Undefined if a stratum is empty. The strata's intervals
    (`clustered_proportion`) are combined by the square-and-add rule with their estimated correlation, since one
    problem may lie in several strata (MOVER; Zou and Donner 2008): with d_k = p_k - low_k,

        low = mean p_k - sqrt(sum_jk r_jk d_j d_k) / K,      and the same upwards.

    Raises:
        ValueError: a value outside [0, 1] or an unknown stratum.
    """
    by_stratum: dict[str, list[tuple[str, float]]] = {stratum: [] for stratum in strata}
    problems: set[str] = set()
    for problem, stratum, value in observations:
        if stratum not in by_stratum:
            raise ValueError(f"unknown stratum {stratum!r}; there are {', '.join(strata)}")
        by_stratum[stratum].append((problem, value))
        problems.add(problem)
    parts = [_proportion(_clusters(rows)) for rows in by_stratum.values()]
    estimates = [estimate for estimate, _ in parts]
    n = sum(estimate.n for estimate in estimates)
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    if len(values) < len(strata):
        return Estimate(None, None, None, n, len(problems))
    mean = sum(values) / len(values)
    lows = [v - e.low for v, e in zip(values, estimates, strict=True) if e.low is not None]
    highs = [e.high - v for v, e in zip(values, estimates, strict=True) if e.high is not None]
    if len(lows) < len(strata):
        return Estimate(mean, None, None, n, len(problems))
    influences = [influence for _, influence in parts]
    correlation = [[1.0 if a is b else _correlation(a, b) for b in influences] for a in influences]
    low = mean - _square_and_add(lows, correlation) / len(values)
    high = mean + _square_and_add(highs, correlation) / len(values)
    return Estimate(mean, max(0.0, low), min(1.0, high), n, len(problems))


def paired_difference(first: Mapping[str, Sequence[float]], second: Mapping[str, Sequence[float]]) -> PairedDifference:
    """Mean of the second arm minus mean of the first on the problems of both, with a clustered t interval.

    With u_g = (S2_g - n2_g m2)/N2 - (S1_g - n1_g m1)/N1:  V = G/(G-1) * sum_g u_g^2, quantile t(G-1). Where each arm
    has one value per problem this is the classical paired t interval. Fewer than two problems have no interval.
    """
    shared = sorted(problem for problem in first if first[problem] and second.get(problem))
    only_first = sum(1 for problem in first if first[problem]) - len(shared)
    only_second = sum(1 for problem in second if second[problem]) - len(shared)
    if not shared:
        return PairedDifference(None, None, None, 0, only_first, only_second)
    means, influences = [], []
    for arm in (first, second):
        clusters = {problem: _Cluster(math.fsum(arm[problem]), len(arm[problem])) for problem in shared}
        n = sum(cluster.n for cluster in clusters.values())
        means.append(sum(cluster.total for cluster in clusters.values()) / n)
        influences.append(_influences(clusters, means[-1], n))
    difference = means[1] - means[0]
    if len(shared) < 2:
        return PairedDifference(difference, None, None, len(shared), only_first, only_second)
    variance = _variance([influences[1][problem] - influences[0][problem] for problem in shared])
    half = t_quantile(len(shared) - 1) * math.sqrt(variance)
    return PairedDifference(difference, difference - half, difference + half, len(shared), only_first, only_second)


def wilson(successes: float, n: float, quantile: float = Z) -> tuple[float, float]:
    """Wilson's score interval of a proportion from n independent trials (Wilson 1927).

    (p + z^2/2n +- z sqrt(p (1-p)/n + z^2/4n^2)) / (1 + z^2/n), p = successes / n. No trials: (0, 1).

    Raises:
        ValueError: successes outside [0, n].
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    square = quantile * quantile
    centre = p + square / (2 * n)
    half = quantile * math.sqrt(p * (1 - p) / n + square / (4 * n * n))
    scale = 1 + square / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return max(0.0, low), min(1.0, high)


def mcnemar_exact(gained: int, lost: int) -> float:
    """Exact two-sided p of McNemar's test: min(1, 2 P(X <= min(gained, lost))), X ~ Binomial(gained + lost, 1/2).

    `gained`: wrong before, right after; `lost`: right before, wrong after. Pairs must be independent of each other:
    one pair per problem. No discordant pair: p = 1.

    Raises:
        ValueError: a negative count.
    """
    if gained < 0 or lost < 0:
        raise ValueError(f"counts of pairs cannot be negative: {gained}, {lost}")
    n = gained + lost
    term = tail = 1
    for k in range(min(gained, lost)):
        term = term * (n - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2**n)


@cache
def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` degrees of freedom, an integer >= 1, to about 1e-11.

    Below 200 by bisection on the closed form of the distribution function, above by the Cornish-Fisher expansion
    (Abramowitz and Stegun 26.7.3, 26.7.4 and 26.7.5).

    Raises:
        ValueError: freedom < 1.
    """
    if freedom < 1:
        raise ValueError(f"{freedom} degrees of freedom")
    if freedom >= 200:
        x, v = Z, float(freedom)
        g1 = (x**3 + x) / 4
        g2 = (5 * x**5 + 16 * x**3 + 3 * x) / 96
        g3 = (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384
        g4 = (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160
        return x + g1 / v + g2 / v**2 + g3 / v**3 + g4 / v**4
    low, high = 1.0, 16.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, freedom) < LEVEL else (low, middle)
    return (low + high) / 2


def _t_inside(t: float, freedom: int) -> float:
    """P(|T| <= t)."""
    theta = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(theta), math.cos(theta)
    odd = freedom % 2
    term = cosine if odd else 1.0
    series = term if freedom > 1 else 0.0
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        series += term
    return 2 / math.pi * (theta + sine * series) if odd else sine * series


def _clusters(observations: Iterable[tuple[str, float]]) -> dict[str, _Cluster]:
    values: dict[str, list[float]] = {}
    for problem, value in observations:
        values.setdefault(problem, []).append(value)
    return {problem: _Cluster(math.fsum(rows), len(rows)) for problem, rows in values.items()}


def _influences(clusters: Mapping[str, _Cluster], mean: float, n: int) -> dict[str, float]:
    """How far each problem moves the mean: (S_g - n_g m) / N."""
    return {problem: (cluster.total - cluster.n * mean) / n for problem, cluster in clusters.items()}


def _variance(influences: Iterable[float]) -> float:
    values = list(influences)
    return len(values) / (len(values) - 1) * math.fsum(u * u for u in values)


def _proportion(clusters: Mapping[str, _Cluster]) -> tuple[Estimate, dict[str, float]]:
    """The estimate of `clustered_proportion`, and the influences it rests on."""
    for problem, cluster in clusters.items():
        if not 0 <= cluster.total <= cluster.n:
            raise ValueError(f"problem {problem}: values outside [0, 1]")
    n = sum(cluster.n for cluster in clusters.values())
    if not n:
        return Estimate(None, None, None, 0, 0), {}
    mean = sum(cluster.total for cluster in clusters.values()) / n
    influences = _influences(clusters, mean, n)
    if len(clusters) < 2:
        return Estimate(mean, None, None, n, len(clusters)), influences
    spread = mean * (1 - mean)
    variance = _variance(influences.values())
    unanimous = spread <= 0
    effective = float(len(clusters)) if unanimous else spread / max(variance, spread / n)
    low, high = wilson(mean * effective, effective, t_quantile(len(clusters) - 1))
    return Estimate(mean, low, high, n, len(clusters)), influences


def _correlation(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    """Correlation of two estimates, from the influences of their problems; 0 where one does not vary."""
    norm = math.sqrt(math.fsum(u * u for u in first.values()) * math.fsum(u * u for u in second.values()))
    return math.fsum(u * second[p] for p, u in first.items() if p in second) / norm if norm else 0.0


def _square_and_add(distances: Sequence[float], correlation: Sequence[Sequence[float]]) -> float:
    total = math.fsum(
        r * a * b for a, row in zip(distances, correlation, strict=True) for b, r in zip(distances, row, strict=True)
    )
    return math.sqrt(max(0.0, total))
