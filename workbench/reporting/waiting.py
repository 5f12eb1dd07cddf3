"""A bar for work of a command that takes more than two seconds; off a terminal a line every 15 seconds."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from workbench.reporting.heartbeat import Heartbeat

PATIENCE = 2.0
"""Seconds before a bar appears."""


class Waiting:
    """Call it with what is under way, how much is done and of how much (0: not known). A context manager.

    The bar appears by itself after two seconds, the lines after 15, also while a call that reports nothing goes on.
    """

    def __init__(self, console: Console, seconds: float | None = None) -> None:
        self._heartbeat = Heartbeat(console, seconds)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True)
        self._timer = threading.Timer(PATIENCE, self._bar.start)
        self._timer.daemon = True
        self._is_terminal = console.is_terminal
        self._task: Any = None
        self._what = ""

    def __enter__(self) -> Waiting:
        if self._is_terminal:
            self._timer.start()
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._heartbeat.__exit__()
        if self._is_terminal:
            self._timer.cancel()
            self._timer.join()
            self._bar.stop()

    @property
    def shown(self) -> bool:
        """Whether the bar has appeared."""
        return self._bar.live.is_started

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show where the work stands."""
        self._heartbeat.at(what, done, total)
        if what != self._what:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(what, total=total or None)
            self._what = what
        self._bar.update(self._task, completed=done, total=total or None)
