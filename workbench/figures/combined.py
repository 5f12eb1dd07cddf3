"""A kind's curve over all that its tasks were made from, as figures without room for every origin show it."""

from __future__ import annotations

from workbench.views.lines import Line, Value
from workbench.views.series import RoundSeries


def combined(series: RoundSeries, kind: str) -> Line | None:
    """A kind over all origins: shares of outputs weighted by their number, shares of groups by the groups."""
    lines = [line for line in series.on_policy if line.name[1] == kind]
    if len(lines) < 2:
        return lines[0] if lines else None
    rounds = tuple(sorted({round for line in lines for round in line.rounds}))
    figures: dict[str, tuple[Value, ...]] = {
        "n": _summed(lines, rounds, "n"),
        "groups": _summed(lines, rounds, "groups"),
    }
    for figure in ("accuracy", "unparseable"):
        figures[figure] = _weighted(lines, rounds, figure, ("n",))
    for figure in ("truncated", "length_mean"):
        figures[figure] = _weighted(lines, rounds, figure, ("n", "missing"))
    for figure in ("all_correct", "mixed", "all_wrong"):
        figures[figure] = _weighted(lines, rounds, figure, ("groups",))
    return Line(("all", kind), rounds, figures)


def _cells(line: Line, figure: str) -> dict[int, Value]:
    return dict(zip(line.rounds, line.get(figure), strict=True))


def _summed(lines: list[Line], rounds: tuple[int, ...], figure: str) -> tuple[Value, ...]:
    cells = [_cells(line, figure) for line in lines]
    return tuple(sum(cell.get(round) or 0 for cell in cells) for round in rounds)


def _weighted(lines: list[Line], rounds: tuple[int, ...], figure: str, weights: tuple[str, ...]) -> tuple[Value, ...]:
    found: list[Value] = []
    values = [_cells(line, figure) for line in lines]
    parts = [[_cells(line, weight) for weight in weights] for line in lines]
    for round in rounds:
        total = weight_sum = 0.0
        for value, cells in zip(values, parts, strict=True):
            here = value.get(round)
            weight = sum(cell.get(round) or 0 for cell in cells)
            if here is not None:
                total += here * weight
                weight_sum += weight
        found.append(total / weight_sum if weight_sum else None)
    return tuple(found)
