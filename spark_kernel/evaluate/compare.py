"""Two runs compared on the same held-out problems, at matched rollouts and at matched optimizer steps.

SPARK rounds cost about twice the rollouts and twice the optimizer steps of policy-only rounds, so rounds are no fair
scale: each run stands with its last evaluation that did not exceed the budget both runs reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from spark_kernel.errors import InputError
from spark_kernel.evaluate.judge_metrics import STRATA
from spark_kernel.keyed_random import keyed_random
from spark_kernel.records import Group

DRAWS = 2000
FEWEST_PROBLEMS = 10
"""Problems below which no interval is taken for evidence: resampling so few repeats itself."""

Cells = Mapping[str, Mapping[str, tuple[float, int]]]
"""A measure's raw material: problem -> stratum -> (sum of outcomes, their number)."""


class Budget(StrEnum):
    """What two runs are matched by."""

    ROUNDS = "rounds"
    """The paper's comparison: the same problems and solve rollouts, whatever recycled tasks cost besides."""
    ROLLOUTS = "rollouts"
    OPTIMIZER_STEPS = "optimizer_steps"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One evaluation of a run: after which round, at what cost since the start, and the cells of each measure."""

    round: int
    rollouts: int
    optimizer_steps: int
    cells: Mapping[str, Cells]

    def spent(self, budget: Budget) -> int:
        """The cost so far; rounds count only where something was trained."""
        if budget is Budget.ROUNDS:
            return self.round if self.rollouts or self.optimizer_steps else 0
        return self.rollouts if budget is Budget.ROLLOUTS else self.optimizer_steps


@dataclass(frozen=True, slots=True)
class RunResult:
    """A run's name and its evaluations by round."""

    name: str
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Second minus first on `problems` shared problems, with a percentile interval; None where undefined.

    `left_out`: problems that only one arm has. `usable_draws`: bootstrap draws for which the measure was defined.
    """

    first: float | None
    second: float | None
    difference: float | None
    low: float | None
    high: float | None
    problems: int
    left_out: int
    usable_draws: int

    @property
    def is_evidence(self) -> bool:
        """Whether the interval leaves out 0 and rests on enough problems."""
        if self.low is None or self.high is None or self.problems < FEWEST_PROBLEMS:
            return False
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row: a measure of two runs at one matched budget, and what may be said of it."""

    measure: str
    first_run: str
    second_run: str
    matched_by: Budget
    budget: int
    first_round: int
    second_round: int
    first_rollouts: int
    second_rollouts: int
    first_optimizer_steps: int
    second_optimizer_steps: int
    result: Difference
    conclusion: str

    @property
    def untrained(self) -> bool:
        """Whether neither evaluation had cost any training, so that there is nothing to match by."""
        spent = (self.first_rollouts, self.second_rollouts, self.first_optimizer_steps, self.second_optimizer_steps)
        return not any(spent)


def problem_cells(groups: Iterable[Group], *, balanced: bool = False) -> dict[str, dict[str, tuple[float, int]]]:
    """The cells of accuracy, or with `balanced` (groups of one judging kind) of balanced accuracy: a stratum per label.

    A rollout without a finding (timeout, crash) is in none; an unreadable verdict is wrong. A problem without any
    finding is left out.
    """
    cells: dict[str, dict[str, tuple[float, int]]] = {}
    for group in groups:
        task = group.task
        outcomes = [float(r.score.correct) for r in group.rollouts if r.score and r.score.correct is not None]
        if not outcomes:
            continue
        strata = cells.setdefault(task.problem_id, dict.fromkeys(STRATA[task.kind] if balanced else ("all",), (0.0, 0)))
        stratum = task.label if balanced else "all"
        total, n = strata[stratum]
        strata[stratum] = (total + sum(outcomes), n + len(outcomes))
    return cells


def line_cells(groups: Mapping[str, Sequence[Group]]) -> dict[str, Cells]:
    """The measures of an evaluation's lines (`HeldOutEvaluation.groups`, or read back from the run folder).

    "LINE/accuracy" for every line, "LINE/balanced_accuracy" for judging lines.
    """
    measures: dict[str, Cells] = {}
    for line, members in groups.items():
        measures[f"{line}/accuracy"] = problem_cells(members)
        if members and all(group.task.kind.judges for group in members):
            measures[f"{line}/balanced_accuracy"] = problem_cells(members, balanced=True)
    return measures


def measure_value(cells: Iterable[Mapping[str, tuple[float, int]]], strata: Sequence[str]) -> float | None:
    """Mean over strata of (sum of outcomes / their number); None if a stratum is empty."""
    rows = list(cells)
    shares = []
    for stratum in strata:
        n = sum(row[stratum][1] for row in rows if stratum in row)
        if not n:
            return None
        shares.append(sum(row[stratum][0] for row in rows if stratum in row) / n)
    return sum(shares) / len(shares) if shares else None


def paired_bootstrap(first: Cells, second: Cells, *, seed: int, measure: str, draws: int = DRAWS) -> Difference:
    """The difference of a measure between two arms, with a 95 % percentile interval over resampled problems.

    Both arms are recomputed on the same drawn problems (cluster bootstrap, Cameron, Gelbach and Miller 2008): a ratio
    of sums such as balanced accuracy has no simple variance, and pairing keeps the problems' difficulty out of it. A
    draw that leaves a stratum empty is not used; fewer than 95 % usable draws give no interval.

    Args:
        seed: with the measure's name it determines the draws.
    """
    shared = sorted(set(first) & set(second))
    left_out = len(set(first) ^ set(second))
    strata = sorted({stratum for arm in (first, second) for p in shared for stratum in arm[p]})
    values = [measure_value((arm[p] for p in shared), strata) for arm in (first, second)]
    if values[0] is None or values[1] is None:
        return Difference(values[0], values[1], None, None, None, len(shared), left_out, 0)
    observed = values[1] - values[0]
    if len(shared) < 2:
        return Difference(values[0], values[1], observed, None, None, len(shared), left_out, 0)
    columns = [
        [(arm[p].get(stratum, (0.0, 0))[part]) for p in shared]
        for arm in (first, second)
        for stratum in strata
        for part in (0, 1)
    ]
    rng = keyed_random(seed, "compare-bootstrap", measure)
    places = range(len(shared))
    found = []
    for _ in range(draws):
        drawn = rng.choices(places, k=len(shared))
        sums = [sum(map(column.__getitem__, drawn)) for column in columns]
        arms = [_mean_of_shares(sums[: 2 * len(strata)]), _mean_of_shares(sums[2 * len(strata) :])]
        if arms[0] is not None and arms[1] is not None:
            found.append(arms[1] - arms[0])
    if len(found) < 0.95 * draws:
        return Difference(values[0], values[1], observed, None, None, len(shared), left_out, len(found))
    found.sort()
    low, high = _percentile(found, 0.025), _percentile(found, 0.975)
    return Difference(values[0], values[1], observed, low, high, len(shared), left_out, len(found))


def compare_runs(
    first: RunResult, second: RunResult, measures: Sequence[str], *, seed: int = 0
) -> tuple[Comparison, ...]:
    """Two rows per measure: matched by rollouts, and matched by optimizer steps.

    One row where neither evaluation had cost any training, as between two models that were only evaluated: the second
    would repeat the first.

    Raises:
        InputError: a run without evaluations, or a measure that an evaluation does not have.
    """
    rows = []
    for budget, common, a, b in _matches(first, second):
        for measure in measures:
            result = paired_bootstrap(_cells(first, a, measure), _cells(second, b, measure), seed=seed, measure=measure)
            rows.append(
                Comparison(
                    measure=measure,
                    first_run=first.name,
                    second_run=second.name,
                    matched_by=budget,
                    budget=common,
                    first_round=a.round,
                    second_round=b.round,
                    first_rollouts=a.rollouts,
                    second_rollouts=b.rollouts,
                    first_optimizer_steps=a.optimizer_steps,
                    second_optimizer_steps=b.optimizer_steps,
                    result=result,
                    conclusion=conclusion(first.name, second.name, result),
                )
            )
    return tuple(rows)


def conclusion(first: str, second: str, result: Difference) -> str:
    """One sentence: which run is better and by how much, or that there is not enough evidence."""
    if result.difference is None:
        return "Not enough evidence: the measure is undefined on the shared problems."
    points = f"{100 * result.difference:+.1f} points"
    if result.low is None or result.high is None:
        return f"Not enough evidence: {points}, but too few problems for an interval ({result.problems})."
    interval = f"95 % interval {100 * result.low:+.1f} to {100 * result.high:+.1f}, {result.problems} problems"
    if not result.is_evidence:
        return f"Not enough evidence that {first} and {second} differ: {points} ({interval})."
    better, worse = (second, first) if result.difference > 0 else (first, second)
    return f"{better} is better than {worse}: {second} minus {first} is {points} ({interval})."


def _last(run: RunResult) -> Checkpoint:
    if not run.checkpoints:
        raise InputError(f"Run {run.name} has no held-out evaluation to compare: set evaluation.every above 0.")
    return max(run.checkpoints, key=lambda checkpoint: checkpoint.round)


def _matches(first: RunResult, second: RunResult) -> list[tuple[Budget, int, Checkpoint, Checkpoint]]:
    """For each budget, what both runs reached of it and their evaluations there; once where all that cost nothing."""
    found = []
    for budget in Budget:
        common = min(_last(run).spent(budget) for run in (first, second))
        found.append((budget, common, _at(first, budget, common), _at(second, budget, common)))
    costs = [at.spent(budget) for *_, a, b in found for at in (a, b) for budget in Budget]
    return found if any(costs) else found[:1]


def _at(run: RunResult, budget: Budget, limit: int) -> Checkpoint:
    within = [checkpoint for checkpoint in run.checkpoints if checkpoint.spent(budget) <= limit]
    if not within:
        raise InputError(f"Run {run.name} has no evaluation within {limit} {budget.replace('_', ' ')}.")
    return max(within, key=lambda checkpoint: checkpoint.round)


def _cells(run: RunResult, checkpoint: Checkpoint, measure: str) -> Cells:
    if measure not in checkpoint.cells:
        raise InputError(
            f'The evaluation of run {run.name} after round {checkpoint.round} has no measure "{measure}"; '
            f"it has {', '.join(sorted(checkpoint.cells)) or 'none'}."
        )
    return checkpoint.cells[measure]


def _mean_of_shares(sums: Sequence[float]) -> float | None:
    """From [total, n, total, n, ...] the mean of total / n; None where an n is 0."""
    shares = [total / n for total, n in zip(sums[::2], sums[1::2], strict=True) if n]
    return sum(shares) / len(shares) if 2 * len(shares) == len(sums) else None


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between order statistics."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])
