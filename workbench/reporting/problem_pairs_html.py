"""Two runs problem by problem as HTML without a script: what only one of them gets right, folded by outcome."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

from workbench.views.problem_pairs import Outcome, ProblemPairs

MOST = 60
"""Problems of an outcome that are listed."""
TableHtml = Callable[[Sequence[str], Sequence[Sequence[Any]]], str]
"""Headers and rows to a table, every cell escaped: app and notebook have each their own look."""


def problem_pairs_html(
    found: ProblemPairs, first: str, second: str, table: TableHtml, escape: Callable[[str], str] = html.escape
) -> str:
    """A fold for each outcome, with the questions and both runs' answers before and after the test-time loop."""
    first_round, second_round = found.rounds
    counts = found.counts
    shared = f"{len(found.pairs)} shared problems, after rounds {first_round} and {second_round}"
    words = {
        Outcome.FIRST: f"only {first} is right",
        Outcome.SECOND: f"only {second} is right",
        Outcome.BOTH: "both are right",
        Outcome.NEITHER: "neither is right",
    }
    folds = []
    for outcome, said in words.items():
        pairs = found.with_outcome(outcome)[:MOST]
        more = f", the first {MOST} are listed" if counts[outcome] > MOST else ""
        rows = [(pair.question, pair.gold, answers(*pair.first), answers(*pair.second)) for pair in pairs]
        inner = table(("question", "wanted", first, second), rows) if rows else ""
        folds.append(
            f'<details class="spark-pairs"><summary>{escape(said)}: {counts[outcome]}{more}</summary>{inner}</details>'
        )
    title = escape(f"Problem by problem, after the test-time loop: {first} and {second}, {shared}")
    return f"<h4>{title}</h4>{''.join(folds)}"


def answers(before: str | None, right_before: bool | None, after: str | None, right_after: bool | None) -> str:
    """A run's answer, and the one that the loop ends with where it is another."""
    first = _answer(before, right_before)
    return first if (before, right_before) == (after, right_after) else f"{first} → {_answer(after, right_after)}"


def _answer(answer: str | None, right: bool | None) -> str:
    mark = {True: "✓", False: "✗", None: "–"}[right]
    return f"{mark} {answer if answer is not None else '(no answer)'}"
