"""The frozen pool: answers of a run's first evaluation that all its later judges are asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spark_kernel.evaluate.cases import Candidate, candidates_of
from spark_kernel.runs.layout import evaluation_folder, list_evaluations
from spark_kernel.runs.storage import read_evaluation


def frozen_candidates(folders: Sequence[Path], round_number: int) -> tuple[Candidate, ...]:
    """The answers of a run's first held-out evaluation that may be judged: the pool that all judges after it share.

    Args:
        folders: the run's own and those of its ancestry, the oldest last.
        round_number: the round after which is evaluated; in the first evaluation, which makes the pool, there is none.
    """
    for folder in reversed(folders):
        evaluated = list_evaluations(folder)
        if evaluated and (evaluated[0] < round_number or folder != folders[0]):
            records = read_evaluation(evaluation_folder(folder, evaluated[0]))
            return candidates_of(records.groups["solve"])[0]
    return ()
