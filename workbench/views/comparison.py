"""Runs beside each other: matched cost, paired intervals, and only the settings that differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.compare import Checkpoint, Comparison, RunResult, compare_runs, line_cells
from spark_kernel.records import Kind
from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import RunReader
from workbench.settings.differences import differing
from workbench.views.arms import Arm, ArmPoint, ArmRow, arm_points, arm_rows, find_arms
from workbench.views.problem_pairs import ProblemPairs, problem_pairs
from workbench.views.series import held_out_figures
from workbench.views.snapshot import run_config

MEASURES = (
    ("loop/solve/accuracy", "accuracy, greedy"),
    ("solve/accuracy", "accuracy, sampled"),
    ("own/pointwise/answer/balanced_accuracy", "judges its own answers, balanced accuracy"),
    ("own/pairwise/answer/accuracy", "chooses between two of its answers, accuracy"),
    ("reflection/accuracy", "reflection ends right"),
)
"""What is compared where both runs have it, with a name for a person."""
POINTS = (
    ("greedy", "accuracy", "accuracy, greedy"),
    ("solve", "accuracy", "accuracy, sampled"),
    ("own/pointwise/answer", "balanced_accuracy", "judges its own answers, balanced accuracy"),
    ("own/pairwise/answer", "accuracy", "chooses between two of its answers, accuracy"),
    ("reflection", "from_wrong", "reflection on a wrong answer ends right"),
    ("loop", "after", "test-time loop, final answer right"),
)
"""Single runs' figures: line, figure, name."""
CURVES = (
    ("greedy", "accuracy", "solved, greedy"),
    ("own/pointwise/answer", "balanced_accuracy", "judges its own answers"),
    ("loop", "after", "after the loop"),
)
"""What is drawn over rounds: line, figure, name."""
TRAINING = {Kind.SOLVE: "solved", Kind.POINTWISE: "judges answers", Kind.PAIRWISE: "chooses between answers"}
IN_TRAINING = "in training"


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting in which runs differ, with each run's value as text, in the order of the runs."""

    setting: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunPoint:
    """A figure of a run's newest evaluation with its 95 % interval (shares) and number of observations."""

    run: str
    measure: str
    round: int
    value: float | None
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """A measure of two runs at one matched budget. `label`: the measure for a person; `enough`: whether there is enough
    evidence to say which is better; `sentence`: what may be said, "Not enough evidence ..." included.
    """

    label: str
    enough: bool
    sentence: str
    comparison: Comparison

    @property
    def matched_by(self) -> str:
        """What the two are matched by, for a person."""
        return "no training" if self.comparison.untrained else self.comparison.matched_by.replace("_", " ")


@dataclass(frozen=True, slots=True)
class RunsComparison:
    """Runs side by side.

    `names`: unique. `points`: each run's own figures, so that seeds show as points. `rows`: each later run against the
    first, matched by rounds, rollouts and optimizer steps, or once where neither had trained. `settings`: only those
    that differ. `notes`: sentences, such as why two runs cannot be compared. `problems`: by later run, the
    first against it problem by problem. `arms`: runs that differ by their seed alone, together; `arm_rows`: the first
    arm against the others over seeds; `curves`: the arms over rounds, held-out, or in training where a run has no
    evaluation.
    """

    names: tuple[str, ...]
    points: tuple[RunPoint, ...]
    rows: tuple[ComparisonRow, ...]
    settings: tuple[SettingRow, ...]
    notes: tuple[str, ...]
    problems: Mapping[str, ProblemPairs] = field(default_factory=dict)
    arms: tuple[Arm, ...] = ()
    arm_rows: tuple[ArmRow, ...] = ()
    curves: tuple[ArmPoint, ...] = ()


def compare(readers: Sequence[RunReader], *, seed: int = 0) -> RunsComparison:
    """Two or more runs on the held-out problems they share.

    Args:
        seed: of the bootstrap draws.

    Raises:
        InputError: fewer than two runs.
    """
    if len(readers) < 2:
        raise InputError("A comparison needs at least two runs.")
    names = unique_names(readers)
    results = [run_result(reader, name) for reader, name in zip(readers, names, strict=True)]
    notes = cost_notes(readers, names)
    rows: list[ComparisonRow] = []
    labels = dict(MEASURES)
    for second in results[1:]:
        shared = shared_measures(results[0], second)
        measures = [measure for measure, _ in MEASURES if measure in shared]
        if not measures:
            notes.append(f"Not enough evidence: {results[0].name} and {second.name} share no held-out measure.")
            continue
        try:
            found = compare_runs(results[0], second, measures, seed=seed)
        except InputError as error:
            notes.append(f"Not enough evidence: {error}")
            continue
        rows += [ComparisonRow(labels[row.measure], row.result.is_evidence, row.conclusion, row) for row in found]
    named = dict(zip(names, readers, strict=True))
    if without := [name for name, reader in named.items() if not reader.evaluations]:
        notes.append(f"No held-out evaluation: {', '.join(without)}. Training figures stand in their place.")
    points = [point for name, reader in named.items() for point in _points(reader, name)]
    settings = _settings(readers, names, notes)
    arms = find_arms(readers, names)
    pairs = {name: problem_pairs(readers[0], reader) for name, reader in list(named.items())[1:]}
    return RunsComparison(
        tuple(names), tuple(points), tuple(rows), settings, tuple(notes),
        problems={name: found for name, found in pairs.items() if found is not None and found.pairs},
        arms=arms,
        arm_rows=arm_rows(arms, {result.name: result for result in results}, MEASURES),
        curves=arm_points(arms, {name: _curves(reader) for name, reader in named.items()}),
    )  # fmt: skip


def run_result(reader: RunReader, name: str, suite: str = HELD_OUT) -> RunResult:
    """A run's evaluations of a suite with what each had cost.

    A fork's cost counts from where it was forked.
    """
    reports = reader.reports()
    checkpoints = []
    for round in reader.evaluated(suite):
        before = [report for report in reports if report.round <= round]
        rollouts = sum(line.n + line.missing for report in before for line in report.kinds)
        steps = sum(update.optimizer_steps for report in before for update in report.updates)
        checkpoints.append(Checkpoint(round, rollouts, steps, line_cells(reader.read_evaluation(round, suite).groups)))
    return RunResult(name, tuple(checkpoints))


def unique_names(readers: Sequence[RunReader]) -> list[str]:
    """The runs' names; their paths where two have the same name, numbered where a run is given again."""
    names = [reader.info.name for reader in readers]
    found: list[str] = []
    for name, reader in zip(names, readers, strict=True):
        path = str(reader.path)
        own = name if names.count(name) == 1 else path
        times = sum(str(other.path) == path for other in readers[: len(found)])
        found.append(f"{own} ({times + 1})" if times else own)
    return found


def shared_measures(first: RunResult, second: RunResult) -> set[str]:
    """The measures that every evaluation of both runs has."""
    each = [set(checkpoint.cells) for run in (first, second) for checkpoint in run.checkpoints]
    return set.intersection(*each) if each else set()


def cost_notes(readers: Sequence[RunReader], names: Sequence[str]) -> list[str]:
    """A sentence for each fork, whose cost does not count from the beginning, and for each checkpoint's evaluation."""
    notes = []
    for reader, name in zip(readers, names, strict=True):
        parent = reader.info.parent
        if parent and reader.rounds:
            notes.append(f"{name} is a fork of {parent.run}: its cost counts from round {parent.round}.")
        elif parent:
            notes.append(
                f"{name} has the weights of {parent.run} after round {parent.round}, and no rounds of its own."
            )
    return notes


def _points(reader: RunReader, name: str) -> list[RunPoint]:
    evaluated = reader.evaluations
    if not evaluated:
        return _training_points(reader, name)
    lines = reader.evaluation(evaluated[-1]).get("lines", {})
    found = []
    for line, figure, label in POINTS:
        if line in lines:
            flat = held_out_figures(lines[line])
            n = flat.get(f"{figure}_n", flat.get("n"))
            found.append(
                RunPoint(
                    name,
                    label,
                    evaluated[-1],
                    flat.get(figure),
                    flat.get(f"{figure}_low"),
                    flat.get(f"{figure}_high"),
                    None if n is None else int(n),
                )
            )
    return found


def _training_points(reader: RunReader, name: str) -> list[RunPoint]:
    """The newest round's own figures, of a run that was never evaluated."""
    if not reader.rounds:
        return []
    report = reader.report(reader.rounds[-1])
    return [
        RunPoint(name, f"{TRAINING[line.kind]} ({IN_TRAINING})", report.round, line.accuracy, None, None, line.n)
        for line in report.kinds
        if line.kind in TRAINING and line.origin in ("problem", "solve") and line.n
    ]


def _curves(reader: RunReader) -> dict[str, dict[int, float]]:
    """The headline's figures over rounds by measure; of training rounds where there is no evaluation."""
    found: dict[str, dict[int, float]] = {}
    for round in reader.evaluations:
        lines = reader.evaluation(round).get("lines", {})
        for line, figure, label in CURVES:
            value = held_out_figures(lines[line]).get(figure) if line in lines else None
            if value is not None:
                found.setdefault(label, {})[round] = value
    if found:
        return found
    for report in reader.reports():
        for stats in report.kinds:
            if stats.kind in TRAINING and stats.origin in ("problem", "solve") and stats.accuracy is not None:
                found.setdefault(f"{TRAINING[stats.kind]} ({IN_TRAINING})", {})[report.round] = stats.accuracy
    return found


def _settings(readers: Sequence[RunReader], names: Sequence[str], notes: list[str]) -> tuple[SettingRow, ...]:
    configs = []
    for reader, name in zip(readers, names, strict=True):
        try:
            configs.append(run_config(reader.config_yaml))
        except RunFolderError as error:
            notes.append(f"Settings of {name} are not compared: {error}")
            return ()
    differences: dict[str, dict[int, Any]] = {}
    for index, config in enumerate(configs[1:], start=1):
        for setting, (first, other) in differing(configs[0], config).items():
            values = differences.setdefault(setting, dict.fromkeys(range(len(configs)), first))
            values[index] = other
    return tuple(SettingRow(name, tuple(map(str, values.values()))) for name, values in sorted(differences.items()))
