"""Whole numbers: the cheap verifier for arithmetic."""

from __future__ import annotations

import re

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Problem, Score
from spark_kernel.verify.findings import bad_gold, check_boxable, check_own_answer, no_box, right, unreadable, wrong
from spark_kernel.verify.numbers import Number, read_number, same_number
from spark_kernel.verify.question_form import form_of
from spark_kernel.verify.verifier import VerifyRequest

STATEMENT = re.compile(r"[=≈]|\\approx|(?<![\\A-Za-z])[^\W\d_]{2,}")
BARE = re.compile(r"([+-]?)0*(\d{1,1000})", re.ASCII)


class IntegerVerifier:
    """Reward 1 when the last box is the gold integer, in any dress `read_stated_number` reads; no tolerance."""

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer, NONE without a box or where the box holds no number."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        bare, gold_bare = _bare(answer), _bare(request.task.label)
        if bare is not None and gold_bare is not None:
            return right(bare) if bare == gold_bare else wrong(bare)
        number = read_number(answer) or stated_number(answer)
        if number is None:
            return unreadable(answer, "a number")
        gold = read_number(request.task.label)
        if gold is None:
            raise ValueError(f'the label "{request.task.label}" is no integer')
        return right(answer) if same_number(gold, number, percent=form_of(request.problem).percent) else wrong(answer)

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the gold is no integer, or does not score right against itself."""
        check_boxable(problem, problem.gold)
        number = read_number(problem.gold)
        if number is None:
            from spark_kernel.verify.answer_reader import read_answer_value
            from spark_kernel.verify.gold_advice import advice

            raise bad_gold(
                problem, "it is not a whole number: " + advice(problem.gold, read_answer_value(problem.gold))
            )
        if number.value.denominator != 1:
            raise bad_gold(problem, "it is not a whole number")
        check_own_answer(self, problem)


def stated_number(text: str) -> Number | None:
    """The number behind words or in an equation. Loaded by the first text that needs it: most are bare digits."""
    if STATEMENT.search(text) is None:
        return None
    from spark_kernel.verify.answer_reader import read_stated_number

    return read_stated_number(text)


def _bare(text: str) -> str | None:
    """Sign and digits without leading zeros, where that is all there is."""
    match = BARE.fullmatch(text.strip())
    if match is None:
        return None
    digits = match[2]
    return "-" + digits if match[1] == "-" and digits != "0" else digits
