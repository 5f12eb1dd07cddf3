"""The kinds of traces that panels are made of: on-policy lines with a band, held-out markers, grey references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.figures.combined import combined
from workbench.figures.panel import HIDDEN, Data, Slot
from workbench.figures.style import GREY, interval, rgba
from workbench.views.lines import Line
from workbench.views.series import RoundSeries

SHARE_AXIS: Mapping[str, Any] = {"range": [-0.02, 1.02], "tickformat": ".0%", "dtick": 0.25}
SPREAD = 0.006
"""Share of the width by which held-out markers of one round stand apart."""


def line_slots(
    row: str,
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
        slots.append(Slot(row, f"{name}, band", style, lambda series: _band(pick(series), figure)))
    style = {
        "name": name,
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2, "dash": dash},
        "marker": {"size": 4, "color": colour},
        "hovertemplate": f"<b>{name}</b><br>round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    slots.append(Slot(row, name, style, lambda series: _line(pick(series), figure, show or share_text(figure))))
    return slots


def held_out_slot(
    row: str, name: str, colour: str, symbol: str, line: str, figure: str, *, place: int = 0, dash: str = "dash"
) -> Slot:
    """A held-out figure: markers with 95 % error bars on a dashed line. `place` moves it aside: -1, 0 or 1."""
    style = {
        "name": name,
        "mode": "lines+markers",
        "cliponaxis": False,
        "line": {"color": colour, "width": 1, "dash": dash},
        "marker": {"size": 9, "symbol": symbol, "color": colour, "line": {"width": 1, "color": colour}},
        "error_y": {"type": "data", "symmetric": False, "color": colour, "thickness": 1.2, "width": 3},
        "hovertemplate": f"<b>{name}</b><br>after round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    return Slot(row, name, style, lambda series: _held_out(series, line, figure, place))


def grey_slot(row: str, name: str, pick: Callable[[RoundSeries], Line | None], figure: str, dash: str = "dash") -> Slot:
    """A grey reference line, such as chance or the base rate."""
    style = {
        "name": name,
        "mode": "lines",
        "line": {"color": GREY, "width": 1.3, "dash": dash},
        "hovertemplate": f"{name}<br>round %{{customdata}}<br>%{{text}}<extra></extra>",
    }
    return Slot(row, name, style, lambda series: _line(pick(series), figure, share_text(figure)))


def of_kind(kind: str, origin: str) -> Callable[[RoundSeries], Line | None]:
    """Picks the on-policy line of a kind whose tasks were made from `origin`."""
    return lambda series: series.kind_line(kind, origin)


def of_all_origins(kind: str) -> Callable[[RoundSeries], Line | None]:
    """Picks the on-policy line of a kind over all that its tasks were made from."""
    return lambda series: combined(series, kind)


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
