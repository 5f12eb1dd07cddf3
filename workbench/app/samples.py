"""The samples of a run as pages of a table: which rows, in which order, and how to find one again by its id."""

from __future__ import annotations

import csv
import io
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from spark_kernel.errors import InputError, RunFolderError
from workbench.spreadsheet import inert_cell
from workbench.views import Preset, RolloutTable, RunView

PAGE = 50
"""Rows of one page."""
REMEMBERED = 6
"""Tables that are kept in memory."""
THIS_ROUND, LAST_TEN, ALL_ROUNDS, HELD_OUT = (
    "this round", "this round and the 9 before", "all rounds, newest first", "held-out evaluation after this round",
)  # fmt: skip
SCOPES = (THIS_ROUND, LAST_TEN, ALL_ROUNDS, HELD_OUT)
ANY = "any"
RIGHT, WRONG = "right", "wrong"
KINDS = (ANY, "solve", "pointwise", "pairwise", "reflection")
EXPORTED = (
    "round", "period", "id", "problem_id", "kind", "origin", "question", "gold", "label", "answer", "correct",
    "reward", "advantage", "parse", "reason", "truncated", "tokens", "mean_logprob", "judged_right", "judged_wrong",
    "text",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SampleQuery:
    """What the page asks for: scope and round say where, the rest which rows."""

    round: int
    scope: str = THIS_ROUND
    preset: str = str(Preset.ALL)
    kind: str = ANY
    finding: str = ANY
    text: str = ""


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Rows `start` to `start + len(rows)` of `total` that match, of `scanned` in scope. `note`: what was left out."""

    rows: tuple[Mapping[str, Any], ...]
    start: int
    total: int
    scanned: int
    note: str = ""

    @property
    def number(self) -> int:
        """The page's number from 0."""
        return self.start // PAGE

    @property
    def pages(self) -> int:
        """How many pages there are, at least 1."""
        return max(1, -(-self.total // PAGE))


class SampleTables:
    """Tables of samples by run and scope; the newest are kept. Safe between threads: at worst one is made twice.

    Args:
        most: rows of one table; earlier rounds are left out of "all rounds" beyond that.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._known: OrderedDict[tuple[Any, ...], tuple[RolloutTable, str]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, view: RunView, query: SampleQuery, number: int = 0) -> SamplePage:
        """A page of the rows that match, the last one where the number is too high.

        Raises:
            InputError: an unknown scope, preset or finding.
            RunFolderError: no such round or evaluation.
        """
        table, note = self._table(view, query)
        found = _filtered(table, query)
        start = min(max(number, 0), max(0, (found.count - 1) // PAGE)) * PAGE
        return SamplePage(tuple(found.rows(start, PAGE)), start, found.count, table.count, note)

    def page_of(self, view: RunView, query: SampleQuery, sample: str) -> SamplePage | None:
        """The page that holds a sample; None where it does not match."""
        found = _filtered(self._table(view, query)[0], query)
        place = pc.index(found.table["id"], sample).as_py()
        return None if place < 0 else self.page(view, query, place // PAGE)

    def next_disagreement(self, view: RunView, query: SampleQuery, after: str) -> str | None:
        """The id of the first matching row behind `after` (round the end to the beginning) whose judges disagree.

        None where there is none but `after` itself.
        """
        found = _filtered(self._table(view, query)[0], query)
        wrong = set(found.filter(Preset.DISAGREES).table["id"].to_pylist())
        ids = found.table["id"].to_pylist()
        place = ids.index(after) if after in ids else -1
        return next((name for name in (*ids[place + 1 :], *ids[: place + 1]) if name in wrong and name != after), None)

    def csv(self, view: RunView, query: SampleQuery) -> str:
        """All matching rows as CSV. A cell that a spreadsheet would run as a formula begins with an apostrophe."""
        found = _filtered(self._table(view, query)[0], query)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(EXPORTED)
        for row in found.table.select(EXPORTED).to_pylist():
            writer.writerow([_cell(row[name]) for name in EXPORTED])
        return out.getvalue()

    def _table(self, view: RunView, query: SampleQuery) -> tuple[RolloutTable, str]:
        if query.scope not in SCOPES:
            raise InputError("That scope is not known: choose one from the list.")
        rounds = view.rounds()
        fresh = (rounds[-1] if rounds else 0, len(view.reader.phases()), view.evaluations())
        key = (str(view.reader.path), query.scope, 0 if query.scope == ALL_ROUNDS else query.round, fresh)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = self._make(view, query, rounds)
        with self._lock:
            self._known[key] = made
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        return made

    def _make(self, view: RunView, query: SampleQuery, rounds: tuple[int, ...]) -> tuple[RolloutTable, str]:
        if query.scope == HELD_OUT:
            return view.evaluation_rollouts(query.round), ""
        if query.scope == THIS_ROUND:
            return view.rollouts([query.round]), ""
        wanted = [r for r in rounds if query.scope == ALL_ROUNDS or query.round - 10 < r <= query.round]
        chosen: list[int] = []
        rows = 0
        for round in reversed(wanted):
            rows += view.tables(round).rollouts.num_rows
            if chosen and rows > self._most:
                break
            chosen.append(round)
        if not chosen:
            raise RunFolderError("This run has no round yet.")
        left = len(wanted) - len(chosen)
        note = f"The {left} earliest rounds are left out: at most {self._most} samples are shown." if left else ""
        return view.rollouts(chosen), note


def _filtered(table: RolloutTable, query: SampleQuery) -> RolloutTable:
    if query.finding not in (ANY, RIGHT, WRONG):
        raise InputError("That finding is not known: choose one from the list.")
    return table.filter(
        query.preset,
        text=query.text[:200],
        kind=None if query.kind == ANY else query.kind,
        correct=None if query.finding == ANY else query.finding == RIGHT,
    )


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return inert_cell(value) if isinstance(value, str) else value
