"""What an experiment found: every arm against the reference at equal amounts, over seeds and problems; its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from spark_kernel.evaluate.compare import Cells, Difference, measure_value, paired_bootstrap
from spark_kernel.evaluate.over_seeds import OverSeeds, over_seeds
from spark_kernel.runs.reader import RunReader
from workbench.experiment.matching import Match, Point, matched
from workbench.experiment.measures import MEASURES, measured
from workbench.experiment.plan import Experiment

NOT_SHOWN = "not shown by this evidence"


@dataclass(frozen=True, slots=True)
class SeedRow:
    """One seed's difference: both arms' evaluations, what each had spent, and an interval over problems alone."""

    seed: int
    first_round: int
    second_round: int
    first_spent: Mapping[Match, float]
    second_spent: Mapping[Match, float]
    difference: Difference


@dataclass(frozen=True, slots=True)
class Row:
    """A measure of an arm against the reference, at equal amounts of something.

    `found`: over seeds and problems. `seeds`: each seed by itself.
    """

    arm: str
    measure: str
    match: Match
    found: OverSeeds
    seeds: tuple[SeedRow, ...]

    @property
    def shown(self) -> bool:
        """Whether the interval over seeds and problems leaves out 0."""
        return self.found.is_evidence

    @property
    def sentence(self) -> str:
        """What may be said, in points."""
        found = self.found
        if found.difference is None:
            return f"{NOT_SHOWN}: undefined on the problems that both have"
        points = f"{100 * found.difference:+.1f} points"
        if found.low is None or found.high is None:
            return f"{NOT_SHOWN}: {points}, no interval"
        interval = f"{points} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
        alone = "; one seed: the chance in training is not in this interval" if len(found.seeds) == 1 else ""
        return f"{interval}{alone}" if self.shown else f"{NOT_SHOWN}: {interval}{alone}"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """An arm's mean over seeds after a round, what that had cost, and a band.

    The band goes from the lowest to the highest seed; with one seed it is the 95 % interval over problems.
    """

    round: int
    spent: Mapping[Match, float]
    value: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, slots=True)
class Findings:
    """`rows`: by arm, measure and match. `curves`: by measure, then arm. `missing`: cells without a finished run.

    `figures`: every evaluation of every finished cell, as (arm, seed, measure, point, value).
    """

    experiment: Experiment
    rows: tuple[Row, ...]
    curves: Mapping[str, Mapping[str, tuple[CurvePoint, ...]]]
    figures: tuple[tuple[str, int, str, Point, float], ...]
    missing: tuple[str, ...]


def find(experiment: Experiment, runs: Mapping[str, Path], *, draws_seed: int = 0) -> Findings:
    """Read the finished cells and compare.

    Args:
        runs: the run folder of every finished cell, by the cell's name.
        draws_seed: of the bootstrap of single seeds.
    """
    points = {
        (cell.arm, cell.seed): points_of(RunReader(runs[cell.name])) for cell in experiment.cells if cell.name in runs
    }
    reference = experiment.file.reference
    names = [name for name in MEASURES if any(name in p.cells for found in points.values() for p in found)]
    rows = [
        row
        for arm in experiment.file.arms
        if arm != reference
        for name in names
        for match in experiment.file.match
        if (row := _row(experiment, points, arm, name, match, draws_seed)) is not None
    ]
    figures = tuple(
        (arm, seed, name, point, value)
        for (arm, seed), found in points.items()
        for point in found
        for name in point.cells
        if (value := _value(point.cells[name])) is not None
    )
    curves = {
        name: {arm: curve for arm in experiment.file.arms if (curve := _curve(points, arm, name))} for name in names
    }
    missing = tuple(cell.name for cell in experiment.cells if cell.name not in runs)
    return Findings(experiment, tuple(rows), curves, figures, missing)


def points_of(reader: RunReader) -> tuple[Point, ...]:
    """A run's held-out evaluations with what training had cost by then."""
    reports = reader.reports()
    costs = [
        {
            Match.ROUNDS: 1.0,
            Match.ROLLOUTS: float(sum(line.n + line.missing for line in report.kinds)),
            Match.TOKENS: sum((line.length_mean or 0.0) * (line.n + line.missing) for line in report.kinds),
            Match.SECONDS: sum(report.seconds_by_phase.values()),
        }
        for report in reports
    ]
    nothing = dict.fromkeys(Match, 0.0)
    spent = list(accumulate(costs, lambda a, b: {match: a[match] + b[match] for match in Match}, initial=nothing))
    return tuple(Point(round, spent[round], measured(reader, round)) for round in reader.evaluations)


def _row(
    experiment: Experiment,
    points: Mapping[tuple[str, int], Sequence[Point]],
    arm: str,
    name: str,
    match: Match,
    draws_seed: int,
) -> Row | None:
    """None where no seed has the measure in both arms."""
    reference = experiment.file.reference
    rows: list[SeedRow] = []
    cells: tuple[dict[int, Cells], dict[int, Cells]] = ({}, {})
    for seed in experiment.file.seeds:
        pair = matched(points.get((reference, seed), ()), points.get((arm, seed), ()), match)
        if pair is None or any(name not in point.cells for point in pair):
            continue
        for place, point in enumerate(pair):
            cells[place][seed] = point.cells[name]
        found = paired_bootstrap(*(point.cells[name] for point in pair), seed=draws_seed, measure=name)
        rows.append(SeedRow(seed, pair[0].round, pair[1].round, pair[0].spent, pair[1].spent, found))
    return Row(arm, name, match, over_seeds(*cells), tuple(rows)) if rows else None


def _curve(points: Mapping[tuple[str, int], Sequence[Point]], arm: str, name: str) -> tuple[CurvePoint, ...]:
    """The rounds that every seed of the arm has evaluated."""
    own = [found for (of, _), found in points.items() if of == arm]
    curve = []
    for round in sorted(set.intersection(*({p.round for p in found} for found in own))) if own else ():
        here = [point for found in own for point in found if point.round == round and name in point.cells]
        values = [value for point in here if (value := _value(point.cells[name])) is not None]
        if not values:
            continue
        spent = {match: sum(point.spent[match] for point in here) / len(here) for match in Match}
        low, high = (min(values), max(values)) if len(values) > 1 else _over_problems(here[0].cells[name])
        curve.append(CurvePoint(round, spent, sum(values) / len(values), low, high, len(values)))
    return tuple(curve)


def _value(cells: Cells) -> float | None:
    return measure_value(cells.values(), sorted({stratum for row in cells.values() for stratum in row}))


def _over_problems(cells: Cells) -> tuple[float, float]:
    """The interval of one seed's figure; for balanced accuracy that of the difference from nothing."""
    nothing = {problem: {s: (0.0, n) for s, (_, n) in row.items()} for problem, row in cells.items()}
    found = over_seeds({0: nothing}, {0: cells})
    value = found.second or 0.0
    return (value if found.low is None else found.low, value if found.high is None else found.high)
