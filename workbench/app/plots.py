"""Figures as the page gets them: written once and remembered as text, however often they are shown."""

from __future__ import annotations

from typing import Any

from gradio.components.plot import PlotData

from workbench.views import RunView


def plot_data(figure: Any) -> PlotData | None:
    """A Plotly figure as what `gr.Plot` sends; None stays None."""
    return None if figure is None else PlotData(type="plotly", plot=figure.to_json())


def stamp(view: RunView) -> tuple[object, ...]:
    """What changes whenever a run has something new to show."""
    rounds = view.rounds()
    return (
        str(view.reader.path), rounds[0] if rounds else 0, rounds[-1] if rounds else 0, len(view.reader.phases()),
        view.evaluations(),
    )  # fmt: skip
