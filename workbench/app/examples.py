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
        "Make 51 out of 5, 9 and 12 with +, - and *. Use each number once.", "5, 9, 12 with + - *: 51", "corrected"
    ),
    _chain("Start with 24, add 17, add 4, subtract 7, then take away 9. What do you get?", "29", "corrected"),
    _puzzle(
        "Find a number larger than 30 and smaller than 48 that leaves 7 when divided by 8.",
        "x: x > 30; x < 48; x mod 8 = 7",
        "right",
    ),
    _chain("Begin at 29, multiply by 2, subtract 47, add 47, then subtract 43. Where do you end?", "15", "spoilt"),
    _chain(
        "Begin at 57, add 3, take away 44, take away 14, then multiply by 10. Where do you end?",
        "20",
        "wrong, and not noticed",
    ),
    _puzzle(
        "Make 17 out of 5, 8 and 4 with +, - and *. Use each number once.",
        "4, 5, 8 with + - *: 17",
        "wrong, and not corrected",
    ),
)
FIRST = json.dumps({"gold": EXAMPLES[0].gold, "question": EXAMPLES[0].question})
"""What a page begins with, for its script."""
RATES = (
    "How often, of new ones: builtin:starter-2 with 989 puzzles is right before and after in 62 %, corrects itself in "
    "8 %, spoils its answer in 0 %, stays wrong in 30 %; builtin:starter with 400 chains of sums: 57, 11, 1 and 31 %."
)
"""From `python scripts/measure_loop_outcomes.py` (docs/app.md)."""
