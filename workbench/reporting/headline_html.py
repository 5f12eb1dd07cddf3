"""The headline as HTML that needs no script and no style sheet: app, notebook and report show the same."""

from __future__ import annotations

import html
from collections.abc import Sequence

from workbench.views.headline import HeadlineFigure

WIDTH, HEIGHT = 180, 44
BLUE = "#2f7fb8"
CARD = "border:1px solid #8888;border-radius:8px;padding:8px 12px;flex:1 1 210px;min-width:0"


def headline_html(figures: Sequence[HeadlineFigure]) -> str:
    """Tiles side by side, as many as fit; a sentence where no held-out evaluation stands."""
    if not figures:
        return '<p class="spark-headline">No held-out evaluation yet: the headline is drawn from them.</p>'
    tiles = "".join(map(_tile, figures))
    return f'<div class="spark-headline" style="display:flex;flex-wrap:wrap;gap:10px;margin:6px 0">{tiles}</div>'


def _tile(figure: HeadlineFigure) -> str:
    ends = _share(figure, 0), _share(figure, -1)
    start = f"<div>start: {ends[0]}</div>" if len(figure.rounds) > 1 else ""
    chance = "" if figure.chance is None else f"<div>balanced accuracy; chance is {figure.chance:.0%}</div>"
    return (
        f'<section style="{CARD}" data-headline="{figure.name}"><div>{html.escape(figure.title)}</div>'
        f'<div style="font-size:1.7em;font-weight:600;line-height:1.3">{_percent(figure.values[-1])}</div>'
        f"{_curve(figure)}<div>now: {ends[1]}</div>{start}{_change(figure)}{chance}"
        f"<p style='margin:4px 0 0'><b>{html.escape(figure.sentence)}</b></p></section>"
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _share(figure: HeadlineFigure, index: int) -> str:
    low, high = figure.low[index], figure.high[index]
    interval = "" if low is None or high is None else f" (95 %: {low:.0%} to {high:.0%})"
    round = figure.rounds[index]
    where = "before training" if round == 0 else f"after round {round}"
    return f"{_percent(figure.values[index])}{interval}, {where}"


def _change(figure: HeadlineFigure) -> str:
    change = figure.change
    if change is None or change.difference is None:
        return ""
    interval = "no interval"
    if change.low is not None and change.high is not None:
        interval = f"95 %: {100 * change.low:+.1f} to {100 * change.high:+.1f}"
    return f"<div>change: {100 * change.difference:+.1f} points ({interval}; {change.problems} shared problems)</div>"


def _curve(figure: HeadlineFigure) -> str:
    """A curve over rounds, 0 % at the bottom, 100 % at the top, with the chance line; its label says the ends."""
    first, last = figure.rounds[0], figure.rounds[-1]
    points = [
        (4 + (WIDTH - 8) * (round - first) / max(1, last - first), 4 + (HEIGHT - 8) * (1 - value))
        for round, value in zip(figure.rounds, figure.values, strict=True)
        if value is not None
    ]
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{BLUE}"/>' for x, y in points)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    chance = ""
    if figure.chance is not None:
        y = 4 + (HEIGHT - 8) * (1 - figure.chance)
        chance = f'<line x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#888" stroke-dasharray="4 3"/>'
    says = f"{figure.title}: {_share(figure, 0)}; {_share(figure, -1)}"
    return (
        f'<svg role="img" aria-label="{html.escape(says)}" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" style="max-width:100%">{chance}'
        f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>{marks}</svg>'
    )
