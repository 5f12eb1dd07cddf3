"""Panel 7: runs beside each other at equal cost, paired intervals, and only the settings that differ."""

from __future__ import annotations

import html
import time
from pathlib import Path

import ipywidgets as widgets

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.status import RunState, list_runs
from workbench.figures import Theme, apply_theme, arms_figure, comparison_figure, difference_figure
from workbench.notebook.driver_state import DriverState
from workbench.notebook.job import Job
from workbench.notebook.plotly_widget import FigureWidget, PageTheme
from workbench.notebook.run_on_disk import Seen
from workbench.notebook.sample_html import grid
from workbench.notebook.style import Panel, note, row
from workbench.reporting.problem_pairs_html import problem_pairs_html
from workbench.reporting.seed_rows import ARM_HEADERS, arm_cells
from workbench.views import RunsComparison, compare

EVERY = 5.0
"""Seconds between two looks at which runs there are."""


class Compare(Panel):
    """The runs beside this one in its folder can be chosen; any other by its path."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._listed: tuple[str, ...] = ()
        self._looked = -EVERY
        self._drawn: tuple[str, ...] = ()
        self.points: FigureWidget | None = None
        self.differences: FigureWidget | None = None
        self.arms: FigureWidget | None = None
        self.runs = widgets.SelectMultiple(
            options=[], description="with", rows=6, layout=widgets.Layout(width="460px"),
            tooltip="One or several runs; the present one comes first",
        )  # fmt: skip
        self.path = widgets.Text(
            "", description="or folder", placeholder="another run's folder", continuous_update=False,
            layout=widgets.Layout(width="460px"),
        )  # fmt: skip
        self.button = widgets.Button(description="Compare", icon="balance-scale")
        self.said = widgets.HTML()
        self.result = widgets.HTML()
        self.figures = widgets.VBox()
        self.theme = PageTheme()
        self.theme.observe(lambda change: self._themed(change["new"]), "theme")
        self.job = Job(self.button, self.said, self._compare, "Comparing ...")
        super().__init__(row(self.runs, self.path, self.button), self.said, self.result, self.figures, self.theme)

    def refresh(self, state: DriverState, _: Seen) -> None:
        """List the runs that can be chosen."""
        now = time.monotonic()
        if self._run == state.run and now - self._looked < EVERY:
            return
        self._run, self._looked = state.run, now
        try:
            others = [found for found in list_runs(state.run.parent) if found.path != state.run]
        except RunFolderError:
            others = []
        names = tuple(found.name for found in others if found.state is not RunState.UNREADABLE)
        if names != self._listed:
            kept = [name for name in self.runs.value if name in names]
            self.runs.options = names
            self.runs.value = kept
            self._listed = names

    def wait(self, timeout: float | None = None) -> None:
        """Block until a comparison that was asked for is there."""
        self.job.wait(timeout)

    def _compare(self) -> str:
        paths = [self._run.parent / name for name in self.runs.value]
        if self.path.value.strip():
            paths.append(Path(self.path.value.strip()).expanduser())
        if not paths:
            raise InputError("Choose at least one other run.")
        found = compare([RunReader(path) for path in (self._run, *paths)])
        self.result.value = comparison_html(found)
        self._draw(found, self.theme.theme)
        return f"{' and '.join(found.names)}, on the held-out problems that they share."

    def _draw(self, found: RunsComparison, theme: Theme) -> None:
        """The figures: refilled where the runs are the same, made anew where they are not."""
        if self._drawn == found.names:
            comparison_figure(found, theme, figure=self.points)
            difference_figure(found, theme, figure=self.differences)
            arms_figure(found, theme, figure=self.arms)
            return
        old = self.figures.children
        self.points = FigureWidget(comparison_figure(found, theme))
        self.differences = FigureWidget(difference_figure(found, theme))
        self.arms = FigureWidget(arms_figure(found, theme))
        self.figures.children = [self.arms, self.points, self.differences]
        self._drawn = found.names
        for figure in old:
            figure.close()

    def _themed(self, theme: Theme) -> None:
        for figure in self.figures.children:
            with figure.batch_update():
                apply_theme(figure, theme)


def comparison_html(found: RunsComparison) -> str:
    """What may be said, and the settings that differ."""
    parts = [note(text) for text in found.notes]
    if found.rows:
        rows = [(r.label, r.matched_by, "yes" if r.enough else "no", r.sentence) for r in found.rows]
        parts.append(grid(("measure", "matched by", "enough evidence", "what may be said"), rows, "Paired differences"))
    else:
        parts.append(note("Not enough evidence: these runs share no held-out evaluation."))
    if found.arm_rows:
        parts.append(grid(ARM_HEADERS, arm_cells(found), f"Over seeds, against {found.arms[0].name}"))
    for name, pairs in found.problems.items():
        parts.append(problem_pairs_html(pairs, found.names[0], name, grid))
    if found.settings:
        rows_of = [(s.setting, *s.values) for s in found.settings]
        parts.append(grid(("setting", *found.names), rows_of, "Settings that differ"))
    else:
        parts.append(f"<p>{html.escape('No setting differs.')}</p>")
    return "".join(parts)
