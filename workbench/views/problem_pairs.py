"""Two runs problem by problem: what each answers to the same held-out question, and which of them is right."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from spark_kernel.errors import InputError
from spark_kernel.runs.reader import RunReader
from workbench.views.chains import Chain, self_correction


class Outcome(StrEnum):
    """Which of two runs ends right on a problem, in words for a person."""

    ALL = "all"
    FIRST = "only the first is right"
    SECOND = "only the second is right"
    BOTH = "both are right"
    NEITHER = "neither is right"


@dataclass(frozen=True, slots=True)
class ProblemPair:
    """A held-out problem and two runs' answers, greedy before and after the test-time loop.

    `first`, `second`: by run (answer before, right before, answer after, right after); None where nothing was read or
    found. `outcome`: by the answers after the loop.
    """

    problem_id: str
    question: str
    gold: str
    first: tuple[str | None, bool | None, str | None, bool | None]
    second: tuple[str | None, bool | None, str | None, bool | None]
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ProblemPairs:
    """The problems that two runs share, after `rounds` (of the first and of the second run); empty where none."""

    rounds: tuple[int, int]
    pairs: tuple[ProblemPair, ...]

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many problems have each outcome; `Outcome.ALL`: all."""
        found = Counter(pair.outcome for pair in self.pairs)
        return {outcome: len(self.pairs) if outcome is Outcome.ALL else found[outcome] for outcome in Outcome}

    def with_outcome(self, outcome: Outcome | str) -> tuple[ProblemPair, ...]:
        """Those of an outcome, by its value or its words.

        Raises:
            InputError: no such outcome.
        """
        try:
            wanted = Outcome(outcome)
        except ValueError:
            raise InputError(f'"{outcome}" is no outcome: choose one of {", ".join(Outcome)}.') from None
        return tuple(pair for pair in self.pairs if wanted in (Outcome.ALL, pair.outcome))


def problem_pairs(first: RunReader, second: RunReader) -> ProblemPairs | None:
    """The newest evaluations of two runs, problem by problem; None where either has no test-time loop evaluated.

    Raises:
        RunFolderError: an evaluation is damaged.
    """
    if not first.evaluations or not second.evaluations:
        return None
    rounds = first.evaluations[-1], second.evaluations[-1]
    loops = self_correction(first, rounds[0]), self_correction(second, rounds[1])
    if loops[0] is None or loops[1] is None:
        return None
    others = {chain.problem_id: chain for chain in loops[1].chains}
    pairs = [
        ProblemPair(
            chain.problem_id, chain.question, chain.gold, _answers(chain), _answers(other), _outcome(chain, other)
        )
        for chain in loops[0].chains
        if (other := others.get(chain.problem_id)) is not None
    ]
    return ProblemPairs(rounds, tuple(pairs))


def _answers(chain: Chain) -> tuple[str | None, bool | None, str | None, bool | None]:
    return chain.first.answer, chain.first.correct, chain.final_step.answer, chain.final_step.correct


def _outcome(chain: Chain, other: Chain) -> Outcome:
    right = bool(chain.final_step.correct), bool(other.final_step.correct)
    return {
        (True, True): Outcome.BOTH,
        (True, False): Outcome.FIRST,
        (False, True): Outcome.SECOND,
        (False, False): Outcome.NEITHER,
    }[right]
