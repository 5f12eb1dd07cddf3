"""Panel 3: the headline, and figures over rounds that change in place; a click on a round selects it in every panel."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from workbench.figures import PANELS, apply_theme, make_dashboard, mark_round, update_dashboard
from workbench.notebook.plotly_widget import FigureWidget, PageTheme
from workbench.notebook.shared import DataPanel, Shared
from workbench.notebook.style import note
from workbench.reporting.headline_html import headline_html
from workbench.views import Line, RoundSeries, RunView

EMPTY = RoundSeries("", (), 0, "", (), (), (), (), (), Line(("round",), (), {}), ())
"""A series of no rounds: the figures are there before a run has any."""
COLUMNS = "repeat(auto-fit, minmax(min(100%, 440px), 1fr))"
"""Side by side where the page is wide enough, as many as fit."""


class Dashboard(DataPanel):
    """The figures by name: overview, accuracy, judge, verdicts, groups, optimizer, cost."""

    def __init__(self, shared: Shared) -> None:
        self._drawn: object = None
        self.flags = widgets.HTML()
        self.figures = {name: FigureWidget(figure) for name, figure in make_dashboard(EMPTY, compact=True).items()}
        for figure in self.figures.values():
            figure.add_class("spark-figure")
            for trace in figure.data:
                trace.on_click(self._clicked)
        self.theme = PageTheme()
        self.theme.observe(self._themed, "theme")
        self.grid = widgets.Box(
            [self.figures[name] for name in PANELS[1:]],
            layout=widgets.Layout(
                display="grid", grid_template_columns=COLUMNS, align_items="flex-start", width="100%"
            ),
        )
        super().__init__(shared, self.flags, self.figures[PANELS[0]], self.grid, self.theme)
        self.widget.add_class("spark-wide")

    def show(self, view: RunView) -> None:
        """The figures of the rounds that are on disk.

        Raises:
            RunFolderError: a report is damaged.
        """
        if self._drawn != self._shown:
            series = view.series()
            update_dashboard(self.figures, series)
            parts = [headline_html(view.headline()), *(note(flag) for flag in series.flags)]
            if series.thinned:
                parts.append(f'<p class="spark-muted">{html.escape(series.thinned)}</p>')
            self.flags.value = "".join(parts)
            self._drawn = self._shown
        for figure in self.figures.values():
            mark_round(figure, self.shared.selected)

    def _clicked(self, trace: Any, points: Any, _: Any) -> None:
        if points.point_inds:
            self.shared.select(int(trace.customdata[points.point_inds[0]]))

    def _themed(self, change: Mapping[str, Any]) -> None:
        with self.shared.lock:
            for figure in self.figures.values():
                with figure.batch_update():
                    apply_theme(figure, change["new"])
