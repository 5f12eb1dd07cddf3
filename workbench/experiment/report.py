"""An experiment's findings as a page, as Markdown, as JSON and as Parquet, all from the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from spark_kernel import __version__
from spark_kernel.evaluate.compare import FEWEST_PROBLEMS
from workbench.experiment.curves import curve_svg, legend_svg
from workbench.experiment.findings import NOT_SHOWN, Findings, Row
from workbench.experiment.matching import Match
from workbench.experiment.measures import MEASURES
from workbench.experiment.running import CellResult, Outcome
from workbench.reporting.report_page.files import writing

PAGE, MARKDOWN, RESULTS, ROWS, FIGURES = (
    "index.html",
    "report.md",
    "results.json",
    "results.parquet",
    "figures.parquet",
)


def write_report(findings: Findings, results: Sequence[CellResult], folder: Path, command: str) -> None:
    """Write all five files; older ones are replaced.

    Args:
        results: how every cell stands.
        command: what was typed.

    Raises:
        RunFolderError: a file cannot be written.
    """
    texts = {
        PAGE: page_html(findings, results, command),
        MARKDOWN: markdown(findings, results, command),
        RESULTS: json.dumps(as_json(findings, results, command), indent=1, ensure_ascii=False),
    }
    for name, text in texts.items():
        with writing(folder / name) as file:
            file.write(text.encode())
    for name, rows in ((ROWS, _row_table(findings)), (FIGURES, _figure_table(findings))):
        with writing(folder / name) as file:
            pq.write_table(rows, file)


def page_html(findings: Findings, results: Sequence[CellResult], command: str) -> str:
    """The page: no script, no request to anywhere, every text escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = (resources.files(__package__) / "page.html.jinja").read_text(encoding="utf-8")
    file = findings.experiment.file
    arms = list(file.arms)
    pictures = [
        (name, [Markup(curve_svg(curves, arms, match, MEASURES[name].label)) for match in file.match])
        for name, curves in findings.curves.items()
    ]
    return environment.from_string(source).render(
        file=file,
        rows=findings.rows,
        curves=pictures,
        legend=Markup(legend_svg(arms)),
        label={name: measure.label for name, measure in MEASURES.items()},
        finished=len(findings.experiment.cells) - len(findings.missing),
        cells=len(findings.experiment.cells),
        rounds={cell.arm: cell.config.rounds for cell in findings.experiment.cells},
        troubles=_troubles(results),
        percent=percent,
        points=points,
        fewest=FEWEST_PROBLEMS,
        not_shown=NOT_SHOWN,
        command=command,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M}",
        version=__version__,
    )


def markdown(findings: Findings, results: Sequence[CellResult], command: str) -> str:
    """The tables of the page, and the command."""
    file = findings.experiment.file
    finished = len(findings.experiment.cells) - len(findings.missing)
    lines = [f"# {file.title}", ""]
    lines += [file.question, ""] if file.question else []
    lines += [f"    {command}", ""]
    lines += [f"{finished} of {len(findings.experiment.cells)} runs finished, seeds {', '.join(map(str, file.seeds))}."]
    lines += [f"- {line}" for line in _troubles(results)]
    for match in file.match:
        rows = [row for row in findings.rows if row.match is match]
        if not rows:
            continue
        lines += ["", f"## At equal {match}", ""]
        interval = "difference, 95 % interval over problems and seeds"
        lines += [f"| measure | arm | {file.reference} | arm | {interval} | seeds above 0 |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        for row in rows:
            above = sum(value > 0 for value in row.found.by_seed.values())
            decides = " (decides)" if row.measure == file.primary else ""
            lines.append(
                f"| {MEASURES[row.measure].label}{decides} | {row.arm} | {percent(row.found.first)} | "
                f"{percent(row.found.second)} | {row.sentence} | {above} of {len(row.found.seeds)} |"
            )
    return "\n".join(lines) + "\n"


def as_json(findings: Findings, results: Sequence[CellResult], command: str) -> dict[str, Any]:
    """Everything the page says, as JSON values."""
    return {
        "command": command,
        "version": __version__,
        "experiment": findings.experiment.file.model_dump(mode="json"),
        "cells": [{"name": one.cell.name, "outcome": str(one.outcome), "detail": one.detail} for one in results],
        "rows": [_row_json(row) for row in findings.rows],
        "curves": {
            name: {arm: [asdict(point) for point in curve] for arm, curve in curves.items()}
            for name, curves in findings.curves.items()
        },
    }


def percent(share: float | None) -> str:
    """A share in per cent."""
    return "-" if share is None else f"{100 * share:.1f} %"


def points(difference: float | None) -> str:
    """A difference in points."""
    return "-" if difference is None else f"{100 * difference:+.1f}"


def _troubles(results: Iterable[CellResult]) -> list[str]:
    lines = [f"{one.cell.name} failed: {one.detail}" for one in results if one.outcome is Outcome.FAILED]
    stopped = [one.cell.name for one in results if one.outcome is Outcome.STOPPED]
    return [*lines, *([f"Not finished yet: {', '.join(stopped)}"] if stopped else [])]


def _row_json(row: Row) -> dict[str, Any]:
    found = asdict(row.found)
    return {
        "arm": row.arm,
        "measure": row.measure,
        "match": str(row.match),
        "shown": row.shown,
        "sentence": row.sentence,
        **found,
        "seeds": [asdict(one) for one in row.seeds],
    }


def _row_table(findings: Findings) -> pa.Table:
    """One row per arm, measure and match."""
    numbers = ("first", "second", "difference", "low", "high")
    schema = pa.schema(
        [("match", pa.string()), ("measure", pa.string()), ("arm", pa.string()), ("reference", pa.string())]
        + [(name, pa.float64()) for name in numbers]
        + [("seeds", pa.list_(pa.int64())), ("problems", pa.int64()), ("shown", pa.bool_())]
    )
    rows = [
        {
            "match": str(row.match),
            "measure": row.measure,
            "arm": row.arm,
            "reference": findings.experiment.file.reference,
            **{name: getattr(row.found, name) for name in numbers},
            "seeds": list(row.found.seeds),
            "problems": row.found.problems,
            "shown": row.shown,
        }
        for row in findings.rows
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _figure_table(findings: Findings) -> pa.Table:
    """One row per evaluation of a run and measure."""
    schema = pa.schema(
        [("arm", pa.string()), ("seed", pa.int64()), ("measure", pa.string()), ("round", pa.int64())]
        + [(str(match), pa.float64()) for match in Match if match is not Match.ROUNDS]
        + [("value", pa.float64())]
    )
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "measure": measure,
            "round": point.round,
            **{str(match): spent for match, spent in point.spent.items() if match is not Match.ROUNDS},
            "value": value,
        }
        for arm, seed, measure, point, value in findings.figures
    ]
    return pa.Table.from_pylist(rows, schema=schema)
