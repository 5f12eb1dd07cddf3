"""Which of the sampled answers are the same, without a gold answer.

A label per answer, numbered from 0 in order of first appearance; None for a missing answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Kind, Message, Origin, Problem, Score, Task
from spark_kernel.recycle.sources import normalise_answer
from spark_kernel.verify.verifier import VerifyRequest

Labels = tuple[int | None, ...]
LabelAnswers = Callable[[Sequence[Sequence[str | None]]], list[Labels]]
"""Answers [question][sample] to labels of the same shape."""


def label_by_text(rows: Sequence[Sequence[str | None]]) -> list[Labels]:
    """The same when they are spelled alike (`recycle.sources.normalise_answer`): fast, and blind to "1/2" = "0.5"."""
    labelled = []
    for answers in rows:
        seen: dict[str, int] = {}
        labelled.append(tuple(None if a is None else seen.setdefault(normalise_answer(a), len(seen)) for a in answers))
    return labelled


def label_by_mathematics(score: Callable[[Sequence[VerifyRequest]], list[Score]]) -> LabelAnswers:
    """Also the same when math-verify finds them equal; `score` is a verifier pool's, so no comparison can hang.

    An answer joins the first one that it equals, that one taken as gold. Pairs that cannot be compared (timeout, crash,
    no mathematics) are different.
    """

    def label(rows: Sequence[Sequence[str | None]]) -> list[Labels]:
        by_text = label_by_text(rows)
        spellings: list[list[str]] = []  # the first answer of every label
        for answers, labels in zip(rows, by_text, strict=True):
            firsts: dict[int, str] = {}
            for answer, own in zip(answers, labels, strict=True):
                if answer is not None and own is not None:
                    firsts.setdefault(own, answer)
            spellings.append(list(firsts.values()))
        pairs = [
            (place, earlier, later)
            for place, texts in enumerate(spellings)
            for later in range(len(texts))
            for earlier in range(later)
        ]
        requests = [_request(spellings[place][later], spellings[place][earlier]) for place, earlier, later in pairs]
        scores = score(requests) if requests else []
        equal = {pair for pair, found in zip(pairs, scores, strict=True) if found.correct}
        return [
            _merged(labels, len(texts), {(a, b) for where, a, b in equal if where == place})
            for place, (labels, texts) in enumerate(zip(by_text, spellings, strict=True))
        ]

    return label


def _merged(labels: Labels, count: int, equal: set[tuple[int, int]]) -> Labels:
    kept: list[int] = []  # labels that stand for themselves
    standing: dict[int, int] = {}
    for own in range(count):
        match = next((place for place, earlier in enumerate(kept) if (earlier, own) in equal), None)
        if match is None:
            match = len(kept)
            kept.append(own)
        standing[own] = match
    return tuple(None if own is None else standing[own] for own in labels)


def _request(answer: str, other: str) -> VerifyRequest:
    problem = Problem("answer-equality", "", other, "math")
    task = Task(
        id="answer-equality",
        kind=Kind.SOLVE,
        origin=Origin.PROBLEM,
        problem_id=problem.id,
        messages=(Message.of("user", ""),),
        label=other,
        verifier="math",
        template_id="",
        round=0,
    )
    return VerifyRequest(write_box(answer), problem, task)
