"""Mathematics: equal as numbers, expressions, sets, intervals, equations or matrices (math-verify and sympy).

Cheap comparisons go first; sympy is asked only where they do not decide. Its run time has no bound, so this
verifier belongs into a worker with a deadline (`verify.pool`); math-verify's own alarms are switched off, because
they need the main thread and cannot interrupt a long integer operation.
"""

from __future__ import annotations

import logging
import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from spark_kernel.prompts.verdicts import read_answer, write_box
from spark_kernel.records import Problem, Score
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, unreadable, wrong
from spark_kernel.verify.markup import tidy, unwrap_all_text, unwrap_text
from spark_kernel.verify.numbers import Number, read_number, same_number
from spark_kernel.verify.verifier import VerifyRequest

MAX_DIGITS = 5000
DECIMAL_TOLERANCE = Fraction(1, 10**6)

THOUSANDS = re.compile(r"(?<=\d)(?:\\,|\\!|\\;|\\ |\{,\})(?=\d{3}(?!\d))")
SCIENTIFIC = re.compile(r"(?<![A-Za-z\\\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![\w.])")
MIXED = re.compile(r"(?<![\d.^_{/])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\s*\{(\d+)\}")
PLAIN_PI = re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])")
MEMBER = re.compile(r"[A-Za-z]\s*\\in(?![A-Za-z])\s*")
WORDS = re.compile(r"[A-Za-z][A-Za-z' ,-]+")
COMPARISON_ERRORS = (
    ArithmeticError,
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


class MathVerifier:
    """Reward 1 when the last box is mathematically equal to the gold.

    Units are ignored unless both sides have a known one and these differ. A decimal agrees with an exact value to
    six places. An equation `x = 5` agrees with `5`. Words are compared as words, without case.
    """

    def __init__(self) -> None:
        """Load math-verify and build its parser's tables, so that no output's deadline pays for it."""
        logging.getLogger("math_verify").setLevel(logging.ERROR)
        _parse("1+x")

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer; NONE without a box or where the box is not readable as mathematics."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        gold = request.task.label
        if _same_text(answer, gold):
            return right(answer)
        if _is_words(gold):
            return wrong(answer)
        gold_number, number = read_number(gold), read_number(answer)
        if gold_number is not None and number is not None:
            return right(answer) if _close(gold_number, number) else wrong(answer)
        parsed = _parse(answer)
        if not parsed:
            return unreadable(answer, "readable mathematics")
        return _compare(answer, _parse(gold), parsed)

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the gold is empty or not readable as mathematics."""
        check_boxable(problem, problem.gold)
        if not _is_words(problem.gold) and read_number(problem.gold) is None and not _parse(problem.gold):
            raise bad_gold(problem, 'it is not readable as mathematics; correct it, or use the verifier "exact"')


def _compare(answer: str, gold: tuple[Any, ...], parsed: tuple[Any, ...]) -> Score:
    from math_verify import verify

    if any(_too_large(expression) for expression in (*gold, *parsed)):
        same = bool(gold) and gold == parsed
        return right(answer) if same else wrong(answer, "It holds a power or factorial too large to evaluate.")
    try:
        same = verify(list(gold), list(parsed), allow_set_relation_comp=True, timeout_seconds=None, raise_on_error=True)
    except COMPARISON_ERRORS as error:
        return wrong(answer, f"It cannot be compared with the gold ({type(error).__name__}).")
    return right(answer) if same else wrong(answer)


@lru_cache(maxsize=1024)
def _parse(content: str) -> tuple[Any, ...]:
    """The sympy objects that math-verify reads from a box of this content; empty if it reads none."""
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: the library's fallback would fish any number out of text that it could not read.
    config = [LatexExtractionConfig(boxed_match_priority=0)]
    boxed = write_box(_prepare(content))
    return tuple(parse(boxed, extraction_config=config, fallback_mode="no_fallback", parsing_timeout=None))


def _prepare(content: str) -> str:
    """What the parser misreads, written as it reads it."""
    text = tidy(content)
    text = MEMBER.sub("", text, count=1) if MEMBER.match(text) else text
    text = THOUSANDS.sub("", text)
    text = REPEATING.sub(_repeating, text)
    text = SCIENTIFIC.sub(r"\1 \\times 10^{\2}", text)
    text = MIXED.sub(r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"\*\*\s*\(?(-?\d+)\)?", r"^{\1}", text).replace("**", "^")
    return PLAIN_PI.sub(r"\\pi ", text)


def _repeating(match: re.Match[str]) -> str:
    number = read_number(match[0] if match[1] else "0" + match[0])
    return match[0] if number is None else rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _same_text(answer: str, gold: str) -> bool:
    if _is_words(gold):
        return _words(answer) == _words(gold)
    return "".join(tidy(answer).split()) == "".join(tidy(gold).split()) != ""


def _words(text: str) -> str:
    return " ".join(unwrap_all_text(tidy(text)).casefold().replace(",", " ").split())


def _is_words(gold: str) -> bool:
    r"""Whether the gold is words rather than a product of letters: in `\text{}`, or several letters with a space."""
    text = tidy(gold)
    unwrapped = unwrap_text(text)
    if unwrapped != text:
        return WORDS.fullmatch(unwrapped) is not None
    return WORDS.fullmatch(text) is not None and len(text) >= 4


def _close(gold: Number, number: Number) -> bool:
    if not (gold.decimal or number.decimal):
        return same_number(gold, number)
    # Six places, or six significant digits where the number is below 1.
    return same_number(gold, number, rel_tol=DECIMAL_TOLERANCE / max(Fraction(1), abs(gold.value)))


def _too_large(expression: Any) -> bool:
    """Whether evaluating would build a number of more than 5000 digits."""
    from sympy import Pow, factorial, preorder_traversal

    return any(
        (isinstance(node, Pow) and _digits(node) > MAX_DIGITS)
        or (isinstance(node, factorial) and _magnitude(node.args[0]) > 3)
        for node in preorder_traversal(expression)
    )


def _digits(power: Any) -> float:
    """About how many digits a numeric power has, without computing it; 0 where the base holds a symbol."""
    base, exponent = power.args
    if base.free_symbols or exponent.free_symbols:
        return 0.0
    exponent_magnitude = _magnitude(exponent)
    if exponent_magnitude > 9:
        return math.inf
    return float(10**exponent_magnitude * max(abs(_magnitude(base)), 0.3))


def _magnitude(expression: Any) -> float:
    """An upper bound of log10 |value| of a numeric expression, for the node types that can grow fast."""
    from sympy import Add, Float, Mul, Pow, Rational, factorial

    if isinstance(expression, Rational):
        top, low = abs(int(expression.p)), int(expression.q)
        return (_log10(top) - _log10(low)) if top else 0.0
    if isinstance(expression, Float):
        return math.log10(abs(float(expression)) or 1.0)
    if isinstance(expression, Pow):
        return _digits(expression)
    if isinstance(expression, Mul):
        return sum(_magnitude(arg) for arg in expression.args)
    if isinstance(expression, Add):
        return max(_magnitude(arg) for arg in expression.args) + math.log10(len(expression.args))
    if isinstance(expression, factorial):
        magnitude = _magnitude(expression.args[0])
        return math.inf if magnitude > 9 else 10**magnitude * max(magnitude, 1.0)
    return 1.0


def _log10(number: int) -> float:
    return math.log10(number) if number.bit_length() < 1000 else number.bit_length() * math.log10(2)
