"""Which problems teach just now: a problem is taken with a chance that follows how often its grade is solved.

A group whose answers are all right or all wrong has no advantage. A grade that is solved half of the time gives mixed
groups, so problems of it are taken always, and others the more rarely the nearer they are to always or never. What is
known of the grades is small, belongs to where a run stands, and follows from what it has recorded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from spark_kernel.keyed_random import keyed_random
from spark_kernel.records import Group, Problem

Grades = Mapping[str, tuple[float, float]]
"""By grade: right answers and answers, older rounds counting less."""

KEPT = 0.5
"""Share of a grade's earlier counts that is kept when it is met again: about the last two rounds count."""
LEAST_CHANCE = 0.1
"""A grade that is never solved, or always, is looked at again now and then."""


def grade_of(problem: Problem) -> str | None:
    """How hard a problem is among its like: family and level where its source grades it; None where it does not.

    Read from `meta`: "level" (and "family") of sources that write them; "operations" of arithmetic.
    """
    for name in ("level", "operations"):
        level = problem.meta.get(name)
        if isinstance(level, int | str) and not isinstance(level, bool):
            family = problem.meta.get("family")
            return f"{family} {level}" if isinstance(family, str) else f"{name} {level}"
    return None


def with_answers(grades: Grades, groups: Iterable[Group], problems: Mapping[str, Problem]) -> Grades:
    """The grades after a round's scored solve groups.

    Args:
        problems: those of the groups, by id.
    """
    found: dict[str, tuple[int, int]] = {}
    for group in groups:
        grade = grade_of(problems[group.task.problem_id])
        if grade is not None:
            right, answers = found.get(grade, (0, 0))
            found[grade] = (right + len(group.correct), answers + len(group.correct) + len(group.wrong))
    old = {grade: grades.get(grade, (0.0, 0.0)) for grade in found}
    new = {
        grade: (KEPT * old[grade][0] + right, KEPT * old[grade][1] + answers)
        for grade, (right, answers) in found.items()
    }
    return dict(sorted({**grades, **new}.items()))


def pass_rate(grades: Grades, grade: str) -> float:
    """The share of a grade's answers that are right, 1/2 where nothing is known (as of one right and one wrong)."""
    right, answers = grades.get(grade, (0.0, 0.0))
    return (right + 1) / (answers + 2)


def chance(grades: Grades, problem: Problem) -> float:
    """The probability that a problem is taken: 4 p (1 - p) of its grade, relative to the grade that has most of it."""
    grade = grade_of(problem)
    if grade is None:
        return 1.0
    spread = {name: 4 * (p := pass_rate(grades, name)) * (1 - p) for name in {*grades, grade}}
    return max(LEAST_CHANCE, spread[grade] / max(spread.values()))


def is_taken(grades: Grades, problem: Problem, position: int, *, seed: int) -> bool:
    """Whether the problem at a position of the walk is taken, drawn by (seed, position)."""
    return keyed_random(seed, "difficulty", position).random() < chance(grades, problem)


def in_words(grades: Grades) -> str:
    """The pass rates, for a round's notes."""
    return ", ".join(f"{grade} {100 * pass_rate(grades, grade):.0f} %" for grade in grades)
