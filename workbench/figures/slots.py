"""Figures that are made once and mutated: a fixed list of traces, and a function that says what each shows now.

A trace without data is hidden, never removed, so that a thousand updates leave as many traces as the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from workbench.figures.style import GREY, SELECTED, Theme, interval, plain, rgba, template
from workbench.views.lines import Line
from workbench.views.series import RoundSeries

Data = dict[str, Any]
"""What a trace shows now: x, y, text, customdata (the round of each point), visible, and error bars if it has them."""
HIDDEN: Data = {"x": [], "y": [], "text": [], "customdata": [], "visible": False}
SPREAD = 0.006
"""Share of the width by which held-out markers of one round stand apart."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A trace: its row from 1, its fixed properties, and what it shows of a series."""

    row: int
    style: Mapping[str, Any]
    data: Callable[[RoundSeries], Data]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a figure: the title of its y axis (with unit), and fixed properties of that axis."""

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
SHARE_AXIS: Mapping[str, Any] = {"range": [-0.02, 1.02], "tickformat": ".0%", "dtick": 0.25}
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
    entries = [len({slot.style["name"] for slot in panel.slots if slot.row == row}) for row in range(1, count + 1)]
    legends = LEGEND_LINE * max((number + 1) // 2 for number in entries) if compact else 0
    gap = GAP + legends
    plots = panel.row_height * count + gap * (count - 1)
    above = ABOVE + legends
    figure = make_subplots(rows=count, cols=1, shared_xaxes=True, vertical_spacing=gap / plots)
    seen: set[tuple[int, str]] = set()
    traces = []
    slots = _all_slots(panel)
    for slot in slots:
        style = dict(slot.style)
        name = style.get("name", "")
        style["legend"] = _numbered("legend", slot.row)
        # A band answers to the click on its line's entry in the legend.
        style.setdefault("legendgroup", f"{slot.row} {name}")
        style.setdefault("showlegend", (slot.row, name) not in seen)
        if style["showlegend"]:
            seen.add((slot.row, name))
        traces.append(go.Scatter(**style))
    figure.add_traces(traces, rows=[slot.row for slot in slots], cols=1)
    figure.update_layout(
        template=template(theme),
        title={"text": panel.title, "y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 10}},
        height=plots + above + BELOW,
        margin={"l": 60, "r": 10, "t": above, "b": BELOW},
        uirevision=panel.name,
        hovermode="closest",
        shapes=[_round_mark()],
    )
    for index, row in enumerate(panel.rows, start=1):
        figure.update_yaxes(title_text=row.title, row=index, col=1, **row.axis)
        top = figure.layout[_numbered("yaxis", index)].domain[1]
        place = (
            {"orientation": "h", "x": 0, "yanchor": "bottom", "y": top}
            if compact
            else {"x": 1.01, "yanchor": "top", "y": top}
        )
        figure.update_layout({_numbered("legend", index): {**LEGEND, **place}})
    figure.update_xaxes(title_text="round", row=count, col=1)
    figure.update_xaxes(tickformat=",d")
    update_panel(figure, panel, series)
    return figure


def update_panel(figure: go.Figure, panel: Panel, series: RoundSeries) -> None:
    """Show a newer series in a figure that `make_panel` made, a `FigureWidget` of it too, in one message.

    Raises:
        ValueError: a figure of another panel.
    """
    data = [slot.data(series) for slot in _all_slots(panel)]
    step = 1 if _last_round(series) <= FEW_ROUNDS else None
    if len(data) != len(figure.data):
        raise ValueError(f"this figure has {len(figure.data)} traces, {panel.name} has {len(data)}")
    with figure.batch_update():
        figure.layout.title.subtitle.text = _remarks(panel, series)
        for index in range(1, len(panel.rows) + 1):
            figure.layout[_numbered("xaxis", index)].dtick = step
        for trace, new in zip(figure.data, data, strict=True):
            if new is HIDDEN and trace.visible is False:
                continue
            for name, value in new.items():
                trace[name] = value


def _all_slots(panel: Panel) -> tuple[Slot, ...]:
    """The panel's traces, and an invisible point in each row: plotly cannot lay out a row without any trace beside rows
    that have some, such as those of judges in a run without judging.
    """
    style = {"name": "", "mode": "markers", "marker": {"opacity": 0}, "hoverinfo": "skip", "showlegend": False}
    return (*panel.slots, *(Slot(row, style, _anchor) for row in range(1, len(panel.rows) + 1)))


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
        mark = figure.layout.shapes[0]
        mark.visible = round is not None
        mark.x0 = mark.x1 = round or 0


def line_slots(
    row: int,
    name: str,
    colour: str,
    pick: Callable[[RoundSeries], Line | None],
    figure: str,
    *,
    dash: str = "solid",
    band: bool = True,
    show: Callable[[Line, int], str] | None = None,
) -> list[Slot]:
    """An on-policy line with its 95 % band."""
    slots = []
    if band:
        style = {
            "name": name,
            "mode": "lines",
            "fill": "toself",
            "fillcolor": rgba(colour, 0.16),
            "line": {"width": 0},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": f"{row} {name}",
        }
        slots.append(Slot(row, style, lambda series: _band(pick(series), figure)))
    style = {
        "name": name,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"size": 4, "color": colour},
        "hovertemplate": f"<b>{name}</b><br>round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    slots.append(Slot(row, style, lambda series: _line(pick(series), figure, show or share_text(figure))))
    return slots


def held_out_slot(row: int, name: str, colour: str, symbol: str, line: str, figure: str, *, place: int = 0) -> Slot:
    """A held-out figure: markers with 95 % error bars on a dashed line. `place` moves it aside: -1, 0 or 1."""
    style = {
        "name": name,
        "mode": "lines+markers",
        "cliponaxis": False,
        "line": {"color": colour, "width": 1, "dash": "dash"},
        "marker": {"size": 9, "symbol": symbol, "color": colour, "line": {"width": 1, "color": colour}},
        "error_y": {"type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3},
        "hovertemplate": f"<b>{name}</b><br>after round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    return Slot(row, style, lambda series: _held_out(series, line, figure, place))


def grey_slot(row: int, name: str, pick: Callable[[RoundSeries], Line | None], figure: str, dash: str = "dash") -> Slot:
    """A grey reference line, such as chance or the base rate."""
    style = {
        "name": name,
        "mode": "lines",
        "line": {"color": GREY, "width": 1.3, "dash": dash},
        "hovertemplate": f"{name}<br>round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    return Slot(row, style, lambda series: _line(pick(series), figure, share_text(figure)))


def share_text(figure: str) -> Callable[[Line, int], str]:
    """Hover text of a share: value, interval and n."""

    def show(line: Line, index: int) -> str:
        n = line.get(f"{figure}_n")[index]
        return interval(
            line.get(figure)[index],
            line.get(f"{figure}_low")[index],
            line.get(f"{figure}_high")[index],
            line.get("n")[index] if n is None else n,
        )

    return show


def number_text(figure: str, unit: str = "", more: Sequence[tuple[str, str]] = ()) -> Callable[[Line, int], str]:
    """Hover text of a number with its unit, and of further figures of the same point as (figure, name)."""

    def show(line: Line, index: int) -> str:
        value = line.get(figure)[index]
        parts = ["-" if value is None else f"{value:.4g}{' ' + unit if unit else ''}"]
        for other, name in more:
            found = line.get(other)[index]
            if found is not None:
                parts.append(f"{name} {found:.4g}")
        return "<br>".join(parts)

    return show


def _line(line: Line | None, figure: str, show: Callable[[Line, int], str]) -> Data:
    if line is None or not line.has(figure):
        return HIDDEN
    values = line.get(figure)
    return {
        "x": list(line.rounds),
        "y": list(values),
        "text": [show(line, index) for index in range(len(values))],
        "customdata": list(line.rounds),
        "visible": True,
    }


def _band(line: Line | None, figure: str) -> Data:
    """Closed shapes between low and high, one for each stretch of rounds that have both."""
    if line is None or not line.has(f"{figure}_low"):
        return HIDDEN
    x: list[int | None] = []
    y: list[float | None] = []
    stretch: list[tuple[int, float, float]] = []
    rows = zip(line.rounds, line.get(f"{figure}_low"), line.get(f"{figure}_high"), strict=True)
    for round, low, high in (*rows, (0, None, None)):
        if low is not None and high is not None:
            stretch.append((round, low, high))
        elif stretch:
            if x:
                x.append(None)
                y.append(None)
            x += [r for r, _, _ in stretch] + [r for r, _, _ in reversed(stretch)]
            y += [h for _, _, h in stretch] + [low for _, low, _ in reversed(stretch)]
            stretch = []
    return {"x": x, "y": y, "text": [], "customdata": [], "visible": True}


def _held_out(series: RoundSeries, name: str, figure: str, place: int) -> Data:
    line = series.held_out_line(name)
    if line is None or not line.has(figure):
        return HIDDEN
    values = line.get(figure)
    width = max((*series.rounds, *line.rounds, 1))
    show = share_text(figure)
    above, below = [], []
    for value, low, high in zip(values, line.get(f"{figure}_low"), line.get(f"{figure}_high"), strict=True):
        above.append(0 if value is None or high is None else high - value)
        below.append(0 if value is None or low is None else value - low)
    return {
        "x": [round + place * SPREAD * width for round in line.rounds],
        "y": list(values),
        "text": [show(line, index) for index in range(len(values))],
        "customdata": list(line.rounds),
        "error_y.array": above,
        "error_y.arrayminus": below,
        "visible": True,
    }


def _round_mark() -> dict[str, Any]:
    return {
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
