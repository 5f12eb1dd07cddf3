"""What a period rolls out, new problems or recycled tasks, and what is recycled from what came of it.

It takes from the problem stream and the queue and hands back records; the trainer rolls out, verifies and updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spark_kernel.config import RunConfig
from spark_kernel.problems.difficulty import with_answers
from spark_kernel.problems.images import adopt_images
from spark_kernel.prompts.build import solve_task
from spark_kernel.records import Exclusion, ExclusionReason, Group, Period, Problem, Recycled, Task
from spark_kernel.recycle.recycle import re_evaluate, recycle
from spark_kernel.rollout.roll_out import fitting
from spark_kernel.runs.bundles import PhaseRecords
from spark_kernel.runs.writer import RunWriter
from spark_kernel.training.assembly import Parts
from spark_kernel.training.journal import Journal
from spark_kernel.training.state import TrainerState

Tasks = tuple[list[Task], tuple[Exclusion, ...]]
"""Tasks to roll out, and what was left out on the way to them."""


class TaskMaker:
    """Makes the tasks of a run's periods, and keeps queue, problems and cursor in step.

    Args:
        config: the run's configuration.
        writer: its folder, for images.
        parts: engine and problems.
        state: where the run stands; queue, problems and cursor of the round under way are set here.
        journal: knows the problems that tasks are about.
    """

    def __init__(
        self, config: RunConfig, writer: RunWriter, parts: Parts, state: TrainerState, journal: Journal
    ) -> None:
        self._config = config
        self._writer = writer
        self._parts = parts
        self._state = state
        self._journal = journal

    def solve_tasks(self) -> Tasks:
        """The solve tasks of the round's new problems."""
        flight = self._state.flight
        flight.problems, flight.cursor_after = (), self._state.cursor
        tasks, left_out = self.further_tasks(self._config.problems.per_round)
        return tasks, (*left_out, *self._too_old_without_reward())

    def further_tasks(self, count: int) -> Tasks:
        """The solve tasks of so many problems more than the round has."""
        flight, adaptive = self._state.flight, self._config.problems.difficulty == "adaptive"
        taken = self._parts.stream.take(
            flight.cursor_after or 0,
            count,
            round=flight.round,
            grades=self._state.grades if adaptive else None,
            besides=flight.problems,
        )
        found = tuple(adopt_images(problem, self._writer.path) for problem in taken.problems)
        self._have(found, taken.cursor)
        tasks = [solve_task(problem, seed=self._config.seed, round=flight.round) for problem in found]
        fits = self.fits(tasks)
        too_long = tuple(
            Exclusion(flight.round, "problems", ExclusionReason.PROMPT_TOO_LONG, task.problem_id, task.kind)
            for task, fit in zip(tasks, fits, strict=True)
            if not fit
        )
        chosen = [task for task, fit in zip(tasks, fits, strict=True) if fit]
        return chosen, (*taken.exclusions, *too_long)

    def take_up(self, records: PhaseRecords, groups: Sequence[Group]) -> None:
        """After the policy period is verified: the further problems it took, and what its answers say of grades."""
        flight = self._state.flight
        self._have(records.problems, records.meta.get("cursor", flight.cursor_after))
        if self._config.problems.difficulty == "adaptive":
            flight.grades_after = with_answers(self._state.grades, groups, self._journal.problems)

    def _have(self, problems: Sequence[Problem], cursor: int | None) -> None:
        flight = self._state.flight
        known = {problem.id for problem in flight.problems}
        flight.problems += tuple(problem for problem in problems if problem.id not in known)
        flight.cursor_after = cursor
        self._journal.problems |= {problem.id: problem for problem in flight.problems}

    def recycled_tasks(self) -> Tasks:
        """The tasks that this reward period takes from the queue; what is too old leaves it."""
        flight, recycling = self._state.flight, self._config.recycle
        queue, too_old = self._state.queue.drop_old(flight.round, recycling.max_age)
        taken, self._state.queue = queue.take(recycling, self._config.quotas, flight.round)
        if not taken:
            flight.notes.append(f"No reward period: {len(queue)} recycled tasks wait, {recycling.minimum} needed.")
        return list(taken), too_old

    def recycled_from(self, period: Period, groups: Sequence[Group]) -> Recycled:
        """What becomes of a period's scored groups."""
        config, problems, flight = self._config, self._journal.problems, self._state.flight
        keyed: dict[str, Any] = {"seed": config.seed, "round": flight.round, "fits": self.fits}
        if not self._is_recycled():
            return Recycled()
        if period is Period.POLICY:
            return recycle(groups, problems, config.recycle, config.quotas, **keyed)
        if not config.recycle.re_evaluation:
            return Recycled()
        sources = self._journal.sources_for(flight)
        return re_evaluate(groups, problems, sources, config.recycle, config.quotas, **keyed)

    def fits(self, tasks: Sequence[Task]) -> list[bool]:
        """Whether each task's prompt fits the model's context and the settings."""
        return fitting(
            self._parts.engine,
            tasks,
            self._config.rollout,
            context_length=self._parts.model.context_length,
            images_root=self._writer.path,
        )

    def _is_recycled(self) -> bool:
        """Whether a reward period can take what this round makes: its own, or one before the tasks are too old."""
        wait, most = self._config.period.rounds_to_reward(self._state.flight.round), self._config.recycle.max_age
        return wait is not None and (most is None or wait <= most)

    def _too_old_without_reward(self) -> tuple[Exclusion, ...]:
        """Of a round that the schedule gives no reward period: what is too old leaves the queue all the same."""
        flight, period = self._state.flight, self._config.period
        if not period.schedule or period.has_reward(flight.round):
            return ()
        made = "" if self._is_recycled() else "; nothing is recycled, because none comes before it would be too old"
        flight.notes.append(f"No reward period in this round by period.schedule{made}.")
        self._state.queue, too_old = self._state.queue.drop_old(flight.round, self._config.recycle.max_age)
        return too_old
