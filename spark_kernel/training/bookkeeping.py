"""How a phase is counted, announced, recalled and written down: the same for every phase, and said once.

A phase that is on disk is recalled instead of made again; one that is made is on disk before it counts. Groups that a
person hands a phase are on disk before it works on them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from spark_kernel.config import RunConfig
from spark_kernel.errors import PhaseError
from spark_kernel.records import Group, Period
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.events import Event, Listener, StopRequest
from spark_kernel.training.handed import by_period, compare_handed
from spark_kernel.training.interrupt import stops_on_signals
from spark_kernel.training.journal import Journal
from spark_kernel.training.peak_memory import peak_memory
from spark_kernel.training.state import Phase, Stage, TrainerState, schedule


class Bookkeeper:
    """Keeps a run's state, journal and events in step with the phases that the trainer does.

    Args:
        config: the run's configuration.
        writer: its folder, held open.
        state: where the run stands; groups of a round under way are read back from the journal.
        remarks: what the engine has to say; it ends up in the round's notes.
        listeners: called with every event, on the thread that trains.
        history: folders with earlier rounds of this run's ancestry, besides its own.
    """

    def __init__(
        self,
        config: RunConfig,
        writer: RunWriter,
        state: TrainerState,
        remarks: Remarks,
        listeners: list[Listener],
        history: Sequence[Path] = (),
    ) -> None:
        self.state = state
        self.stop = StopRequest()
        self.quiet = False
        self.journal = Journal(writer, lambda round: schedule(config.period, round), history)
        self.journal.restore(state)
        self._config = config
        self._writer = writer
        self._remarks = remarks
        self._listeners = listeners
        self._started = 0.0

    @property
    def due(self) -> Stage:
        """The stage that comes next."""
        flight = self.state.flight
        return schedule(self._config.period, flight.round)[flight.stage]

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[Stage]:
        """Refuse a phase that is not due; time it, announce it, and count it as done when it succeeds."""
        stage = self.due
        flight = self.state.flight
        if stage.phase is not phase:
            raise PhaseError(f"{phase} was called, but in round {flight.round} {stage} is due.")
        before = (self.state.queue, len(flight.exclusions), len(flight.notes), dict(flight.groups))
        taken = (flight.problems, flight.cursor_after, flight.grades_after)
        started = self._started = time.perf_counter()
        self.emit("phase_started")
        try:
            with stops_on_signals(self.stop.ask):
                yield stage
        except BaseException:  # whatever stopped it, a phase that is repeated must find what it found before
            self.state.queue = before[0]
            del flight.exclusions[before[1] :], flight.notes[before[2] :]
            flight.groups = before[3]
            flight.problems, flight.cursor_after, flight.grades_after = taken
            raise
        seconds = flight.seconds.setdefault(f"{stage.period}/{stage.phase}", time.perf_counter() - started)
        self.emit("phase_finished", data={"seconds": seconds, "peak_memory": peak_memory()})
        flight.stage += 1

    def once(self, stage: Stage, make: Callable[[], PhaseRecords], *, again: bool = False) -> PhaseRecords:
        """What a stage made before a kill or stop; else it is made now, and written down before it counts.

        Args:
            again: make it all the same, because weights are not in the records; seconds and remarks stay the first
                time's.
        """
        flight = self.state.flight
        records = recalled = self.journal.recall(flight.round, stage)
        if records is None or again:
            records = make()
        if recalled is None:
            notes = [*records.meta.get("notes", ()), *self.remarks()]
            seconds = {"seconds": time.perf_counter() - self._started}
            records = replace(records, meta={**records.meta, **seconds} | ({"notes": notes} if notes else {}))
            self.journal.record(flight.round, stage, records)
        meta = (recalled or records).meta
        flight.exclusions += records.exclusions
        flight.notes += meta.get("notes", ())
        if "seconds" in meta:
            flight.seconds[f"{stage.period}/{stage.phase}"] = float(meta["seconds"])
        return records

    def handed(self, stage: Stage, given: Sequence[Group] | None, *, half_done: bool) -> list[Group]:
        """The groups a stage works on: those it is handed, else the trainer's own. Edited ones are written down first.

        Args:
            half_done: whether the stage is an update that a stop cut short.

        Raises:
            PhaseError: groups that are not of this period, or other ones in the middle of an update.
        """
        flight = self.state.flight
        periods = (Period.POLICY, Period.REWARD) if stage.period is Period.JOINT else (stage.period,)
        if stage.period is Period.JOINT and not self._config.period.updates_policy(flight.round):
            periods = (Period.REWARD,)
        own = [group for period in periods for group in flight.groups.get(period, ())]
        edited = self.journal.recall_handed(flight.round, stage)
        current = own if edited is None else list(edited.groups)
        if given is not None and list(given) != current:
            if half_done:
                raise PhaseError(f"{stage} is half done with other groups: call it without groups to finish it.")
            known = frozenset[str]().union(*(flight.rolled_out.get(period, ()) for period in periods))
            edited = compare_handed(stage, known, own, given, round=flight.round)
            self.journal.record_handed(flight.round, stage, edited)
        if edited is None:
            return own
        flight.groups |= by_period(stage, edited.groups)
        flight.exclusions += edited.exclusions
        flight.notes += edited.meta["notes"]
        return list(edited.groups)

    def progress(self, done: int, total: int) -> None:
        """Tell the listeners how far the phase is; a stop that was asked for is honoured here."""
        self.stop.check()
        self.emit("progress", done=done, total=total)

    def remarks(self) -> list[str]:
        """What the engine had to say since the last call; it becomes an event at once."""
        remarks = self._remarks.take()
        for sentence in remarks:
            self.emit("remark", data={"text": sentence})
        return list(remarks)

    def emit(self, name: str, **fields: Any) -> None:
        """Tell the listeners, and for all but progress the run folder, what happened."""
        if self.quiet:
            return
        stage = self.due
        defaults: dict[str, Any] = {
            "round": self.state.flight.round,
            "period": str(stage.period),
            "phase": str(stage.phase),
        }
        event = Event(name, **(defaults | fields))
        if name != "progress":
            self._writer.append_event(
                {"event": name, "round": event.round, "period": event.period, "phase": event.phase, **event.data}
            )
        for listener in self._listeners:
            listener(event)
