"""The trainer: SPARK's round, phase by phase. This is the one place where the story is told.

    roll out -> verify -> recycle -> update        the policy period, on problems
    roll out -> verify -> recycle -> update        the reward period, on recycled tasks
    report

The trainer owns no tensors and does no arithmetic: it hands each stage's records to the next and to the run folder.
What the run folder already holds is never sampled again: a resumed run reads the recorded rollouts and repeats the
updates, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from spark_kernel.config import RunConfig
from spark_kernel.errors import PhaseError, Stopped
from spark_kernel.evaluate.held_out import HeldOutEvaluation
from spark_kernel.evaluate.policy_evaluation import evaluate_policy
from spark_kernel.learner.checkpoint import STATE_FOLDER, save_learner
from spark_kernel.problems.images import adopt_images
from spark_kernel.prompts.build import solve_task
from spark_kernel.records import (
    Exclusion,
    ExclusionReason,
    Group,
    Period,
    Problem,
    Recycled,
    RoundReport,
    Task,
    UpdateStats,
)
from spark_kernel.recycle.recycle import re_evaluate, recycle
from spark_kernel.rollout.roll_out import fitting, roll_out
from spark_kernel.runs.bundles import PhaseRecords, RoundRecords
from spark_kernel.runs.checkpoints import checkpoint_name
from spark_kernel.runs.codec import dumps, to_json
from spark_kernel.runs.layout import CHECKPOINTS
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.assembly import Parts
from spark_kernel.training.events import Event, Listener, StopRequest
from spark_kernel.training.interrupt import stops_on_signals
from spark_kernel.training.journal import RunHistory
from spark_kernel.training.peak_memory import peak_memory
from spark_kernel.training.round_metrics import round_report
from spark_kernel.training.state import Phase, RoundState, Stage, TrainerState, schedule
from spark_kernel.verify.score_groups import score_groups

TRAINER_STATE = "trainer.json"


class Trainer:
    """Drives a run, phase by phase or in one go.

    Start one with `runs.lifecycle` (`start_run`, `resume_run`, `fork_run`). A phase called out of order is a
    `PhaseError` that says what is due.

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
        self.stop = StopRequest()
        self.pause = StopRequest()
        self.stopped = False
        self._stages = schedule(config.period)
        self._phase_started = 0.0
        self._outcome: Literal["finished", "stopped", "failed"] = "stopped"
        self._quiet = False
        self._unrecorded: tuple[tuple[int, int], tuple[UpdateStats, tuple[Exclusion, ...]]] | None = None
        self._history = RunHistory(writer, self._stages, history)
        self._history.recall(state)

    # --- where the run stands

    @property
    def completed(self) -> int:
        """Rounds completed."""
        return self.state.completed

    @property
    def due(self) -> Stage:
        """The stage that comes next."""
        return self._stages[self.state.flight.stage]

    @property
    def policy_version(self) -> int:
        """Completed updates of the policy."""
        return self.parts.policy.version

    # --- the round

    def roll_out(self) -> list[Group]:
        """Phase 1: sample n outputs for every task of the period; new problems, or tasks taken from the queue."""
        with self._phase(Phase.ROLL_OUT) as stage:
            groups = self._history.groups(self.state.flight.round, stage)
            tasks, exclusions = self._solve_tasks() if stage.period is Period.POLICY else self._recycled_tasks()
            if groups is None:
                groups = roll_out(
                    self.parts.engine,
                    tasks,
                    self.config.rollout,
                    seed=self.config.seed,
                    round=self.state.flight.round,
                    images_root=self.writer.path,
                    on_progress=self._progress,
                    check_stop=self.stop.check,
                )
            self.state.flight.groups[stage.period] = tuple(groups)
            self._record(stage, PhaseRecords(problems=self._new_problems(stage), groups=tuple(groups)), exclusions)
        return groups

    def verify(self, groups: Sequence[Group] | None = None) -> list[Group]:
        """Phase 2: score every output in worker processes; advantages within each group."""
        with self._phase(Phase.VERIFY) as stage:
            own = self._own_groups(stage, groups)
            scored = self._history.groups(self.state.flight.round, stage)
            if scored is None:
                scored = score_groups(
                    self.parts.pool,
                    own,
                    self._history.problems,
                    estimator=self.config.objective.advantage,
                    delta=self.config.objective.delta,
                    on_progress=self._progress,
                )
                self.stop.check()
            self.state.flight.groups[stage.period] = tuple(scored)
            self._record(stage, PhaseRecords(groups=tuple(scored)), ())
        return scored

    def recycle(self, groups: Sequence[Group] | None = None) -> Recycled:
        """Phase 3: make judge and reflection tasks of scored rollouts; after a reward period, of its reflections."""
        with self._phase(Phase.RECYCLE) as stage:
            own = self._own_groups(stage, groups)
            made = self._recycled_from(stage.period, own)
            self.state.queue = self.state.queue.add(made.tasks)
            self.state.flight.recycled[stage.period] = made
            self._record(stage, PhaseRecords(recycled=made.tasks), made.exclusions)
        return made

    def update(self, groups: Sequence[Group] | None = None) -> UpdateStats | None:
        """Phase 4: one update of the policy from the period's groups; None where there was nothing to train on."""
        with self._phase(Phase.UPDATE) as stage:
            own = self._own_groups(stage, groups)
            stats: UpdateStats | None = None
            exclusions: tuple[Exclusion, ...] = ()
            if own:
                stats, exclusions = self._updated(stage, own)
            self._record(stage, PhaseRecords(meta={"stats": to_json(stats) if stats else None}), exclusions)
        return stats

    def report(self) -> RoundReport:
        """The end of a round: its report and tables are written, and the next round is due."""
        with self._phase(Phase.REPORT):
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
                    "policy_version": report.policy_version,
                    "peak_memory": peak_memory(),
                },
            )
            if not self._history.is_recorded(flight.round):
                self.writer.finish_round(records, report)
        self.state.completed = flight.round
        self.state.cursor = flight.cursor_after if flight.cursor_after is not None else self.state.cursor
        self._history.forget_all_but(self.state)
        self.state.flight = RoundState(round=flight.round + 1)
        self._emit("round_finished", round=flight.round, data=to_json(report))
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

    def replay_round(self, done: int, total: int) -> None:
        """Repeat a round that is on disk, for its updates alone; the run's events are not written again."""
        self._quiet = True
        try:
            self.round()
        finally:
            self._quiet = False
        self._emit("progress", phase="replay", done=done, total=total)

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
        self._emit("run_started", data={"rounds": last, "completed": self.state.completed, **planned})
        try:
            self._finish_round(last)  # a kill may have come between the round and what follows it
            while self.state.completed < last:
                reports.append(self.round())
                self._finish_round(last)
        except Stopped:
            self.stopped = True
            self.checkpoint()
            self._emit("stopped", data={"due": str(self.due)})
            return reports
        self._outcome = "finished"
        self._emit("run_finished", data={"completed": self.state.completed})
        return reports

    def evaluate(self) -> HeldOutEvaluation:
        """Evaluate the policy, as it is between two rounds, on held-out problems; written to the run folder."""
        if self.state.flight.stage:
            raise PhaseError(f"Evaluation comes between rounds: {self.due} is due in round {self.state.flight.round}.")
        started = time.perf_counter()
        self._emit("phase_started", round=self.state.completed, phase="evaluate")

        def progress(line: str, finished: int, total: int) -> None:
            self._emit("progress", round=self.state.completed, phase=f"evaluate {line}", done=finished, total=total)

        with stops_on_signals(self.stop.ask):
            evaluation, records = evaluate_policy(
                self.parts.for_evaluation,
                round=self.state.completed,
                frozen=self._history.frozen_candidates(self.state.completed),
                images_root=self.writer.path,
                on_progress=progress,
                check_stop=self.stop.check,
            )
        self._remarks()
        self.writer.write_evaluation(records, evaluation.summary)
        self._emit(
            "evaluation_finished",
            round=self.state.completed,
            phase="evaluate",
            data={"seconds": time.perf_counter() - started, "summary": evaluation.summary},
        )
        return evaluation

    def checkpoint(self) -> Path:
        """Write a checkpoint of this instant: after a round, between two phases, or in mid-update after a stop."""
        in_flight = self.state.flight.stage > 0 or self.parts.learner.progress is not None
        round_number = self.state.flight.round if in_flight else self.state.completed

        def write(folder: Path) -> None:
            save_learner(self.parts.learner, folder)
            (folder / STATE_FOLDER / TRAINER_STATE).write_text(dumps(self.state.to_json()), encoding="utf-8")

        path = self.writer.write_checkpoint(checkpoint_name(round_number, in_progress=in_flight), write)
        self.writer.prune_checkpoints(self.config.checkpoint.keep)
        self._emit("checkpoint_written", round=round_number, data={"in_progress": in_flight})
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

    # --- the work inside the phases

    def _solve_tasks(self) -> tuple[list[Task], tuple[Exclusion, ...]]:
        """The solve tasks of the round's new problems."""
        flight = self.state.flight
        taken = self.parts.stream.take(self.state.cursor, self.config.problems.per_round, round=flight.round)
        flight.cursor_after = taken.cursor
        flight.problems = tuple(adopt_images(problem, self.writer.path) for problem in taken.problems)
        self._history.problems |= {problem.id: problem for problem in flight.problems}
        tasks = [solve_task(problem, seed=self.config.seed, round=flight.round) for problem in flight.problems]
        fitting = self._fits(tasks)
        too_long = tuple(
            Exclusion(flight.round, "problems", ExclusionReason.PROMPT_TOO_LONG, task.problem_id, task.kind)
            for task, fits in zip(tasks, fitting, strict=True)
            if not fits
        )
        return [t for t, fits in zip(tasks, fitting, strict=True) if fits], (*taken.exclusions, *too_long)

    def _recycled_tasks(self) -> tuple[list[Task], tuple[Exclusion, ...]]:
        """The tasks that this reward period takes from the queue; what is too old leaves it."""
        flight = self.state.flight
        queue, too_old = self.state.queue.drop_old(flight.round, self.config.recycle.max_age)
        taken, self.state.queue = queue.take(self.config.recycle, self.config.quotas, flight.round)
        if not taken:
            flight.notes.append(
                f"No reward period: {len(queue)} recycled tasks wait, {self.config.recycle.minimum} needed."
            )
        return list(taken), too_old

    def _recycled_from(self, period: Period, groups: Sequence[Group]) -> Recycled:
        if not self.config.period.train_reward:
            return Recycled()
        keyed: dict[str, Any] = {"seed": self.config.seed, "round": self.state.flight.round, "fits": self._fits}
        if period is Period.POLICY:
            return recycle(groups, self._history.problems, self.config.recycle, self.config.quotas, **keyed)
        if not self.config.recycle.re_evaluation:
            return Recycled()
        return re_evaluate(
            groups,
            self._history.problems,
            self._history.sources_for(self.state.flight),
            self.config.recycle,
            self.config.quotas,
            **keyed,
        )

    def _updated(self, stage: Stage, groups: Sequence[Group]) -> tuple[UpdateStats, tuple[Exclusion, ...]]:
        """The learner's update; not once more where it was done but not written down (disk full, engine not synced)."""
        flight = self.state.flight
        if self._unrecorded is None or self._unrecorded[0] != (flight.round, flight.stage):
            self.parts.engine.sleep()
            result = self.parts.learner.update(
                groups,
                period=stage.period,
                round=flight.round,
                on_progress=self._progress,
                check_stop=self.stop.check,
            )
            flight.updates.append(result[0])
            self._unrecorded = ((flight.round, flight.stage), result)
        self.parts.engine.wake()
        self.parts.engine.take(self.parts.policy.publish(self.parts.engine.wanted))
        return self._unrecorded[1]

    # --- small helpers

    def _fits(self, tasks: Sequence[Task]) -> list[bool]:
        return fitting(
            self.parts.engine,
            tasks,
            self.config.rollout,
            context_length=self.parts.policy.loaded.context_length,
            images_root=self.writer.path,
        )

    def _progress(self, done: int, total: int) -> None:
        self.stop.check()
        self._emit("progress", done=done, total=total)

    @contextmanager
    def _phase(self, phase: Phase) -> Iterator[Stage]:
        """Refuse a phase that is not due; time it, announce it, and count it as done when it succeeds."""
        stage = self.due
        flight = self.state.flight
        if stage.phase is not phase:
            raise PhaseError(f"{phase} was called, but in round {flight.round} {stage} is due.")
        before = (self.state.queue, len(flight.exclusions), len(flight.notes))
        started = self._phase_started = time.perf_counter()
        self._emit("phase_started")
        try:
            with stops_on_signals(self.stop.ask):
                yield stage
        except BaseException:  # whatever stopped it, a phase that is repeated must find what it found before
            self.state.queue = before[0]
            del flight.exclusions[before[1] :], flight.notes[before[2] :]
            raise
        seconds = flight.seconds.setdefault(f"{stage.period}/{stage.phase}", time.perf_counter() - started)
        self._emit("phase_finished", data={"seconds": seconds, "peak_memory": peak_memory()})
        flight.stage += 1

    def _record(self, stage: Stage, records: PhaseRecords, exclusions: Sequence[Exclusion]) -> None:
        """Keep a phase's exclusions and write its records to the journal, unless the folder has them already.

        The seconds and the engine's remarks of a phase that is only repeated are those of the first time.
        """
        flight = self.state.flight
        flight.exclusions += exclusions
        if self._history.is_recorded(flight.round):
            return
        index = self._stages.index(stage)
        seconds = time.perf_counter() - self._phase_started
        recalled = self.writer.recall_phase(flight.round, index, stage.period, stage.phase)
        if recalled is None:
            notes = self._remarks()
            meta = {**records.meta, "seconds": seconds} | ({"notes": notes} if notes else {})
            records = replace(records, exclusions=tuple(exclusions), meta=meta)
            self.writer.record_phase(flight.round, index, stage.period, stage.phase, records)
        else:
            seconds = float(recalled.meta["seconds"])
            notes = recalled.meta.get("notes", [])
        flight.notes += notes
        flight.seconds[f"{stage.period}/{stage.phase}"] = seconds

    def _remarks(self) -> list[str]:
        """What the engine had to say since the last call; it becomes an event at once."""
        remarks = self.parts.remarks.take()
        for sentence in remarks:
            self._emit("remark", data={"text": sentence})
        return list(remarks)

    def _own_groups(self, stage: Stage, given: Sequence[Group] | None) -> list[Group]:
        """The groups the stage works on: the trainer's own, which those a caller passes must match."""
        flight = self.state.flight
        periods = [Period.POLICY, Period.REWARD] if stage.period is Period.JOINT else [stage.period]
        if stage.period is Period.JOINT and not self.config.period.train_policy:
            periods = [Period.REWARD]
        own = [group for period in periods for group in flight.groups.get(period, ())]
        if given is not None and [g.task.id for g in given] != [g.task.id for g in own]:
            raise PhaseError(
                f"{stage} works on the {len(own)} groups that {periods[0]} period's roll_out made; other groups were "
                "given. Call it without arguments, or with what the phase before returned."
            )
        return own

    def _new_problems(self, stage: Stage) -> tuple[Problem, ...]:
        return self.state.flight.problems if stage.period is Period.POLICY else ()

    def _finish_round(self, last: int) -> None:
        """Between two rounds: the evaluation and the checkpoint that are due here and not on disk yet."""
        completed = self.state.completed
        if self.state.flight.stage or self.parts.learner.progress is not None:
            return
        every = self.config.evaluation.every
        if every and (completed % every == 0 or completed == last) and completed not in self.writer.evaluations():
            self.evaluate()
        due = completed and (completed % self.config.checkpoint.every == 0 or completed == last)
        if due and not (self.writer.path / CHECKPOINTS / checkpoint_name(completed)).exists():
            self.checkpoint()

    def _emit(self, name: str, **fields: Any) -> None:
        if self._quiet:
            return
        stage = self.due
        defaults: dict[str, Any] = {
            "round": self.state.flight.round,
            "period": str(stage.period),
            "phase": str(stage.phase),
        }
        event = Event(name, **(defaults | fields))
        if name != "progress":
            self.writer.append_event(
                {"event": name, "round": event.round, "period": event.period, "phase": event.phase, **event.data}
            )
        for listener in self.listeners:
            listener(event)
