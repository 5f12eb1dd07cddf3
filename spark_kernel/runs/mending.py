"""What a kill left behind in a run folder is mended: the folder is a prefix of the run again."""

from __future__ import annotations

import shutil
from pathlib import Path

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.bundles import RunInfo
from spark_kernel.runs.discard import finish_discards
from spark_kernel.runs.files import TEMPORARY, disk_errors, remove_folder, restore_replaced
from spark_kernel.runs.layout import (
    CHECKPOINTS,
    FOLDERS,
    JOURNAL,
    ROUNDS,
    first_round,
    list_numbers,
    numbered,
    suite_folders,
)


def mend_folder(run: Path, info: RunInfo) -> None:
    """Bring a folder that was left by a kill back to a prefix of the run; the caller holds its lock.

    Raises:
        RunFolderError: a finished round is missing, which no kill can cause; or the folder is not writable.
    """
    with disk_errors(run, "clean up after the last writer"):
        for name in (*FOLDERS, TEMPORARY):
            (run / name).mkdir(exist_ok=True)
        for rest in (run / TEMPORARY).iterdir():
            shutil.rmtree(rest) if rest.is_dir() and not rest.is_symlink() else rest.unlink()
        restore_replaced(run, run / CHECKPOINTS)
        for parent in suite_folders(run).values():
            restore_replaced(run, parent)
        finish_discards(run)
        rounds = list_numbers(run / ROUNDS)
        first = first_round(info)
        last = rounds[-1] if rounds else first - 1
        for round in list_numbers(run / JOURNAL):
            restore_replaced(run, run / JOURNAL / numbered(round))
            if round <= last:
                drop_journal(run, round)
    missing = sorted(set(range(first, last + 1)) - set(rounds))
    if missing:
        raise RunFolderError(f"{run} is damaged: round {missing[0]} is missing, round {rounds[-1]} is there.")


def drop_journal(run: Path, round: int) -> None:
    """Delete the journal of a round, where there is one."""
    folder = run / JOURNAL / numbered(round)
    if folder.exists():
        remove_folder(run, folder)
