"""Answers that are text: equal after tidying white space."""

from __future__ import annotations

import unicodedata

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Problem, Score
from spark_kernel.verify.dress import unwrap_text
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, wrong
from spark_kernel.verify.verifier import VerifyRequest


class ExactVerifier:
    r"""Reward 1 when the last box equals the gold, runs of white space counting as one space.

    A box that is one `\text{...}` stands for its content. `meta["ignore_case"]` (default false) compares without
    case; `meta["ignore_spaces"]` (default false) drops white space altogether.
    """

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer, NONE without a box."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        shown = unwrap_text(answer)
        problem = request.problem
        if _canonical(shown, problem) == _canonical(unwrap_text(request.task.label), problem):
            return right(shown)
        return wrong(shown)

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the gold is empty or has unbalanced braces, or an option is no boolean."""
        check_boxable(problem, problem.gold)
        for option in ("ignore_case", "ignore_spaces"):
            if not isinstance(problem.meta.get(option, False), bool):
                raise bad_gold(problem, f'meta["{option}"] = {problem.meta[option]!r} must be true or false')


def _canonical(text: str, problem: Problem) -> str:
    text = unicodedata.normalize("NFC", text)
    if problem.meta.get("ignore_case", False):
        text = text.casefold()
    return ("" if problem.meta.get("ignore_spaces", False) else " ").join(text.split())
