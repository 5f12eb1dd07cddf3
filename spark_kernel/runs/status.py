"""Whether a run is being written, how its last writer ended, and which runs a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.bundles import ParentRun, PhaseInfo
from spark_kernel.runs.event_log import last_event
from spark_kernel.runs.layout import ROUNDS, RUN_JSON, first_round, list_numbers, read_run_info
from spark_kernel.runs.lock import LockHolder, lock_holder, lock_is_held


class RunState(StrEnum):
    """What became of the last writer."""

    RUNNING = "running"
    """A writer holds the run now; it may be waiting for a person."""
    FINISHED = "finished"
    """The last writer closed the run after its last round."""
    STOPPED = "stopped"
    """The last writer was asked to stop, or closed the run early."""
    FAILED = "failed"
    """The last writer closed the run on an error; the last event says which."""
    KILLED = "killed"
    """The last writer ended without closing the run: a kill, a crash or a power cut."""
    UNREADABLE = "unreadable"
    """The run cannot be read: damaged, or newer than this program."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """State, newest finished round, newest recorded phase of the round in flight, newest event, and who writes.

    `writer` is the process that writes now; None unless the state is RUNNING.
    """

    state: RunState
    last_round: int
    phase: PhaseInfo | None
    last_event: dict[str, Any] | None
    writer: LockHolder | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a list shows it. `problem` says why an unreadable one cannot be read, and is empty otherwise."""

    path: Path
    name: str
    state: RunState
    created: str
    rounds: int
    parent: ParentRun | None
    problem: str = ""


def run_status(run: Path, last_round: int, phases: Sequence[PhaseInfo]) -> RunStatus:
    """The status of a run whose newest round and recorded phases are known."""
    held = lock_is_held(run)
    event = last_event(run)
    return RunStatus(_state(held, event), last_round, phases[-1] if phases else None, event, _writer(run, held))


def list_runs(root: str | Path) -> list[RunSummary]:
    """The runs directly below a folder, by name. Folders that are no runs are passed over; links are not followed.

    Raises:
        RunFolderError: no such folder.
    """
    base = Path(root).absolute()
    if not base.is_dir():
        raise RunFolderError(f"There is no folder {base}: say where the runs are.")
    folders = sorted(entry for entry in base.iterdir() if entry.is_dir() and not entry.is_symlink())
    return [_summary(folder) for folder in folders if (folder / RUN_JSON).exists()]


def _summary(run: Path) -> RunSummary:
    try:
        info = read_run_info(run)
        state = _state(lock_is_held(run), last_event(run))
    except RunFolderError as error:
        return RunSummary(run, run.name, RunState.UNREADABLE, "", 0, None, str(error))
    rounds = list_numbers(run / ROUNDS)
    last = rounds[-1] if rounds else first_round(info) - 1
    return RunSummary(run, run.name, state, info.created, last, info.parent)


def _state(held: bool, event: dict[str, Any] | None) -> RunState:
    if held:
        return RunState.RUNNING
    outcome = event.get("outcome") if event is not None and event.get("event") == "closed" else None
    ended = (RunState.FINISHED, RunState.STOPPED, RunState.FAILED)
    return RunState(outcome) if outcome in ended else RunState.KILLED


def _writer(run: Path, held: bool) -> LockHolder | None:
    return lock_holder(run) if held else None
