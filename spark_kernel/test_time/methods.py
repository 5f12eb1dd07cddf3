"""The ways to answer that the loop stands beside: sample n answers and choose one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from spark_kernel.test_time.best_of import best_of
from spark_kernel.test_time.budget import Spending, spend
from spark_kernel.test_time.equality import Labels
from spark_kernel.test_time.steps import Step
from spark_kernel.test_time.vote import Choice, majority_vote, weighted_vote


class Method(StrEnum):
    """How one of n sampled answers is chosen."""

    VOTE = "vote"
    """The commonest answer."""
    BEST_OF = "best-of"
    """The first answer that the judge accepts."""
    WEIGHTED = "weighted"
    """The answer with the greatest sum of the judge's probabilities of "Yes"."""

    @property
    def judges(self) -> bool:
        """Whether every sample must be judged, and the judgement paid for."""
        return self is not Method.VOTE


@dataclass(frozen=True, slots=True)
class Sampled:
    """The sampled answers to one question, in drawing order, and a judgement of each.

    `judgements`: None where none was asked for, where there is no answer to judge, or where the prompt is too long.
    """

    problem_id: str
    answers: tuple[Step, ...]
    judgements: tuple[Step | None, ...]

    def costs(self, method: Method) -> list[int]:
        """Output tokens of each sample, with its judgement where the method needs it."""
        return [
            answer.tokens + (judgement.tokens if method.judges and judgement is not None else 0)
            for answer, judgement in zip(self.answers, self.judgements, strict=True)
        ]


def choose(method: Method, sampled: Sampled, labels: Labels, samples: int | None = None) -> Choice:
    """Choose among the first `samples` answers (all, where None); `labels` says which answers are the same."""
    labels, judgements = labels[:samples], sampled.judgements[:samples]
    return choose_among(
        method,
        labels,
        [None if judgement is None else judgement.verdict for judgement in judgements],
        [None if judgement is None else judgement.yes_probability for judgement in judgements],
    )


def choose_among(
    method: Method,
    labels: Sequence[int | None],
    verdicts: Sequence[str | None],
    yes_probabilities: Sequence[float | None],
) -> Choice:
    """As `choose`, over plain columns; a column that the method does not use may hold anything."""
    if method is Method.VOTE:
        return majority_vote(labels)
    return best_of(labels, verdicts) if method is Method.BEST_OF else weighted_vote(labels, yes_probabilities)


def spend_on(method: Method, sampled: Sequence[Sampled], budget: int) -> Spending:
    """How many samples of each question the method gets for a budget of output tokens in all."""
    return spend([one.costs(method) for one in sampled], budget)
