"""Reading a run folder, while it is written or afterwards: any number of readers, none of them waits or disturbs.

What is listed is whole, because the writer renames whole folders into place. A folder may vanish while it is read,
when the writer clears the journal or goes back to an earlier round; the read then starts again from a new list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.records import ImageRef, RoundReport
from spark_kernel.runs import storage
from spark_kernel.runs.bundles import HELD_OUT, EvaluationRecords, PhaseInfo, PhaseRecords, RoundRecords, RunInfo
from spark_kernel.runs.checkpoints import CheckpointInfo, list_checkpoints
from spark_kernel.runs.codec import decode_plain
from spark_kernel.runs.event_log import read_events
from spark_kernel.runs.images import image_path
from spark_kernel.runs.layout import (
    CONFIG,
    ENVIRONMENT,
    META,
    REPORT,
    ROUNDS,
    evaluation_folder,
    first_round,
    list_evaluations,
    list_numbers,
    list_phases,
    list_suites,
    numbered,
    phase_folder,
    read_run_info,
)
from spark_kernel.runs.query import run_query
from spark_kernel.runs.report_tables import (
    evaluations_table,
    events_table,
    kind_stats_table,
    reports_table,
    updates_table,
)
from spark_kernel.runs.schemas import EVALUATION_TABLES, REPORT_SCHEMAS, SCHEMAS, TABLE_SCHEMAS
from spark_kernel.runs.status import RunStatus, run_status

TABLES = tuple(TABLE_SCHEMAS)
"""The names that `RunReader.table` and `RunReader.query` know."""
ATTEMPTS = 5
"""How often a read starts again because a folder vanished."""
T = TypeVar("T")


class RunReader:
    """Reads one run.

    Raises:
        RunFolderError: missing, not a run, damaged, or written by a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self.info: RunInfo = read_run_info(self.path)
        self._reports: dict[int, tuple[tuple[int, int], RoundReport]] = {}

    @property
    def config_yaml(self) -> str:
        """The run's configuration, as it was started."""
        return (self.path / CONFIG).read_text(encoding="utf-8")

    @property
    def environment(self) -> dict[str, Any]:
        """What the run was started on (`runs.environment`)."""
        value = storage.read_json(self.path / ENVIRONMENT)
        return value if isinstance(value, dict) else {}

    @property
    def rounds(self) -> list[int]:
        """The finished rounds, ascending."""
        return list_numbers(self.path / ROUNDS)

    @property
    def evaluations(self) -> list[int]:
        """The rounds after which there is a held-out evaluation; the newest may belong to the round in flight."""
        return list_evaluations(self.path)

    @property
    def suites(self) -> list[str]:
        """The suites that have an evaluation: "held_out", the run's own, first."""
        return list_suites(self.path)

    def evaluated(self, suite: str = HELD_OUT) -> list[int]:
        """The rounds after which there is an evaluation of a suite; for "held_out" the same as `evaluations`.

        Raises:
            InputError: a name that no suite can have.
        """
        return list_evaluations(self.path, suite)

    @property
    def checkpoints(self) -> list[CheckpointInfo]:
        """The checkpoints, the one that got furthest last."""
        return list_checkpoints(self.path)

    def report(self, round: int) -> RoundReport:
        """The report of a finished round.

        Raises:
            RunFolderError: no such round, or its report is damaged.
        """
        folder = self._round_folder(round)
        path = folder / REPORT
        try:
            stat = path.stat()
            key = (stat.st_mtime_ns, stat.st_ino)
            known = self._reports.get(round)
            if known is None or known[0] != key:
                known = self._reports[round] = (key, storage.read_report(folder))
        except FileNotFoundError:
            raise RunFolderError(f"{path} is missing.") from None
        return known[1]

    def reports(self) -> list[RoundReport]:
        """The reports of all finished rounds; a round that is discarded meanwhile is left out."""
        return self._some_reports(None)

    def read_round(self, round: int) -> RoundRecords:
        """The records of a finished round, groups in the order of the update.

        Raises:
            RunFolderError: no such round, or damaged.
        """
        folder = self._round_folder(round)
        try:
            return storage.read_round(folder)
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} no longer has round {round}.") from None

    def round_meta(self, round: int) -> dict[str, Any]:
        """The trainer's own values of a finished round (meta.json), such as the peak of memory so far.

        Raises:
            RunFolderError: no such round, or damaged.
        """
        folder = self._round_folder(round)
        try:
            value = decode_plain(storage.read_json(folder / META))
        except FileNotFoundError:
            raise RunFolderError(f"{self.path} no longer has round {round}.") from None
        return value if isinstance(value, dict) else {}

    def evaluation(self, round: int, suite: str = HELD_OUT) -> dict[str, Any]:
        """The summary of the evaluation of a suite after a round.

        Raises:
            RunFolderError: there is none, or it is damaged.
            InputError: a name that no suite can have.
        """
        return self._of_evaluation(storage.read_evaluation_report, round, suite)

    def read_evaluation(self, round: int, suite: str = HELD_OUT) -> EvaluationRecords:
        """The records of the evaluation of a suite after a round.

        Raises:
            RunFolderError: there is none, or it is damaged.
            InputError: a name that no suite can have.
        """
        return self._of_evaluation(partial(storage.read_evaluation, suite=suite), round, suite)

    def phases(self) -> list[PhaseInfo]:
        """The recorded phases of the round in flight, in order; empty between rounds."""
        return list_phases(self.path, self._last_round() + 1)

    def phase(self, info: PhaseInfo) -> PhaseRecords | None:
        """What a phase of the round in flight made; None if the round is finished meanwhile (see `read_round`)."""
        try:
            return storage.read_phase(phase_folder(self.path, info))
        except FileNotFoundError:
            return None

    def events(self, after: int = 0) -> Iterator[dict[str, Any]]:
        """The events with a number above `after`, oldest first."""
        return read_events(self.path, after)

    def status(self) -> RunStatus:
        """Whether a writer lives, how the last one ended, and how far the run is."""
        return run_status(self.path, self._last_round(), self.phases())

    def image_path(self, image: ImageRef) -> Path:
        """The file of an image, always inside the run's image folder.

        Raises:
            RunFolderError: there is no such image.
        """
        return image_path(self.path, image)

    def table(self, name: str, rounds: Sequence[int] | None = None, suite: str | None = None) -> pa.Table:
        """A table of all rounds, or of the given ones; its columns are there even when it is empty.

        Args:
            name: one of `TABLES`.
            rounds: "events" knows none.
            suite: of evaluations, which have it as a column: this suite alone; None: all.

        Raises:
            InputError: no such table, a suite of a table that knows none, or a name that no suite can have.
            RunFolderError: a round that is not there, or a damaged file.
        """
        if name not in TABLES:
            raise InputError(f'There is no table "{name}": choose one of {", ".join(TABLES)}.')
        if suite is not None and "suite" not in TABLE_SCHEMAS[name].names:
            raise InputError(f'The table "{name}" knows no suites: those of evaluations do.')
        if name in REPORT_SCHEMAS:
            return self._report_table(name, rounds, suite)
        return self._again_if_vanished(partial(self._stored_table, name, rounds, suite))

    def query(self, sql: str) -> pa.Table:
        """The result of one SELECT over the views `TABLES`; docs/run-folder.md lists columns and queries.

        Nothing but this run can be reached from the query (`runs.query`).

        Raises:
            InputError: not one SELECT statement, or DuckDB refuses it.
        """
        return self._again_if_vanished(partial(self._query, sql))

    def _again_if_vanished(self, read: Callable[[], T]) -> T:
        """Repeat a read whose folder vanished in the middle, from a new list of folders."""
        for _ in range(ATTEMPTS):
            try:
                return read()
            except FileNotFoundError:
                continue
        raise RunFolderError(f"{self.path} loses rounds faster than they can be read: read it again later.")

    def _stored_table(self, name: str, rounds: Sequence[int] | None, suite: str | None) -> pa.Table:
        tables = []
        for folder, own in self._folders(name, rounds, suite):
            table = storage.read_table(folder, name)
            if own is not None:
                table = table.add_column(1, TABLE_SCHEMAS[name].field("suite"), pa.repeat(own, table.num_rows))
            tables.append(table)
        return pa.concat_tables([TABLE_SCHEMAS[name].empty_table(), *tables])

    def _query(self, sql: str) -> pa.Table:
        found = {name: self._folders(name, None, None) for name in SCHEMAS if name in TABLES}
        views: dict[str, Callable[[], Any]] = {name: partial(_dataset, name, places) for name, places in found.items()}
        views |= {name: partial(self._report_table, name, None, None) for name in REPORT_SCHEMAS}
        try:
            return run_query(sql, views)
        except (InputError, RunFolderError) as error:
            lost = next((folder for places in found.values() for folder, _ in places if not folder.is_dir()), None)
            if lost is None:
                raise
            raise FileNotFoundError(str(lost)) from error

    def _report_table(self, name: str, rounds: Sequence[int] | None, suite: str | None) -> pa.Table:
        if name == "events":
            return events_table(self.events())
        if name == "evaluations":
            chosen = self._evaluated(rounds, suite)
            return evaluations_table({(own, round): self.evaluation(round, own) for own, round in chosen})
        make = {"reports": reports_table, "kind_stats": kind_stats_table, "updates": updates_table}[name]
        return make(self._some_reports(rounds))

    def _some_reports(self, rounds: Sequence[int] | None) -> list[RoundReport]:
        if rounds is not None:
            return [self.report(round) for round in rounds]
        reports = []
        for round in self.rounds:
            try:
                reports.append(self.report(round))
            except RunFolderError:
                if (self.path / ROUNDS / numbered(round)).is_dir():
                    raise
        return reports

    def _folders(self, name: str, rounds: Sequence[int] | None, suite: str | None) -> list[tuple[Path, str | None]]:
        """The folders of a table, each with its suite where it has one."""
        if name in EVALUATION_TABLES:
            return [(evaluation_folder(self.path, at, own), own) for own, at in self._evaluated(rounds, suite)]
        present = self.rounds
        for round in rounds or ():
            if round not in present:
                raise RunFolderError(f"{self.path / ROUNDS} has no round {round}.")
        return [(self.path / ROUNDS / numbered(round), None) for round in (present if rounds is None else rounds)]

    def _evaluated(self, rounds: Sequence[int] | None, suite: str | None) -> list[tuple[str, int]]:
        """Suite and round of the evaluations of a suite, or of all, after all rounds, or after the given ones."""
        present = {own: self.evaluated(own) for own in (self.suites if suite is None else [suite])}
        for round in rounds or ():
            if not any(round in found for found in present.values()):
                raise RunFolderError(self._no_evaluation(round, suite))
        return [
            (own, round)
            for own, found in present.items()
            for round in (found if rounds is None else rounds)
            if round in found
        ]

    def _of_evaluation(self, read: Callable[[Path], T], round: int, suite: str) -> T:
        try:
            return read(evaluation_folder(self.path, round, suite))
        except FileNotFoundError:
            raise RunFolderError(self._no_evaluation(round, suite)) from None

    def _no_evaluation(self, round: int, suite: str | None) -> str:
        of_suite = f" of suite {suite}" if suite not in (None, HELD_OUT) else ""
        return f"{self.path} has no evaluation{of_suite} after round {round}."

    def _round_folder(self, round: int) -> Path:
        folder = self.path / ROUNDS / numbered(round)
        if not folder.is_dir():
            last = f"its last is {self.rounds[-1]}" if self.rounds else "none is finished yet"
            raise RunFolderError(f"{self.path} has no finished round {round}: {last}.")
        return folder

    def _last_round(self) -> int:
        rounds = self.rounds
        return rounds[-1] if rounds else first_round(self.info) - 1


def _dataset(name: str, places: Sequence[tuple[Path, str | None]]) -> ds.Dataset:
    """The files of a table, read as a query needs them; the suite is a constant of each file."""
    files = [str(storage.parquet_path(folder, name)) for folder, _ in places]
    if name not in EVALUATION_TABLES:
        return ds.dataset(files, schema=SCHEMAS[name], format="parquet")
    return ds.FileSystemDataset.from_paths(
        files,
        schema=TABLE_SCHEMAS[name],
        format=ds.ParquetFileFormat(),
        filesystem=LocalFileSystem(),
        partitions=[ds.field("suite") == suite for _, suite in places],
    )
