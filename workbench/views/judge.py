"""How well the judge judges: confusion, calibration, order, and whether it always says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.judge_metrics import CalibrationBin
from spark_kernel.evaluate.judge_words import one_sided_sentence
from spark_kernel.runs.bundles import HELD_OUT
from spark_kernel.runs.reader import RunReader
from workbench.views.round_tables import TableCache
from workbench.views.series import held_out_figures
from workbench.views.verdicts import JUDGES

UNREADABLE = "unreadable"
VERDICTS = {"pointwise": ("Yes", "No"), "pairwise": ("A", "B")}


@dataclass(frozen=True, slots=True)
class JudgeLine:
    """One judge.

    `name`: an evaluation's line ("own/pointwise/answer") or "kind/origin" of a round. `confusion`: (label, verdict) ->
    count over `labels` and the same verdicts plus "unreadable"; every cell is there. `figures`: the judge figures of
    docs/measures.md (accuracy, balanced_accuracy, base_rate, chance, yes_rate, a_rate, coverage, ...), intervals as
    NAME_low and NAME_high. `calibration`, `calibration_error`, `brier`: where the evaluation recorded probabilities.
    `swapped`: agreement of pairs asked in both orders (agreement, both_right, first_rate, pairs, ...), else empty.
    `flag`: a sentence for a judge that nearly always gives the same verdict, else empty.
    """

    name: str
    kind: str
    n: int
    labels: tuple[str, str]
    confusion: Mapping[tuple[str, str], int]
    figures: Mapping[str, float | None]
    calibration: tuple[CalibrationBin, ...]
    calibration_error: float | None
    brier: float | None
    swapped: Mapping[str, float | None]
    flag: str


@dataclass(frozen=True, slots=True)
class JudgeDetail:
    """The judges of a round (`held_out` False) or of a held-out evaluation, in the order of the records."""

    round: int
    held_out: bool
    lines: tuple[JudgeLine, ...]

    def line(self, name: str) -> JudgeLine | None:
        """A line by name; None where there is none."""
        return next((line for line in self.lines if line.name == name), None)


def judge_of_evaluation(reader: RunReader, round: int, suite: str = HELD_OUT) -> JudgeDetail:
    """The judges of the evaluation of a suite after a round.

    Raises:
        RunFolderError: there is none.
    """
    lines = reader.evaluation(round, suite).get("lines", {})
    tasks, rollouts = (reader.table(name, [round], suite) for name in ("eval_tasks", "eval_rollouts"))
    counted = _confusions(tasks, rollouts, "part")
    found = []
    for (name, kind), cells in counted.items():
        summary = lines.get("loop", {}).get("judge", {}) if name == "loop/pointwise" else lines.get(name, {})
        found.append(_line(name, kind, cells, summary))
    return JudgeDetail(round, True, tuple(found))


def judge_of_round(cache: TableCache, round: int) -> JudgeDetail:
    """The judges of a training round, by kind and origin; figures once the round is finished.

    Raises:
        RunFolderError: no such round.
    """
    tables = cache.round(round)
    counted = _confusions(tables.tasks, tables.rollouts, "period")
    figures: dict[str, Mapping[str, Any]] = {}
    if not tables.in_flight:
        try:
            figures = {f"{k.kind}/{k.origin}": k.judge or {} for k in cache.reader.report(round).kinds}
        except RunFolderError:  # discarded meanwhile
            figures = {}
    return JudgeDetail(
        round, False, tuple(_line(name, kind, cells, figures.get(name, {})) for (name, kind), cells in counted.items())
    )


def _confusions(tasks: pa.Table, rollouts: pa.Table, place: str) -> dict[tuple[str, str], Counter[tuple[str, str]]]:
    """(line, kind) -> (label, verdict) -> count, of the scored verdicts."""
    labels = {
        (row[place], row["group_index"]): row["label"]
        for row in tasks.select([place, "group_index", "label"]).to_pylist()
    }
    found: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
    columns = [place, "group_index", "kind", "origin", "parse", "answer", "correct"]
    for row in rollouts.select(columns).to_pylist():
        if row["kind"] not in JUDGES or row["correct"] is None:
            continue
        name = row["part"] if place == "part" else f"{row['kind']}/{row['origin']}"
        verdict = row["answer"] if row["parse"] == "ok" else UNREADABLE
        cells = found.setdefault((name, row["kind"]), Counter())
        cells[labels[row[place], row["group_index"]], verdict] += 1
    return found


def _line(name: str, kind: str, cells: Mapping[tuple[str, str], int], summary: Mapping[str, Any]) -> JudgeLine:
    labels = VERDICTS[kind]
    calibration = summary.get("calibration") or {}
    figures = held_out_figures({k: v for k, v in summary.items() if k not in ("calibration", "swapped")})
    return JudgeLine(
        name=name,
        kind=kind,
        n=sum(cells.values()),
        labels=labels,
        confusion={
            (label, verdict): cells.get((label, verdict), 0) for label in labels for verdict in (*labels, UNREADABLE)
        },
        figures=figures,
        calibration=tuple(
            CalibrationBin(b["low"], b["high"], b["n"], b["probability"], b["correct"])
            for b in calibration.get("bins", ())
        ),
        calibration_error=calibration.get("error"),
        brier=calibration.get("brier"),
        swapped=held_out_figures(summary.get("swapped") or {}),
        flag=one_sided_sentence(figures) or "",
    )
