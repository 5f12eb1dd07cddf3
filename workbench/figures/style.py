"""The look that all figures share: colours, themes, wording.

The four kinds have the blue, vermilion and green of Okabe and Ito's palette and a darker form of its purple, which
people with any common colour vision tell apart; their brightness lies in the middle, so that they stand out on white
and on dark pages alike. A theme therefore changes text and grid only, and a figure can change theme in place. Nothing
is told by colour alone: on-policy lines are solid with a band, held-out figures are markers with error bars on a dashed
line, chance and base rate are grey.
"""

from __future__ import annotations

import html
from typing import Literal

import plotly.graph_objects as go

Theme = Literal["light", "dark"]
KIND_COLOURS = {"solve": "#0072B2", "pointwise": "#D55E00", "pairwise": "#B0609A", "reflection": "#009E73"}
KIND_NAMES = {
    "solve": "solving",
    "pointwise": "pointwise judging",
    "pairwise": "pairwise judging",
    "reflection": "reflection",
}
GREY = "#808080"
RIGHT, MIXED, WRONG = "#009E73", "#A6A6A6", "#D55E00"
PHASE_COLOURS = ("#0072B2", "#56A0D3", "#9FC9E8", "#003F63", "#D55E00", "#E8935A", "#F3C4A2", "#7A3600", "#808080")
SELECTED = "#B8860B"
FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"
_INK = {"light": "#1f2328", "dark": "#e6e9ee"}
_GRID = {"light": "rgba(0,0,0,0.13)", "dark": "rgba(255,255,255,0.17)"}
_PAGE = {"light": "#ffffff", "dark": "#16181d"}


def template(theme: Theme) -> go.layout.Template:
    """Text, grid and hover colours of a theme; the background is transparent."""
    axis = {
        "gridcolor": _GRID[theme],
        "zeroline": False,
        "linecolor": _GRID[theme],
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": _GRID[theme],
        "automargin": True,
        "title": {"standoff": 8},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": _INK[theme]},
            "title": {"font": {"size": 14}, "x": 0, "xref": "paper", "xanchor": "left"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": _PAGE[theme], "font": {"color": _INK[theme], "family": FONT}, "align": "left"},
            "legend": {"bgcolor": "rgba(0,0,0,0)", "font": {"size": 11}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": _INK[theme]},
        }
    )


def apply_theme(figure: go.Figure, theme: Theme) -> None:
    """Change a figure's theme in place; traces stay as they are."""
    figure.layout.template = template(theme)


def rgba(colour: str, alpha: float) -> str:
    """A hex colour with transparency."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def plain(text: str) -> str:
    """Text from a run as plotly shows it literally: plotly reads a little HTML (bold, links) in labels."""
    return html.escape(text, quote=False)


def percent(value: float | None) -> str:
    """A share as a person reads it."""
    return "-" if value is None else f"{100 * value:.1f} %"


def interval(value: float | None, low: float | None, high: float | None, n: float | None) -> str:
    """A share with its 95 % interval and number of observations."""
    parts = [percent(value)]
    if low is not None and high is not None:
        parts.append(f"95 % interval {100 * low:.1f} to {100 * high:.1f} %")
    if n is not None:
        parts.append(f"n = {n:.0f}")
    return "<br>".join(parts)
