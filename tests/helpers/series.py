"""Series of a run as they stood after a round, and the traces of a figure by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.views import Line, RoundSeries

EMPTY = RoundSeries("new", (), 0, "", (), (), (), (), (), Line(("round",), (), {}), ())


def shown(figure: go.Figure) -> list[Any]:
    """The traces that a person can see."""
    return [trace for trace in figure.data if trace.visible is not False and trace.name]


def named(figure: go.Figure, name: str, row: int = 1) -> Any:
    """The trace of a legend entry that can be hovered, in a row."""
    axis = "y" if row == 1 else f"y{row}"
    found = [t for t in figure.data if t.name == name and t.yaxis in (axis, None) and t.hoverinfo != "skip"]
    assert len(found) == 1, (name, [t.name for t in figure.data])
    return found[0]


def prefix(series: RoundSeries, last: int) -> RoundSeries:
    """The series as it stood after a round."""

    def cut(lines: Sequence[Line]) -> tuple[Line, ...]:
        made = []
        for line in lines:
            n = sum(round <= last for round in line.rounds)
            if n:
                made.append(Line(line.name, line.rounds[:n], {k: v[:n] for k, v in line.figures.items()}))
        return tuple(made)

    return dataclasses.replace(
        series,
        rounds=tuple(round for round in series.rounds if round <= last),
        **{
            name: cut(getattr(series, name))
            for name in ("on_policy", "held_out", "updates", "updates_by_kind", "seconds")
        },
        memory=next(iter(cut([series.memory])), EMPTY.memory),
    )
