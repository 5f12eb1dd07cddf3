"""Figures that are made once and mutated: a fixed list of traces, and a function that says what each shows now.

A trace without data is hidden, never removed, so that a thousand updates leave as many traces as the first. Rows,
traces and the mark of the selected round are found by name, wherever they stand in the figure
(`workbench.figures.names`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.names import named_traces, shape_named
from workbench.figures.style import SELECTED, Theme, plain, template
from workbench.views.series import RoundSeries

Data = dict[str, Any]
"""What a trace shows now: x, y, text, customdata (the round of each point), visible, and error bars if it has them."""
HIDDEN: Data = {"x": [], "y": [], "text": [], "customdata": [], "visible": False}
ROUND_MARK = "selected round"
"""Name of the shape that `mark_round` moves."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A trace: the name of its row, its own name in that row, its fixed properties, and what it shows of a series.

    `style["name"]` is the entry in the legend, which several traces of a row may share.
    """

    row: str
    name: str
    style: Mapping[str, Any]
    data: Callable[[RoundSeries], Data]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a figure: its name, the title of its y axis (with unit), and fixed properties of that axis."""

    name: str
    title: str
    axis: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Panel:
    """A figure of the dashboard: rows that share the round axis, and its traces.

    `row_height` in pixels. `flags`: whether one-sided judges are named under the title.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    slots: tuple[Slot, ...]
    row_height: int = 130
    flags: bool = False


LEGEND = {"tracegroupgap": 0, "font": {"size": 11}, "bgcolor": "rgba(0,0,0,0)"}
ABOVE, BELOW = 66, 46
"""Pixels above the first and below the last row."""
FEW_ROUNDS = 12
"""Up to so many rounds, each has its tick."""
GAP = 36
"""Pixels between rows."""
LEGEND_LINE = 20
"""Pixels of a line of a legend; above a row it has two entries a line."""


def make_panel(panel: Panel, series: RoundSeries, theme: Theme, *, compact: bool = False) -> go.Figure:
    """The figure of a panel, with every trace it will ever have.

    Args:
        compact: legends above each row instead of beside it, for pages narrower than about 600 pixels.
    """
    count = len(panel.rows)
    entries = [len({slot.style["name"] for slot in panel.slots if slot.row == row.name}) for row in panel.rows]
    legends = LEGEND_LINE * max((number + 1) // 2 for number in entries) if compact else 0
    gap = GAP + legends
    plots = panel.row_height * count + gap * (count - 1)
    above = ABOVE + legends
    figure = make_subplots(rows=count, cols=1, shared_xaxes=True, vertical_spacing=gap / plots)
    # Plotly numbers what belongs to a row from 1: here, and nowhere else, a row's name becomes that number.
    places = {row.name: place for place, row in enumerate(panel.rows, start=1)}
    seen: set[tuple[str, str]] = set()
    traces = []
    slots = _all_slots(panel)
    for slot in slots:
        style = {**slot.style, "meta": trace_name(slot)}
        name = style.get("name", "")
        style["legend"] = _numbered("legend", places[slot.row])
        # A band answers to the click on its line's entry in the legend.
        style.setdefault("legendgroup", f"{slot.row} {name}")
        style.setdefault("showlegend", (slot.row, name) not in seen)
        if style["showlegend"]:
            seen.add((slot.row, name))
        traces.append(go.Scatter(**style))
    figure.add_traces(traces, rows=[places[slot.row] for slot in slots], cols=1)
    figure.update_layout(
        template=template(theme),
        title={"text": panel.title, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 10}},
        height=plots + above + BELOW,
        margin={"l": 60, "r": 10, "t": above, "b": BELOW},
        uirevision=panel.name,
        hovermode="closest",
        shapes=[_round_mark()],
    )
    for row in panel.rows:
        figure.update_yaxes(title_text=row.title, row=places[row.name], col=1, **row.axis)
        top = figure.layout[_numbered("yaxis", places[row.name])].domain[1]
        place = (
            {"orientation": "h", "x": 0, "yanchor": "bottom", "y": top}
            if compact
            else {"x": 1.01, "yanchor": "top", "y": top}
        )
        figure.update_layout({_numbered("legend", places[row.name]): {**LEGEND, **place}})
    figure.update_xaxes(title_text="round", row=count, col=1)
    figure.update_xaxes(tickformat=",d")
    update_panel(figure, panel, series)
    return figure


def update_panel(figure: go.Figure, panel: Panel, series: RoundSeries) -> None:
    """Show a newer series in a figure that `make_panel` made, a `FigureWidget` of it too, in one message.

    Raises:
        ValueError: a figure of another panel.
    """
    data = {trace_name(slot): slot.data(series) for slot in _all_slots(panel)}
    step = 1 if _last_round(series) <= FEW_ROUNDS else None
    traces = named_traces(figure, data, panel.name)
    with figure.batch_update():
        figure.layout.title.subtitle.text = _remarks(panel, series)
        figure.update_xaxes(dtick=step)
        for name, new in data.items():
            if new is HIDDEN and traces[name].visible is False:
                continue
            for key, value in new.items():
                traces[name][key] = value


def trace_name(slot: Slot) -> str:
    """The name of a slot's trace in its figure, as `named_traces` finds it."""
    return f"{slot.row}: {slot.name}"


def _all_slots(panel: Panel) -> tuple[Slot, ...]:
    """The panel's traces, and an invisible point in each row: plotly cannot lay out a row without any trace beside rows
    that have some, such as those of judges in a run without judging.
    """
    style = {"name": "", "mode": "markers", "marker": {"opacity": 0}, "hoverinfo": "skip", "showlegend": False}
    return (*panel.slots, *(Slot(row.name, "anchor", style, _anchor) for row in panel.rows))


def _anchor(series: RoundSeries) -> Data:
    rounds = series.rounds or next((line.rounds for line in series.held_out), ())
    if not rounds:
        return HIDDEN
    return {"x": [rounds[-1]], "y": [None], "text": [], "customdata": [], "visible": True}


def _last_round(series: RoundSeries) -> int:
    return max((*series.rounds[-1:], *(line.rounds[-1] for line in series.held_out)), default=0)


def _remarks(panel: Panel, series: RoundSeries) -> str:
    """What has to be said with a figure: that there is nothing yet, that rounds are left out, one-sided judges."""
    found = [] if series.rounds or series.held_out else ["No round is finished yet."]
    found += [series.thinned] if series.thinned else []
    if panel.flags and series.flags:
        more = f" (and {len(series.flags) - 1} more)" if len(series.flags) > 1 else ""
        found.append(f"{series.flags[-1]}{more}")
    return plain(" ".join(found))


def _numbered(name: str, index: int) -> str:
    """Plotly's name of the index-th axis or legend: the first has no number."""
    return name if index == 1 else f"{name}{index}"


def mark_round(figure: go.Figure, round: int | None) -> None:
    """Mark a round with a vertical line, or no round."""
    with figure.batch_update():
        mark = shape_named(figure, ROUND_MARK)
        mark.visible = round is not None
        mark.x0 = mark.x1 = round or 0


def _round_mark() -> dict[str, Any]:
    return {
        "name": ROUND_MARK,
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "visible": False,
        "line": {"color": SELECTED, "width": 2, "dash": "dot"},
    }
