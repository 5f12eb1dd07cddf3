r"""A formula as a tree: numbers, symbols, constants and operations on them, nothing evaluated.

Operations (`Op.name`): `+`, `*`, `/`, `^`, `neg`, `root` (radicand, degree), `abs`, `!`, `!!`, `binom`, `log` (of a
base: argument, base; without: argument, whose base is open), `pm` and `mp` (one argument), `degree`, `floor`, `ceil`,
and functions by their LaTeX names (`sin`, `arcsin`, `exp`, `ln`, ...).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

MAX_EXACT_BITS = 20_000
"""Numbers beyond this are not computed exactly: about 6000 digits."""


@dataclass(frozen=True, slots=True)
class Num:
    """A number as written; `decimal` where it has a decimal point, and may so be rounded."""

    value: Fraction
    decimal: bool = False


@dataclass(frozen=True, slots=True)
class Sym:
    """A letter with its case, its subscript and its primes; `\\hat{i}` for a unit vector."""

    name: str


@dataclass(frozen=True, slots=True)
class Const:
    """`pi`, `e`, `i` or `infty`."""

    name: str


@dataclass(frozen=True, slots=True)
class Op:
    """An operation on formulas."""

    name: str
    args: tuple[Formula, ...]


Formula = Num | Sym | Const | Op


class NoValueError(ValueError):
    """The formula has no value at this point."""


class TooLargeError(ValueError):
    """A number in the formula is too large to be computed."""


def nodes(formula: Formula) -> Iterator[Formula]:
    """The formula and everything in it."""
    waiting = [formula]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, Op):
            waiting.extend(node.args)


def symbols(formula: Formula) -> frozenset[str]:
    """The names of its symbols."""
    return frozenset(node.name for node in nodes(formula) if isinstance(node, Sym))


def has_decimal(formula: Formula) -> bool:
    """Whether a number in it was written with a decimal point."""
    return any(isinstance(node, Num) and node.decimal for node in nodes(formula))


def uses(formula: Formula, *names: str) -> bool:
    """Whether an operation or constant of one of these names occurs."""
    return any(isinstance(node, Op | Const) and node.name in names for node in nodes(formula))


def rational(formula: Formula) -> Fraction | None:
    """Its exact value, where it is a rational number whose computation stays small; else None."""
    match formula:
        case Num(value=value):
            return value
        case Op(name=name, args=args):
            values = [rational(arg) for arg in args]
            if any(value is None for value in values):
                return None
            return _apply(name, [value for value in values if value is not None])
    return None


def _apply(name: str, values: list[Fraction]) -> Fraction | None:
    first, last = values[0], values[-1]
    if name == "+":
        return _small(sum(values, Fraction(0)))
    if name == "*":
        total: Fraction | None = Fraction(1)
        for value in values:
            total = None if total is None else _small(total * value)
        return total
    if name == "/":
        return _small(first / last) if last else None
    if name == "neg":
        return -first
    if name == "abs":
        return abs(first)
    if name == "floor":
        return Fraction(first.numerator // first.denominator)
    if name == "ceil":
        return Fraction(-(-first.numerator // first.denominator))
    if name == "^":
        return _power(first, last)
    if name in ("!", "!!"):
        return _factorial(first, 1 if name == "!" else 2)
    if name == "binom":
        return _binomial(first, last)
    if name == "root":
        return _root(first, last)
    return None


def _small(value: Fraction) -> Fraction | None:
    return value if max(value.numerator.bit_length(), value.denominator.bit_length()) <= MAX_EXACT_BITS else None


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        found = _root(base, Fraction(exponent.denominator))
        return None if found is None else _power(found, Fraction(exponent.numerator))
    if base == 0 and exponent <= 0:
        return None
    if base in (0, 1):
        return base
    if base == -1:
        return base if exponent % 2 else -base
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base**exponent.numerator if bits * abs(exponent) <= MAX_EXACT_BITS else None


def _factorial(value: Fraction, step: int) -> Fraction | None:
    if value.denominator != 1 or not 0 <= value <= 2000:
        return None
    total = 1
    for factor in range(value.numerator, 1, -step):
        total *= factor
    return _small(Fraction(total))


def _binomial(top: Fraction, low: Fraction) -> Fraction | None:
    if top.denominator != 1 or low.denominator != 1 or top < 0:
        return None
    n, k = top.numerator, low.numerator
    if not 0 <= k <= n:
        return Fraction(0)
    k = min(k, n - k)
    if k * n.bit_length() > MAX_EXACT_BITS:
        return None
    total = 1
    for j in range(k):
        total = total * (n - j) // (j + 1)
    return _small(Fraction(total))


def _root(value: Fraction, degree: Fraction) -> Fraction | None:
    if degree.denominator != 1 or not 1 <= degree <= 64:
        return None
    n = degree.numerator
    sign = -1 if value < 0 and n % 2 else 1
    if value * sign < 0:
        return None
    top, low = _integer_root(abs(value.numerator), n), _integer_root(value.denominator, n)
    return None if top is None or low is None else Fraction(sign * top, low)


def _integer_root(value: int, degree: int) -> int | None:
    """The exact root, or None."""
    if value < 2:
        return value
    low, high = 1, 1 << (value.bit_length() // degree + 1)
    while low < high:
        middle = (low + high + 1) // 2
        if middle**degree <= value:
            low = middle
        else:
            high = middle - 1
    return low if low**degree == value else None
