"""What the run folder stores together: the records of one phase, one round, one evaluation; and who made the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spark_kernel.records import Exclusion, Group, Period, Problem, Task

SCHEMA_VERSION = 1
"""Version of everything in a run folder; a reader refuses a folder with a higher one."""
HELD_OUT = "held_out"
"""The suite of the run's own held-out evaluations; every other suite has a name of its own."""


@dataclass(frozen=True, slots=True)
class PhaseRecords:
    """What one finished phase made.

    `tasks`: planned, not sampled yet. `groups`: sampled tasks with their rollouts, scored or not. `recycled`: tasks
    made from rollouts. `meta`: JSON values, for example an `UpdateStats` through `codec.to_json`.
    """

    problems: tuple[Problem, ...] = ()
    tasks: tuple[Task, ...] = ()
    groups: tuple[Group, ...] = ()
    recycled: tuple[Task, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoundRecords:
    """What one finished round made: everything needed to show it and to repeat its updates.

    `groups`: by the period in which they were sampled, in the order of the update. `recycled`: tasks made in this
    round; they are sampled in this or a later round, or excluded. `meta`: JSON values of the trainer.
    """

    round: int
    problems: tuple[Problem, ...] = ()
    groups: Mapping[Period, tuple[Group, ...]] = field(default_factory=dict)
    recycled: tuple[Task, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationRecords:
    """An evaluation after a round (0: before the first).

    `groups`: by a name for the part of the evaluation, for example "solve", "own/pointwise/answer", "reflection".
    `suite`: what was asked; `layout.evaluation_folder` says which names there may be.
    """

    round: int
    problems: tuple[Problem, ...] = ()
    groups: Mapping[str, tuple[Group, ...]] = field(default_factory=dict)
    exclusions: tuple[Exclusion, ...] = ()
    suite: str = HELD_OUT


@dataclass(frozen=True, slots=True)
class ParentRun:
    """The run and round that a run was forked from. Rounds of the fork are numbered on from there."""

    run: str
    round: int


@dataclass(frozen=True, slots=True)
class RunInfo:
    """run.json: what this folder is. `created` is UTC; `parent` is None unless the run is a fork."""

    schema_version: int
    name: str
    created: str
    spark_version: str
    parent: ParentRun | None = None


@dataclass(frozen=True, slots=True)
class PhaseInfo:
    """A phase of the round in flight that is on disk. `index` counts the phases of the round from 0."""

    round: int
    index: int
    period: Period
    phase: str
