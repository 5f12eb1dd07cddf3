"""The page: what a run's snapshots say, put into a template that escapes every text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import plotly
import plotly.graph_objects as go
import plotly.offline
from markupsafe import Markup

from spark_kernel import __version__
from spark_kernel.errors import InputError
from workbench.figures import (
    PANELS,
    calibration_figure,
    confusion_figure,
    funnel_figure,
    make_dashboard,
    template,
    transitions_figure,
)
from workbench.reporting.figure_rows import (
    Row,
    evaluation_name,
    first_and_last,
    held_out_rows,
    on_policy_rows,
    percent,
    show_figure,
)
from workbench.reporting.headline_html import headline_html
from workbench.reporting.report_page.files import writing
from workbench.reporting.report_page.samples import filter_counts, sample_rows
from workbench.views import Chain, JudgeDetail, RunView, SelfCorrection

EXAMPLES = 8
"""Samples of each sort that are printed in full."""
EVALUATIONS = 5
"""Evaluations that stand side by side: the first, the last and some between."""
FUNNEL_ROUNDS = 50
"""Newest rounds that the funnel counts."""


def write_page(view: RunView, path: Path) -> None:
    """Write a run as one self-contained HTML file; an older file of this name is replaced.

    Raises:
        InputError: the file would lie inside the run.
        RunFolderError: the run is damaged, or the file cannot be written.
    """
    if path.resolve().is_relative_to(view.reader.path.resolve()):
        raise InputError(f"{path} lies inside the run {view.reader.path}, which is only read: choose another place.")
    page = page_html(view)
    with writing(path) as file:
        file.write(page.encode())


def page_html(view: RunView) -> str:
    """A run as one HTML page: plotly.js inside it, no request to anywhere, text from the run escaped.

    Raises:
        RunFolderError: the run is damaged.
    """
    snapshot, series = view.snapshot(), view.series()
    evaluated = _some(view.evaluations())
    summaries = {round: view.reader.evaluation(round) for round in evaluated}
    rounds = view.rounds()[-FUNNEL_ROUNDS:]
    funnel = view.funnel(rounds) if rounds else None
    loops = [loop for round in evaluated if (loop := view.self_correction(round)) is not None]
    judge = view.judge(evaluated[-1], held_out=True) if evaluated else None
    reports = [view.reader.report(report) for report in _ends(series.rounds)]
    figures = make_dashboard(series)
    if funnel is not None:
        figures["funnel"] = funnel_figure(funnel)
    if loops:
        figures["transitions"] = transitions_figure(loops)
    if judge is not None:
        figures |= _judge_figures(judge)
    return render(
        "page.html.jinja",
        {snapshot.name: view},
        figures,
        snapshot=snapshot,
        series=series,
        headline=Markup(headline_html(view.headline())),
        panels=PANELS,
        figure_names=list(figures),
        held_out=_table([evaluation_name(r, s) for r, s in summaries.items()], held_out_rows(summaries)),
        on_policy=_table([f"round {report.round}" for report in first_and_last(reports)], on_policy_rows(reports)),
        funnel=funnel,
        loops=loops,
        examples_of_loop=_chains(loops[-1]) if loops else [],
        judge=judge,
        percent=percent,
    )


def render(name: str, views: Mapping[str, RunView], figures: Mapping[str, go.Figure], **values: Any) -> str:
    """A template of this folder with what every page has: figures, samples of the runs, scripts, styles.

    Args:
        views: by the name that a run has on the page.

    Raises:
        RunFolderError: a run is damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    rows = sample_rows(views)
    return environment.get_template(name).render(
        **values,
        figures=_script_json({key: json.loads(figure.to_json()) for key, figure in figures.items()}),
        themes=_script_json({theme: template(theme).to_plotly_json() for theme in ("light", "dark")}),
        plotly_js=Markup(plotly.offline.get_plotlyjs().replace("</script", "<\\/script")),
        plotly_version=plotly.__version__,
        sample_rows=_script_json(rows),
        sample_filters=filter_counts(rows),
        sample_runs=list(views),
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        version=__version__,
    )


def _script_json(value: Any) -> Markup:
    """JSON for a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _judge_figures(judge: JudgeDetail) -> dict[str, go.Figure]:
    own = [line for line in judge.lines if line.name.startswith("own/")]
    figures = {f"confusion {line.name}": confusion_figure(line) for line in own}
    if any(bin.n for line in own for bin in line.calibration):
        figures["calibration"] = calibration_figure(own)
    return figures


def _table(columns: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "columns": columns,
        "rows": [(label, [show_figure(figure) for figure in figures]) for label, figures in rows],
    }


def _chains(loop: SelfCorrection) -> list[tuple[str, Chain]]:
    """Chains that changed something first, losses before gains, then others that reflected."""
    changed = [("right, became wrong", chain) for chain in loop.with_transition("right_wrong")]
    changed += [("wrong, became right", chain) for chain in loop.with_transition("wrong_right")]
    others = [
        ("reflected, nothing gained", c) for c in loop.chains if len(c.steps) > 2 and c.transition in ("wrong_wrong",)
    ]
    return [*changed, *others][:EXAMPLES]


def _some(rounds: Sequence[int]) -> list[int]:
    """At most `EVALUATIONS` of them: the first, the last, and evenly between."""
    if len(rounds) <= EVALUATIONS:
        return list(rounds)
    last = len(rounds) - 1
    return sorted({rounds[round(index * last / (EVALUATIONS - 1))] for index in range(EVALUATIONS)})


def _ends(rounds: Sequence[int]) -> list[int]:
    return list(dict.fromkeys((rounds[0], rounds[-1]))) if rounds else []
