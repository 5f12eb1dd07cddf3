"""Problems with several acceptable golds: `meta["golds"]`, any of which makes an answer right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from spark_kernel.records import Problem
from spark_kernel.verify.findings import bad_gold
from spark_kernel.verify.verifier import Verifier, VerifyRequest


def other_golds(problem: Problem) -> tuple[str, ...]:
    """The acceptable golds beside `problem.gold`."""
    listed = problem.meta.get("golds")
    if not isinstance(listed, list | tuple):
        return ()
    return tuple(str(gold) for gold in dict.fromkeys(listed) if gold != problem.gold)


def other_requests(request: VerifyRequest) -> Iterator[VerifyRequest]:
    """The same output against the other golds, where it is scored against the gold; nothing for judge tasks."""
    problem, task = request.problem, request.task
    if task.kind.judges or task.label != problem.gold:
        return
    for gold in other_golds(problem):
        yield replace(request, task=replace(task, label=gold), problem=replace(problem, gold=gold))


def check_all_golds(verifier: Verifier, problem: Problem) -> None:
    """Check the gold and every other acceptable one.

    Raises:
        ProblemError: one of them is no use to the verifier, or `meta["golds"]` is no list of texts.
    """
    verifier.check_gold(problem)
    listed = problem.meta.get("golds", ())
    if not isinstance(listed, list | tuple) or not all(isinstance(gold, str) and gold.strip() for gold in listed):
        raise bad_gold(problem, 'meta["golds"] must be a list of acceptable golds, each a text that is not empty')
    for gold in other_golds(problem):
        verifier.check_gold(replace(problem, gold=gold))
