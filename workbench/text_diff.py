"""Two texts, word by word: what was taken out and what was put in. Long or very different texts are compared by lines.

Myers' greedy search (An O(ND) Difference Algorithm, 1986), given up beyond so many differences: its time is bounded by
their number times the length, whatever the texts are. difflib's grows with the cube where words repeat.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

WORD = re.compile(r"\s+|\w+|[^\w\s]")
LINE = re.compile(r"[^\n]*\n|[^\n]+")
MOST_UNITS = 3_000
"""Words, or else lines, of one text that are compared."""
MOST_DIFFERENCES = 300
"""Words, or lines, that may be taken out and put in; beyond that the texts are called different as a whole."""

Change = tuple[str, str, str]
"""What was taken out, what was put in, and what is the same after it."""


def diff_html(before: str, after: str) -> str:
    """The second text with `<del>` and `<ins>` against the first, escaped.

    By words; by lines where words are too many or differ in too many places; as two whole texts where lines do, too.
    """
    for unit in (WORD, LINE):
        old, new = unit.findall(before), unit.findall(after)
        changes = _changes(old, new) if max(len(old), len(new)) <= MOST_UNITS else None
        if changes is not None:
            return "".join(map(_marked, changes))
    return _marked((before, after, ""))


def _marked(change: Change) -> str:
    removed, added, same = map(html.escape, change)
    return (f"<del>{removed}</del>" if removed else "") + (f"<ins>{added}</ins>" if added else "") + same


def _changes(old: Sequence[str], new: Sequence[str]) -> list[Change] | None:
    """The changes in order; None where there are more than `MOST_DIFFERENCES`."""
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    path = _path(old[start : len(old) - end], new[start : len(new) - end])
    if path is None:
        return None
    changes: list[list[list[str]]] = [[[], [], list(old[:start])]]
    for take, put, same in path:
        if (take or put) and changes[-1][2]:
            changes.append([[], [], []])
        changes[-1][0] += take
        changes[-1][1] += put
        changes[-1][2] += same
    changes[-1][2] += old[len(old) - end :]
    return [("".join(take), "".join(put), "".join(same)) for take, put, same in changes]


def _path(old: Sequence[str], new: Sequence[str]) -> list[tuple[list[str], list[str], list[str]]] | None:
    """A shortest way from one text to the other: units taken out, put in, and kept after that, step by step."""
    reach = {1: 0}
    """On each diagonal (place in `old` minus place in `new`), how far in `old` so many differences lead."""
    history = []
    for count in range(MOST_DIFFERENCES + 1):
        history.append(dict(reach))
        for diagonal in range(-count, count + 1, 2):
            down = diagonal == -count or (diagonal != count and reach[diagonal - 1] < reach[diagonal + 1])
            x = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            while x < len(old) and x - diagonal < len(new) and old[x] == new[x - diagonal]:
                x += 1
            reach[diagonal] = x
            if x >= len(old) and x - diagonal >= len(new):
                return _walked(old, new, history)
    return None


def _walked(
    old: Sequence[str], new: Sequence[str], history: Sequence[dict[int, int]]
) -> list[tuple[list[str], list[str], list[str]]]:
    """The way that `_path` found, from its end back to the beginning."""
    steps: list[tuple[list[str], list[str], list[str]]] = []
    x, y = len(old), len(new)
    for count in range(len(history) - 1, -1, -1):
        reach, diagonal = history[count], x - y
        down = diagonal == -count or (diagonal != count and reach[diagonal - 1] < reach[diagonal + 1])
        before = diagonal + 1 if down else diagonal - 1
        from_x = reach[before] if count else 0
        from_y = from_x - before if count else 0
        kept_from = from_x + (count > 0 and not down)
        same = list(old[kept_from:x])
        taken = list(old[from_x:kept_from])
        put = list(new[from_y : from_y + 1]) if count and down else []
        steps.append((taken, put, same))
        x, y = from_x, from_y
    return steps[::-1]
