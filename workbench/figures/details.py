"""Figures of one moment: funnel, confusion, calibration, transitions, comparison of runs.

Each is a pure function from a snapshot to a figure; with `figure=` an existing one is refilled in place instead, which
keeps its traces and its widget. Labels that come from a run are shown literally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.figures.style import GREY, KIND_COLOURS, RIGHT, WRONG, Theme, interval, percent, plain, template
from workbench.views.chains import SelfCorrection
from workbench.views.comparison import RunsComparison
from workbench.views.judge import UNREADABLE, JudgeLine
from workbench.views.recycled import Funnel, FunnelStep

SHADES = ("#56A0D3", "#D55E00", "#B0609A", "#009E73", "#B8860B", "#7A6BB0", "#A6A6A6", "#5B7F95", "#C26A6A", "#6D8F3C")
REASONS = (
    "balance",
    "capped",
    "no_source",
    "no_answer",
    "not_selected",
    "too_old",
    "waiting",
    "prompt_too_long",
    "zero_variance",
    "other",
)
"""Reasons with a colour and a trace of their own; all others are gathered in "other"."""
TRANSITION_NAMES = {
    "right_right": "right, stays right",
    "wrong_right": "wrong, becomes right",
    "right_wrong": "right, becomes wrong",
    "wrong_wrong": "wrong, stays wrong",
}
TRANSITION_STYLES = {
    "right_right": (RIGHT, ""),
    "wrong_right": (RIGHT, "/"),
    "right_wrong": (WRONG, "x"),
    "wrong_wrong": (WRONG, ""),
}


def funnel_figure(
    funnel: Funnel, theme: Theme = "light", *, kind: str | None = None, figure: go.Figure | None = None
) -> go.Figure:
    """What went on and what was left at each step, as bars; `kind` shows one kind only."""
    steps = funnel.steps if kind is None else funnel.by_kind.get(kind, ())
    names = [f"{step.name}<br>({step.remained} of {step.entered})" for step in steps]
    data = [_counts("went on", "#0072B2", "", names, steps, [step.remained for step in steps])]
    for reason, colour in zip(REASONS, SHADES, strict=True):
        counts = [_left(step.left, reason) for step in steps]
        bar = _counts(reason.replace("_", " "), colour, "/", names, steps, counts)
        bar["visible"] = any(counts)
        if reason == "other":
            bar["customdata"] = [  # what "other" holds
                ", ".join(f"{k} {v}" for k, v in step.left.items() if k not in REASONS) for step in steps
            ]
        data.append(bar)
    layout = {
        "barmode": "stack",
        "height": 330,
        "title": {"text": f"From opportunities to the update{f', {plain(kind)}' if kind else ''}"},
        "xaxis": {"title": {"text": "share of what entered the step"}, "tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": -0.25, "traceorder": "normal"},
        "bargap": 0.35,
    }
    return _fill(figure, [go.Bar] * len(data), data, layout, theme, "funnel")


def confusion_figure(line: JudgeLine, theme: Theme = "light", *, figure: go.Figure | None = None) -> go.Figure:
    """Label against verdict, unreadable ones apart: counts, shaded by the share of the label's row."""
    verdicts = (*line.labels, UNREADABLE)
    counts = [[line.confusion[label, verdict] for verdict in verdicts] for label in line.labels]
    shares = [[n / sum(row) if sum(row) else 0.0 for n in row] for row in counts]
    ink = [
        [f"<b>{n}</b><br>{percent(share)}" for n, share in zip(*pair, strict=True)]
        for pair in zip(counts, shares, strict=True)
    ]
    data = {
        "z": shares,
        "x": [f"says {verdict}" if verdict != UNREADABLE else verdict for verdict in verdicts],
        "y": [f"is {label}" for label in line.labels],
        "text": ink,
        "texttemplate": "%{text}",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "#E8EEF4"], [1, "#5DA5D6"]],
        "textfont": {"color": "#10202e", "size": 13},
        "showscale": False,
        "xgap": 3,
        "ygap": 3,
        "hovertemplate": "label: %{y}<br>verdict: %{x}<br>%{text}<extra></extra>",
    }
    layout = {
        "height": 260,
        "title": {"text": f"{plain(line.name)}, n = {line.n}{'  (' + plain(line.flag) + ')' if line.flag else ''}"},
        "xaxis": {"side": "bottom", "showgrid": False, "title": {"text": "verdict"}},
        "yaxis": {"autorange": "reversed", "showgrid": False, "title": {"text": "label"}},
    }
    return _fill(figure, [go.Heatmap], [data], layout, theme, "confusion")


def calibration_figure(
    lines: Sequence[JudgeLine], theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Share of right answers against the judge's probability of "Yes"; a marker's size shows how many judgements.

    Up to four judges; those without recorded probabilities are passed over.
    """
    chosen = [line for line in lines if any(b.n for b in line.calibration)][:4]
    data: list[dict[str, Any]] = [
        {
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "line": {"color": GREY, "dash": "dash", "width": 1.3},
            "name": "calibrated",
            "hoverinfo": "skip",
        }
    ]
    symbols = ("circle", "square", "diamond", "triangle-up")
    for index in range(4):
        if index >= len(chosen):
            data.append({"x": [], "y": [], "visible": False})
            continue
        line = chosen[index]
        bins = [b for b in line.calibration if b.n and b.probability is not None]
        most = max(b.n for b in bins)
        colour = list(KIND_COLOURS.values())[index]
        error = "" if line.calibration_error is None else f", error {line.calibration_error:.3f}"
        data.append(
            {
                "x": [b.probability for b in bins],
                "y": [b.correct for b in bins],
                "text": [f"{percent(b.correct)} right at probability {b.probability:.3f}<br>n = {b.n}" for b in bins],
                "mode": "lines+markers",
                "name": plain(line.name) + error,
                "line": {"color": colour, "width": 1},
                "marker": {
                    "size": [7 + 17 * (b.n / most) ** 0.5 for b in bins],
                    "symbol": symbols[index],
                    "color": colour,
                    "opacity": 0.85,
                },
                "hovertemplate": "%{text}<extra></extra>",
                "visible": True,
            }
        )
    layout = {
        "height": 380,
        "title": {"text": 'How far "Yes" can be believed' if chosen else "No probabilities were recorded"},
        "xaxis": {"title": {"text": 'probability of "Yes"'}, "range": [-0.04, 1.04]},
        "yaxis": {"title": {"text": "share of answers that are right"}, "range": [-0.04, 1.04], "tickformat": ".0%"},
        "legend": {"orientation": "h", "y": -0.22},
    }
    return _fill(figure, [go.Scatter] * 5, data, layout, theme, "calibration")


def transitions_figure(
    loops: Sequence[SelfCorrection], theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """What the test-time loop did to right and wrong first answers, one bar per evaluation, as shares of its chains."""
    names = ["before training" if loop.round == 0 else f"after round {loop.round}" for loop in loops]
    data: list[dict[str, Any]] = []
    for key, name in TRANSITION_NAMES.items():
        colour, pattern = TRANSITION_STYLES[key]
        counts = [loop.transitions[key] for loop in loops]
        bar = _bar(
            name, colour, pattern, names, [n / loop.n if loop.n else 0.0 for n, loop in zip(counts, loops, strict=True)]
        )
        bar["text"] = [str(n) if n else "" for n in counts]
        bar["textposition"] = "inside"
        bar["insidetextanchor"] = "middle"
        bar["hovertemplate"] = f"<b>{name}</b><br>%{{y}}<br>%{{text}} chains, %{{x:.1%}}<extra></extra>"
        data.append(bar)
    notes = [
        {
            "x": 1.01,
            "y": name,
            "xref": "paper",
            "yref": "y",
            "xanchor": "left",
            "showarrow": False,
            "align": "left",
            "text": _verdict_of_loop(loop),
        }
        for name, loop in zip(names, loops, strict=True)
    ]
    layout = {
        "barmode": "stack",
        "height": 130 + 62 * max(1, len(loops)),
        "title": {"text": "Self-correction on held-out problems"},
        "xaxis": {"title": {"text": "share of problems"}, "tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": -0.35, "traceorder": "normal"},
        "annotations": notes,
        "margin": {"l": 60, "r": 190, "t": 44, "b": 46},
        "bargap": 0.4,
    }
    return _fill(figure, [go.Bar] * 4, data, layout, theme, "transitions")


def comparison_figure(
    comparison: RunsComparison, theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Each run's newest held-out figures as points with 95 % intervals, one row per measure."""
    measures = list(dict.fromkeys(point.measure for point in comparison.points))
    places = {measure: len(measures) - 1 - index for index, measure in enumerate(measures)}
    names = comparison.names
    colours, symbols = list(KIND_COLOURS.values()), ("circle", "square", "diamond", "triangle-up", "x", "star")
    data: list[dict[str, Any]] = []
    for index, name in enumerate(names):
        points = [p for p in comparison.points if p.run == name and p.value is not None]
        offset = 0.5 * ((len(names) - 1) / 2 - index) / max(len(names), 2)
        data.append(
            {
                "x": [p.value for p in points],
                "y": [places[p.measure] + offset for p in points],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [(p.high - p.value) if p.high is not None and p.value is not None else 0 for p in points],
                    "arrayminus": [
                        (p.value - p.low) if p.low is not None and p.value is not None else 0 for p in points
                    ],
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
        )
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
    return _fill(figure, [go.Scatter] * len(data), data, layout, theme, "comparison")


def difference_figure(
    comparison: RunsComparison, theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Paired differences in points with 95 % intervals at matched rollouts and at matched optimizer steps.

    A difference that is not enough evidence has an open marker.
    """
    rows = [row for row in comparison.rows if row.comparison.result.difference is not None]
    labels = list(dict.fromkeys((row.label, row.comparison.second_run) for row in rows))
    many = len(comparison.names) > 2
    data: list[dict[str, Any]] = []
    for index, (budget, name, colour) in enumerate(
        (("rollouts", "at matched rollouts", "#0072B2"), ("optimizer_steps", "at matched optimizer steps", "#D55E00"))
    ):
        chosen = [row for row in rows if row.comparison.matched_by == budget]
        results = [row.comparison.result for row in chosen]
        values = [100 * (r.difference or 0.0) for r in results]
        data.append(
            {
                "x": values,
                "y": [
                    len(labels)
                    - 1
                    - labels.index((row.label, row.comparison.second_run))
                    + (0.15 if index == 0 else -0.15)
                    for row in chosen
                ],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [0 if r.high is None else 100 * r.high - v for r, v in zip(results, values, strict=True)],
                    "arrayminus": [
                        0 if r.low is None else v - 100 * r.low for r, v in zip(results, values, strict=True)
                    ],
                    "thickness": 1.4,
                },
                "text": [plain(row.sentence) for row in chosen],
                "mode": "markers",
                "name": name,
                "marker": {
                    "size": 10,
                    "color": colour,
                    "symbol": [
                        ("circle" if index == 0 else "square") + ("" if row.enough else "-open") for row in chosen
                    ],
                },
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
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
    return _fill(figure, [go.Scatter] * 2, data, layout, theme, "difference")


def _fill(
    figure: go.Figure | None,
    kinds: Sequence[type],
    data: Sequence[Mapping[str, Any]],
    layout: Mapping[str, Any],
    theme: Theme,
    name: str,
) -> go.Figure:
    """A new figure, or the given one refilled: its traces are reused where there are as many."""
    common = {
        "margin": {"l": 60, "r": 10, "t": 44, "b": 46},
        "uirevision": name,
        "hovermode": "closest",
    }
    if figure is None:
        made = go.Figure([kind(**new) for kind, new in zip(kinds, data, strict=True)])
        made.update_layout({**common, **layout, "template": template(theme)})
        return made
    if len(figure.data) != len(data):
        raise ValueError(f"this {name} figure has {len(figure.data)} traces, {len(data)} are needed: make a new one")
    with figure.batch_update():
        for trace, new in zip(figure.data, data, strict=True):
            trace.update(dict(new), overwrite=False)
        figure.layout.annotations = layout.get("annotations", ())  # an update would keep those that are too many
        figure.update_layout({name: value for name, value in layout.items() if name != "annotations"})
    return figure


def _bar(name: str, colour: str, pattern: str, names: Sequence[str], values: Sequence[float]) -> dict[str, Any]:
    return {
        "orientation": "h",
        "name": name,
        "x": list(values),
        "y": list(names),
        "marker": {
            "color": colour,
            "line": {"width": 0},
            "pattern": {"shape": pattern, "fillmode": "overlay", "size": 7, "solidity": 0.2, "fgcolor": "#ffffff"},
        },
        "hovertemplate": f"<b>{name}</b><br>%{{y}}: %{{x}}<extra></extra>",
    }


def _counts(
    name: str, colour: str, pattern: str, names: Sequence[str], steps: Sequence[FunnelStep], counts: Sequence[int]
) -> dict[str, Any]:
    """Bars of counts as shares of what entered each step."""
    bar = _bar(
        name,
        colour,
        pattern,
        names,
        [n / step.entered if step.entered else 0.0 for n, step in zip(counts, steps, strict=True)],
    )
    bar["text"] = [str(n) if n else "" for n in counts]
    bar |= {"textposition": "inside", "insidetextanchor": "middle", "textangle": 0}
    bar["hovertemplate"] = f"<b>{name}</b><br>%{{y}}<br>%{{text}}, %{{x:.1%}}<br>%{{customdata}}<extra></extra>"
    bar["customdata"] = [step.unit for step in steps]
    return bar


def _left(left: Mapping[str, int], reason: str) -> int:
    if reason == "other":
        return sum(n for name, n in left.items() if name not in REASONS)
    return left.get(reason, 0)


def _verdict_of_loop(loop: SelfCorrection) -> str:
    before, after = loop.before[0], loop.after[0]
    p = "" if loop.mcnemar_p is None else f"<br>McNemar p = {loop.mcnemar_p:.3g}"
    return f"{percent(before)} to {percent(after)}{p}"
