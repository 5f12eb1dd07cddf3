"""The headline of a run: solved, judges itself, after the loop; from the first held-out evaluation to the newest."""

from __future__ import annotations

from dataclasses import dataclass

from spark_kernel.evaluate.compare import Cells, Difference, line_cells, paired_bootstrap
from spark_kernel.runs.reader import RunReader
from workbench.views.chains import self_correction
from workbench.views.lines import Value
from workbench.views.series import RoundSeries

SOLVED, JUDGES, LOOP = "solved", "judges", "loop"


@dataclass(frozen=True, slots=True)
class HeadlineFigure:
    """One question's number over the held-out evaluations of a run.

    `name`: "solved" (greedy first answers; sampled ones where the loop was not evaluated), "judges" (balanced accuracy
    on its own answers) or "loop" (final answers of the test-time loop). `rounds` ascend, 0 is before training;
    `values`, `low` and `high` (95 % intervals) are as long; shares, None where undefined. `chance`: 0.5 for the
    judge, None elsewhere. `change`: newest minus first on the problems of both, paired; None where there is one
    evaluation only or none shares a problem. `sentence`: what may be said.
    """

    name: str
    title: str
    rounds: tuple[int, ...]
    values: tuple[Value, ...]
    low: tuple[Value, ...]
    high: tuple[Value, ...]
    chance: float | None
    change: Difference | None
    sentence: str


QUESTIONS = (
    (SOLVED, "Solved", "greedy", "accuracy", "loop/solve/accuracy", "solves", None),
    (SOLVED, "Solved (sampled)", "solve", "accuracy", "solve/accuracy", "solves", None),
    (JUDGES, "Judges its own answers", "own/pointwise/answer", "balanced_accuracy",
     "own/pointwise/answer/balanced_accuracy", "judges its own answers", 0.5),
    (LOOP, "Right after the loop", "loop", "after", "loop/final", "is right after the loop", None),
)  # fmt: skip

COMPARED = {"is right after the loop": ("more often", "less often")}
"""How a verb is compared, where not by "better" and "worse"."""


def headline(reader: RunReader, series: RoundSeries) -> tuple[HeadlineFigure, ...]:
    """The headline's figures, those that the run's held-out evaluations have; empty without any.

    Raises:
        RunFolderError: an evaluation is damaged.
    """
    found: dict[str, HeadlineFigure] = {}
    cells: dict[int, dict[str, Cells]] = {}
    for name, title, line_name, figure, measure, verb, chance in QUESTIONS:
        line = series.held_out_line(line_name)
        if name in found or line is None or not line.has(figure):
            continue
        change = None
        if len(line.rounds) > 1:
            ends = line.rounds[0], line.rounds[-1]
            for round in ends:
                if round not in cells:
                    cells[round] = _cells(reader, round)
            first, last = (cells[round].get(measure, {}) for round in ends)
            if set(first) & set(last):
                change = paired_bootstrap(first, last, seed=0, measure=measure)
        low, high, values = line.get(f"{figure}_low"), line.get(f"{figure}_high"), line.get(figure)
        sentence = _sentence(verb, values[-1], change)
        found[name] = HeadlineFigure(name, title, line.rounds, values, low, high, chance, change, sentence)
    return tuple(found.values())


def _cells(reader: RunReader, round: int) -> dict[str, Cells]:
    cells = line_cells(reader.read_evaluation(round).groups)
    loop = self_correction(reader, round)
    if loop is not None:
        # As the loop's own summary: a chain whose first or final answer has no finding is in no figure.
        cells["loop/final"] = {
            chain.problem_id: {"all": (float(bool(chain.final_step.correct)), 1)}
            for chain in loop.chains
            if chain.transition is not None
        }
    return cells


def _sentence(verb: str, newest: Value, change: Difference | None) -> str:
    if newest is None:
        return f"It cannot be said how well it {verb}."
    if change is None or change.first is None or change.second is None or change.difference is None:
        return f"It {verb}: {newest:.0%}; nothing to compare with yet."
    span = f"{change.first:.0%} to {change.second:.0%}"
    if not change.is_evidence:
        return f"No change shown: {verb}, {span} on {change.problems} problems."
    more, less = COMPARED.get(verb, ("better", "worse"))
    return f"It {verb} {more if change.difference > 0 else less}: {span}."
