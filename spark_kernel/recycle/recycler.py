"""What a recycling rule is given and gives back, and how further rules register.

A rule looks at one scored group and makes an *offer* for every opportunity it sees: a `Draft` (a task that could be
made) or an `Exclusion` (why none is). Drafts become tasks later (`recycle.py`), because two things are decided over
all groups of a round: the balance of labels and sources, and the cap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from random import Random

from spark_kernel.config.sections import RecycleSection, ViewChoice
from spark_kernel.errors import InputError
from spark_kernel.keyed_random import keyed_random
from spark_kernel.prompts.build import pairwise_task, pointwise_task, reflection_task
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Origin, Problem, Rollout, Task, View

ENTRY_POINTS = "spark_kernel.recyclers"


@dataclass(frozen=True, slots=True)
class Context:
    """What every rule knows beside its group: settings, seed, round, and the rollouts that may be looked up by id."""

    settings: RecycleSection
    seed: int
    round: int
    sources: Mapping[str, Rollout] = field(default_factory=dict)

    def rng(self, purpose: str, *key: int | str) -> Random:
        """The generator of one draw of this round, keyed by what it is for and never by the order of calls."""
        return keyed_random(self.seed, f"recycle/{purpose}", self.round, *key)

    def view(self, setting: ViewChoice, kind: Kind, group: Group) -> View:
        """The view of a group's task of one kind; "both" is a fair coin."""
        if setting == "both":
            return self.rng("view", kind, group.task.id).choice((View.ANSWER, View.FULL))
        return View(setting)

    def exclusion(self, reason: ExclusionReason, subject_id: str, kind: Kind, detail: str = "") -> Exclusion:
        """An exclusion of this stage and round."""
        return Exclusion(self.round, "recycle", reason, subject_id, kind, detail)


@dataclass(frozen=True, slots=True)
class Draft:
    """A task that could be made.

    `sources`: one scored rollout, or for a pair the correct one and then the wrong one.
    `other`: for a task with one source, a source of the other correctness that would do as well; balancing may
    exchange the two.
    `mixed`: whether the group has sources of both sorts (`sources.is_mixed`). `group_id`: the id of the group's task.
    """

    kind: Kind
    problem: Problem
    sources: tuple[Rollout, ...]
    origin: Origin
    view: View
    mixed: bool
    group_id: str
    other: Rollout | None = None

    @property
    def id(self) -> str:
        """The opportunity by content: the same whichever of its sources it starts from."""
        sources = sorted(source.id for source in (*self.sources, *((self.other,) if self.other else ())))
        return "/".join((self.kind, self.group_id, *sources))

    @property
    def starts_correct(self) -> bool:
        """Whether the (first) source was verified as correct."""
        score = self.sources[0].score
        return score is not None and score.correct is True

    @property
    def later_is_right(self) -> bool | None:
        """For a pair of an earlier answer and one of the group's own: whether the later one is right; else None."""
        if self.kind is not Kind.PAIRWISE or self.origin is not Origin.REFLECTION:
            return None
        correct, wrong = (source.task_id == self.group_id for source in self.sources)
        return correct if correct is not wrong else None

    def starting(self, *, correct: bool) -> Draft:
        """The same opportunity with a source of this correctness; unchanged if it is so already or has no other."""
        if self.starts_correct is correct or self.other is None:
            return self
        return replace(self, sources=(self.other,), other=self.sources[0])

    def task(self, context: Context, view: View | None = None) -> Task:
        """The task, in the draft's view or another; both views share template, order and letters."""
        seed, round = context.seed, context.round
        view = view or self.view
        if self.kind is Kind.PAIRWISE:
            correct, wrong = self.sources
            return pairwise_task(
                self.problem,
                correct,
                wrong,
                origin=self.origin,
                view=view,
                mixed=self.mixed,
                seed=seed,
                round=round,
            )
        build = {Kind.POINTWISE: pointwise_task, Kind.REFLECTION: reflection_task}[self.kind]
        return build(
            self.problem, self.sources[0], origin=self.origin, view=view, mixed=self.mixed, seed=seed, round=round
        )


Offer = Draft | Exclusion


@dataclass(frozen=True, slots=True)
class Recycler:
    """A named rule. Built-in and third-party rules are the same thing.

    `origin`: SOLVE for a rule that is shown every scored solve group, REFLECTION for one that is shown every scored
    group of a reflection.
    `propose`: pure; one offer per opportunity, all draws from `Context.rng`.
    """

    name: str
    origin: Origin
    propose: Callable[[Group, Problem, Context], Sequence[Offer]]


def extra_recyclers(names: Sequence[str]) -> tuple[Recycler, ...]:
    """The rules that other packages registered as entry points of the group `spark_kernel.recyclers`.

    Raises:
        InputError: no such name, or what is registered is not a `Recycler`.
    """
    if not names:
        return ()
    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    found = []
    for name in names:
        if name not in registered:
            raise InputError(
                f'recycle.extra: there is no recycler "{name}"; registered: {", ".join(sorted(registered)) or "none"}.'
            )
        recycler = registered[name].load()
        if not isinstance(recycler, Recycler):
            raise InputError(
                f'recycle.extra: "{name}" is registered as {registered[name].value}, which is not a '
                "spark_kernel.recycle.recycler.Recycler."
            )
        found.append(recycler)
    return tuple(found)
