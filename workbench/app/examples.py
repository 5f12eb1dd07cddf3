"""The questions to try: of every outcome that the built-in models have, with how often they have it."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Example:
    """A question with its gold answer, whom it is for, and what that model makes of it at the page's own settings.

    `outcome`: as `story.ending` says it; `trained`: of the model that training with SPARK made of it, where one ships.
    """

    question: str
    gold: str
    outcome: str
    model: str
    verifier: str
    trained: str = ""


def _puzzle(question: str, gold: str, outcome: str, trained: str) -> Example:
    return Example(question, gold, outcome, "builtin:starter-2", "property", trained)


def _chain(question: str, gold: str, outcome: str) -> Example:
    return Example(question, gold, outcome, "builtin:starter", "integer")


EXAMPLES = (
    _puzzle(
        "Make 8 out of 3, 6 and 5 with + and -. Use each number once.",
        "3, 5, 6 with + -: 8",
        "wrong, and not noticed",
        "corrected",
    ),
    _puzzle(
        "Make 14 out of 4, 1 and 11 with + and -. Use each number once.", "1, 4, 11 with + -: 14", "spoilt", "right"
    ),
    _puzzle(
        "Make 9 out of 1, 12 and 4 with + and -. Use each number once.",
        "1, 4, 12 with + -: 9",
        "corrected",
        "corrected",
    ),
    _puzzle(
        "Which multiple of 8 is larger than 6 and smaller than 9?", "x: x > 6; x < 9; x mod 8 = 0", "right", "right"
    ),
    _puzzle(
        "Make 4 out of 9, 7 and 6 with + and -. Use each number once.",
        "6, 7, 9 with + -: 4",
        "wrong, and not noticed",
        "wrong, and not corrected",
    ),
    _chain("Start with 24, add 17, add 4, subtract 7, then take away 9. What do you get?", "29", "corrected"),
)
FIRST = json.dumps({"gold": EXAMPLES[0].gold, "question": EXAMPLES[0].question})
"""What a page begins with, for its script."""
RATES = (
    "How often, of 989 new puzzles: builtin:starter-2 is right before and after in 58 %, corrects itself in 6 %, "
    "spoils its answer in 2 %, stays wrong in 34 %; trained with SPARK 62, 7, 0 and 32 %. builtin:starter with 400 "
    "chains of sums: 57, 11, 1 and 31 %."
)
"""From `python scripts/measure_loop_outcomes.py` (docs/app.md)."""
