"""A folder for something finished: filled beside its place and renamed, so that it appears whole or not at all.

For folders outside a run's own, such as an export; inside a run its writer does the same in the run's `.tmp`.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spark_kernel.errors import InputError
from spark_kernel.runs.files import disk_errors, sync_folder, sync_tree


def check_target(target: Path, run: Path | None = None) -> None:
    """Whether `finished_folder` could write here; asked before anything slow is done. Writes nothing.

    Args:
        run: a run that is only read, in whose folder the target must not lie.

    Raises:
        InputError: a target that holds something, lies in the run's folder, or cannot be made.
    """
    if run is not None and target.absolute().resolve().is_relative_to(run.absolute().resolve()):
        raise InputError(f"{target} lies in the run's own folder, which only its trainer writes: choose another --out.")
    if target.is_dir():
        if any(target.iterdir()):
            raise InputError(f"{target} is not empty and is never overwritten: choose another --out, or remove it.")
    elif target.exists() or target.is_symlink():
        raise InputError(f"{target} exists and is no folder: choose another --out.")
    nearest = next(place for place in target.absolute().parents if place.exists())
    if not nearest.is_dir():
        raise InputError(f"{target} cannot be created: {nearest} is a file. Choose another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{target} cannot be created: {nearest} is not writable. Choose another --out.")


@contextmanager
def finished_folder(target: Path, doing: str) -> Iterator[Path]:
    """A folder to fill beside the target; it becomes the target when the block ends well, and vanishes otherwise.

    Raises:
        RunFolderError: disk full, not writable, or something is at the target meanwhile.
    """
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    with disk_errors(target, doing):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            temporary.rename(target)  # an empty folder gives way, one that was filled meanwhile does not
            sync_folder(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
