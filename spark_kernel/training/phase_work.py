"""The work inside a phase: sample, score, update, each a call of the library with what the run has set for it.

The trainer says which comes when; what is recalled or written down is the bookkeeper's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from spark_kernel.config import RunConfig
from spark_kernel.records import Exclusion, Group, Task, UpdateStats
from spark_kernel.rollout.roll_out import roll_out
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.training.assembly import Parts
from spark_kernel.training.bookkeeping import Bookkeeper
from spark_kernel.training.refill import Refill
from spark_kernel.training.state import Stage
from spark_kernel.training.tasks import TaskMaker
from spark_kernel.verify.label_noise import flip_verdicts
from spark_kernel.verify.score_groups import score_groups, with_advantages


class PhaseWork:
    """Samples, scores and updates for the round under way, with progress to the listeners and stops between batches.

    Args:
        config: the run's configuration.
        parts: gives engine, verifiers and learner when they are needed, because a trainer's parts may be exchanged.
        book: progress, requests to stop, the journal's problems, and where the run stands.
        images_root: the folder that image paths are relative to.
    """

    def __init__(self, config: RunConfig, parts: Callable[[], Parts], book: Bookkeeper, images_root: Path) -> None:
        self._config = config
        self._parts = parts
        self._book = book
        self._images_root = images_root
        self._unrecorded: tuple[tuple[int, int], tuple[UpdateStats, tuple[Exclusion, ...]]] | None = None

    def rolled_out(self, tasks: Sequence[Task]) -> list[Group]:
        """n outputs for each task, by the policy as it is."""
        return roll_out(
            self._parts().engine,
            tasks,
            self._config.rollout,
            seed=self._config.seed,
            round=self._book.state.flight.round,
            images_root=self._images_root,
            on_progress=self._book.progress,
            check_stop=self._book.stop.check,
        )

    def scored(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with each output's score, and its advantage within its group."""
        objective = self._config.objective
        return score_groups(
            self._parts().pool,
            groups,
            self._book.journal.problems,
            estimator=objective.advantage,
            delta=objective.delta,
            on_progress=self._book.progress,
        )

    def with_noise(self, stage: Stage, scored: Sequence[Group]) -> PhaseRecords:
        """The scored groups as records, with the label noise that the configuration asks for, and a note of it."""
        share, objective = self._config.verify.flip_share, self._config.objective
        if not share:
            return PhaseRecords(groups=tuple(scored))
        round = self._book.state.flight.round
        noisy, flipped, among = flip_verdicts(scored, share, seed=self._config.seed, round=round)
        noisy = with_advantages(noisy, estimator=objective.advantage, delta=objective.delta)
        note = (
            f"verify.flip_share = {share:g}: {flipped} of {among} verdicts turned round in the {stage.period} period."
        )
        return PhaseRecords(groups=tuple(noisy), meta={"notes": [note]})

    def refilled(self, stage: Stage, records: PhaseRecords, tasks: TaskMaker) -> PhaseRecords:
        """The scored groups with those of further problems, one for each flat group, up to the bound that is set."""
        config, flight = self._config, self._book.state.flight
        if not config.period.updates_policy(flight.round):
            return records
        refill = Refill(int(config.rollout.refill * config.problems.per_round), len(flight.problems))
        batch = list(records.groups)
        while count := refill.wanted(batch):
            further, left_out = tasks.further_tasks(count)
            scored = self.with_noise(stage, self.scored(self.rolled_out(further)))
            batch = refill.add(count, scored, left_out)
        return refill.completed(records, flight)

    def updated(self, stage: Stage, groups: Sequence[Group]) -> tuple[UpdateStats, tuple[Exclusion, ...]]:
        """The learner's update; not once more where it was done but not written down (disk full, engine not synced)."""
        flight, parts = self._book.state.flight, self._parts()
        if self._unrecorded is None or self._unrecorded[0] != (flight.round, flight.stage):
            parts.engine.sleep()
            result = parts.learner.update(
                groups,
                period=stage.period,
                round=flight.round,
                on_progress=self._book.progress,
                check_stop=self._book.stop.check,
            )
            flight.updates.append(result[0])
            self._unrecorded = ((flight.round, flight.stage), result)
        parts.engine.wake()
        parts.engine.take(parts.learner.publish(parts.engine.wanted))
        return self._unrecorded[1]
