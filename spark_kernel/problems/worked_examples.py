"""A problem source whose problems ask for worked examples in their prompts."""

from __future__ import annotations

from dataclasses import replace

from spark_kernel.problems.source import ProblemSource, skipped_rows
from spark_kernel.prompts.examples import META
from spark_kernel.records import Problem


class WithWorkedExamples:
    """The problems of another source, each asking for worked examples (`prompts.examples`)."""

    def __init__(self, source: ProblemSource) -> None:
        self._source = source
        self.size: int | None = source.size
        self.skipped = skipped_rows(source)

    def problem(self, index: int) -> Problem:
        """The other source's problem at an index, marked."""
        problem = self._source.problem(index)
        return replace(problem, meta={**problem.meta, META: True})
