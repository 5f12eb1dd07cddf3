r"""Equations, inequalities and conditions: labels are taken off, conditions on one variable become sets of numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from spark_kernel.verify.answer_types import (
    Approximated,
    Equation,
    Expression,
    Labelled,
    Listing,
    Name,
    Ratio,
    Region,
    Value,
)
from spark_kernel.verify.formula import Formula, NoValueError, Num, Sym, TooLargeError, rational, symbols
from spark_kernel.verify.formula_equal import equal
from spark_kernel.verify.formula_reader import read_formula
from spark_kernel.verify.labels import label_symbol
from spark_kernel.verify.numbers import Number
from spark_kernel.verify.regions import (
    INFINITY,
    MINUS_INFINITY,
    UnorderedError,
    complement,
    intersected,
    interval,
    point,
    united,
)
from spark_kernel.verify.splitting import split_items, split_relations

Read = Callable[[str], Value | None]

CONSEQUENCE = re.compile(r"\\(?:Rightarrow|implies|Longrightarrow|therefore|iff|Leftrightarrow)(?![A-Za-z])|=>")
ORDERS = ("<", ">", "\\leq", "\\geq")
TURNED = {"<": ">", ">": "<", "\\leq": "\\geq", "\\geq": "\\leq"}


def read_relations(text: str, read: Read) -> Value | None:
    """What an equation, an inequality or a membership states; None where the text is none, or contradicts itself."""
    *before, text = (part.strip() for part in CONSEQUENCE.split(text))
    sides, signs = split_relations(text)
    if not signs:
        return read(text) if before else None
    if not sides[-1]:
        return None
    if set(signs) == {"="} or set(signs) == {"=", "\\approx"} or set(signs) == {"\\approx"}:
        return _equation(sides, signs, read)
    if signs == ["\\in"]:
        return _membership(sides, read)
    if signs == ["\\neq"]:
        return _different(sides, read)
    if all(sign in ORDERS for sign in signs) and len(signs) <= 2:
        return _inequality(sides, signs, read)
    return None


def plain_formula(value: Value | None) -> Formula | None:
    """A value as one formula: a number without its unit, an expression, a name as a product."""
    if isinstance(value, Number):
        return Num(value.value / 100 if value.percent else value.value, value.decimal)
    if isinstance(value, Expression | Name):
        return value.formula
    return None


def agree(one: Value, other: Value) -> bool:
    """Whether two sides of an equation without symbols have the same value."""
    ours, theirs = plain_formula(one), plain_formula(other)
    return ours is not None and theirs is not None and equal(ours, theirs) is True


def rounds_to(exact: Value, rounded: Value) -> bool:
    """Whether a decimal is a value rounded to its own last place, or to the last but one."""
    ours, theirs = plain_formula(exact), plain_formula(rounded)
    if ours is None or theirs is None or symbols(ours) or symbols(theirs):
        return False
    from spark_kernel.verify.formula_value import value_at

    shown = rational(theirs)
    if shown is None:
        return False
    try:
        difference = abs(value_at(ours, {}, digits=40) - value_at(theirs, {}, digits=40))
    except (NoValueError, TooLargeError):
        return False
    places = 0
    while (shown * 10**places).denominator != 1 and places < 30:
        places += 1
    return bool(difference <= 10.0**-places) or bool(difference <= abs(float(shown)) * 0.01)


def as_region(value: Value) -> Region | None:
    """A value that can be a set of numbers, as one; a pair in round brackets is an open interval.

    None also where its numbers have no order that can be found.
    """
    try:
        return _ordered(value)
    except UnorderedError:
        return None


def _ordered(value: Value) -> Region | None:
    if isinstance(value, Region):
        return value
    if isinstance(value, Labelled) and value.symbol:
        inner = value.value
        formulas = (
            [plain_formula(item) for item in inner.items] if isinstance(inner, Listing) else [plain_formula(inner)]
        )
        if any(formula is None for formula in formulas):
            return None
        return united([point(formula, value.symbol) for formula in formulas if formula is not None])
    if not isinstance(value, Listing):
        return None
    formulas = [plain_formula(item) for item in value.items]
    ends = [formula for formula in formulas if formula is not None]
    if len(ends) != len(formulas):
        return None
    if value.kind in ("tuple", "bracket") and len(ends) == 2:
        closed = value.kind == "bracket"
        return interval(ends[0], ends[1], closed, closed)
    if value.kind in ("set", "list"):
        return united([point(end) for end in ends])
    return None


def _equation(sides: list[str], signs: list[str], read: Read) -> Value | None:
    if len(sides) == 2 and label_symbol(sides[0]) is None and isinstance(read_formula(sides[1]), Sym):
        sides = [sides[1], sides[0]]  # "5 = x"
    symbol = label_symbol(sides[0])
    if symbol is not None and (pair := _coordinates(sides, read)) is not None:
        return pair
    values = [read(side) for side in (sides[1:] if symbol is not None else sides)]
    known = [value for value in values if value is not None]
    if len(known) != len(values) or any(isinstance(value, Labelled | Equation) for value in known):
        return None
    if symbol is None and (pair := _coordinates(sides, read)) is not None:
        return pair
    formulas = [plain_formula(value) for value in known]
    free = [formula is not None and bool(symbols(formula)) for formula in formulas]
    if symbol is None and len(known) == 2 and (free[0] or free[1]) and "\\approx" not in signs:
        left, right = formulas
        if left is None or right is None:
            return None
        if equal(left, right) is not True:
            return Equation(left, right)
    value = _chain(known, signs[1:] if symbol is not None else signs)
    if value is None or symbol is None:
        return value
    return Labelled(sides[0], value, symbol)


def _chain(values: list[Value], signs: list[str]) -> Value | None:
    """The one value of several sides, where they agree: the plain number among them, else the first."""
    found = values[0]
    rounded: Value | None = None
    for sign, value in zip(signs, values[1:], strict=True):
        if sign == "\\approx" or (rounded is None and not agree(found, value) and _is_decimal(value)):
            if not rounds_to(found, value):
                return None
            rounded = value
        elif not agree(rounded or found, value):
            return None
        elif rounded is None and isinstance(value, Number):
            found = found if isinstance(found, Number) else value
    return found if rounded is None else Approximated(found, rounded)


def _is_decimal(value: Value) -> bool:
    return isinstance(value, Number) and value.decimal


def _coordinates(sides: list[str], read: Read) -> Value | None:
    """`(x, y) = (1, 2)` and `x:y = 3:4`: names on the left, values on the right."""
    if len(sides) != 2:
        return None
    left, right = sides
    if left.startswith("(") and left.endswith(")"):
        names = split_items(left[1:-1])
        found = read(right)
        if all(isinstance(read_formula(name), Sym) for name in names) and isinstance(found, Listing):
            return found if len(found.items) == len(names) or found.kind in ("list", "set") else None
        return None
    if ":" in left:
        found = read(right)
        if isinstance(found, Ratio) and all(label_symbol(name) is not None for name in left.split(":")):
            return found
    return None


def _membership(sides: list[str], read: Read) -> Value | None:
    variable = read_formula(sides[0])
    value = read(sides[1])
    if not isinstance(variable, Sym) or value is None:
        return None
    region = as_region(value)
    return Region(region.parts, variable.name) if region is not None else None


def _different(sides: list[str], read: Read) -> Value | None:
    variable = read_formula(sides[0])
    value = read(sides[1])
    if not isinstance(variable, Sym) or value is None:
        return None
    items = value.items if isinstance(value, Listing) and value.kind in ("list", "set") else (value,)
    points = [plain_formula(item) for item in items]
    if any(end is None for end in points):
        return None
    try:
        return complement(united([point(end, variable.name) for end in points if end is not None]))
    except UnorderedError:
        return None


def _inequality(sides: list[str], signs: list[str], read: Read) -> Value | None:
    formulas = [plain_formula(read(side)) for side in sides]
    if len(signs) == 1:
        one, other = formulas
        if isinstance(other, Sym) and not isinstance(one, Sym):
            one, other, signs = other, one, [TURNED[signs[0]]]
        if not isinstance(one, Sym) or other is None or one.name in symbols(other):
            return None
        return _half_line(one.name, signs[0], other)
    low, middle, high = formulas
    if not isinstance(middle, Sym) or low is None or high is None or middle.name in symbols(low) | symbols(high):
        return None
    try:
        return intersected([_half_line(middle.name, TURNED[signs[0]], low), _half_line(middle.name, signs[1], high)])
    except UnorderedError:
        if signs[0] in ("<", "\\leq") and signs[1] in ("<", "\\leq"):
            return interval(low, high, signs[0] == "\\leq", signs[1] == "\\leq", middle.name)
        return None


def _half_line(name: str, sign: str, end: Formula) -> Region:
    if sign in ("<", "\\leq"):
        return interval(MINUS_INFINITY, end, False, sign == "\\leq", name)
    return interval(end, INFINITY, sign == "\\geq", False, name)
