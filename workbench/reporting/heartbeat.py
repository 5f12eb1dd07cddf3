"""Where there is no terminal for a bar: a line of progress at least every 15 seconds, whatever goes on."""

from __future__ import annotations

import threading
import time

from rich.console import Console

SECONDS = 15.0
"""Longest silence."""


class Heartbeat:
    """Says where the work stands when nothing else was printed for a while. A context manager; off on a terminal.

    A thread of its own does it, so that a call which reports nothing (a model that loads, a long step) is no silence
    either.

    Args:
        console: where lines go.
        seconds: longest silence; None: `SECONDS`.
    """

    def __init__(self, console: Console, seconds: float | None = None) -> None:
        self._console = console
        self._seconds = SECONDS if seconds is None else seconds
        self._off = console.is_terminal
        self._what = "loading"
        self._count = ""
        self._began = self._said = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Heartbeat:
        if not self._off:
            self._began = self._said = time.monotonic()
            self._thread = threading.Thread(target=self._beat, name="progress lines", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def at(self, what: str, done: int = 0, total: int = 0) -> None:
        """The work is at this, so much of it done (a total of 0: not known)."""
        with self._lock:
            if what != self._what:
                self._what, self._began = what, time.monotonic()
            self._count = f"  {done:,}/{total:,}" if total else f"  {done:,}" if done else ""

    def spoke(self) -> None:
        """Something was printed just now."""
        with self._lock:
            self._said = time.monotonic()

    def _beat(self) -> None:
        while not self._ended.wait(self._left()):
            with self._lock:
                now = time.monotonic()
                due = now - self._said >= self._seconds
                line = f"... {self._what}{self._count}, {now - self._began:.0f} s"
                if due:
                    self._said = now
            if due:
                self._console.print(line, soft_wrap=True, markup=False)

    def _left(self) -> float:
        with self._lock:
            return max(0.01, self._said + self._seconds - time.monotonic())
