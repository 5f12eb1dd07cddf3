"""Figures of several runs beside each other; refilled in place, as those of `details`, while the runs are the same."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from workbench.figures.fill import fill
from workbench.figures.style import GREY, KIND_COLOURS, Theme, interval, percent, plain, rgba
from workbench.views.comparison import RunsComparison

BUDGETS = (
    ("rounds", "at equal rounds", "#009E73", "diamond", 0.24),
    ("rollouts", "at matched rollouts", "#0072B2", "circle", 0.0),
    ("optimizer_steps", "at matched optimizer steps", "#D55E00", "square", -0.24),
)
"""What runs are matched by: name, entry in the legend, colour, marker, and how far above its row it stands."""

ARM_COLOURS = tuple(KIND_COLOURS.values())
ARM_DASHES = ("solid", "dash", "dot", "dashdot")
"""Arms differ by line and by colour."""


def comparison_figure(
    comparison: RunsComparison, theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Each run's newest held-out figures as points with 95 % intervals, one row per measure."""
    measures = list(dict.fromkeys(point.measure for point in comparison.points))
    places = {measure: len(measures) - 1 - index for index, measure in enumerate(measures)}
    names = comparison.names
    colours, symbols = list(KIND_COLOURS.values()), ("circle", "square", "diamond", "triangle-up", "x", "star")
    traces: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(names):
        points = [p for p in comparison.points if p.run == name and p.value is not None]
        offset = 0.5 * ((len(names) - 1) / 2 - index) / max(len(names), 2)
        traces[name] = {
            "x": [p.value for p in points],
            "y": [places[p.measure] + offset for p in points],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [(p.high - p.value) if p.high is not None and p.value is not None else 0 for p in points],
                "arrayminus": [(p.value - p.low) if p.low is not None and p.value is not None else 0 for p in points],
                "thickness": 1.4,
            },
            "text": [
                f"{plain(p.measure)}<br>after round {p.round}<br>{interval(p.value, p.low, p.high, p.n)}"
                for p in points
            ],
            "mode": "markers",
            "name": plain(name),
            "marker": {"size": 10, "symbol": symbols[index % len(symbols)], "color": colours[index % len(colours)]},
            "hovertemplate": f"<b>{plain(name)}</b><br>%{{text}}<extra></extra>",
        }
    layout = {
        "height": 150 + 52 * max(1, len(measures)),
        "title": {"text": "Newest held-out figures (95 % intervals)"},
        "xaxis": {"title": {"text": "share"}, "tickformat": ".0%", "range": [-0.02, 1.02]},
        "yaxis": {
            "tickmode": "array",
            "tickvals": [places[m] for m in measures],
            "ticktext": [plain(m) for m in measures],
            "range": [-0.6, max(len(measures) - 0.4, 0.6)],
        },
        "legend": {"orientation": "h", "y": -0.2},
    }
    return fill(figure, go.Scatter, traces, layout, theme, "comparison")


def arms_figure(comparison: RunsComparison, theme: Theme = "light", *, figure: go.Figure | None = None) -> go.Figure:
    """The arms over rounds, measures side by side: the mean over seeds, a band from the lowest to the highest."""
    measures = list(dict.fromkeys(point.measure for point in comparison.curves))
    width = 1 / max(len(measures), 1)
    traces: dict[str, dict[str, Any]] = {}
    layout: dict[str, Any] = {
        "height": 350,
        "margin": {"l": 60, "r": 10, "t": 66, "b": 46},
        "title": {"text": "Over rounds: means over seeds, bands from the lowest to the highest seed", "y": 0.97},
        "legend": {"orientation": "h", "y": -0.22},
        "annotations": [],
    }
    for index, arm in enumerate(comparison.arms):
        colour, dash = ARM_COLOURS[index % len(ARM_COLOURS)], ARM_DASHES[index % len(ARM_DASHES)]
        seeds = f" ({len(arm.seeds)} seeds)" if len(arm.seeds) > 1 else ""
        for place, measure in enumerate(measures):
            points = [p for p in comparison.curves if p.arm == arm.name and p.measure == measure]
            rounds = [p.round for p in points]
            axes = {"xaxis": _axis("x", place), "yaxis": _axis("y", place), "legendgroup": arm.name}
            traces[f"{arm.name} {measure} band"] = {
                **axes,
                "x": [*rounds, *reversed(rounds)],
                "y": [*(p.high for p in points), *(p.low for p in reversed(points))],
                "mode": "lines", "fill": "toself", "fillcolor": rgba(colour, 0.16), "line": {"width": 0},
                "hoverinfo": "skip", "showlegend": False,
            }  # fmt: skip
            traces[f"{arm.name} {measure}"] = {
                **axes,
                "x": rounds,
                "y": [p.mean for p in points],
                "mode": "lines+markers",
                "name": plain(arm.name) + seeds,
                "showlegend": place == 0,
                "line": {"color": colour, "width": 2, "dash": dash},
                "marker": {"size": 7, "color": colour},
                "text": [
                    f"{plain(measure)}<br>after round {p.round}<br>{percent(p.mean)} "
                    f"({percent(p.low)} to {percent(p.high)}, seeds: {p.seeds})"
                    for p in points
                ],
                "hovertemplate": f"<b>{plain(arm.name)}</b><br>%{{text}}<extra></extra>",
            }
    for place, measure in enumerate(measures):
        left, right = place * width, (place + 1) * width - 0.04
        layout[_axis("xaxis", place)] = {
            "domain": [left, right],
            "anchor": _axis("y", place),
            "title": {"text": "round"},
        }
        layout[_axis("yaxis", place)] = {"anchor": _axis("x", place), "tickformat": ".0%", "range": [-0.02, 1.02]}
        layout["annotations"].append(
            {
                "text": plain(measure), "x": left, "y": 1.02, "xref": "paper", "yref": "paper", "xanchor": "left",
                "yanchor": "bottom", "showarrow": False,
            }
        )  # fmt: skip
    return fill(figure, go.Scatter, traces, layout, theme, "arms")


def _axis(name: str, place: int) -> str:
    return name if place == 0 else f"{name}{place + 1}"


def difference_figure(
    comparison: RunsComparison, theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Paired differences in points with 95 % intervals at matched rollouts and at matched optimizer steps.

    A difference that is not enough evidence has an open marker.
    """
    rows = [row for row in comparison.rows if row.comparison.result.difference is not None]
    labels = list(dict.fromkeys((row.label, row.comparison.second_run) for row in rows))
    many = len(comparison.names) > 2
    traces: dict[str, dict[str, Any]] = {}
    for budget, name, colour, symbol, aside in BUDGETS:
        chosen = [row for row in rows if row.comparison.matched_by == budget]
        results = [row.comparison.result for row in chosen]
        values = [100 * (r.difference or 0.0) for r in results]
        traces[budget] = {
            "x": values,
            "y": [len(labels) - 1 - labels.index((row.label, row.comparison.second_run)) + aside for row in chosen],
            "error_x": {
                "type": "data",
                "symmetric": False,
                "array": [0 if r.high is None else 100 * r.high - v for r, v in zip(results, values, strict=True)],
                "arrayminus": [0 if r.low is None else v - 100 * r.low for r, v in zip(results, values, strict=True)],
                "thickness": 1.4,
            },
            "text": [plain(row.sentence) for row in chosen],
            "mode": "markers",
            "name": name,
            "marker": {
                "size": 10,
                "color": colour,
                "symbol": [symbol if row.enough else f"{symbol}-open" for row in chosen],
            },
            "hovertemplate": "%{text}<extra></extra>",
        }
    first = plain(comparison.names[0])
    layout = {
        "height": 150 + 52 * max(1, len(labels)),
        "title": {"text": f"Difference to {first} (open marker: not enough evidence)"},
        "xaxis": {"title": {"text": "points of accuracy"}, "zeroline": True, "zerolinewidth": 2, "zerolinecolor": GREY},
        "yaxis": {
            "tickmode": "array",
            "tickvals": [len(labels) - 1 - i for i in range(len(labels))],
            "ticktext": [plain(f"{label} ({run})" if many else label) for label, run in labels],
            "range": [-0.6, max(len(labels) - 0.4, 0.6)],
        },
        "legend": {"orientation": "h", "y": -0.2},
    }
    return fill(figure, go.Scatter, traces, layout, theme, "difference")
