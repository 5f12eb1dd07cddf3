"""A curve as plain values: rounds, and figures of equal length by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Value = float | None
Column = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """Figures of one thing over rounds.

    `name` is what the line is about (see `RoundSeries`); `rounds` ascends. Every column of `figures` is as long as
    `rounds`; a figure that a round does not have is None. Shares lie in [0, 1]; True is 1.0. A 95 % interval stands
    beside its figure as `FIGURE_low` and `FIGURE_high`.
    """

    name: tuple[str, ...]
    rounds: tuple[int, ...]
    figures: Mapping[str, Column]

    def get(self, figure: str) -> Column:
        """A column; all None where no round has the figure."""
        return self.figures.get(figure, (None,) * len(self.rounds))

    def has(self, figure: str) -> bool:
        """Whether any round has the figure."""
        return any(value is not None for value in self.figures.get(figure, ()))

    def last(self, figure: str) -> Value:
        """The figure in the newest round of the line; None where it has none."""
        column = self.figures.get(figure, ())
        return column[-1] if column else None


def make_lines(rows: Iterable[tuple[tuple[str, ...], int, Mapping[str, Value]]]) -> tuple[Line, ...]:
    """Lines from (name, round, figures), in order of first appearance; rounds must come in ascending order."""
    found: dict[tuple[str, ...], list[tuple[int, Mapping[str, Value]]]] = {}
    for name, round, figures in rows:
        found.setdefault(name, []).append((round, figures))
    return tuple(
        Line(name, tuple(r for r, _ in members), _columns([f for _, f in members])) for name, members in found.items()
    )


def thin(rounds: Sequence[int], most: int, keep: Iterable[int] = ()) -> tuple[int, ...]:
    """At most about `most` of the rounds, ascending: the first, the last, `keep`, and every k-th in between.

    k is a power of two and counts from round 0, so that a growing run keeps the rounds it has shown already.
    Of `keep`, too, every k-th is left where they are more than half of `most`.

    Raises:
        ValueError: most < 4.
    """
    if most < 4:
        raise ValueError(f"{most} points are too few for a curve")
    if len(rounds) <= most:
        return tuple(rounds)
    kept = sorted(set(keep) & set(rounds))
    while len(kept) > most // 2:
        kept = kept[::2]
    step = 2
    places = most - len(kept) - 2
    while len(rounds) // step > places:
        step *= 2
    chosen = {round for round in rounds if round % step == 0}
    return tuple(sorted(chosen | set(kept) | {rounds[0], rounds[-1]}))


def _columns(rows: Sequence[Mapping[str, Value]]) -> dict[str, Column]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name) for row in rows) for name in names}
