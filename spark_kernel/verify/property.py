"""Answers of which a property is asked: whatever satisfies it is right, several answers may (`verify.conditions`)."""

from __future__ import annotations

import re

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Problem, Score
from spark_kernel.verify.conditions import Made, Values, read_property
from spark_kernel.verify.dress import undress
from spark_kernel.verify.expressions import Expression, UnreadableError, read_expression, write_expression
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, unreadable, wrong
from spark_kernel.verify.integer import stated_number
from spark_kernel.verify.numbers import Number, read_number
from spark_kernel.verify.satisfying import find_answer
from spark_kernel.verify.verifier import VerifyRequest

EXAMPLE = "example"
"""The key of a problem's meta with one right answer: it shows that there is one, and enters no prompt."""
FRACTION = re.compile(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
PRODUCT = re.compile(r"\\(?:times|cdot|ast)(?![A-Za-z])")
DIVISION = re.compile(r"\\div(?![A-Za-z])")
BETWEEN = re.compile(r"\\text\{\s*(?:,?\s*and)\s*\}|\band\b|[,;]")
OUTER = re.compile(r"\s*(?:\\?\{|\(|\[)(?P<inside>.*?)(?:\\?\}|\)|\])\s*", re.DOTALL)
RESULT = re.compile(r"(?P<made>[^=]*[^=\s])\s*=\s*(?P<result>-?\s*[0-9]{1,18})\s*")


class PropertyVerifier:
    """Reward 1 when the last box satisfies the gold's conditions; which of the answers that do, is all the same."""

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer, NONE without a box or where the box holds nothing of the kind asked for.

        Raises:
            ValueError: the label states no property (`check_gold` refuses such a problem).
        """
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        asked = read_property(request.task.label)
        return _score_made(answer, asked) if isinstance(asked, Made) else _score_values(answer, asked)

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the gold states no property, or there is no answer at hand that satisfies it."""
        check_boxable(problem, problem.gold)
        try:
            asked = read_property(problem.gold)
        except UnreadableError as error:
            raise bad_gold(problem, _advice(problem.gold, error)) from error
        example = problem.meta.get(EXAMPLE)
        if example is None:
            if find_answer(asked) is None:
                why = f'no small answer satisfies it; give one that does as meta["{EXAMPLE}"]'
                raise bad_gold(problem, why)
            return
        if not isinstance(example, str):
            raise bad_gold(problem, f'meta["{EXAMPLE}"] = {example!r} must be a text')
        score = _score_made(example, asked) if isinstance(asked, Made) else _score_values(example, asked)
        if not score.correct:
            raise bad_gold(problem, f'meta["{EXAMPLE}"] does not score right ({score.reason.rstrip(".")})')


def _score_values(answer: str, asked: Values) -> Score:
    values = read_values(answer, asked.names)
    if values is None:
        count = len(asked.names)
        return unreadable(answer, "a whole number" if count == 1 else f"{count} whole numbers")
    shown = ", ".join(str(values[name]) for name in asked.names)
    broken = asked.broken(values)
    if broken is None:
        return right(shown)
    told = ", ".join(f"{name} = {value}" for name, value in values.items())
    return wrong(shown, f"{broken} does not hold for {told}.")


def _score_made(answer: str, asked: Made) -> Score:
    made, result = read_made(answer)
    if made is None:
        return unreadable(answer, "an expression of numbers, + - * / and brackets")
    shown = write_expression(made)
    fault = asked.fault(made)
    if fault is None and result is not None and result != asked.target:
        fault = f"is said to be {result}, which it is not"
    return right(shown) if fault is None else wrong(shown, f"The expression {fault}.")


def read_values(answer: str, names: tuple[str, ...]) -> dict[str, int] | None:
    """The whole numbers of an answer by name, None where it holds others or more or fewer.

    They stand in the order of the names, or each behind its own (`y = 4, x = 8`), with commas or "and" between.
    """
    if len(names) == 1:
        number = read_number(answer) or stated_number(answer)
        return None if number is None or not _whole(number) else {names[0]: int(number.value)}
    text = undress(answer)
    if outer := OUTER.fullmatch(text):
        text = outer["inside"]
    parts = [part.strip() for part in BETWEEN.split(text) if part.strip()]
    numbers = [number for part in parts if (number := read_number(part)) is not None and _whole(number)]
    if not len(parts) == len(numbers) == len(names):
        return None
    labels = [number.label for number in numbers]
    if not any(labels):
        labels = list(names)
    if sorted(labels) != sorted(names):
        return None
    found = {label: int(number.value) for label, number in zip(labels, numbers, strict=True)}
    return {name: found[name] for name in names}


def read_made(answer: str) -> tuple[Expression | None, int | None]:
    """The expression of an answer, and the result where it states one behind an equals sign."""
    text = DIVISION.sub("/", PRODUCT.sub("*", FRACTION.sub(r"((\1)/(\2))", undress(answer))))
    text = text.replace("[", "(").replace("]", ")")
    result = None
    if match := RESULT.fullmatch(text):
        text, result = match["made"], int("".join(match["result"].split()))
    try:
        return read_expression(text), result
    except UnreadableError:
        return None, None


def _whole(number: Number) -> bool:
    return number.value.denominator == 1 and not number.percent


def _advice(gold: str, error: UnreadableError) -> str:
    if read_number(gold) is not None:
        return (
            'it is an answer and not a property: use the verifier "integer" or "numeric", or write what must hold, '
            'such as "x: 3 * x + 4 = 25"'
        )
    return f'{error}; a gold reads like "x, y: x + y = 12; x > y" or "3, 5, 7 with + - *: 22"'
