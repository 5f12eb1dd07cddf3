"""What a problem source is: a deterministic, indexed sequence of problems.

A source knows nothing of rounds, epochs or the held-out bucket: `problems.stream` adds these. Sources register by
name, through the entry-point group `spark_kernel.problem_sources` too (CONTRIBUTING.md).
"""

from __future__ import annotations

from typing import Protocol

from spark_kernel.problems.rows import Skipped
from spark_kernel.records import Problem


class ProblemSource(Protocol):
    """A deterministic sequence of problems; the same index gives the same problem for ever."""

    size: int | None
    """Number of problems, None for an unlimited source."""

    def problem(self, index: int) -> Problem:
        """The problem at an index >= 0.

        Raises:
            ProblemError: the record at this index is malformed; says file, line and reason.
            IndexError: the index is not below `size`.
        """
        ...


def skipped_rows(source: ProblemSource) -> tuple[Skipped, ...]:
    """What a source left out while reading, without a fault: its attribute `skipped`, which it need not have."""
    return tuple(getattr(source, "skipped", ()))
