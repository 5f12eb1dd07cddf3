"""A problem source as a person looks at it before training: what can be used, what cannot and why, how long it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spark_kernel.errors import ProblemError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.problems.answer_types import answer_type
from spark_kernel.problems.source import ProblemSource, skipped_rows
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.prompts.verdicts import read_boxes, strip_thinking
from spark_kernel.records import ExclusionReason, Problem, Score
from spark_kernel.verify.pool import VerifierPool
from spark_kernel.verify.verifier import VerifyRequest

PARTICULARS = re.compile(r'"(?:[^"\\]|\\.)*"|Problem \S+:|\d+')
Progress = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how much."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """What there is to say of a finite source.

    Attributes:
        usable: the problems that can be trained on.
        refused: sentences, one for each record that cannot.
        skipped: numbers of rows left out without fault, by reason.
        types: numbers of golds by verifier and kind of answer, with an example of each.
        lengths: tokens of the usable problems' solve prompts, in their order.
    """

    usable: tuple[Problem, ...]
    refused: tuple[str, ...]
    skipped: Mapping[ExclusionReason, int]
    types: Mapping[tuple[str, str], tuple[int, str]]
    lengths: tuple[int, ...]

    @property
    def rows(self) -> int:
        """All rows that were read."""
        return len(self.usable) + len(self.refused) + sum(self.skipped.values())

    def reasons(self) -> list[tuple[int, str]]:
        """How many records are refused for a reason, and the first such sentence; the most frequent reason first.

        Sentences that differ in nothing but their places, numbers and quotations give one reason.
        """
        alike: dict[str, list[str]] = {}
        for sentence in self.refused:
            alike.setdefault(PARTICULARS.sub("", sentence), []).append(sentence)
        return sorted(((len(found), found[0]) for found in alike.values()), key=lambda reason: -reason[0])

    def percentile(self, share: float) -> int:
        """The length that this share of the prompts does not exceed (nearest rank)."""
        ordered = sorted(self.lengths)
        return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]

    def longer_than(self, limit: int) -> int:
        """How many prompts have more tokens than this."""
        return sum(length > limit for length in self.lengths)


def inspect_source(
    source: ProblemSource,
    pool: VerifierPool,
    encoder: PromptEncoder,
    on_progress: Progress = lambda _what, _done, _total: None,
) -> Inspection:
    """Check every problem of a finite source against its verifier, and measure its prompt.

    Prompts with images are measured with them where the model reads images, else by their text.

    Raises:
        InputError: a verifier that does not exist.
    """
    read: list[Problem] = []
    refused: list[str] = []
    for index in range(source.size or 0):
        try:
            read.append(source.problem(index))
        except ProblemError as error:
            refused.append(str(error))
    faults = pool.check_golds(read, lambda done, total: on_progress("checking golds", done, total))
    usable = [problem for problem, fault in zip(read, faults, strict=True) if fault is None]
    for problem, fault in zip(read, faults, strict=True):
        if fault is not None:
            record = problem.meta.get("record")
            refused.append(f"{record}: {fault}" if record else fault)
    lengths = []
    for done, problem in enumerate(usable, start=1):
        lengths.append(_length(problem, encoder))
        on_progress("measuring prompts", done, len(usable))
    return Inspection(
        usable=tuple(usable),
        refused=tuple(refused),
        skipped=Counter(row.reason for row in skipped_rows(source)),
        types=_types(usable),
        lengths=tuple(lengths),
    )


def score_output(pool: VerifierPool, problem: Problem, output: str) -> tuple[Score, str]:
    """An output's score against a problem, and how its answer was looked for, in a few words."""
    task = solve_task(problem, seed=0, round=1)
    (score,) = pool.score([VerifyRequest(output, problem, task)])
    spoken = strip_thinking(output)
    boxes = [content for content in read_boxes(spoken) if content]
    where = "outside the thinking" if spoken != output else "in the output"
    if not boxes:
        return score, f"no closed box with anything in it {where}"
    which = "the only box" if len(boxes) == 1 else f"the last of {len(boxes)} boxes"
    return score, f"{which} {where}, which holds: {boxes[-1]}"


def _length(problem: Problem, encoder: PromptEncoder) -> int:
    (prompt,) = task_prompts([solve_task(problem, seed=0, round=1)], Path())
    return encoder.count_tokens(prompt) if encoder.reads_images else len(encoder.unexpanded_ids(prompt))


def _types(problems: Sequence[Problem]) -> dict[tuple[str, str], tuple[int, str]]:
    found: dict[tuple[str, str], tuple[int, str]] = {}
    for problem in problems:
        key = (problem.verifier, answer_type(problem))
        count, example = found.get(key, (0, problem.gold))
        found[key] = (count + 1, example)
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))
