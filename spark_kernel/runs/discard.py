"""Going back to a round: what comes after it moves aside, newest first, so that every moment is a prefix of a run."""

from __future__ import annotations

from pathlib import Path

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.checkpoints import list_checkpoints
from spark_kernel.runs.codec import dumps
from spark_kernel.runs.event_log import utc_now
from spark_kernel.runs.files import replace_file, sync_folder
from spark_kernel.runs.layout import (
    CHECKPOINTS,
    DISCARDED,
    EVALUATIONS,
    JOURNAL,
    ROUNDS,
    list_numbers,
    numbered,
    suite_folders,
)
from spark_kernel.runs.storage import read_json

INTENT = "discard.json"


def discard_after(run: Path, round: int) -> Path | None:
    """Move everything after a round to a new discarded/NNNN/; None if there is nothing.

    The intent is written first, so that `finish_discards` can end what a kill interrupted.
    """
    if not _later(run, round):
        return None
    numbers = [int(entry.name) for entry in (run / DISCARDED).iterdir() if entry.name.isdigit()]
    folder = run / DISCARDED / f"{max(numbers, default=0) + 1:04d}"
    folder.mkdir()
    sync_folder(folder.parent)
    _write_intent(run, folder, round, done=False)
    _move(run, folder, round)
    return folder


def finish_discards(run: Path) -> None:
    """End every discard that a kill interrupted."""
    for folder in sorted((run / DISCARDED).iterdir()):
        if not (folder / INTENT).exists():
            if folder.name.isdigit() and not any(folder.iterdir()):
                folder.rmdir()
            continue
        intent = read_json(folder / INTENT)
        if not isinstance(intent, dict) or not isinstance(intent.get("after"), int):
            raise RunFolderError(f"{folder / INTENT} is damaged: it does not say which round was gone back to.")
        if not intent.get("done"):
            _move(run, folder, intent["after"])


def _later(run: Path, round: int) -> list[Path]:
    """What comes after a round, in the order in which it may go: no checkpoint may outlive its round."""
    checkpoints = [info.path for info in reversed(list_checkpoints(run)) if info.round > round]
    numbered_folders = [
        parent / numbered(number)
        for parent in (*suite_folders(run).values(), run / JOURNAL, run / ROUNDS)
        for number in reversed(list_numbers(parent))
        if number > round
    ]
    return checkpoints + numbered_folders


def _move(run: Path, folder: Path, round: int) -> None:
    for name in (CHECKPOINTS, EVALUATIONS, JOURNAL, ROUNDS):
        (folder / name).mkdir(exist_ok=True)
    for path in _later(run, round):
        target = folder / path.relative_to(run)
        if not target.parent.exists():  # of a suite
            target.parent.mkdir()
            sync_folder(target.parent.parent)
        path.rename(target)
        sync_folder(target.parent)
        sync_folder(path.parent)
    _write_intent(run, folder, round, done=True)


def _write_intent(run: Path, folder: Path, round: int, *, done: bool) -> None:
    value = {"after": round, "done": done, "time": utc_now()}
    replace_file(run, folder / INTENT, (dumps(value) + "\n").encode(), f"go back to round {round}")
