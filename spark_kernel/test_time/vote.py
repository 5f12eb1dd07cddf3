"""Votes over the sampled answers to one question: the commonest answer, or the one the judge believes in most.

Pure functions: `labels` says which answers are the same (`equality.label_answers`), one number per sample, None for an
output without an answer. Outputs without an answer have no vote. Between answers with equally many votes the one that
was sampled first wins; samples are drawn alike, so this favours none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

NO_OPINION = 0.5
"""Weight of an answer whose verdict could not be read or that was not judged."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The sample that stands for the chosen answer: the first one that gave it.

    `support`: what the answer got (votes, weight, or the best sample's rank); `of`: what all answers together got.
    `tied`: how many answers got as much, the chosen one included. Where no output has an answer, the first sample is
    named with support 0 and no tie.
    """

    index: int
    support: float
    of: float
    tied: int = 1


def majority_vote(labels: Sequence[int | None]) -> Choice:
    """The commonest answer."""
    return weighted_vote(labels, [1.0] * len(labels))


def weighted_vote(labels: Sequence[int | None], yes_probabilities: Sequence[float | None]) -> Choice:
    """The answer with the greatest sum of the judge's probabilities of "Yes"; NO_OPINION where there is none."""
    first: dict[int, int] = {}
    weight: dict[int, float] = {}
    for index, (label, yes) in enumerate(zip(labels, yes_probabilities, strict=True)):
        if label is not None:
            first.setdefault(label, index)
            weight[label] = weight.get(label, 0.0) + (NO_OPINION if yes is None else yes)
    if not weight:
        return Choice(0, 0.0, 0.0)
    most = max(weight.values())
    winners = [label for label in first if weight[label] == most]
    return Choice(first[winners[0]], most, sum(weight.values()), len(winners))
