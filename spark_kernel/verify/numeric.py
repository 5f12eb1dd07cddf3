"""Numbers with a tolerance."""

from __future__ import annotations

import math

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Problem, Score
from spark_kernel.verify.findings import bad_gold, check_boxable, check_own_answer, no_box, right, unreadable, wrong
from spark_kernel.verify.integer import stated_number
from spark_kernel.verify.numbers import read_number, same_number
from spark_kernel.verify.question_form import form_of
from spark_kernel.verify.verifier import VerifyRequest

REL_TOL = 1e-6
ABS_TOL = 0.0


class NumericVerifier:
    """Reward 1 when the last box is a number within tolerance of the gold.

    `meta["rel_tol"]` (default 1e-6, relative to the gold) and `meta["abs_tol"]` (default 0): the wider of the two
    holds. A gold of 0 therefore needs an `abs_tol` to forgive anything.
    """

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer, NONE without a box or where the box holds no number."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        number = read_number(answer) or stated_number(answer)
        if number is None:
            return unreadable(answer, "a number")
        gold = read_number(request.task.label)
        if gold is None:
            raise ValueError(f'the label "{request.task.label}" is no number')
        rel_tol = float(request.problem.meta.get("rel_tol", REL_TOL))
        abs_tol = float(request.problem.meta.get("abs_tol", ABS_TOL))
        percent = form_of(request.problem).percent
        close = same_number(gold, number, percent=percent, rel_tol=rel_tol, abs_tol=abs_tol)
        return right(answer) if close else wrong(answer, "It lies outside the tolerance.")

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the gold is no number, or a tolerance is no number of at least 0."""
        check_boxable(problem, problem.gold)
        if read_number(problem.gold) is None:
            from spark_kernel.verify.answer_reader import read_answer_value
            from spark_kernel.verify.gold_advice import advice

            raise bad_gold(problem, "it is not a number: " + advice(problem.gold, read_answer_value(problem.gold)))
        for name in ("rel_tol", "abs_tol"):
            value = problem.meta.get(name, 0.0)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < 0:
                raise bad_gold(problem, f'meta["{name}"] = {value!r} must be a number of at least 0')
        check_own_answer(self, problem)
