"""Several runs as one HTML page without a server: headlines, comparison, problem by problem, curves, samples."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from markupsafe import Markup

from spark_kernel.errors import InputError
from workbench.figures import PANELS, arms_figure, comparison_figure, difference_figure, make_dashboard
from workbench.reporting.headline_html import headline_html
from workbench.reporting.problem_pairs_html import problem_pairs_html
from workbench.reporting.report_page.files import writing
from workbench.reporting.report_page.page import render
from workbench.reporting.seed_rows import ARM_HEADERS, arm_cells
from workbench.views import RunView, compare


def write_comparison(views: Sequence[RunView], path: Path) -> None:
    """Write runs side by side as one self-contained HTML file; an older file of this name is replaced.

    Raises:
        InputError: fewer than two runs, or the file would lie inside one of them.
        RunFolderError: a run is damaged, or the file cannot be written.
    """
    for view in views:
        if path.resolve().is_relative_to(view.reader.path.resolve()):
            raise InputError(
                f"{path} lies inside the run {view.reader.path}, which is only read: choose another place."
            )
    page = comparison_page(views)
    with writing(path) as file:
        file.write(page.encode())


def comparison_page(views: Sequence[RunView]) -> str:
    """Runs as one HTML page: plotly.js inside it, no request to anywhere, text from the runs escaped.

    Raises:
        InputError: fewer than two runs.
        RunFolderError: a run is damaged.
    """
    found = compare([view.reader for view in views])
    named = dict(zip(found.names, views, strict=True))
    figures = {"comparison": comparison_figure(found)}
    if found.curves:
        figures["arms"] = arms_figure(found)
    if found.rows:
        figures["difference"] = difference_figure(found)
    for name, view in named.items():
        figures |= {f"{name}: {key}": figure for key, figure in make_dashboard(view.series()).items()}
    runs = [
        {"name": name, "snapshot": view.snapshot(), "headline": Markup(headline_html(view.headline()))}
        for name, view in named.items()
    ]
    pairs = [
        Markup(problem_pairs_html(problems, found.names[0], name, _table)) for name, problems in found.problems.items()
    ]
    return render(
        "several.html.jinja", named, figures, names=found.names, runs=runs, comparison=found, panels=PANELS,
        figure_names=list(figures), arm_headers=ARM_HEADERS, arm_rows=arm_cells(found), problems=pairs,
    )  # fmt: skip


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
