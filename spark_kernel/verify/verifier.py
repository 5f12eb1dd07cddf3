"""What a verifier is, and what it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spark_kernel.records import Problem, Score, Task


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """One output to score. The whole problem and task travel along: some scorers need the problem's entry, and a
    verdict needs the task's letter map. `task.label` is what the output is scored against."""

    output: str
    problem: Problem
    task: Task


class Verifier(Protocol):
    """A pure function from an output to a score; runs in a worker process under a deadline.

    It never returns parse TIMEOUT or CRASH: those are the pool's findings (`verify.pool`).
    """

    def score(self, request: VerifyRequest) -> Score:
        """Score one output. Any exception is recorded as a crash of this output, with reward null."""
        ...

    def check_gold(self, problem: Problem) -> None:
        """Refuse, before training, a problem whose gold this verifier cannot read.

        Raises:
            ProblemError: says why.
        """
        ...
