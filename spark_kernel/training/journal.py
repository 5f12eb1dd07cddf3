"""What a run has already made, read back from its folder: nothing that is on disk is sampled or asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.cases import Candidate
from spark_kernel.evaluate.frozen import frozen_candidates
from spark_kernel.records import Origin, Period, Problem, Rollout
from spark_kernel.runs.bundles import PhaseRecords, RoundRecords
from spark_kernel.runs.layout import INHERITED, ROUNDS, numbered
from spark_kernel.runs.storage import read_round
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.handed import by_period
from spark_kernel.training.state import Phase, RoundState, Stage, TrainerState

StagesOf = Callable[[int], Sequence[Stage]]
"""Gives the stages of a round, in order."""


class Journal:
    """What phases of a run and its ancestry made, recalled and written down, and what queued tasks refer to.

    `problems`: every problem that a task of this round or of the queue is about, by id.

    Args:
        writer: the run.
        stages: gives the stages of a round, in order.
        ancestry: further folders with earlier rounds (while a fork is made, its parent).
    """

    def __init__(self, writer: RunWriter, stages: StagesOf, ancestry: Sequence[Path] = ()) -> None:
        self._writer = writer
        self._stages = stages
        self._folders = (writer.path, writer.path / INHERITED, *ancestry)
        self.problems: dict[str, Problem] = {}
        self._sources: dict[str, Rollout] = {}

    def is_recorded(self, round_number: int) -> bool:
        """Whether the round is finished and on disk."""
        return round_number <= self._writer.last_round

    def recall(self, round_number: int, stage: Stage) -> PhaseRecords | None:
        """What a stage made, from a finished round or the journal; None where it is still to be made."""
        if not self.is_recorded(round_number):
            return self._writer.recall_phase(round_number, self._place(round_number, stage), stage.period, stage.phase)
        finished = self._finished_round(round_number)
        origin = Origin.REFLECTION if stage.period is Period.REWARD else Origin.SOLVE
        verified = stage == Stage(Period.POLICY, Phase.VERIFY)
        return PhaseRecords(
            problems=finished.problems if verified else (),
            meta={"cursor": finished.meta["cursor"]} if verified and "cursor" in finished.meta else {},
            groups=finished.groups.get(stage.period, ()),
            recycled=tuple(task for task in finished.recycled if task.origin is origin),
        )

    def record(self, round_number: int, stage: Stage, records: PhaseRecords) -> None:
        """Write down what a stage made."""
        self._writer.record_phase(round_number, self._place(round_number, stage), stage.period, stage.phase, records)

    def recall_handed(self, round_number: int, stage: Stage) -> PhaseRecords | None:
        """The groups that a person handed a stage before a kill or stop; None where it had the trainer's own."""
        if self.is_recorded(round_number):
            return None
        return self._writer.recall_handed(round_number, self._place(round_number, stage), stage.period)

    def record_handed(self, round_number: int, stage: Stage, records: PhaseRecords) -> None:
        """Write down the groups that a stage was handed, before it works on them."""
        self._writer.record_handed(round_number, self._place(round_number, stage), stage.period, records)

    def frozen_candidates(self, round_number: int) -> tuple[Candidate, ...]:
        """The pool that judges are asked about in the evaluation after a round (`frozen_candidates`)."""
        return frozen_candidates(self._folders, round_number)

    def sources_for(self, flight: RoundState) -> Mapping[str, Rollout]:
        """The rollouts that tasks of this round may have been made from, by id."""
        own = flight.groups.get(Period.POLICY, ())
        return self._sources | {rollout.id: rollout for group in own for rollout in group.rollouts}

    def forget_all_but(self, state: TrainerState) -> None:
        """At the end of a round: keep what the queued tasks refer to, and no more."""
        sources = self.sources_for(state.flight)
        wanted = {source for task in state.queue.tasks for source in task.sources}
        self._sources = {name: sources[name] for name in wanted if name in sources}
        self.problems = {task.problem_id: self.problems[task.problem_id] for task in state.queue.tasks}

    def restore(self, state: TrainerState) -> None:
        """After a resume: the groups and problems of the round under way, and what queued tasks refer to.

        Raises:
            RunFolderError: the folder lacks something that the checkpoint needs.
        """
        flight = state.flight
        if flight.stage and self.is_recorded(flight.round):
            finished = self._finished_round(flight.round)
            flight.problems = finished.problems
            done = {stage.period for stage in self._stages(flight.round)[: flight.stage]}
            flight.groups = {period: groups for period, groups in finished.groups.items() if period in done}
        else:
            self._recall_journal(flight)
        self.problems |= {problem.id: problem for problem in flight.problems}
        waiting = [task for task in state.queue.tasks if task.round != flight.round]
        waiting += [group.task for group in flight.groups.get(Period.REWARD, ()) if group.task.round != flight.round]
        for number in sorted({task.round for task in waiting}):
            records = self._finished_round(number)
            self.problems |= {problem.id: problem for problem in records.problems}
            for groups in records.groups.values():
                self._sources |= {rollout.id: rollout for group in groups for rollout in group.rollouts}

    def _place(self, round_number: int, stage: Stage) -> int:
        return self._stages(round_number).index(stage)

    def _recall_journal(self, flight: RoundState) -> None:
        for index, stage in enumerate(self._stages(flight.round)[: flight.stage]):
            recalled = self._writer.recall_phase(flight.round, index, stage.period, stage.phase)
            if recalled is None:
                raise RunFolderError(
                    f"The journal of {self._writer.path} lacks {stage} of round {flight.round}, which its checkpoint "
                    "needs: go back to an earlier round."
                )
            handed = self.recall_handed(flight.round, stage)
            if handed is not None:
                flight.groups |= by_period(stage, handed.groups)
            flight.problems += recalled.problems
            if stage.phase in (Phase.ROLL_OUT, Phase.VERIFY):
                flight.hold(stage, recalled.groups)

    def _finished_round(self, number: int) -> RoundRecords:
        for folder in self._folders:
            if (folder / ROUNDS / numbered(number)).is_dir():
                return read_round(folder / ROUNDS / numbered(number))
        raise RunFolderError(f"{self._writer.path} lacks round {number}, which it needs to go on.")
