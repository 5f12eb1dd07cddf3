"""Where a run stands: between which phases, and what the round in flight has made so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from spark_kernel.config.periods import PeriodSection
from spark_kernel.problems.difficulty import Grades
from spark_kernel.records import Exclusion, Group, Period, Problem, Recycled, Task, UpdateStats
from spark_kernel.recycle.queue import TaskQueue
from spark_kernel.runs.codec import from_json, to_json


class Phase(StrEnum):
    """What is done in one step of a round."""

    ROLL_OUT = "roll_out"
    """Sample n outputs for every task of the period."""
    VERIFY = "verify"
    """Score them; advantages."""
    RECYCLE = "recycle"
    """Make new tasks of them."""
    UPDATE = "update"
    """Train on them."""
    REPORT = "report"
    """Write the round down and go on to the next."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A phase of a period; the report belongs to no period in particular and carries the last one."""

    period: Period
    phase: Phase

    def __str__(self) -> str:
        return str(self.phase) if self.phase is Phase.REPORT else f"{self.phase} ({self.period} period)"


def schedule(period: PeriodSection, round: int) -> tuple[Stage, ...]:
    """The stages of a round (1, 2, ...), in order (algorithm.md section 2).

    Alternating: roll out, verify, recycle, update; and once more for the reward period, by the updated policy.
    Joint: both halves are rolled out by the same policy and trained on in one update.
    A round that trains the policy or the judge alone leaves the other one's stages out; problems are always rolled out.
    """
    sampled = (Phase.ROLL_OUT, Phase.VERIFY, Phase.RECYCLE)
    stages = [Stage(Period.POLICY, phase) for phase in sampled]
    if period.order == "joint":
        if period.has_reward(round):
            stages += [Stage(Period.REWARD, phase) for phase in sampled]
        stages.append(Stage(Period.JOINT, Phase.UPDATE))
    else:
        if period.updates_policy(round):
            stages.append(Stage(Period.POLICY, Phase.UPDATE))
        if period.has_reward(round):
            stages += [Stage(Period.REWARD, phase) for phase in (*sampled, Phase.UPDATE)]
    return (*stages, Stage(stages[-1].period, Phase.REPORT))


@dataclass(slots=True)
class RoundState:
    """The round in flight. `stage` counts the stages done; groups are kept by the period that sampled them.

    `rolled_out`: the ids of all tasks that a period sampled, also where a person left some out
    later. `cursor_after` is the problem cursor once this round's problems are taken, `grades_after` what is known of
    their grades once they are verified (None before).
    """

    round: int
    stage: int = 0
    cursor_after: int | None = None
    grades_after: Grades | None = None
    problems: tuple[Problem, ...] = ()
    groups: dict[Period, tuple[Group, ...]] = field(default_factory=dict)
    rolled_out: dict[Period, frozenset[str]] = field(default_factory=dict)
    recycled: dict[Period, Recycled] = field(default_factory=dict)
    exclusions: list[Exclusion] = field(default_factory=list)
    updates: list[UpdateStats] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def hold(self, stage: Stage, groups: Sequence[Group]) -> list[Group]:
        """Keep the groups that a stage made as those of its period."""
        self.groups[stage.period] = tuple(groups)
        if stage.phase is Phase.ROLL_OUT:
            self.rolled_out[stage.period] = frozenset(group.task.id for group in groups)
        elif stage.phase is Phase.VERIFY:  # which may roll out further problems
            known = self.rolled_out.get(stage.period, frozenset())
            self.rolled_out[stage.period] = known | {group.task.id for group in groups}
        return list(groups)

    @property
    def made(self) -> tuple[Task, ...]:
        """Every task recycled in this round."""
        return tuple(task for recycled in self.recycled.values() for task in recycled.tasks)


@dataclass(slots=True)
class TrainerState:
    """Everything a trainer must remember besides weights and optimizer: small, and JSON in a checkpoint.

    `completed` rounds; `cursor` into the problems; `queue` of recycled tasks; `flight`, the round under way; `grades`,
    what is known of how often problems of each grade are solved (`problems.difficulty`).
    """

    completed: int
    cursor: int
    queue: TaskQueue
    flight: RoundState
    grades: Grades = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """JSON values. The groups and problems of the round under way stay in the run's journal."""
        flight = self.flight
        return {
            "completed": self.completed,
            "cursor": self.cursor,
            "grades": _grades_json(self.grades),
            "queue": [to_json(task) for task in self.queue.tasks],
            "flight": {
                "round": flight.round,
                "stage": flight.stage,
                "cursor_after": flight.cursor_after,
                "grades_after": None if flight.grades_after is None else _grades_json(flight.grades_after),
                "recycled": {str(period): to_json(value) for period, value in flight.recycled.items()},
                "exclusions": _all_json(flight.exclusions),
                "updates": _all_json(flight.updates),
                "seconds": flight.seconds,
                "notes": flight.notes,
            },
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TrainerState:
        """The inverse of `to_json`, without groups and problems."""
        flight = value["flight"]
        return cls(
            completed=value["completed"],
            cursor=value["cursor"],
            queue=TaskQueue(tuple(from_json(Task, task) for task in value["queue"])),
            grades=_grades(value.get("grades", {})),
            flight=RoundState(
                round=flight["round"],
                stage=flight["stage"],
                cursor_after=flight["cursor_after"],
                grades_after=_grades(found) if (found := flight.get("grades_after")) is not None else None,
                recycled={Period(name): from_json(Recycled, item) for name, item in flight["recycled"].items()},
                exclusions=[from_json(Exclusion, item) for item in flight["exclusions"]],
                updates=[from_json(UpdateStats, item) for item in flight["updates"]],
                seconds=dict(flight["seconds"]),
                notes=list(flight["notes"]),
            ),
        )


def _grades_json(grades: Grades) -> dict[str, list[float]]:
    return {grade: list(counts) for grade, counts in grades.items()}


def _grades(value: dict[str, list[float]]) -> Grades:
    return {grade: (counts[0], counts[1]) for grade, counts in value.items()}


def _all_json(records: Sequence[Any]) -> list[Any]:
    return [to_json(record) for record in records]
