"""Scored groups written as short codes, for tests of recycling.

One letter per rollout: c correct, w wrong, g graded but below the threshold (wrong), n wrong without an answer,
a wrong with an ambiguous reading, t truncated and wrong, T truncated and correct, x timed out, k crashed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import exp, lgamma, log, log1p

from spark_kernel.config import Quotas, load_config
from spark_kernel.config.sections import RecycleSection
from spark_kernel.records import Group, Kind, Message, Origin, Parse, Problem, Rollout, Score, Task

CODES = "cwgnatTxk"
SOURCES = {"c": True, "w": False, "g": False}
GOLD = "the-gold-answer"

SCORES = {
    "c": Score(1.0, True, Parse.OK, "right"),
    "w": Score(0.0, False, Parse.OK, "wrong"),
    "g": Score(0.5, False, Parse.OK, "nearly"),
    "n": Score(0.0, False, Parse.NONE),
    "a": Score(0.0, False, Parse.AMBIGUOUS),
    "t": Score(0.0, False, Parse.OK, "wrong"),
    "T": Score(1.0, True, Parse.OK, "right"),
    "x": Score(None, None, Parse.TIMEOUT),
    "k": Score(None, None, Parse.CRASH),
}


def settings_of(preset: str = "spark", **changes: object) -> RecycleSection:
    """A preset's settings, with quotas that do not bite unless stated."""
    return changed(_section_of(preset), **({"judge_quota": 10**6, "reflection_quota": 10**6} | changes))


def changed(section: RecycleSection, **changes: object) -> RecycleSection:
    """The section with other values, checked as those of a file are."""
    return RecycleSection.model_validate(section.model_dump() | changes)


def quotas_of(section: RecycleSection) -> Quotas:
    """J and R of a section that states both."""
    assert section.judge_quota is not None
    assert section.reflection_quota is not None
    return Quotas(section.judge_quota, section.reflection_quota)


@cache
def _section_of(preset: str) -> RecycleSection:
    return load_config(preset).recycle


def make_problem(problem_id: str) -> Problem:
    return Problem(problem_id, f"What is the answer to {problem_id}?", GOLD, "exact")


def make_rollout(task_id: str, index: int, code: str, answer: str | None = None, version: int = 3) -> Rollout:
    score = SCORES[code]
    if score.answer is not None:
        answer = answer or f"{score.answer}-{index}"
        score = replace(score, answer=answer)
    text = f"Steps of output {index}. " + (rf"So \boxed{{{answer}}}." if answer else "I do not know.")
    return Rollout(f"{task_id}-{index}", task_id, index, version, (1, 2), (-0.5, -0.5), text, code in "tT", score=score)


def make_group(
    name: str, codes: str, *, kind: Kind = Kind.SOLVE, origin: Origin = Origin.PROBLEM, sources: tuple[str, ...] = ()
) -> Group:
    task = Task(
        id=f"{kind}-{name}",
        kind=kind,
        origin=origin,
        problem_id=f"problem-{name}",
        messages=(Message.of("user", "?"),),
        label=GOLD,
        verifier="exact",
        template_id="solve-1",
        round=1,
        sources=sources,
    )
    return Group(task, tuple(make_rollout(task.id, index, code) for index, code in enumerate(codes)))


def make_groups(codes: Sequence[str]) -> list[Group]:
    return [make_group(str(number), text) for number, text in enumerate(codes)]


def make_reflections(codes: Sequence[str]) -> tuple[list[Group], dict[str, Rollout]]:
    """Reflection groups and the first answers they look at; the first letter of a code is the first answer."""
    groups, sources = [], {}
    for number, text in enumerate(codes):
        first = make_rollout(f"solve-{number}", 99, text[0])
        sources[first.id] = first
        groups.append(make_group(str(number), text[1:], kind=Kind.REFLECTION, origin=Origin.SOLVE, sources=(first.id,)))
    return groups, sources


def problems_of(groups: Sequence[Group]) -> dict[str, Problem]:
    return {group.task.problem_id: make_problem(group.task.problem_id) for group in groups}


def rollouts_of(groups: Sequence[Group]) -> Mapping[str, Rollout]:
    return {rollout.id: rollout for group in groups for rollout in group.rollouts}


def everything_fits(tasks: Sequence[Task]) -> list[bool]:
    return [True] * len(tasks)


def plausible(hits: int, trials: int, probability: float) -> bool:
    """Whether both exact binomial tails of a count exceed 1e-5: a fixed seed passes once and for all."""

    def log_choose(k: int) -> float:
        return lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)

    logs = [log_choose(k) + k * log(probability) + (trials - k) * log1p(-probability) for k in range(trials + 1)]
    return sum(map(exp, logs[: hits + 1])) > 1e-5 and sum(map(exp, logs[hits:])) > 1e-5
