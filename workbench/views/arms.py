"""Runs that differ by their seed alone are one arm: its mean over seeds, and two arms' paired difference over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from spark_kernel.config import RunConfig
from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.compare import Cells, RunResult
from spark_kernel.evaluate.over_seeds import OverSeeds, over_seeds
from spark_kernel.runs.reader import RunReader
from workbench.settings.differences import differing
from workbench.views.snapshot import run_config


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs of the same settings but for the seed. `name`: the first run's; `runs`: their names; `seeds`, as long."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ArmPoint:
    """A figure of an arm after a round: the mean over its seeds, the lowest and the highest (shares)."""

    arm: str
    measure: str
    round: int
    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True, slots=True)
class ArmRow:
    """A measure of the first arm and of another, over the seeds that both have. `label`: the measure for a person."""

    label: str
    second: str
    result: OverSeeds


def find_arms(readers: Sequence[RunReader], names: Sequence[str]) -> tuple[Arm, ...]:
    """The arms among runs, in the order of their first runs; a run whose settings cannot be read is one by itself."""
    groups: list[tuple[RunConfig | None, list[tuple[str, int]]]] = []
    for reader, name in zip(readers, names, strict=True):
        try:
            config = run_config(reader.config_yaml)
        except RunFolderError:
            groups.append((None, [(name, 0)]))
            continue
        for other, members in groups:
            new = config.seed not in [seed for _, seed in members]
            if new and other is not None and set(differing(other, config)) <= {"seed"}:
                members.append((name, config.seed))
                break
        else:
            groups.append((config, [(name, config.seed)]))
    return tuple(
        Arm(members[0][0], tuple(name for name, _ in members), tuple(seed for _, seed in members))
        for _, members in groups
    )


def arm_rows(
    arms: Sequence[Arm], results: Mapping[str, RunResult], measures: Sequence[tuple[str, str]]
) -> tuple[ArmRow, ...]:
    """The first arm against each other one, at the newest evaluations, where both have two seeds in common."""
    rows = []
    for other in arms[1:]:
        if len(set(arms[0].seeds) & set(other.seeds)) < 2:
            continue
        for measure, label in measures:
            first, second = (_newest(arm, results, measure) for arm in (arms[0], other))
            found = over_seeds(first, second)
            if found.difference is not None:
                rows.append(ArmRow(label, other.name, found))
    return tuple(rows)


def arm_points(arms: Sequence[Arm], curves: Mapping[str, Mapping[str, Mapping[int, float]]]) -> tuple[ArmPoint, ...]:
    """Means over seeds by arm, measure and round.

    Args:
        curves: by run, measure for a person, and round.
    """
    points = []
    for arm in arms:
        found: dict[tuple[str, int], list[float]] = {}
        for run in arm.runs:
            for measure, values in curves[run].items():
                for round, value in values.items():
                    found.setdefault((measure, round), []).append(value)
        points += [
            ArmPoint(arm.name, measure, round, fmean(values), min(values), max(values), len(values))
            for (measure, round), values in sorted(found.items(), key=lambda item: item[0][1])
        ]
    return tuple(points)


def _newest(arm: Arm, results: Mapping[str, RunResult], measure: str) -> dict[int, Cells]:
    found = {}
    for run, seed in zip(arm.runs, arm.seeds, strict=True):
        checkpoints = results[run].checkpoints
        if checkpoints and measure in checkpoints[-1].cells:
            found[seed] = checkpoints[-1].cells[measure]
    return found
