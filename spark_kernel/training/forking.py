"""What a fork takes over of its parent, and what not, where settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spark_kernel.config import RunConfig
from spark_kernel.config.sections import RecycleSection
from spark_kernel.errors import RunFolderError
from spark_kernel.problems.held_out import is_held_out
from spark_kernel.records import Exclusion, ExclusionReason, Kind, Origin, Problem, Task
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.runs.layout import ROUNDS, numbered
from spark_kernel.runs.storage import read_table
from spark_kernel.runs.tables import read_problems
from spark_kernel.training.state import TrainerState


def asks_other_problems(new: RunConfig, old: RunConfig) -> bool:
    """Whether the problems come from elsewhere, so that a place in the old ones means nothing."""
    return (new.problems.source, new.problems.options) != (old.problems.source, old.problems.options)


def take_over(state: TrainerState, new: RunConfig, old: RunConfig, history: Sequence[Path]) -> None:
    """Fit the parent's state to the fork's settings.

    Waiting tasks that these settings would not make leave the queue, each as an exclusion of the fork's first round;
    with other problems the fork begins at the first of them.

    Args:
        history: the folders with the parent's rounds.

    Raises:
        RunFolderError: a round whose tasks wait is missing or damaged.
    """
    others = asks_other_problems(new, old)
    problems = _problems_of(state.queue.tasks, history)
    kept: list[Task] = []
    for task in state.queue.tasks:
        reason = _why_not(task, problems[task.problem_id], new, others)
        if reason is None:
            kept.append(task)
        else:
            detail = f"waited since round {task.round} of the run that was forked"
            state.flight.exclusions.append(Exclusion(state.flight.round, "queue", reason, task.id, task.kind, detail))
    state.queue = TaskQueue(tuple(kept))
    if others:
        state.cursor, state.grades = 0, {}


def _why_not(task: Task, problem: Problem, config: RunConfig, others: bool) -> ExclusionReason | None:
    """Why a waiting task is not trained on in a run of this configuration; None where it is."""
    if not config.period.train_reward or not _is_made(task, config.recycle):
        return ExclusionReason.KIND_OFF
    if others:
        return ExclusionReason.OTHER_PROBLEMS
    if is_held_out(problem, config.problems.held_out_fraction, config.problems.canonical_form):
        return ExclusionReason.HELD_OUT
    return None


def _is_made(task: Task, settings: RecycleSection) -> bool:
    """Whether these settings make such tasks; what further recyclers make, nobody knows."""
    if settings.extra:
        return True
    if task.kind.judges and task.origin is Origin.REFLECTION and not settings.re_evaluation:
        return False
    on = {
        Kind.POINTWISE: settings.pointwise,
        Kind.PAIRWISE: settings.pairwise,
        Kind.REFLECTION: settings.reflection,
    }
    return on[task.kind]


def _problems_of(tasks: Sequence[Task], history: Sequence[Path]) -> dict[str, Problem]:
    """The problems that waiting tasks are about, by id."""
    found: dict[str, Problem] = {}
    for number in sorted({task.round for task in tasks}):
        folders = [folder / ROUNDS / numbered(number) for folder in history]
        folder = next((folder for folder in folders if folder.is_dir()), None)
        if folder is None:
            raise RunFolderError(f"{history[0]} lacks round {number}, whose tasks wait: it cannot be forked here.")
        found |= {problem.id: problem for problem in read_problems(read_table(folder, "problems"))}
    return found
