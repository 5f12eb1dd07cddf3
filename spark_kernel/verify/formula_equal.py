"""Whether two formulas are equal: exactly where both are rational, else by their values at fixed points.

Symbols stand for real numbers. Two formulas are equal where they agree at every point at which both have a value, so
`\\sqrt{ab}` is `\\sqrt{a}\\sqrt{b}` and `\\sqrt{x^2}` is not `x`. Agreement is decided by precision: a difference that
shrinks with more digits is 0, one that stays is none, however tiny.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from itertools import product
from random import Random
from typing import Any

from spark_kernel.verify.formula import (
    Const,
    Formula,
    NoValueError,
    Num,
    Op,
    TooLargeError,
    has_decimal,
    nodes,
    rational,
    symbols,
    uses,
)

DIGITS = 40
MAX_EXTRA_DIGITS = 4000
MAX_SYMBOLS = 12
MAX_SIGNS = 4
WANTED = 3
MAX_EXACT_FACTORIAL = 2000
TOLERANCE = Fraction(1, 10**6)
SLACK = 1e-6 * (1 + 1e-6)
SIGN_MATTERS = ("abs", "root", "^", "log", "ln", "floor", "ceil", "arcsin", "arccos")
SCALES = ((0.1, 0.9), (1.1, 3.0), (0.2, 1.6), (3.0, 20.0), (0.3, 0.7), (20.0, 90.0))


def equal(gold: Formula, answer: Formula) -> bool | None:
    """Whether the formulas are equal; None where that cannot be decided. Neither holds `pm` or `mp`."""
    if gold == answer:
        return True
    if uses(gold, "infty") or uses(answer, "infty"):
        return _signed_infinity(gold) is not None and _signed_infinity(gold) == _signed_infinity(answer)
    ours, theirs = rational(gold), rational(answer)
    if ours is not None and theirs is not None:
        if has_decimal(gold) or has_decimal(answer):
            return abs(ours - theirs) <= TOLERANCE * min(Fraction(1), abs(ours))
        return ours == theirs
    names = sorted(symbols(gold) | symbols(answer))
    if len(names) > MAX_SYMBOLS:
        return None
    bases = (10, 0) if _open_base(gold) or _open_base(answer) else (10,)
    findings = [_equal_at_points(gold, answer, names, base) for base in bases]
    return True if True in findings else findings[0]


def expand_signs(formula: Formula) -> list[Formula]:
    r"""The formulas that `\pm` and `\mp` stand for; the formula itself where there is none.

    With `\mp`, upper signs belong together. Without, each `\pm` is free (the four roots of `\pm\sqrt2\pm\sqrt3`).
    """
    places = sum(isinstance(node, Op) and node.name in ("pm", "mp") for node in nodes(formula))
    if not places:
        return [formula]
    if places > MAX_SIGNS:
        return []
    if uses(formula, "mp"):
        choices: list[tuple[bool, ...]] = [(upper,) * places for upper in (True, False)]
    else:
        choices = list(product((True, False), repeat=places))
    return [_signed(formula, iter(choice)) for choice in choices]


def _signed(formula: Formula, upper: Any) -> Formula:
    if not isinstance(formula, Op):
        return formula
    plus = next(upper) if formula.name in ("pm", "mp") else True
    args = tuple(_signed(arg, upper) for arg in formula.args)
    if formula.name not in ("pm", "mp"):
        return Op(formula.name, args)
    return args[0] if plus == (formula.name == "pm") else Op("neg", args)


def _signed_infinity(formula: Formula) -> int | None:
    match formula:
        case Const(name="infty"):
            return 1
        case Op(name="neg", args=(Const(name="infty"),)):
            return -1
    return None


def _open_base(formula: Formula) -> bool:
    return any(isinstance(node, Op) and node.name == "log" and len(node.args) == 1 for node in nodes(formula))


def _equal_at_points(gold: Formula, answer: Formula, names: list[str], base: int) -> bool | None:
    digits = DIGITS + min(MAX_EXTRA_DIGITS, _extent(gold) + _extent(answer))
    close = has_decimal(gold) or has_decimal(answer)
    rules = (False,) if uses(gold, "i") or uses(answer, "i") else (True, False)
    signs = uses(gold, *SIGN_MATTERS) or uses(answer, *SIGN_MATTERS)
    for real in rules:
        agreed = 0
        for point in _points(tuple(names), signs):
            try:
                same = _same(gold, answer, point, digits, real, base, close)
            except NoValueError:
                continue
            except TooLargeError:
                return False  # no tree of the same form, and too large to compare by value
            if not same:
                return False
            agreed += 1
        if agreed >= (WANTED if names else 1):
            return True
    return None


def _same(
    gold: Formula, answer: Formula, point: dict[str, float], digits: int, real: bool, base: int, close: bool
) -> bool:
    from spark_kernel.verify.formula_value import value_at  # loads mpmath, which whole numbers never need

    ours = value_at(gold, point, digits=digits, real=real, log_base=base)
    theirs = value_at(answer, point, digits=digits, real=real, log_base=base)
    difference = abs(ours - theirs)
    if difference == 0:
        return True
    if close:
        return bool(difference <= SLACK * (abs(ours) if point else min(1, abs(ours))))
    # Far apart at this many digits, and no sums in which they could have been lost.
    if (
        difference > abs(ours) * 1e-3
        and abs(ours) > 1e-12
        and abs(theirs) > 1e-12
        and max(abs(ours), abs(theirs)) < 1e12
    ):
        return False
    more = 2 * digits
    again = abs(
        value_at(gold, point, digits=more, real=real, log_base=base)
        - value_at(answer, point, digits=more, real=real, log_base=base)
    )
    return bool(again * 10 ** (digits // 3) <= difference)


def _extent(formula: Formula) -> int:
    """How many digits its numbers and powers may span."""
    total = 0.0
    for node in nodes(formula):
        if isinstance(node, Num):
            total += (node.value.numerator.bit_length() + node.value.denominator.bit_length()) * 0.302
        elif isinstance(node, Op) and node.name in ("^", "exp"):
            exponent = rational(node.args[-1])
            base = rational(node.args[0])
            if exponent is not None:
                bits = max(base.numerator.bit_length(), base.denominator.bit_length()) if base is not None else 3
                total += float(min(abs(exponent), Fraction(MAX_EXTRA_DIGITS))) * 0.302 * min(bits, 10_000)
        elif isinstance(node, Op) and node.name in ("!", "binom"):
            argument = rational(node.args[0])
            if argument is not None and 1 < argument <= MAX_EXACT_FACTORIAL:
                total += float(argument) * math.log10(float(argument))
    return int(min(total, MAX_EXTRA_DIGITS))


@lru_cache(maxsize=256)
def _points(names: tuple[str, ...], signs: bool) -> tuple[dict[str, float], ...]:
    """Where to compare: positive points of several scales; where signs matter, also with one coordinate negative.

    One at a time: `\\sqrt{a/b}` is `\\sqrt{ab}/b` for positive symbols, and has a value again where both are negative.
    """
    if not names:
        return ({},)
    points = []
    for place in range(len(SCALES) + (2 * len(names) + 2 if signs else 0)):
        low, high = SCALES[place % len(SCALES)]
        point = {}
        for name in names:
            value = Random(f"{place} {name}").uniform(low, high)
            negative = place >= len(SCALES) and name == names[place % len(names)]
            point[name] = -value if negative else value
        points.append(point)
    return tuple(points)
