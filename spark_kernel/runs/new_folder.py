"""Whether a folder can become a run: asked before anything slow is done, and again when the folder is made."""

from __future__ import annotations

import os
from pathlib import Path

from spark_kernel.errors import RunFolderError
from spark_kernel.runs.event_log import EVENTS
from spark_kernel.runs.files import TEMPORARY
from spark_kernel.runs.layout import CONFIG, ENVIRONMENT, FOLDERS, ROUNDS, RUN_JSON, list_numbers, list_suites
from spark_kernel.runs.lock import LOCK

BEFORE_RUN_JSON = frozenset({LOCK, TEMPORARY, CONFIG, ENVIRONMENT, EVENTS, *FOLDERS})


def check_new_folder(run: Path) -> None:
    """Whether a new run could be created here; writes nothing.

    Raises:
        RunFolderError: a file of that name, a folder in use, or a place that is not writable.
    """
    nearest = next(place for place in (run, *run.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise RunFolderError(f"{run} cannot be a run's folder: {nearest} is a file. Choose another place.")
    if run.exists():
        refuse_used(run)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise RunFolderError(f"{run} cannot be created: {nearest} is not writable. Choose another place.")


def refuse_used(run: Path) -> None:
    """A new run takes an empty folder, or one whose creation was interrupted.

    Raises:
        RunFolderError: it holds a run or anything else.
    """
    names = {entry.name for entry in run.iterdir()}
    if RUN_JSON in names:
        raise RunFolderError(f"{run} holds a run already: resume it, fork it, or choose another name.")
    others = sorted(names - BEFORE_RUN_JSON)
    if others or list_numbers(run / ROUNDS) or list_suites(run):
        raise RunFolderError(f"{run} is not empty (it holds {others[0] if others else ROUNDS}): choose another folder.")
