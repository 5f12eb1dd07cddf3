"""Several acceptable golds: an answer is right where another verifier finds it right against any of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from spark_kernel.errors import ProblemError
from spark_kernel.records import Problem, Score
from spark_kernel.verify.registry import get_verifier
from spark_kernel.verify.verifier import Verifier, VerifyRequest

ANY_OF = "any_of"
"""The key of a problem's meta with the verifier and the golds: {"verifier": "math", "golds": ["2", "-2"]}."""


class AnyOfVerifier:
    """The best score of another verifier against each of the golds in `meta["any_of"]`; of equal ones the first.

    It reads what the other verifier reads, and costs as much as that does for all golds together.
    """

    NAME: ClassVar[str] = "any_of"

    def __init__(self) -> None:
        """Load the one verifier whose libraries are slow to load, so that no output's deadline pays for it."""
        self._known: dict[str, Verifier] = {"math": get_verifier("math")}

    def score(self, request: VerifyRequest) -> Score:
        """The best score; an output without an answer has none against any gold."""
        name, golds = _alternatives(request.problem)
        best: Score | None = None
        for gold in golds:
            problem = replace(request.problem, gold=gold, verifier=name)
            asked = replace(request, problem=problem, task=replace(request.task, label=gold, verifier=name))
            found = self._verifier(name).score(asked)
            if best is None or (found.reward or 0.0) > (best.reward or 0.0):
                best = found
        if best is None:
            raise ValueError("there are no golds")
        return best

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: no other verifier and golds in the meta, or a gold that it cannot use."""
        name, golds = _alternatives(problem)
        for gold in golds:
            self._verifier(name).check_gold(replace(problem, gold=gold, verifier=name))

    def _verifier(self, name: str) -> Verifier:
        if name not in self._known:
            self._known[name] = get_verifier(name)
        return self._known[name]


def _alternatives(problem: Problem) -> tuple[str, list[str]]:
    held = problem.meta.get(ANY_OF)
    name = held.get("verifier") if isinstance(held, Mapping) else None
    golds = held.get("golds") if isinstance(held, Mapping) else None
    if (
        not isinstance(name, str)
        or name == AnyOfVerifier.NAME
        or not isinstance(golds, list | tuple)
        or not golds
        or not all(isinstance(gold, str) for gold in golds)
    ):
        raise ProblemError(
            f'Problem {problem.id}: the verifier "any_of" needs meta["any_of"] = {{"verifier": another, "golds": '
            "[texts]}."
        )
    return name, list(golds)
