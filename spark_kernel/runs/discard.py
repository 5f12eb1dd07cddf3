"""Going back to a round: what comes after it moves aside, newest first, so that every moment is a prefix of a run.

Undoing that moves it to its place again, oldest first, for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_kernel.errors import InputError, RunFolderError
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
KINDS = (ROUNDS, JOURNAL, EVALUATIONS, CHECKPOINTS)
"""What moves, in the order in which it may come to be: a checkpoint is of a round that is there."""


@dataclass(frozen=True, slots=True)
class Discarded:
    """What was moved aside by going back to the round `after`. `rounds`: the whole ones among it, ascending."""

    folder: Path
    after: int
    rounds: tuple[int, ...]


def newest_discarded(run: Path) -> Discarded | None:
    """What the last going back moved aside; None where there is nothing.

    Raises:
        RunFolderError: it does not say which round was gone back to.
    """
    try:
        folders = sorted(entry for entry in (run / DISCARDED).iterdir() if entry.name.isdigit())
    except FileNotFoundError:
        return None
    whole = [folder for folder in folders if (folder / INTENT).exists()]
    if not whole:
        return None
    return Discarded(whole[-1], int(_read_intent(whole[-1])["after"]), tuple(list_numbers(whole[-1] / ROUNDS)))


def check_restorable(run: Path, last_round: int) -> Discarded:
    """What undoing the last going back would bring back.

    Raises:
        InputError: nothing, or it does not go on from a round of this run.
        RunFolderError: as `newest_discarded`.
    """
    found = newest_discarded(run)
    if found is None:
        raise InputError(f"{run} was never put back to an earlier round: there is nothing to undo.")
    if found.after > last_round:
        raise InputError(
            f"{found.folder} goes on from round {found.after}, and the run stands after round {last_round}: "
            "train on to that round first."
        )
    return found


def restore(run: Path, discarded: Discarded) -> None:
    """Put what was moved aside back into its place; what came after `after` since then is moved aside in its turn.

    As for `discard_after`, the intent is written first.
    """
    discard_after(run, discarded.after)
    _write_intent(run, discarded.folder, discarded.after, done=False, restore=True)
    _move_in(run, discarded.folder)


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
        intent = _read_intent(folder)
        if intent.get("restore"):
            _move_in(run, folder)
        elif not intent.get("done"):
            _move(run, folder, intent["after"])


def _read_intent(folder: Path) -> dict[str, Any]:
    intent = read_json(folder / INTENT)
    if not isinstance(intent, dict) or not isinstance(intent.get("after"), int):
        raise RunFolderError(f"{folder / INTENT} is damaged: it does not say which round was gone back to.")
    return intent


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
    for name in KINDS:
        (folder / name).mkdir(exist_ok=True)
    for path in _later(run, round):
        _rename(path, folder / path.relative_to(run))
    _write_intent(run, folder, round, done=True)


def _move_in(run: Path, folder: Path) -> None:
    """Everything in a discarded folder to its place in the run; then the folder goes."""
    for kind in KINDS:
        for path in _held(folder / kind):
            _rename(path, run / path.relative_to(folder))
    suites = tuple(suite_folders(folder).values())[::-1]
    for part in (*suites, *(folder / kind for kind in KINDS)):
        if part.exists():
            part.rmdir()
    (folder / INTENT).unlink()
    folder.rmdir()
    sync_folder(folder.parent)


def _held(parent: Path) -> list[Path]:
    """The numbered folders in one of a discarded folder's, those of suites included, oldest first."""
    if not parent.exists():
        return []
    entries = [entry for entry in sorted(parent.iterdir()) if entry.is_dir()]
    suites = [entry for entry in entries if not entry.name[0].isdigit()]
    return [entry for entry in entries if entry not in suites] + [path for suite in suites for path in _held(suite)]


def _rename(path: Path, target: Path) -> None:
    if not target.parent.exists():  # of a suite
        target.parent.mkdir()
        sync_folder(target.parent.parent)
    path.rename(target)
    sync_folder(target.parent)
    sync_folder(path.parent)


def _write_intent(run: Path, folder: Path, round: int, *, done: bool, restore: bool = False) -> None:
    value = {"after": round, "done": done, "time": utc_now(), **({"restore": True} if restore else {})}
    replace_file(run, folder / INTENT, (dumps(value) + "\n").encode(), f"go back to round {round}")
