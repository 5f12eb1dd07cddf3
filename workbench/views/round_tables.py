"""The tables of one round as Arrow tables, finished or in flight, with a small memory for the newest ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spark_kernel.errors import RunFolderError
from spark_kernel.records import Exclusion, Group, Problem, Task
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.runs.layout import INHERITED, ROUNDS, numbered
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.storage import read_table
from spark_kernel.runs.tables import exclusions_table, group_tables, problems_table, task_list_table

REMEMBERED = 32
"""Rounds whose tables are kept in memory."""
NAMES = ("problems", "tasks", "rollouts", "recycled", "exclusions")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RoundTables:
    """The recorded rows of a round, with the columns of docs/run-folder.md.

    `in_flight`: the round is not finished; the tables hold what its phases have recorded so far, and rollouts that are
    not verified yet have no parse, reward or advantage.
    """

    round: int
    in_flight: bool
    problems: pa.Table
    tasks: pa.Table
    rollouts: pa.Table
    recycled: pa.Table
    exclusions: pa.Table


class TableCache:
    """Tables of rounds, read once; a round that was discarded and made anew is read again. Safe between threads:
    at worst a round is read twice.
    """

    def __init__(self, reader: RunReader, most: int = REMEMBERED) -> None:
        self.reader = reader
        self._most = most
        self._solved: dict[int, tuple[tuple[int, int], dict[str, float]]] = {}
        self._known: OrderedDict[int, tuple[tuple[int, int], RoundTables]] = OrderedDict()
        self._derived: OrderedDict[tuple[int, str], tuple[RoundTables, object]] = OrderedDict()

    def round(self, round: int) -> RoundTables:
        """The tables of a finished round, of one that a fork took over from its parent, or of the round in flight.

        Raises:
            RunFolderError: no such round, or damaged.
        """
        folder = self._folder(round)
        try:
            stat = folder.stat()
            key = (stat.st_mtime_ns, stat.st_ino)
            known = self._known.get(round)
            if known is not None and known[0] == key:
                return known[1]
            tables = RoundTables(round, False, **{name: read_table(folder, name) for name in NAMES})
        except FileNotFoundError:
            return self._in_flight(round)
        self._known[round] = (key, tables)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return tables

    def derived(self, tables: RoundTables, name: str, make: Callable[[RoundTables], T]) -> T:
        """What `make` makes of a round's tables, made once as long as the cache holds these tables."""
        known = self._derived.get((tables.round, name))
        if known is not None and known[0] is tables:
            return known[1]  # type: ignore[return-value]
        value = make(tables)
        self._derived[tables.round, name] = (tables, value)
        while len(self._derived) > 2 * self._most:
            self._derived.popitem(last=False)
        return value

    def solved(self, round: int) -> dict[str, float]:
        """The share of right outputs of each problem that was solved in a finished round; empty for other rounds."""
        path = self._folder(round)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return {}
        key = (stat.st_mtime_ns, stat.st_ino)
        known = self._solved.get(round)
        if known is None or known[0] != key:
            known = self._solved[round] = (key, _solved(path / "rollouts.parquet"))
        return known[1]

    def has(self, round: int) -> bool:
        """Whether the round is finished or in flight with at least one recorded phase."""
        return self._folder(round).is_dir() or any(info.round == round for info in self.reader.phases())

    def _folder(self, round: int) -> Path:
        own = self.reader.path / ROUNDS / numbered(round)
        inherited = self.reader.path / INHERITED / ROUNDS / numbered(round)
        return inherited if not own.is_dir() and inherited.is_dir() else own

    def _in_flight(self, round: int) -> RoundTables:
        phases = [info for info in self.reader.phases() if info.round == round]
        if not phases:
            rounds = self.reader.rounds
            last = f"its last is {rounds[-1]}" if rounds else "none is finished yet"
            raise RunFolderError(f"{self.reader.path} has no round {round}: {last}.")
        problems: tuple[Problem, ...] = ()
        groups: dict[str, tuple[Group, ...]] = {}
        recycled: tuple[Task, ...] = ()
        exclusions: tuple[Exclusion, ...] = ()
        for info in phases:
            records: PhaseRecords | None = self.reader.phase(info)
            if records is None:  # the round was finished meanwhile
                return self.round(round)
            problems += records.problems
            if records.groups:
                groups[str(info.period)] = records.groups
            recycled += records.recycled
            exclusions += records.exclusions
        tasks, rollouts = group_tables(round, groups)
        return RoundTables(
            round,
            True,
            problems_table(round, problems),
            tasks,
            rollouts,
            task_list_table("recycled", round, recycled),
            exclusions_table(round, exclusions),
        )


def _solved(path: Path) -> dict[str, float]:
    """Problem -> share right, from the three columns that say so."""
    try:
        table = pq.read_table(path, columns=["problem_id", "kind", "correct"])
    except FileNotFoundError:
        return {}
    except (pa.ArrowException, OSError) as error:
        raise RunFolderError(f"{path} is damaged or cannot be read: {error}.") from error
    sums: dict[str, list[bool]] = {}
    for row in table.filter(pc.equal(table["kind"], "solve")).to_pylist():
        if row["correct"] is not None:
            sums.setdefault(row["problem_id"], []).append(row["correct"])
    return {problem: sum(found) / len(found) for problem, found in sums.items()}
