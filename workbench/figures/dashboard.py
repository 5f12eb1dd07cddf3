"""The figures of the dashboard.

    figures = make_dashboard(view.series())                    {"overview": Figure, "judge": ..., ...}
    widgets = {name: go.FigureWidget(f) for name, f in figures.items()}
    update_dashboard(widgets, view.series())                   again and again; traces never grow
    mark_round(widgets["judge"], 7)                            a vertical line at the selected round

A point's round is its `customdata`, also where a held-out marker stands a little aside of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import plotly.graph_objects as go

from workbench.figures.accuracy_panels import accuracy_panel, judge_panel, overview_panel, verdicts_panel
from workbench.figures.panel import Panel, make_panel, update_panel
from workbench.figures.style import Theme
from workbench.figures.training_panels import cost_panel, groups_panel, optimizer_panel
from workbench.views.series import RoundSeries

MAKERS: Mapping[str, Callable[[], Panel]] = {
    "overview": overview_panel,
    "accuracy": accuracy_panel,
    "judge": judge_panel,
    "verdicts": verdicts_panel,
    "groups": groups_panel,
    "optimizer": optimizer_panel,
    "cost": cost_panel,
}
PANELS = tuple(MAKERS)
"""The names of the figures, in the order in which they are read."""


def make_dashboard(series: RoundSeries, theme: Theme = "light", *, compact: bool = False) -> dict[str, go.Figure]:
    """The figures by name (`PANELS`); `compact` as in `make_figure`."""
    return {name: make_figure(name, series, theme, compact=compact) for name in PANELS}


def update_dashboard(figures: Mapping[str, go.Figure], series: RoundSeries) -> None:
    """Show a newer series in figures that `make_dashboard` made, or in `FigureWidget`s of them."""
    for name, figure in figures.items():
        update_figure(name, figure, series)


def make_figure(name: str, series: RoundSeries, theme: Theme = "light", *, compact: bool = False) -> go.Figure:
    """One figure of the dashboard, by a name of `PANELS`.

    Args:
        compact: legends above each row instead of beside it, for pages narrower than about 600 pixels.

    Raises:
        KeyError: no such name.
    """
    return make_panel(MAKERS[name](), series, theme, compact=compact)


def update_figure(name: str, figure: go.Figure, series: RoundSeries) -> None:
    """Show a newer series in one figure, in place; `name` as in `make_figure`."""
    update_panel(figure, MAKERS[name](), series)
