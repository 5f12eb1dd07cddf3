"""The frozen pool: answers of a run's first evaluation that all its later judges are asked about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spark_kernel.evaluate.cases import Candidate, candidates_of
from spark_kernel.problems.held_out import FIRST_FORM, canonical_text
from spark_kernel.records import Problem
from spark_kernel.runs.layout import evaluation_folder, list_evaluations
from spark_kernel.runs.storage import read_evaluation


@dataclass(frozen=True, slots=True)
class FrozenPool:
    """Candidates, and the canonical texts of the problems that they answer, by the problems' ids."""

    candidates: tuple[Candidate, ...] = ()
    problems: Mapping[str, str] = field(default_factory=dict)

    def of(self, evaluated: Iterable[Problem]) -> tuple[Candidate, ...]:
        """The candidates, where some of their problems are evaluated; none where ids mean other problems there."""
        texts = {problem.id: canonical_text(problem, FIRST_FORM) for problem in evaluated}
        shared = texts.keys() & self.problems.keys()
        same = all(texts[name] == self.problems[name] for name in shared)
        return self.candidates if shared and same else ()


def frozen_pool(folders: Sequence[Path], round_number: int) -> FrozenPool:
    """The answers of a run's first held-out evaluation that may be judged: the pool that all judges after it share.

    Args:
        folders: the run's own and those of its ancestry, the oldest last.
        round_number: the round after which is evaluated; in the first evaluation, which makes the pool, there is none.
    """
    for folder in reversed(folders):
        evaluated = list_evaluations(folder)
        if evaluated and (evaluated[0] < round_number or folder != folders[0]):
            records = read_evaluation(evaluation_folder(folder, evaluated[0]))
            candidates = candidates_of(records.groups["solve"])[0]
            answered = {candidate.problem_id for candidate in candidates}
            texts = {
                problem.id: canonical_text(problem, FIRST_FORM)
                for problem in records.problems
                if problem.id in answered
            }
            return FrozenPool(candidates, texts)
    return FrozenPool()


def frozen_candidates(folders: Sequence[Path], round_number: int) -> tuple[Candidate, ...]:
    """The candidates of `frozen_pool`."""
    return frozen_pool(folders, round_number).candidates
