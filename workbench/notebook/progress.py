"""Progress of a run in a notebook cell that waits for it: one bar, one line per round and per evaluation."""

from __future__ import annotations

from typing import Any

from tqdm.auto import tqdm

from spark_kernel.records import RoundReport
from spark_kernel.runs.codec import from_json
from spark_kernel.training.events import Event
from workbench.reporting.terminal import evaluation_line, round_line

INTERVAL = 0.2
"""Seconds between two movements of the bar: a notebook's page should not be kept busy by it."""


class CellProgress:
    """A listener for `start_run(..., listeners=[CellProgress()])`.

    A bar belongs to the cell that works. `train` has one for all its rounds; a phase that is called by itself has one
    of its own, which goes away when the phase is done.
    """

    def __init__(self) -> None:
        self._bar: Any = None
        self._training = False
        self._last = 0

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event.name == "run_started":
            self._training, self._last = True, int(event.data["rounds"])
        elif event.name == "phase_started":
            self._start(event)
        elif event.name == "progress":
            self._move(event)
        elif event.name == "phase_finished" and not self._training:
            self._close()
        elif event.name == "round_finished":
            tqdm.write(round_line(from_json(RoundReport, dict(event.data)), self._last))
        elif event.name == "evaluation_finished":
            tqdm.write(evaluation_line(event.round, event.data["summary"], event.data.get("seconds")))
        if event.name in ("run_finished", "stopped") or (event.name == "evaluation_finished" and not self._training):
            self._training = False
            self._close()

    def _start(self, event: Event) -> None:
        of = f"/{self._last}" if self._last else ""
        period = "" if event.phase in ("report", "evaluate") else f" ({event.period})"
        self._describe(f"round {event.round}{of} {(event.phase or '').replace('_', ' ')}{period}")

    def _move(self, event: Event) -> None:
        phase = event.phase or ""
        if phase.startswith("evaluate"):
            self._describe(f"after round {event.round}: {phase}")
        elif phase == "replay" and self._bar is None:
            self._describe("repeating recorded updates")
        bar = self._bar
        if bar is None:
            return
        if (event.total or None) != bar.total:
            bar.reset(event.total or None)
            bar.total = event.total or None
        bar.update(event.done - bar.n)
        if phase == "replay" and event.done == event.total:
            self._close()

    def _describe(self, text: str) -> None:
        if self._bar is None:
            self._bar = tqdm(desc=text, mininterval=INTERVAL, leave=False)
        elif self._bar.desc.removesuffix(": ") != text:
            self._bar.reset()
            self._bar.total = None
            self._bar.set_description(text, refresh=False)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.total = None  # a bar that is not full would stay, in red
            self._bar.close()
            self._bar = None
