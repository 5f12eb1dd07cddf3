"""The one writer of a run folder: whole phases, rounds, evaluations and checkpoints, or nothing.

A kill at any instant loses at most what was being written. What is on disk then is a prefix of the run: rounds
1..k, the recorded phases of round k+1, and checkpoints of rounds up to k+1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from spark_kernel import __version__
from spark_kernel.errors import InputError, PhaseError, RunFolderError, Stopped
from spark_kernel.records import Period, RoundReport
from spark_kernel.runs import storage
from spark_kernel.runs.bundles import (
    HELD_OUT,
    SCHEMA_VERSION,
    EvaluationRecords,
    ParentRun,
    PhaseInfo,
    PhaseRecords,
    RoundRecords,
    RunInfo,
)
from spark_kernel.runs.checkpoints import CheckpointInfo, list_checkpoints, parse_name, write_manifest
from spark_kernel.runs.codec import dumps, encode_plain, to_json
from spark_kernel.runs.discard import Discarded, check_restorable, discard_after, restore
from spark_kernel.runs.event_log import EventLog, utc_now
from spark_kernel.runs.files import (
    TEMPORARY,
    disk_errors,
    remove_folder,
    replace_file,
    staged_folder,
    sync_folder,
)
from spark_kernel.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    FOLDERS,
    HANDED,
    ROUNDS,
    RUN_JSON,
    evaluation_folder,
    first_round,
    list_evaluations,
    list_numbers,
    list_phases,
    numbered,
    phase_folder,
    read_run_info,
)
from spark_kernel.runs.lock import WriterLock
from spark_kernel.runs.mending import drop_journal, mend_folder
from spark_kernel.runs.new_folder import refuse_used

Outcome = Literal["finished", "stopped", "failed"]


class RunWriter:
    """Writes one run. Make it with `create` or `open`; close it, or use it in a `with` block.

    All methods but `append_event` belong to one thread.
    """

    def __init__(self, path: Path, info: RunInfo, lock: WriterLock) -> None:
        self.path = path
        self.info = info
        self._lock = lock
        try:
            self._events = EventLog(path)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def create(
        cls,
        path: str | Path,
        config_yaml: str,
        environment: Mapping[str, Any],
        *,
        parent: ParentRun | None = None,
        name: str | None = None,
    ) -> Self:
        """Start a run in a new or empty folder and lock it.

        `name`: the run's name; by default the folder's.

        Raises:
            RunFolderError: the folder is in use, cannot be written, or the disk is full.
            RunLockedError: another process is creating a run there.
        """
        run = Path(path).absolute()
        with disk_errors(run, "create a run"):
            run.mkdir(parents=True, exist_ok=True)
            refuse_used(run)
        info = RunInfo(SCHEMA_VERSION, name or run.name, utc_now(), __version__, parent)
        writer = cls(run, info, WriterLock(run))
        try:
            with disk_errors(run, "create a run"):
                refuse_used(run)
                for name in (*FOLDERS, TEMPORARY):
                    (run / name).mkdir(exist_ok=True)
            described = dumps(encode_plain(environment, "environment"), indent=1) + "\n"
            replace_file(run, run / CONFIG, config_yaml.encode(), "write the configuration")
            replace_file(run, run / ENVIRONMENT, described.encode(), "write the environment")
            # run.json makes the folder a run, so it comes last.
            replace_file(run, run / RUN_JSON, (dumps(to_json(info), indent=1) + "\n").encode(), "write run.json")
            with disk_errors(run, "create a run"):
                sync_folder(run.parent)
            writer.append_event({"event": "created"})
            return writer
        except BaseException:
            writer._let_go()
            raise

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Lock an existing run for writing and mend what a kill left behind.

        Raises:
            RunFolderError: missing, damaged, newer than this program, or not writable.
            RunLockedError: another process writes this run; says its pid and host.
        """
        run = Path(path).absolute()
        info = read_run_info(run)
        writer = cls(run, info, WriterLock(run))
        try:
            mend_folder(run, info)
            writer.append_event({"event": "opened"})
            return writer
        except BaseException:
            writer._let_go()
            raise

    @property
    def last_round(self) -> int:
        """The newest finished round; for a fork without one the parent's round; otherwise 0."""
        rounds = self.rounds()
        return rounds[-1] if rounds else first_round(self.info) - 1

    def rounds(self) -> list[int]:
        """The finished rounds, ascending."""
        return list_numbers(self.path / ROUNDS)

    def evaluations(self, suite: str = HELD_OUT) -> list[int]:
        """The rounds after which there is an evaluation of a suite, ascending."""
        return list_evaluations(self.path, suite)

    def read_round(self, round: int) -> RoundRecords:
        """The records of a finished round, groups in the order of the update: what a resumed run replays.

        Raises:
            RunFolderError: no such round, or damaged.
        """
        folder = self.path / ROUNDS / numbered(round)
        if not folder.is_dir():
            raise RunFolderError(f"{self.path} has no finished round {round}.")
        return storage.read_round(folder)

    def record_phase(self, round: int, index: int, period: Period, phase: str, records: PhaseRecords) -> None:
        """Put what a finished phase made into the journal of the round in flight.

        Raises:
            PhaseError: not the round in flight, or the index does not come after the recorded ones.
            RunFolderError: disk full or not writable; the journal is as before.
        """
        self._require_open()
        info = PhaseInfo(round, index, Period(period), phase)
        folder = phase_folder(self.path, info)
        if round != self.last_round + 1:
            raise PhaseError(f"Round {self.last_round + 1} is in flight: a phase of round {round} is not due.")
        recorded = list_phases(self.path, round)
        if recorded and index <= recorded[-1].index:
            raise PhaseError(f"Phase {index} of round {round} is not due: {recorded[-1].index} is recorded already.")
        with disk_errors(self.path, "record a phase"):
            if not folder.parent.exists():
                folder.parent.mkdir()
                sync_folder(folder.parent.parent)
        with staged_folder(self.path, folder, f"record phase {phase} of round {round}") as temporary:
            storage.write_phase(temporary, info, records)
        self.append_event({"event": "phase", "round": round, "index": index, "period": info.period, "phase": phase})

    def recall_phase(self, round: int, index: int, period: Period, phase: str) -> PhaseRecords | None:
        """What this phase made before a kill or stop; None if it is not in the journal.

        Raises:
            RunFolderError: the journal has another phase at this index, or is damaged.
        """
        for info in list_phases(self.path, round):
            if info.index == index:
                if (info.period, info.phase) != (period, phase):
                    raise RunFolderError(
                        f"The journal of round {round} has {info.period}/{info.phase} at place {index}, where "
                        f"{period}/{phase} is due: resume with the configuration that the round was begun with."
                    )
                return storage.read_phase(phase_folder(self.path, info))
        return None

    def record_handed(self, round: int, index: int, period: Period, records: PhaseRecords) -> None:
        """Put groups that a person handed a phase into the journal, in place of earlier ones, before it works on them.

        Raises:
            RunFolderError: disk full or not writable; the journal is as before.
        """
        self._require_open()
        info = PhaseInfo(round, index, Period(period), HANDED)
        folder = phase_folder(self.path, info)
        with disk_errors(self.path, "record edited groups"):
            if not folder.parent.exists():
                folder.parent.mkdir()
                sync_folder(folder.parent.parent)
        with staged_folder(self.path, folder, f"record edited groups of round {round}", replace=True) as temporary:
            storage.write_phase(temporary, info, records)
        self._note({"event": "handed", "round": round, "index": index, "period": info.period})

    def recall_handed(self, round: int, index: int, period: Period) -> PhaseRecords | None:
        """The groups that this phase was handed before a kill or stop; None where it had its own.

        Raises:
            RunFolderError: the journal is damaged.
        """
        folder = phase_folder(self.path, PhaseInfo(round, index, Period(period), HANDED))
        return storage.read_phase(folder) if folder.is_dir() else None

    def finish_round(self, records: RoundRecords, report: RoundReport) -> None:
        """Write a whole round, then drop its journal.

        Raises:
            PhaseError: not the round that is due.
            RunFolderError: disk full or not writable; journal and earlier rounds are as before.
        """
        self._require_open()
        due = self.last_round + 1
        if records.round != due or report.round != due:
            raise PhaseError(
                f"Round {due} is due: records of round {records.round} with a report of round {report.round} are not."
            )
        target = self.path / ROUNDS / numbered(due)
        with staged_folder(self.path, target, f"record round {due}") as temporary:
            storage.write_round(temporary, records, report)
        self._note({"event": "round", "round": due})
        with disk_errors(self.path, "clear the journal"):
            drop_journal(self.path, due)

    def write_evaluation(self, records: EvaluationRecords, report: Mapping[str, Any]) -> None:
        """Write an evaluation after a round, in place of an earlier one of its suite after the same round.

        Raises:
            PhaseError: a round that is neither finished nor in flight.
            InputError: a suite name that could not be a folder name.
            RunFolderError: disk full or not writable.
        """
        self._require_open()
        if not first_round(self.info) - 1 <= records.round <= self.last_round + 1:
            raise PhaseError(f"Round {records.round} has not been run: it cannot be evaluated.")
        target = evaluation_folder(self.path, records.round, records.suite)
        doing = f"record the evaluation after round {records.round} ({records.suite})"
        with disk_errors(self.path, doing):
            if not target.parent.exists():
                target.parent.mkdir()
                sync_folder(target.parent.parent)
        with staged_folder(self.path, target, doing, replace=True) as temporary:
            storage.write_evaluation(temporary, records, report)
        self._note({"event": "evaluation", "round": records.round, "suite": records.suite})

    def write_checkpoint(
        self, name: str, write: Callable[[Path], None], *, position: Mapping[str, Any] | None = None
    ) -> Path:
        """Have `write` fill a folder, describe it in checkpoint.json, and put it under checkpoints/NAME.

        `name` comes from `checkpoint_name`; `position` are JSON values that say where in the round it stands. An
        older checkpoint of this name gives way; whatever `write` raises leaves it in place.

        Raises:
            PhaseError: a round that is not recorded yet (one in progress may be in flight).
            RunFolderError: disk full, not writable, or a file that is not allowed in a checkpoint.
        """
        self._require_open()
        round, in_progress = parse_name(name)
        if not first_round(self.info) - 1 <= round <= self.last_round + in_progress:
            raise PhaseError(f"Checkpoint {name} is not due: round {self.last_round} is the last that is recorded.")
        target = self.path / CHECKPOINTS / name
        with staged_folder(self.path, target, f"write checkpoint {name}", replace=True) as temporary:
            write(temporary)
            write_manifest(temporary, name, encode_plain(position or {}, "position"))
        self._note({"event": "checkpoint", "round": round, "in_progress": in_progress})
        return target

    def prune_checkpoints(self, keep: int | None) -> list[str]:
        """Delete all but the `keep` newest whole checkpoints (None: all stay); returns the deleted names.

        A checkpoint in progress goes as soon as one that got further exists.

        Raises:
            InputError: `keep` below 1.
        """
        self._require_open()
        if keep is not None and keep < 1:
            raise InputError(f"At least 1 checkpoint must be kept, not {keep}.")
        found = list_checkpoints(self.path)
        whole = [info for info in found if not info.in_progress]
        dropped: list[CheckpointInfo] = [info for info in found[:-1] if info.in_progress]
        if keep is not None:
            dropped += whole[:-keep]
        with disk_errors(self.path, "delete a checkpoint"):
            for info in dropped:
                remove_folder(self.path, info.path)
                self._note({"event": "checkpoint_deleted", "name": info.name})
        return [info.name for info in dropped]

    def drop_rounds_after(self, round: int) -> Path | None:
        """Go back to a round: later rounds, their evaluations, checkpoints and journal move to discarded/NNNN/.

        Returns that folder, None if there was nothing to move. A kill in the middle is finished by `open`.

        Raises:
            InputError: a round that this run does not have.
        """
        self._require_open()
        first = first_round(self.info) - 1
        if not first <= round <= self.last_round:
            raise InputError(f"{self.path} has rounds {first} to {self.last_round}: it cannot go back to {round}.")
        with disk_errors(self.path, f"go back to round {round}"):
            folder = discard_after(self.path, round)
        if folder is not None:
            self._note({"event": "discarded", "after": round, "folder": folder.name})
        return folder

    def restore_rounds(self) -> Discarded:
        """Undo the last going back; rounds made since then move to discarded/ in their turn. Returns what came back.

        A kill in the middle is finished by `open`.

        Raises:
            InputError: there is nothing to bring back, or it does not go on from a round of this run.
        """
        self._require_open()
        found = check_restorable(self.path, self.last_round)
        with disk_errors(self.path, f"bring back what came after round {found.after}"):
            restore(self.path, found)
        self._note({"event": "restored", "after": found.after, "folder": found.folder.name})
        return found

    def append_event(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Add an event ({"event": name, ...}) to events.jsonl; number and time are added. Callable from any thread.

        Raises:
            RunFolderError: the line could not be written; the file is as before.
        """
        return self._events.append(event)

    def close(self, outcome: Outcome = "stopped", detail: str = "") -> None:
        """Say how it ended and let the next writer in; calling it twice is fine."""
        if self._lock.is_held:
            try:
                self._events.append({"event": "closed", "outcome": outcome, "detail": detail}, durable=True)
            finally:
                self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, KeyboardInterrupt | Stopped):
            self.close("stopped")
        else:
            self.close("failed", f"{type(error).__name__}: {error}")

    def _let_go(self) -> None:
        self._events.close()
        self._lock.release()

    def _require_open(self) -> None:
        if not self._lock.is_held:
            raise RunFolderError(f"{self.path} is closed: open the run again to write to it.")

    def _note(self, event: Mapping[str, Any]) -> None:
        self._events.append(event, durable=True)
