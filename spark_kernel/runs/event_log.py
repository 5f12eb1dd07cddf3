"""events.jsonl: one JSON object per line, numbered without gaps, with the UTC time. Appended to, never rewritten."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.codec import dumps, encode_plain, loads
from spark_kernel.runs.files import disk_errors

EVENTS = "events.jsonl"
BLOCK = 1 << 16


class EventLog:
    """The writer's end of events.jsonl; `append` may be called from any thread.

    A last line torn by a kill or a power cut is cut off on opening, and what was cut off is told in a "repaired"
    event.

    Raises:
        RunFolderError: the file cannot be opened.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._mutex = threading.Lock()
        with disk_errors(run, "open events.jsonl"):
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._descriptor: int | None = os.open(run / EVENTS, flags, 0o644)
            end, last = _last_whole(self._descriptor)
            size = os.fstat(self._descriptor).st_size
            torn = os.pread(self._descriptor, 1000, end)
            os.ftruncate(self._descriptor, end)
        self._number = last["number"] if last else 0
        if size > end:
            lost = torn.decode(errors="replace")
            self.append({"event": "repaired", "file": EVENTS, "dropped_bytes": size - end, "dropped": lost})

    def append(self, event: Mapping[str, Any], *, durable: bool = False) -> dict[str, Any]:
        """Add an event; returns it as written, with `number` and `time`. `durable` waits for the disk.

        Raises:
            InputError: the event has no text field "event", brings its own "number" or "time", or is not JSON.
            RunFolderError: the line could not be written; the file is as before.
        """
        if not isinstance(event.get("event"), str) or "number" in event or "time" in event:
            raise InputError('An event needs a text field "event" and leaves "number" and "time" to the log.')
        with self._mutex:
            if self._descriptor is None:
                raise RunFolderError(f"{self._run / EVENTS} is closed: open the run again to write to it.")
            whole = {"number": self._number + 1, "time": utc_now()} | encode_plain(event, "event")
            line = (dumps(whole) + "\n").encode()
            with disk_errors(self._run, "append to events.jsonl"):
                size = os.fstat(self._descriptor).st_size
                try:
                    _write_all(self._descriptor, line)
                except OSError:
                    os.ftruncate(self._descriptor, size)
                    raise
                if durable:
                    os.fsync(self._descriptor)
            self._number += 1
            return whole

    def close(self) -> None:
        """Close the file; calling it twice is fine."""
        with self._mutex:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.close(descriptor)


def read_events(run: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """The events with a number above `after`, oldest first; a line still being written is left out.

    Raises:
        RunFolderError: a whole line is not an event; says which line.
    """
    path = run / EVENTS
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            event = loads(line, f"{path}, line {number},")
            if not isinstance(event, dict) or not isinstance(event.get("number"), int):
                raise RunFolderError(f"{path}, line {number}, is damaged: it is not an event.")
            if event["number"] > after:
                yield event


def last_event(run: Path) -> dict[str, Any] | None:
    """The newest whole event, read from the end of the file."""
    try:
        descriptor = os.open(run / EVENTS, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return _last_whole(descriptor)[1]
    finally:
        os.close(descriptor)


def utc_now() -> str:
    """The time in UTC, ISO 8601 with microseconds and a Z."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _last_whole(descriptor: int) -> tuple[int, dict[str, Any] | None]:
    """Where the last whole event ends [bytes], and the event; (0, None) if there is none."""
    size = os.fstat(descriptor).st_size
    start, data = size, b""
    while start > 0:
        step = min(BLOCK, start)
        start -= step
        data = os.pread(descriptor, step, start) + data
        end = len(data)
        while (newline := data.rfind(b"\n", 0, end)) >= 0:
            begin = data.rfind(b"\n", 0, newline) + 1
            if begin == 0 and start > 0:
                break
            event = _parse(data[begin:newline])
            if event is not None:
                return start + newline + 1, event
            end = newline
    return 0, None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("number"), int) else None


def _write_all(descriptor: int, data: bytes) -> None:
    """One write; a short one (disk full in mid-line) is continued, so that it ends in an error or in success."""
    while data:
        data = data[os.write(descriptor, data) :]
