"""Durable, atomic writing: everything appears under its name whole, or not at all.

A temporary file or folder lives in the run's `.tmp`, is fsynced with all it holds, and is renamed to its place.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from spark_kernel.errors import RunFolderError

TEMPORARY = ".tmp"
REPLACED = ".replaced"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(path: Path, doing: str) -> Iterator[None]:
    """Turn an operating-system error into one sentence for a person.

    Raises:
        RunFolderError: names the path, what could not be done and what to do.
    """
    try:
        yield
    except OSError as error:
        raise RunFolderError(_sentence(error, path, doing)) from error
    except SafetensorError as error:
        full = "StorageFull" in str(error) or f"os error {errno.ENOSPC}" in str(error) or "code: 28" in str(error)
        problem = OSError(errno.ENOSPC, "no space left") if full else OSError(errno.EIO, str(error))
        raise RunFolderError(_sentence(problem, path, doing)) from error


def _sentence(error: OSError, path: Path, doing: str) -> str:
    if error.errno in FULL:
        return (
            f"Could not {doing} in {path}: the disk is full or a size limit is reached ({os.strerror(error.errno)}). "
            "What was recorded before is intact: free some space, then resume."
        )
    if error.errno in DENIED:
        return (
            f"Could not {doing} in {path}: writing is not allowed there ({os.strerror(error.errno)}). "
            "Make the folder writable, or choose another one."
        )
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"Could not {doing} in {path}: {reason}{f' ({error.filename})' if error.filename else ''}."


def write_file(path: Path, data: bytes) -> None:
    """Write a new file; `sync_file` or `sync_tree` makes it durable."""
    with path.open("xb") as file:
        file.write(data)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Wait until every file and folder below, and the folder itself, is on disk."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            sync_file(Path(folder) / name)
        sync_folder(Path(folder))


@contextmanager
def staged_folder(run: Path, target: Path, doing: str, *, replace: bool = False) -> Iterator[Path]:
    """A temporary folder to fill; it becomes `target` when the block ends well, and vanishes otherwise.

    With `replace` an existing target gives way; a kill between the two renames is mended by `restore_replaced`.

    Raises:
        RunFolderError: disk full, not writable, or the target exists.
    """
    temporary = run / TEMPORARY / f"{target.name}-{secrets.token_hex(4)}"
    with disk_errors(target, doing):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            sync_tree(temporary)
            old = target.with_name(target.name + REPLACED)
            if target.exists():
                if not replace:
                    raise RunFolderError(f"{target} exists already: it is never overwritten.")
                target.rename(old)
            temporary.rename(target)
            sync_folder(target.parent)
            if old.exists():
                remove_folder(run, old)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_file(run: Path, target: Path, data: bytes, doing: str) -> None:
    """Write a file whole, in place of an older one if there is one.

    Raises:
        RunFolderError: disk full or not writable; an older file is then untouched.
    """
    temporary = run / TEMPORARY / f"{target.name}-{secrets.token_hex(4)}"
    with disk_errors(target, doing):
        try:
            temporary.parent.mkdir(exist_ok=True)
            write_file(temporary, data)
            sync_file(temporary)
            temporary.replace(target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def remove_folder(run: Path, folder: Path) -> None:
    """Take a folder away in one step, then delete it: a reader never sees it half deleted."""
    grave = run / TEMPORARY / f"{folder.name}-{secrets.token_hex(4)}"
    grave.parent.mkdir(exist_ok=True)
    folder.rename(grave)
    sync_folder(folder.parent)
    shutil.rmtree(grave)


def restore_replaced(run: Path, parent: Path) -> None:
    """Finish or undo replacements that a kill interrupted."""
    for old in parent.glob("*" + REPLACED):
        target = old.with_name(old.name.removesuffix(REPLACED))
        if target.exists():
            remove_folder(run, old)
        else:
            old.rename(target)
            sync_folder(parent)
