"""Plotly figures from snapshots (`workbench.views`): pure functions, shared by notebook panels, app and reports.

    figures = make_dashboard(view.series(), theme="dark")      the figures by name
    widgets = {name: go.FigureWidget(figure) for name, figure in figures.items()}
    update_dashboard(widgets, view.series())                   in place, as often as wanted; traces never grow

A click on any point: its round is `trace.customdata[point_index]`. Themes are "light" and "dark"; both leave the
background transparent, and `apply_theme` changes a figure in place. `uirevision` keeps zoom over updates.
"""

from workbench.figures.comparison import arms_figure, comparison_figure, difference_figure
from workbench.figures.dashboard import PANELS, make_dashboard, make_figure, update_dashboard, update_figure
from workbench.figures.details import calibration_figure, confusion_figure, funnel_figure, transitions_figure
from workbench.figures.panel import mark_round
from workbench.figures.style import KIND_COLOURS, Theme, apply_theme, template

__all__ = [
    "KIND_COLOURS",
    "PANELS",
    "Theme",
    "apply_theme",
    "arms_figure",
    "calibration_figure",
    "comparison_figure",
    "confusion_figure",
    "difference_figure",
    "funnel_figure",
    "make_dashboard",
    "make_figure",
    "mark_round",
    "template",
    "transitions_figure",
    "update_dashboard",
    "update_figure",
]
