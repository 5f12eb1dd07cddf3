"""What a formula is worth at a point, to any number of digits (mpmath). Nothing large is ever computed.

Real rules: an even root or a logarithm of a negative number has no value, an odd root of one has a negative value.
Complex rules (`real=False`): principal values.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import mpmath

from spark_kernel.verify.formula import Const, Formula, NoValueError, Num, Op, Sym, TooLargeError, rational
from spark_kernel.verify.word_lists import words

MAX_EXPONENT = 10**7
"""A power beyond 10 to this is not computed."""
ERRORS = (ArithmeticError, ValueError, TypeError, NotImplementedError, mpmath.libmp.NoConvergence)


def value_at(formula: Formula, point: Mapping[str, Any], *, digits: int, real: bool = True, log_base: int = 10) -> Any:
    """The value as mpmath's real or complex number.

    Args:
        formula: without `pm` and `mp` (`formula_equal.expand_signs`).
        point: a value for every symbol.
        digits: working precision in decimal digits.
        real: real rules, else complex ones.
        log_base: the base of a logarithm that names none; 0 for the natural one.

    Raises:
        NoValueError, TooLargeError: see there.
    """
    with mpmath.workdps(digits):
        evaluator = _Evaluator(point, digits, real, log_base)
        try:
            found = evaluator.value(formula)
        except (NoValueError, TooLargeError):
            raise
        except ERRORS as error:
            raise NoValueError(str(error)) from error
        if not mpmath.isfinite(found):
            raise NoValueError("infinite")
        return found


class _Evaluator:
    def __init__(self, point: Mapping[str, Any], digits: int, real: bool, log_base: int) -> None:
        self._point = point
        self._digits = digits
        self._real = real
        self._log_base = log_base

    def value(self, formula: Formula) -> Any:
        if isinstance(formula, Num):
            return _exact(formula.value)
        if isinstance(formula, Sym):
            return mpmath.mpf(self._point[formula.name])
        if isinstance(formula, Const):
            return self._constant(formula.name)
        exact = rational(formula) if formula.name in ("!", "!!", "binom") else None
        if exact is not None:
            return _exact(exact)
        arguments = [self.value(argument) for argument in formula.args]
        method = getattr(self, "_" + NAMES.get(formula.name, "function"))
        return self._kept(method(formula, arguments))

    def _kept(self, found: Any) -> Any:
        if not self._real:
            return found
        if isinstance(found, mpmath.mpc):
            raise NoValueError("not real")
        return found

    def _constant(self, name: str) -> Any:
        if name == "pi":
            return +mpmath.pi
        if name == "e":
            return +mpmath.e
        if name == "i" and not self._real:
            return mpmath.mpc(0, 1)
        raise NoValueError(f"{name} has no real value")

    def _add(self, _: Op, values: list[Any]) -> Any:
        return mpmath.fsum(values) if self._real else sum(values, mpmath.mpf(0))

    def _multiply(self, _: Op, values: list[Any]) -> Any:
        return mpmath.fprod(values)

    def _divide(self, _: Op, values: list[Any]) -> Any:
        return values[0] / values[1]

    def _negate(self, _: Op, values: list[Any]) -> Any:
        return -values[0]

    def _absolute(self, _: Op, values: list[Any]) -> Any:
        return abs(values[0])

    def _degree(self, _: Op, values: list[Any]) -> Any:
        return values[0] * mpmath.pi / 180

    def _floor(self, formula: Op, values: list[Any]) -> Any:
        if isinstance(values[0], mpmath.mpc):
            raise NoValueError("complex")
        nearest = mpmath.nint(values[0])
        if abs(values[0] - nearest) < mpmath.mpf(10) ** (-self._digits // 2):
            return nearest  # a whole number but for rounding
        return mpmath.floor(values[0]) if formula.name == "floor" else mpmath.ceil(values[0])

    def _power(self, formula: Op, values: list[Any]) -> Any:
        base, exponent = values
        exact = rational(formula.args[1])
        if base == 0:
            return _zero_power(exponent)
        size = abs(mpmath.log(abs(base)) * abs(exponent))
        if size > MAX_EXPONENT:
            raise TooLargeError("a power")
        if exact is not None and exact.denominator == 1:
            return base ** int(exact)
        if self._real and exact is not None and exact.denominator % 2 and base < 0:
            found = mpmath.power(-base, exponent)
            return -found if exact.numerator % 2 else found
        return mpmath.power(base, exponent)

    def _root(self, formula: Op, values: list[Any]) -> Any:
        radicand, index = values
        degree = rational(formula.args[1])
        if degree == 2:
            return mpmath.sqrt(radicand)
        if self._real and radicand < 0 and degree is not None and degree.denominator == 1 and degree % 2:
            return -mpmath.power(-radicand, 1 / index)
        if radicand == 0:
            return mpmath.mpf(0)
        return mpmath.power(radicand, 1 / index)

    def _factorial(self, formula: Op, values: list[Any]) -> Any:
        if abs(values[0]) > 10**15:
            raise TooLargeError("a factorial")
        return mpmath.factorial(values[0]) if formula.name == "!" else mpmath.fac2(values[0])

    def _binomial(self, _: Op, values: list[Any]) -> Any:
        if max(abs(value) for value in values) > 10**15:
            raise TooLargeError("a binomial")
        top, low = values
        if self._real and top >= low >= 0:
            logs = mpmath.loggamma(top + 1) - mpmath.loggamma(low + 1) - mpmath.loggamma(top - low + 1)
            return mpmath.exp(logs)
        return mpmath.binomial(top, low)

    def _logarithm(self, formula: Op, values: list[Any]) -> Any:
        if values[0] == 0:
            raise NoValueError("log 0")
        found = mpmath.log(values[0])
        if formula.name == "ln":
            return found
        if len(values) == 2:
            return found / mpmath.log(values[1])
        return found / mpmath.log(self._log_base) if self._log_base else found

    def _exponential(self, _: Op, values: list[Any]) -> Any:
        if abs(values[0]) > MAX_EXPONENT:
            raise TooLargeError("an exponential")
        return mpmath.exp(values[0])

    def _function(self, formula: Op, values: list[Any]) -> Any:
        name = FUNCTIONS.get(formula.name)
        if name is None:
            raise NoValueError(f"{formula.name} has no value")
        if abs(values[0]) > mpmath.mpf(10) ** 12:
            raise TooLargeError("an argument")
        return getattr(mpmath, name)(values[0])


NAMES = {
    "+": "add",
    "*": "multiply",
    "/": "divide",
    "neg": "negate",
    "abs": "absolute",
    "degree": "degree",
    "floor": "floor",
    "ceil": "floor",
    "^": "power",
    "root": "root",
    "!": "factorial",
    "!!": "factorial",
    "binom": "binomial",
    "log": "logarithm",
    "ln": "logarithm",
    "exp": "exponential",
}
FUNCTIONS = {
    name: name.replace("arc", "a")
    for name in words("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth")
}


def _exact(value: Fraction) -> Any:
    return mpmath.mpf(value.numerator) / value.denominator


def _zero_power(exponent: Any) -> Any:
    if isinstance(exponent, mpmath.mpc) or exponent < 0:
        raise NoValueError("0 to a negative power")
    return mpmath.mpf(1 if exponent == 0 else 0)
