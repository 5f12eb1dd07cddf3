"""What a running trainer tells its listeners: terminal, experiment trackers, notebook."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_kernel.errors import Stopped


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    `name`: "run_started", "phase_started", "progress", "phase_finished", "round_finished", "evaluation_finished",
    "checkpoint_written", "remark" (the engine's, in data["text"]), "stopped", "run_finished". `done` of `total` count
    outputs, verifications or optimizer steps in "progress". `data` holds JSON values. Every event but "progress" is
    also written to events.jsonl.
    """

    name: str
    round: int
    period: str | None = None
    phase: str | None = None
    done: int = 0
    total: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


class StopRequest:
    """A request to stop that any thread may make and that long work honours, once, at its next safe point."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Ask for a stop."""
        self._event.set()

    def clear(self) -> None:
        """Forget an earlier request."""
        self._event.clear()

    @property
    def asked(self) -> bool:
        """Whether a stop was asked for and not yet honoured or forgotten."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for, which honours the request: later work may go on."""
        if self._event.is_set():
            self._event.clear()
            raise Stopped
