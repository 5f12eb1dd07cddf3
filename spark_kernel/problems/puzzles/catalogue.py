"""All forms of puzzles, and the way back from a question to what it asks."""

from __future__ import annotations

from spark_kernel.problems.puzzles import countdown, equations, factors, numbers, systems
from spark_kernel.problems.puzzles.form import Form
from spark_kernel.verify.conditions import read_property

FORMS: tuple[Form, ...] = (*equations.FORMS, *systems.FORMS, *factors.FORMS, *countdown.FORMS, *numbers.FORMS)
FAMILIES = tuple(dict.fromkeys(form.family for form in FORMS))
LEVELS = tuple(sorted({form.level for form in FORMS}))


def read_puzzle(question: str) -> str | None:
    """The property that a question of the source `puzzles` asks for, in whichever words; None for any other question.

    What makes no difference to the puzzle makes none here: the order in which countdown gives its numbers.
    """
    for form in FORMS:
        if (found := form.read(question)) is not None:
            return str(read_property(form.gold_of(found)))
    return None
