"""Whether an answer's value is the gold's: by the kind of value that the gold is. None where this cannot decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from spark_kernel.verify.answer_types import (
    Approximated,
    Based,
    Cases,
    Clock,
    Date,
    Equation,
    Expression,
    Labelled,
    Listing,
    Matrix,
    Name,
    Option,
    Ratio,
    Region,
    Span,
    Value,
    Words,
)
from spark_kernel.verify.clock_dates import same_clock, same_date
from spark_kernel.verify.equations import same_equation
from spark_kernel.verify.formula import Const, Formula, Num, Op, Sym, symbols, uses
from spark_kernel.verify.formula_equal import TOLERANCE, equal
from spark_kernel.verify.numbers import Number, same_number
from spark_kernel.verify.question_form import Form
from spark_kernel.verify.regions import UnorderedError, same_region
from spark_kernel.verify.relations import as_region, plain_formula
from spark_kernel.verify.structures import coordinates
from spark_kernel.verify.unit_table import KNOWN
from spark_kernel.verify.units import Unit

ORDERED = ("tuple", "vector")
MAX_ITEMS = 64
DEGREE = KNOWN["degree"]


def same_value(gold: Value, answer: Value, form: Form) -> bool | None:
    """Whether they are equal. Equations answer equations, sets answer sets, numbers answer numbers.

    Labels (`x =`) count only where both have one; units likewise (`numbers.same_number`).
    """
    if isinstance(gold, Labelled) or isinstance(answer, Labelled):
        return _labelled(gold, answer, form)
    if isinstance(gold, Equation) or isinstance(answer, Equation):
        if isinstance(gold, Equation) and isinstance(answer, Equation):
            return same_equation(gold, answer)
        return False
    if isinstance(gold, Approximated | Option) or isinstance(answer, Approximated | Option):
        return _either(gold, answer, form)
    if isinstance(gold, Region) or isinstance(answer, Region):
        return _regions(gold, answer)
    if isinstance(gold, Matrix) or isinstance(answer, Matrix):
        return _matrices(gold, answer, form)
    if isinstance(gold, Listing) or isinstance(answer, Listing):
        return _listings(gold, answer, form)
    if isinstance(gold, Ratio) or isinstance(answer, Ratio):
        return _ratios(gold, answer)
    for kind, same in SAME_KIND:
        if isinstance(gold, kind) or isinstance(answer, kind):
            return isinstance(gold, kind) and isinstance(answer, kind) and same(gold, answer, form)
    if isinstance(gold, Based) or isinstance(answer, Based):
        return _based(gold, answer, form)
    return _formulas(gold, answer, form)


def close_numbers(gold: Number, answer: Number, form: Form) -> bool:
    """Exactly, or to six places where a decimal is on either side (six significant digits below 1)."""
    if not form.degrees and DEGREE in (gold.unit, answer.unit) and gold.unit != answer.unit:
        return False
    tolerance = TOLERANCE / max(ONE, abs(gold.value)) if gold.decimal or answer.decimal else 0
    return same_number(gold, answer, percent=form.percent, rel_tol=tolerance)


def _labelled(gold: Value, answer: Value, form: Form) -> bool | None:
    if isinstance(gold, Labelled) and isinstance(answer, Labelled):
        same = same_value(gold.value, answer.value, form)
        if not (gold.symbol and answer.symbol and gold.symbol != answer.symbol):
            return same
        one, other = _as_equation(gold), _as_equation(answer)
        open_both = one is not None and other is not None and bool(symbols(one.right)) and bool(symbols(other.right))
        return same_equation(one, other) if open_both and one and other else False
    labelled, plain = (gold, answer) if isinstance(gold, Labelled) else (answer, gold)
    assert isinstance(labelled, Labelled)
    if isinstance(plain, Equation):
        equation = _as_equation(labelled)
        if equation is None:
            return False
        return same_equation(*((equation, plain) if labelled is gold else (plain, equation)))
    if isinstance(plain, Region):
        region = as_region(labelled)
        return region is not None and same_region(plain, region)
    inner = labelled.value
    return same_value(inner, answer, form) if labelled is gold else same_value(gold, inner, form)


def _as_equation(labelled: Labelled) -> Equation | None:
    right = plain_formula(labelled.value)
    return Equation(Sym(labelled.symbol), right) if labelled.symbol and right is not None else None


def _either(gold: Value, answer: Value, form: Form) -> bool | None:
    """An exact value with its rounding answers as one or as the other; an option as its letter or as its value."""
    findings = [same_value(one, other, form) for one in _readings(gold) for other in _readings(answer)]
    return True if True in findings else None if None in findings else False


def _readings(value: Value) -> tuple[Value, ...]:
    if isinstance(value, Approximated):
        return (value.exact, value.rounded)
    if isinstance(value, Option):
        return (Expression(Sym(value.letter)), value.value)
    return (value,)


def _regions(gold: Value, answer: Value) -> bool | None:
    for value in (gold, answer):
        if isinstance(value, Listing) and value.kind == "list":
            return False  # a list of numbers is no condition
    ours, theirs = as_region(gold), as_region(answer)
    if ours is None or theirs is None:
        return False
    if any(part.low == part.high for region in (ours, theirs) for part in region.parts) and not _both_regions(
        gold, answer
    ):
        return False  # a set of single numbers is no interval
    try:
        return same_region(ours, theirs)
    except UnorderedError:
        return None


def _both_regions(gold: Value, answer: Value) -> bool:
    sets = [
        isinstance(value, Region) or (isinstance(value, Listing) and value.kind == "set") for value in (gold, answer)
    ]
    return all(sets)


def _matrices(gold: Value, answer: Value, form: Form) -> bool | None:
    if isinstance(gold, Matrix) and isinstance(answer, Matrix):
        if [len(row) for row in gold.rows] != [len(row) for row in answer.rows]:
            return False
        pairs = zip(_cells(gold), _cells(answer), strict=True)
        return _all([equal(one, other) for one, other in pairs])
    matrix, other = (gold, answer) if isinstance(gold, Matrix) else (answer, gold)
    assert isinstance(matrix, Matrix)
    if not isinstance(other, Listing):
        return False
    nested = len(matrix.rows) == 1 or all(len(row) == 1 for row in matrix.rows)
    if not nested or other.kind not in (*ORDERED, "bracket"):
        return False
    items = tuple(Expression(cell) for cell in _cells(matrix))
    as_vector = Listing("vector", items)
    # `[1, 2]` beside a matrix is a row.
    plain = Listing("vector", other.items)
    return _listings(as_vector, plain, form) if matrix is gold else _listings(plain, as_vector, form)


def _cells(matrix: Matrix) -> list[Formula]:
    return [cell for row in matrix.rows for cell in row]


def _listings(gold: Value, answer: Value, form: Form) -> bool | None:
    if not (isinstance(gold, Listing) and isinstance(answer, Listing)):
        return _vector_of_letters(gold, answer, form)
    ours, theirs = _family(gold), _family(answer)
    if ours != theirs or max(len(gold.items), len(answer.items)) > MAX_ITEMS:
        return False
    if ours == "set":
        return _same_members(gold.items, answer.items, form)
    if len(gold.items) != len(answer.items):
        return False
    return _all([same_value(one, other, form) for one, other in zip(gold.items, answer.items, strict=True)])


def _vector_of_letters(gold: Value, answer: Value, form: Form) -> bool | None:
    """`2i + 3j` beside `(2, 3)`."""
    listing, other = (gold, answer) if isinstance(gold, Listing) else (answer, gold)
    if not isinstance(other, Expression) or not isinstance(listing, Listing) or listing.kind not in ORDERED:
        return False
    vector = coordinates(_with_letters(other.formula), ("i", "j", "k"))
    if vector is None:
        return False
    return _listings(listing, vector, form) if listing is gold else _listings(vector, listing, form)


def _with_letters(formula: Formula) -> Formula:
    if isinstance(formula, Const) and formula.name == "i":
        return Sym("i")
    return Op(formula.name, tuple(map(_with_letters, formula.args))) if isinstance(formula, Op) else formula


def _family(value: Listing) -> str:
    if value.kind in ORDERED or (value.kind == "bracket" and len(value.items) > 2):
        return "tuple"
    return "set" if value.kind in ("set", "list") else value.kind


def _same_members(gold: Sequence[Value], answer: Sequence[Value], form: Form) -> bool | None:
    """Whether every member of each is one of the other; repeated ones count once."""
    undecided = False
    for ours, theirs, turned in ((gold, answer, False), (answer, gold, True)):
        for one in ours:
            findings = [same_value(other, one, form) if turned else same_value(one, other, form) for other in theirs]
            if True in findings:
                continue
            if None not in findings:
                return False
            undecided = True
    return None if undecided else True


def _ratios(gold: Value, answer: Value) -> bool | None:
    clocks = [value.clock if isinstance(value, Ratio) else value for value in (gold, answer)]
    if isinstance(clocks[0], Clock) and isinstance(clocks[1], Clock):
        return same_clock(clocks[0], clocks[1])
    terms = [_terms(gold), _terms(answer)]
    ours, theirs = terms
    if ours is None or theirs is None or len(ours) != len(theirs):
        return False
    crossed = [
        equal(Op("*", (ours[0], other)), Op("*", (theirs[0], one)))
        for one, other in zip(ours[1:], theirs[1:], strict=True)
    ]
    nonzero = [equal(term, Num(ZERO)) is not True for term in (ours[0], theirs[0], ours[-1], theirs[-1])]
    return _all(crossed) if all(nonzero) else False


def _terms(value: Value) -> tuple[Formula, ...] | None:
    if isinstance(value, Ratio):
        return value.terms
    formula = plain_formula(value)
    return None if formula is None else (formula, Num(ONE))


def _based(gold: Value, answer: Value, form: Form) -> bool:
    if isinstance(gold, Based) and isinstance(answer, Based):
        if form.bases:
            return gold == answer
        return int(gold.digits, gold.base) == int(answer.digits, answer.base)
    based, other = (gold, answer) if isinstance(gold, Based) else (answer, gold)
    assert isinstance(based, Based)
    if not isinstance(other, Number) or other.percent or other.value.denominator != 1:
        return False
    written = int(based.digits, based.base) if not form.bases else None
    return other.value == written if written is not None else str(other.value) == based.digits


def _formulas(gold: Value, answer: Value, form: Form) -> bool | None:
    """Numbers, expressions and names."""
    if isinstance(gold, Number) and isinstance(answer, Number):
        return close_numbers(gold, answer, form)
    if isinstance(gold, Name) and isinstance(answer, Name):
        return gold.text == answer.text
    ours, theirs = plain_formula(gold), plain_formula(answer)
    if ours is None or theirs is None:
        return False
    units = [value.unit if isinstance(value, Number | Expression) else () for value in (gold, answer)]
    if units[0] and units[1]:
        converted = _converted(ours, units[0], theirs, units[1])
        return False if converted is None else equal(*converted)
    found = equal(ours, theirs)
    if found is not True and DEGREE in units:
        angles = [
            Op("degree", (side,)) if unit == DEGREE else side for side, unit in zip((ours, theirs), units, strict=True)
        ]
        other = theirs if units[0] == DEGREE else ours
        if uses(other, "pi") or not form.degrees:
            return equal(angles[0], angles[1])
    if found is True and DEGREE in units and not form.degrees:
        return False
    return found


def _converted(ours: Formula, one: Unit, theirs: Formula, other: Unit) -> tuple[Formula, Formula] | None:
    for dimensions, factor in one:
        for others, factor_other in other:
            if dimensions == others:
                return Op("*", (ours, Num(factor))), Op("*", (theirs, Num(factor_other)))
    return None


def _spans(gold: Any, answer: Any, form: Form) -> bool:
    return close_numbers(gold.low, answer.low, form) and close_numbers(gold.high, answer.high, form)


def _cases(gold: Any, answer: Any, form: Form) -> bool | None:
    if len(gold.rows) != len(answer.rows):
        return False
    rows = list(answer.rows)
    for row in gold.rows:
        place = next((p for p, other in enumerate(rows) if len(row) == len(other) and _all(
            [same_value(one, two, form) for one, two in zip(row, other, strict=True)])), None)  # fmt: skip
        if place is None:
            return False
        rows.pop(place)
    return True


def _all(findings: Sequence[bool | None]) -> bool | None:
    return False if False in findings else None if None in findings else True


SAME_KIND: tuple[tuple[type, Callable[[Any, Any, Form], bool | None]], ...] = (
    (Words, lambda gold, answer, _: gold.text == answer.text),
    (Clock, lambda gold, answer, _: same_clock(gold, answer)),
    (Date, lambda gold, answer, _: same_date(gold, answer)),
    (Span, _spans),
    (Cases, _cases),
)
ZERO = TOLERANCE * 0
ONE = ZERO + 1
