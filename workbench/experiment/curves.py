"""Curves with bands as SVG: no script, no request, readable on paper and on a dark page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from workbench.experiment.findings import CurvePoint
from workbench.experiment.matching import Match

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B0609A", "#B8860B", "#56A0D3", "#7A3600", "#808080")
DASHES = ("", "7 4", "2 3", "9 3 2 3", "4 4", "12 4", "1 4", "6 2")
"""Arms differ by line and by colour, so that nothing is told by colour alone."""
WIDTH, HEIGHT = 460, 260
LEFT, RIGHT, TOP, BOTTOM = 48, 22, 12, 40
TICKS = 5


def curve_svg(curves: Mapping[str, Sequence[CurvePoint]], arms: Sequence[str], match: Match, label: str) -> str:
    """One measure of every arm over what training cost.

    Args:
        curves: by arm.
        arms: all arms of the experiment, in the order that gives each its colour.
        match: what the horizontal axis counts.
        label: the measure's name.
    """
    points = [point for curve in curves.values() for point in curve]
    across = max((point.spent[match] for point in points), default=1.0) or 1.0
    low = min((point.low for point in points), default=0.0)
    high = max((point.high for point in points), default=1.0)
    room = 0.05 * (high - low) or 0.05
    low, high = max(0.0, low - room), min(1.0, high + room)

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / across

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" class="curve" '
        f'aria-label="{escape(label)} over {match}, by arm">'
    ]
    for step in range(TICKS):
        value = low + (high - low) * step / (TICKS - 1)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y(value) + 4:.1f}" text-anchor="end">{100 * value:.0f} %</text>')
        amount = across * step / (TICKS - 1)
        parts.append(
            f'<text x="{x(amount):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{_short(amount)}</text>'
        )
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{match}</text>')
    for arm, curve in curves.items():
        place = list(arms).index(arm)
        colour, dash = COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)]
        upper = [f"{x(p.spent[match]):.1f},{y(p.high):.1f}" for p in curve]
        lower = [f"{x(p.spent[match]):.1f},{y(p.low):.1f}" for p in reversed(curve)]
        line = " ".join(f"{x(p.spent[match]):.1f},{y(p.value):.1f}" for p in curve)
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" fill-opacity="0.15"/>')
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}">'
            f"<title>{escape(arm)}</title></polyline>"
        )
        parts += [
            f'<circle cx="{x(p.spent[match]):.1f}" cy="{y(p.value):.1f}" r="3" fill="{colour}"><title>{escape(arm)}, '
            f"round {p.round}: {100 * p.value:.1f} % ({100 * p.low:.1f} to {100 * p.high:.1f}, {p.seeds} seeds)</title>"
            "</circle>"
            for p in curve
        ]
    return "".join([*parts, "</svg>"])


def legend_svg(arms: Sequence[str]) -> str:
    """The arms with their lines."""
    rows = [
        f'<line x1="4" x2="44" y1="{10 + 20 * n}" y2="{10 + 20 * n}" stroke="{COLOURS[n % len(COLOURS)]}" '
        f'stroke-width="2" stroke-dasharray="{DASHES[n % len(DASHES)]}"/>'
        f'<text x="52" y="{14 + 20 * n}">{escape(arm)}</text>'
        for n, arm in enumerate(arms)
    ]
    height = 20 * len(rows) + 4
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="legend" class="legend">{"".join(rows)}</svg>'


def _short(amount: float) -> str:
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if amount >= size:
            return f"{amount / size:.3g}{unit}"
    return f"{amount:.3g}"
