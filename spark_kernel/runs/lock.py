"""One writer per run: an flock on the run's `lock` file, which the kernel releases even after kill -9."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from spark_kernel.errors import RunFolderError, RunLockedError
from spark_kernel.runs.files import disk_errors

LOCK = "lock"
PATIENCE = 1.0
"""Seconds to wait for the lock: a reader that asks whether a writer lives holds it for a moment."""


@dataclass(frozen=True, slots=True)
class LockHolder:
    """Who wrote last, or writes now: process id, host name, and since when (UTC)."""

    pid: int
    host: str
    since: str


class WriterLock:
    """The lock, held from construction to `release`.

    Raises:
        RunLockedError: another process holds it; says its pid and host.
        RunFolderError: the lock file cannot be written, or the file system has no locks.
    """

    def __init__(self, run: Path) -> None:
        path = run / LOCK
        with disk_errors(run, "open the lock file"):
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._acquire(run)
            with disk_errors(run, "write the lock file"):
                holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now(UTC).isoformat()}
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, json.dumps(holder).encode(), 0)
        except BaseException:
            self.release()
            raise
        # A forked worker inherits the descriptor and with it the lock: were it to outlive a killed writer, the run
        # would stay locked.
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(reference))

    def _acquire(self, run: Path) -> None:
        assert self._descriptor is not None
        until = time.monotonic() + PATIENCE
        while True:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise RunLockedError(_locked_sentence(run)) from None
                time.sleep(0.02)
            except OSError as error:
                raise _no_locks(run, error) from error

    @property
    def is_held(self) -> bool:
        """Whether this process still holds the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let the next writer in; calling it twice is fine."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def lock_is_held(run: Path) -> bool:
    """Whether a writer lives, found by trying the lock for an instant. A run without a lock file has none.

    Raises:
        RunFolderError: the lock file cannot be opened, or the file system has no locks.
    """
    path = run / LOCK
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise RunFolderError(f"Cannot open {path}: {os.strerror(error.errno or 0)}.") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        raise _no_locks(run, error) from error
    finally:
        os.close(descriptor)
    return False


def lock_holder(run: Path) -> LockHolder | None:
    """What the lock file says about its last holder; None if it says nothing readable."""
    try:
        value = json.loads((run / LOCK).read_bytes())
        return LockHolder(int(value["pid"]), str(value["host"]), str(value["since"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _locked_sentence(run: Path) -> str:
    holder = lock_holder(run)
    if holder is None:
        return f"{run} is being written by another process, which did not say who it is: one writer at a time."
    place = "this machine" if holder.host == socket.gethostname() else "another machine: look there"
    return (
        f"{run} is being written by process {holder.pid} on host {holder.host} ({place}) since {holder.since}: "
        "stop that process first, or open the run for reading only."
    )


def _no_locks(run: Path, error: OSError) -> RunFolderError:
    reason = os.strerror(error.errno or errno.EIO)
    return RunFolderError(f"The file system of {run} does not lock files ({reason}): put the run on another disk.")


def _forget(reference: weakref.ref[WriterLock]) -> None:
    lock = reference()
    if lock is not None:
        lock.release()
