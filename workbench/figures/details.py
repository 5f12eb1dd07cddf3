"""Figures of one moment of a run: funnel, confusion, calibration, transitions.

Each is a pure function from a snapshot to a figure; with `figure=` an existing one is refilled in place instead, which
keeps its traces and its widget. Labels that come from a run are shown literally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import plotly.graph_objects as go

from workbench.figures.fill import fill
from workbench.figures.style import GREY, KIND_COLOURS, RIGHT, WRONG, Theme, percent, plain
from workbench.views.chains import SelfCorrection
from workbench.views.funnel import Funnel, FunnelStep
from workbench.views.judge import UNREADABLE, JudgeLine

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
JUDGE_LOOKS = dict(zip(("circle", "square", "diamond", "triangle-up"), KIND_COLOURS.values(), strict=True))
"""The marker and colour of each judge of a calibration figure."""


def funnel_figure(
    funnel: Funnel, theme: Theme = "light", *, kind: str | None = None, figure: go.Figure | None = None
) -> go.Figure:
    """What went on and what was left at each step, as bars; `kind` shows one kind only."""
    steps = funnel.steps if kind is None else funnel.by_kind.get(kind, ())
    names = [f"{step.name}<br>({step.remained} of {step.entered})" for step in steps]
    bars = {"went on": _counts("went on", "#0072B2", "", names, steps, [step.remained for step in steps])}
    for reason, colour in zip(REASONS, SHADES, strict=True):
        counts = [_left(step.left, reason) for step in steps]
        bar = _counts(reason.replace("_", " "), colour, "/", names, steps, counts)
        bar["visible"] = any(counts)
        if reason == "other":
            bar["customdata"] = [  # what "other" holds
                ", ".join(f"{k} {v}" for k, v in step.left.items() if k not in REASONS) for step in steps
            ]
        bars[reason] = bar
    layout = {
        "barmode": "stack",
        "height": 330,
        "title": {"text": f"From opportunities to the update{f', {plain(kind)}' if kind else ''}"},
        "xaxis": {"title": {"text": "share of what entered the step"}, "tickformat": ".0%", "range": [0, 1]},
        "yaxis": {"autorange": "reversed"},
        "legend": {"orientation": "h", "y": -0.25, "traceorder": "normal"},
        "bargap": 0.35,
    }
    return fill(figure, go.Bar, bars, layout, theme, "funnel")


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
    return fill(figure, go.Heatmap, {"counts": data}, layout, theme, "confusion")


def calibration_figure(
    lines: Sequence[JudgeLine], theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """Share of right answers against the judge's probability of "Yes"; a marker's size shows how many judgements.

    Up to four judges; those without recorded probabilities are passed over.
    """
    chosen = [line for line in lines if any(b.n for b in line.calibration)][: len(JUDGE_LOOKS)]
    traces: dict[str, dict[str, Any]] = {
        "calibrated": {
            "x": [0, 1],
            "y": [0, 1],
            "mode": "lines",
            "line": {"color": GREY, "dash": "dash", "width": 1.3},
            "name": "calibrated",
            "hoverinfo": "skip",
        }
    }
    # A judge's trace is called by its look: the figure is refilled with other judges, and their names then change.
    for (symbol, colour), line in zip_longest(JUDGE_LOOKS.items(), chosen):
        if line is None:
            traces[symbol] = {"x": [], "y": [], "visible": False}
            continue
        bins = [b for b in line.calibration if b.n and b.probability is not None]
        most = max(b.n for b in bins)
        error = "" if line.calibration_error is None else f", error {line.calibration_error:.3f}"
        traces[symbol] = {
            "x": [b.probability for b in bins],
            "y": [b.correct for b in bins],
            "text": [f"{percent(b.correct)} right at probability {b.probability:.3f}<br>n = {b.n}" for b in bins],
            "mode": "lines+markers",
            "name": plain(line.name) + error,
            "line": {"color": colour, "width": 1},
            "marker": {
                "size": [7 + 17 * (b.n / most) ** 0.5 for b in bins],
                "symbol": symbol,
                "color": colour,
                "opacity": 0.85,
            },
            "hovertemplate": "%{text}<extra></extra>",
            "visible": True,
        }
    layout = {
        "height": 380,
        "title": {"text": 'How far "Yes" can be believed' if chosen else "No probabilities were recorded"},
        "xaxis": {"title": {"text": 'probability of "Yes"'}, "range": [-0.04, 1.04]},
        "yaxis": {"title": {"text": "share of answers that are right"}, "range": [-0.04, 1.04], "tickformat": ".0%"},
        "legend": {"orientation": "h", "y": -0.22},
    }
    return fill(figure, go.Scatter, traces, layout, theme, "calibration")


def transitions_figure(
    loops: Sequence[SelfCorrection], theme: Theme = "light", *, figure: go.Figure | None = None
) -> go.Figure:
    """What the test-time loop did to right and wrong first answers, one bar per evaluation, as shares of its chains."""
    names = ["before training" if loop.round == 0 else f"after round {loop.round}" for loop in loops]
    bars: dict[str, dict[str, Any]] = {}
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
        bars[key] = bar
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
    return fill(figure, go.Bar, bars, layout, theme, "transitions")


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
