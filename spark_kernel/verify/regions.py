r"""Sets of real numbers as intervals: union, intersection, complement, and whether two are the same set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cmp_to_key

from spark_kernel.verify.answer_types import Part, Region
from spark_kernel.verify.formula import Const, Formula, NoValueError, Op, TooLargeError, rational, symbols
from spark_kernel.verify.formula_equal import equal

INFINITY = Const("infty")
MINUS_INFINITY = Op("neg", (INFINITY,))
REALS = Region((Part(MINUS_INFINITY, INFINITY, False, False),))
EMPTY = Region(())


class UnorderedError(ValueError):
    """Two ends cannot be put in order: one of them holds a symbol."""


def interval(low: Formula, high: Formula, low_closed: bool, high_closed: bool, variable: str = "") -> Region:
    """One interval; ends at infinity are open however they are written."""
    part = Part(low, high, low_closed and not _infinite(low), high_closed and not _infinite(high))
    return Region((part,), variable)


def united(regions: Sequence[Region]) -> Region:
    """The union, in order and without overlap.

    Raises:
        UnorderedError: see there.
    """
    parts = [part for region in regions for part in region.parts if not _is_empty(part)]
    parts.sort(key=cmp_to_key(_before))
    merged: list[Part] = []
    for part in parts:
        last = merged[-1] if merged else None
        if last is None or not _touch(last, part):
            merged.append(part)
            continue
        end = order(last.high, part.high)
        high, closed = (last.high, last.high_closed) if end >= 0 else (part.high, part.high_closed)
        if end == 0:
            closed = last.high_closed or part.high_closed
        merged[-1] = Part(last.low, high, last.low_closed, closed)
    return Region(tuple(merged), _variable(regions))


def intersected(regions: Sequence[Region]) -> Region:
    """The intersection.

    Raises:
        UnorderedError: see there.
    """
    found = REALS
    for region in regions:
        parts = [_common(one, other) for one in found.parts for other in region.parts]
        found = united([Region(tuple(parts))])
    return Region(found.parts, _variable(regions))


def complement(region: Region) -> Region:
    """The real numbers outside.

    Raises:
        UnorderedError: see there.
    """
    pieces = []
    low: Formula = MINUS_INFINITY
    low_closed = False
    for part in united([region]).parts:
        pieces.append(Part(low, part.low, low_closed, not part.low_closed and not _infinite(part.low)))
        low, low_closed = part.high, not part.high_closed
    pieces.append(Part(low, INFINITY, low_closed and not _infinite(low), False))
    return Region(united([Region(tuple(pieces))]).parts, region.variable)


def point(value: Formula, variable: str = "") -> Region:
    """The set of one number."""
    return Region((Part(value, value, True, True),), variable)


def same_region(gold: Region, answer: Region) -> bool | None:
    """Whether they are the same set; None where ends cannot be compared."""
    if gold.variable and answer.variable and gold.variable != answer.variable:
        return False
    try:
        ours, theirs = united([gold]).parts, united([answer]).parts
    except UnorderedError:
        ours, theirs = gold.parts, answer.parts
    if len(ours) != len(theirs):
        return False
    findings: list[bool | None] = []
    for one, other in zip(ours, theirs, strict=True):
        findings.append((one.low_closed, one.high_closed) == (other.low_closed, other.high_closed))
        findings += [equal(one.low, other.low), equal(one.high, other.high)]
    return False if False in findings else None if None in findings else True


def order(one: Formula, other: Formula) -> int:
    """-1, 0 or 1.

    Raises:
        UnorderedError: see there.
    """
    ranks = _infinite(one), _infinite(other)
    if any(ranks):
        return (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])
    ours, theirs = rational(one), rational(other)
    if ours is not None and theirs is not None:
        return (ours > theirs) - (ours < theirs)
    if symbols(one) or symbols(other):
        raise UnorderedError
    if equal(one, other):
        return 0
    from spark_kernel.verify.formula_value import value_at

    try:
        difference = value_at(one, {}, digits=60) - value_at(other, {}, digits=60)
    except (NoValueError, TooLargeError) as error:
        raise UnorderedError from error
    return 1 if difference > 0 else -1


def _infinite(formula: Formula) -> int:
    if formula == INFINITY:
        return 1
    return -1 if formula == MINUS_INFINITY else 0


def _is_empty(part: Part) -> bool:
    compared = order(part.low, part.high)
    return compared > 0 or (compared == 0 and not (part.low_closed and part.high_closed))


def _before(one: Part, other: Part) -> int:
    return order(one.low, other.low) or other.low_closed - one.low_closed


def _touch(last: Part, part: Part) -> bool:
    compared = order(last.high, part.low)
    return compared > 0 or (compared == 0 and (last.high_closed or part.low_closed))


def _common(one: Part, other: Part) -> Part:
    low, high = order(one.low, other.low), order(one.high, other.high)
    start = one if low > 0 or (low == 0 and not one.low_closed) else other
    end = one if high < 0 or (high == 0 and not one.high_closed) else other
    return Part(start.low, end.high, start.low_closed, end.high_closed)


def _variable(regions: Sequence[Region]) -> str:
    names = {region.variable for region in regions if region.variable}
    return names.pop() if len(names) == 1 else ""
