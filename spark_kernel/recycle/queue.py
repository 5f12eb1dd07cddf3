"""The tasks that wait for a reward period: an immutable queue, and which of its tasks a round takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spark_kernel.config import Quotas
from spark_kernel.config.sections import RecycleSection
from spark_kernel.errors import SparkError
from spark_kernel.records import Exclusion, ExclusionReason, Origin, Task


@dataclass(frozen=True, slots=True)
class TaskQueue:
    """Recycled tasks in the order in which they were added."""

    tasks: tuple[Task, ...] = ()

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, tasks: Iterable[Task]) -> TaskQueue:
        """The queue with these tasks at its end.

        Raises:
            SparkError: a task of this id waits already.
        """
        added = (*self.tasks, *tasks)
        seen: set[str] = set()
        for task in added:
            if task.id in seen:
                raise SparkError(f"Task {task.id} is in the queue already and cannot be added twice.")
            seen.add(task.id)
        return TaskQueue(added)

    def drop_old(self, round: int, max_age: int | None) -> tuple[TaskQueue, tuple[Exclusion, ...]]:
        """The queue without tasks older than `max_age` rounds (None: no limit), and an exclusion for each of those.

        A task made in this round has age 0.
        """
        if max_age is None:
            return self, ()
        old = [task for task in self.tasks if round - task.round > max_age]
        exclusions = tuple(
            Exclusion(round, "queue", ExclusionReason.TOO_OLD, task.id, task.kind, f"waited since round {task.round}")
            for task in old
        )
        return TaskQueue(tuple(task for task in self.tasks if round - task.round <= max_age)), exclusions

    def take(self, settings: RecycleSection, quotas: Quotas, round: int) -> tuple[tuple[Task, ...], TaskQueue]:
        """The tasks of this round's reward period, in order of preference, and the queue without them.

        Fewer than `minimum` waiting: none are taken. `fifo`: exactly `minimum` tasks, first in, first out, of any
        kind. `mixed_first`: J judge and R reflection tasks; where there are fewer of one, the other takes its places,
        unless its own quota is 0.
        Tasks of mixed groups go first, then those that were passed over least often. Among equals those recycled from
        solving and those recycled from reflections take turns, each first in, first out: re-evaluations, which wait at
        the head of the queue, would otherwise fill the judge's places round after round.
        """
        if len(self.tasks) < settings.minimum:
            return (), self
        if settings.order == "fifo":
            return self.tasks[: settings.minimum], TaskQueue(self.tasks[settings.minimum :])
        preferred = _preferred(self.tasks, round)
        judges = [task for task in preferred if task.kind.judges]
        others = [task for task in preferred if not task.kind.judges]
        judge_places, other_places = _places(quotas, len(judges), len(others))
        chosen = {task.id for task in (*judges[:judge_places], *others[:other_places])}
        taken = tuple(task for task in preferred if task.id in chosen)
        return taken, TaskQueue(tuple(task for task in self.tasks if task.id not in chosen))


def times_passed_over(task: Task, round: int) -> int:
    """The rounds that could have taken the task and did not.

    What was recycled from solving could be taken in the round that made it; what was recycled from reflections is
    made after that round's `take` and has its first chance one round later. Counting chances rather than rounds lets
    both compete as equals, and prefers what the present policy wrote over left-overs.
    """
    return round - task.round - (task.origin is Origin.REFLECTION)


def _preferred(tasks: Sequence[Task], round: int) -> list[Task]:
    """The tasks in the order in which `mixed_first` takes them."""
    turns: Counter[tuple[bool, int, bool, Origin]] = Counter()
    keys: dict[str, tuple[bool, int, int, bool]] = {}
    for task in tasks:
        unmixed, passed = not task.source_group_mixed, times_passed_over(task, round)
        queue = (unmixed, passed, task.kind.judges, task.origin)
        keys[task.id] = (unmixed, passed, turns[queue], task.origin is Origin.REFLECTION)
        turns[queue] += 1
    return sorted(tasks, key=lambda task: keys[task.id])


def _places(quotas: Quotas, judges: int, others: int) -> tuple[int, int]:
    """How many judge and other tasks to take, when so many wait; a quota of 0 takes none and borrows none."""
    spare_judge = max(0, quotas.judge - judges)
    spare_other = max(0, quotas.reflection - others)
    judge_places = quotas.judge + spare_other if quotas.judge else 0
    other_places = quotas.reflection + spare_judge if quotas.reflection else 0
    return min(judges, judge_places), min(others, other_places)
