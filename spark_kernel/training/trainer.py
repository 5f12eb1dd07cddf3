"""The trainer: SPARK's round, phase by phase. This is the one place where the story is told.

    roll out -> verify -> recycle -> update        the policy period, on problems
    roll out -> verify -> recycle -> update        the reward period, on recycled tasks
    report

The trainer owns no tensors and does no arithmetic: it hands each stage's records to the next and to the run folder.
What the run folder already holds is never sampled again: a resumed run reads the recorded rollouts and repeats the
updates, bit for bit. A stage works on the groups it is handed, and the run folder holds those it worked on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from spark_kernel.config import RunConfig
from spark_kernel.errors import PhaseError, Stopped
from spark_kernel.evaluate.held_out import HeldOutEvaluation
from spark_kernel.evaluate.policy_evaluation import evaluate_policy
from spark_kernel.learner.checkpoint import STATE_FOLDER
from spark_kernel.records import Group, Period, Recycled, RoundReport, UpdateStats
from spark_kernel.runs.bundles import PhaseRecords, RoundRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.codec import dumps, from_json, to_json
from spark_kernel.runs.layout import CHECKPOINTS
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.assembly import Parts
from spark_kernel.training.bookkeeping import Bookkeeper
from spark_kernel.training.events import Listener, StopRequest
from spark_kernel.training.interrupt import stops_on_signals
from spark_kernel.training.peak_memory import peak_memory
from spark_kernel.training.phase_work import PhaseWork
from spark_kernel.training.round_metrics import round_report
from spark_kernel.training.state import Phase, RoundState, Stage, TrainerState
from spark_kernel.training.tasks import TaskMaker

TRAINER_STATE = "trainer.json"


class Trainer:
    """Drives a run, phase by phase or in one go.

    Start one with `training.lifecycle` (`start_run`, `resume_run`, `fork_run`). A phase called out of order is a
    `PhaseError` that says what is due. `verify`, `recycle` and `update` take the groups of the phase before; handed
    edited or fewer ones they work on those, and a resumed run does too.

    Args:
        config: the run's configuration.
        writer: its folder, held open.
        parts: model, engine, learner and problems.
        state: where the run stands; groups of a round under way are read back from the journal.
        listeners: called with every event, on the thread that trains.
        history: folders with earlier rounds of this run's ancestry, besides its own (a fork's parent).
    """

    def __init__(
        self,
        config: RunConfig,
        writer: RunWriter,
        parts: Parts,
        state: TrainerState,
        listeners: Sequence[Listener] = (),
        history: Sequence[Path] = (),
    ) -> None:
        self.config = config
        self.writer = writer
        self.parts = parts
        self.state = state
        self.listeners = list(listeners)
        self.pause = StopRequest()
        self.stopped = False
        self._outcome: Literal["finished", "stopped", "failed"] = "stopped"
        self._book = Bookkeeper(config, writer, state, parts.remarks, self.listeners, history)
        self._journal = self._book.journal
        self._tasks = TaskMaker(config, writer, parts, state, self._journal)
        self._work = PhaseWork(config, lambda: self.parts, self._book, writer.path)
        self.stop = self._book.stop

    # --- where the run stands

    @property
    def completed(self) -> int:
        """Rounds completed."""
        return self.state.completed

    @property
    def due(self) -> Stage:
        """The stage that comes next."""
        return self._book.due

    @property
    def policy_version(self) -> int:
        """Completed updates of the policy."""
        return self.parts.learner.version

    # --- the round

    def roll_out(self) -> list[Group]:
        """Phase 1: sample n outputs for every task of the period; new problems, or tasks taken from the queue."""
        with self._book.phase(Phase.ROLL_OUT) as stage:
            first = stage.period is Period.POLICY
            tasks, exclusions = self._tasks.solve_tasks() if first else self._tasks.recycled_tasks()

            def make() -> PhaseRecords:
                groups = self._work.rolled_out(tasks)
                problems = self.state.flight.problems if first else ()
                return PhaseRecords(problems=problems, groups=tuple(groups), exclusions=exclusions)

            return self.state.flight.hold(stage, self._book.once(stage, make).groups)

    def verify(self, groups: Sequence[Group] | None = None) -> list[Group]:
        """Phase 2: score every output in worker processes; advantages within each group."""
        with self._book.phase(Phase.VERIFY) as stage:
            own = self._handed(stage, groups)

            def make() -> PhaseRecords:
                scored = self._work.scored(own)
                self.stop.check()
                records = self._work.with_noise(stage, scored)
                refills = stage.period is Period.POLICY and self.config.rollout.refill > 0
                return self._work.refilled(stage, records, self._tasks) if refills else records

            records = self._book.once(stage, make)
            if stage.period is Period.POLICY:
                self._tasks.take_up(records, records.groups)
            return self.state.flight.hold(stage, records.groups)

    def recycle(self, groups: Sequence[Group] | None = None) -> Recycled:
        """Phase 3: make judge and reflection tasks of scored rollouts; after a reward period, of its reflections."""
        with self._book.phase(Phase.RECYCLE) as stage:
            own = self._handed(stage, groups)

            def make() -> PhaseRecords:
                made = self._tasks.recycled_from(stage.period, own)
                balance = {"balance_before": dict(made.balance_before), "balance_after": dict(made.balance_after)}
                return PhaseRecords(recycled=made.tasks, exclusions=made.exclusions, meta=balance)

            records = self._book.once(stage, make)
            made = Recycled(
                records.recycled,
                records.exclusions,
                records.meta.get("balance_before", {}),
                records.meta.get("balance_after", {}),
            )
            self.state.queue = self.state.queue.add(made.tasks)
            self.state.flight.recycled[stage.period] = made
        return made

    def update(self, groups: Sequence[Group] | None = None) -> UpdateStats | None:
        """Phase 4: one update of the policy from the period's groups; None where there was nothing to train on."""
        with self._book.phase(Phase.UPDATE) as stage:
            own = self._handed(stage, groups)

            def make() -> PhaseRecords:
                if not own:
                    return PhaseRecords(meta={"stats": None})
                stats, left_out = self._work.updated(stage, own)
                return PhaseRecords(exclusions=left_out, meta={"stats": to_json(stats)})

            stats = self._book.once(stage, make, again=True).meta["stats"]
        return None if stats is None else from_json(UpdateStats, stats)

    def report(self) -> RoundReport:
        """The end of a round: its report and tables are written, and the next round is due."""
        with self._book.phase(Phase.REPORT):
            flight = self.state.flight
            report = round_report(flight, policy_version=self.policy_version, queue_length=len(self.state.queue))
            records = RoundRecords(
                round=flight.round,
                problems=flight.problems,
                groups=flight.groups,
                recycled=flight.made,
                exclusions=tuple(flight.exclusions),
                meta={
                    "cursor": flight.cursor_after,
                    **({"grades": dict(flight.grades_after)} if flight.grades_after else {}),
                    "policy_version": report.policy_version,
                    "peak_memory": peak_memory(),
                },
            )
            if not self._journal.is_recorded(flight.round):
                self.writer.finish_round(records, report)
        self.state.completed = flight.round
        self.state.cursor = flight.cursor_after if flight.cursor_after is not None else self.state.cursor
        self.state.grades = flight.grades_after if flight.grades_after is not None else self.state.grades
        self._journal.forget_all_but(self.state)
        self.state.flight = RoundState(round=flight.round + 1)
        self._book.emit("round_finished", round=flight.round, data=to_json(report))
        return report

    def step(self) -> Any:
        """Whatever phase is due."""
        return getattr(self, self.due.phase)()

    def round(self) -> RoundReport:
        """All phases that are left of the round.

        Raises:
            Stopped: after a request to stop, at the next micro-batch, or to pause, between two phases.
        """
        while self.due.phase is not Phase.REPORT:
            self.step()
            self.pause.check()
        return self.report()

    def finish_round(self) -> RoundReport:
        """All phases that are left of the round, then the evaluation and the checkpoint that the settings put here.

        Raises:
            Stopped: as `round`.
        """
        report = self.round()
        self._finish_round(self.config.rounds)
        return report

    def replay_round(self, done: int, total: int) -> None:
        """Repeat a round that is on disk, for its updates alone; the run's events are not written again."""
        self._book.quiet = True
        try:
            self.round()
        finally:
            self._book.quiet = False
        self._book.emit("progress", phase="replay", done=done, total=total)

    def train(self, rounds: int | None = None) -> list[RoundReport]:
        """Rounds up to the configured number, or `rounds` more; evaluations and checkpoints where they are due.

        A stop (`trainer.stop.ask()`, from any thread, or an interrupt, as by Ctrl-C) is honoured at the next
        micro-batch, a pause (`trainer.pause.ask()`) at the end of the phase: a checkpoint is written and the reports
        so far are returned; `trainer.stopped` says that it was stopped. Called again, it goes on from there.
        """
        last = self.config.rounds if rounds is None else self.state.completed + rounds
        reports: list[RoundReport] = []
        self._outcome = "stopped"
        self.stopped = False
        preflight = self.parts.preflight
        planned = {} if preflight is None else {"memory": preflight.line}
        if self.parts.thread_choice is not None:
            planned["threads"] = self.parts.thread_choice.line
        self._book.emit("run_started", data={"rounds": last, "completed": self.state.completed, **planned})
        try:
            self._finish_round(last)  # a kill may have come between the round and what follows it
            while self.state.completed < last:
                reports.append(self.round())
                self._finish_round(last)
        except Stopped:
            self.stopped = True
            self.checkpoint()
            self._book.emit("stopped", data={"due": str(self.due)})
            return reports
        self._outcome = "finished"
        self._book.emit("run_finished", data={"completed": self.state.completed})
        return reports

    def evaluate(self) -> HeldOutEvaluation:
        """Evaluate the policy, as it is between two rounds, on held-out problems; written to the run folder."""
        completed = self.state.completed
        if self.state.flight.stage:
            raise PhaseError(f"Evaluation comes between rounds: {self.due} is due in round {self.state.flight.round}.")
        started = time.perf_counter()
        self._book.emit("phase_started", round=completed, phase="evaluate")
        with stops_on_signals(self.stop.ask):
            evaluation, records = evaluate_policy(
                self.parts.for_evaluation,
                round=completed,
                frozen=self._journal.frozen_candidates(completed),
                images_root=self.writer.path,
                on_progress=lambda line, done, total: self._book.emit(
                    "progress", round=completed, phase=f"evaluate {line}", done=done, total=total
                ),
                check_stop=self.stop.check,
            )
        self._book.remarks()
        self.writer.write_evaluation(records, evaluation.summary)
        found = {"seconds": time.perf_counter() - started, "summary": evaluation.summary}
        self._book.emit("evaluation_finished", round=completed, phase="evaluate", data=found)
        return evaluation

    def checkpoint(self) -> Path:
        """Write a checkpoint of this instant: after a round, between two phases, or in mid-update after a stop.

        An update of a period may take many optimizer steps, minutes of a large model: in mid-update the steps that are
        done are kept, so that a stop loses no more than one.
        """
        in_flight = self.state.flight.stage > 0
        round_number = self.state.flight.round if in_flight else self.state.completed

        def write(folder: Path) -> None:
            self.parts.learner.save(folder)
            (folder / STATE_FOLDER / TRAINER_STATE).write_text(dumps(self.state.to_json()), encoding="utf-8")

        path = self.writer.write_checkpoint(checkpoint_name(round_number, in_progress=in_flight), write)
        self.writer.prune_checkpoints(self.config.checkpoint.keep)
        self._book.emit("checkpoint_written", round=round_number, data={"in_progress": in_flight})
        return path

    def close(self) -> None:
        """Release worker processes, engine and the run's lock; calling it twice is fine."""
        self.parts.close()
        self.writer.close(self._outcome)

    def __enter__(self) -> Trainer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, Stopped):
            self._outcome = "failed"
        self.close()

    # --- between the phases

    def _handed(self, stage: Stage, groups: Sequence[Group] | None) -> list[Group]:
        return self._book.handed(stage, groups, half_done=self.parts.learner.in_update)

    def _finish_round(self, last: int) -> None:
        """Between two rounds: the evaluation and the checkpoint that are due here and not on disk yet."""
        completed = self.state.completed
        if self.state.flight.stage:
            return
        every = self.config.evaluation.every
        if every and (completed % every == 0 or completed == last) and completed not in self.writer.evaluations():
            self.evaluate()
        due = completed and (completed % self.config.checkpoint.every == 0 or completed == last)
        if due and not (self.writer.path / CHECKPOINTS / checkpoint_name(completed)).exists():
            self.checkpoint()
