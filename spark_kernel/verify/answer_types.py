"""What an answer can be. A value is compared with its own kind (`compare`), never by what its letters add up to."""

from __future__ import annotations

from dataclasses import dataclass

from spark_kernel.verify.formula import Formula
from spark_kernel.verify.numbers import Number
from spark_kernel.verify.units import NO_UNIT, Unit


@dataclass(frozen=True, slots=True)
class Expression:
    """A formula that is no plain number, with its unit."""

    formula: Formula
    unit: Unit = NO_UNIT


@dataclass(frozen=True, slots=True)
class Words:
    """Words, in small letters and single spaces."""

    text: str


@dataclass(frozen=True, slots=True)
class Name:
    """Capital letters in a row, such as the points of a triangle: their order counts. `formula` is their product."""

    text: str
    formula: Formula | None


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day. `half` is `am`, `pm` or empty; with `am` and `pm`, hours are those of 24."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True, slots=True)
class Date:
    """A calendar date; what is not given is 0. `written` stands for dates whose order of day and month is open."""

    year: int
    month: int
    day: int
    written: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A range from one number to a larger one, `3-5`."""

    low: Number
    high: Number


@dataclass(frozen=True, slots=True)
class Ratio:
    """`3:4` and longer; equal to another up to a common factor."""

    terms: tuple[Formula, ...]
    clock: Clock | None = None
    """What it says as a time of day, where it may be one."""


@dataclass(frozen=True, slots=True)
class Based:
    """Digits with their base as a subscript."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Listing:
    r"""Several values. `kind`: `set` (`\{1,2\}`), `list` (`1, 2`), `tuple` (`(1,2)`), `bracket` (`[1,2]`), `vector`."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix of formulas, by rows."""

    rows: tuple[tuple[Formula, ...], ...]


@dataclass(frozen=True, slots=True)
class Part:
    """An interval; an end at infinity is open. A single point is closed at both ends."""

    low: Formula
    high: Formula
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class Region:
    """A set of real numbers as intervals; `variable` is the one it was stated for, if any."""

    parts: tuple[Part, ...]
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Equation:
    """Two sides that are equal, where the left one is no mere label."""

    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Labelled:
    """A value with what it is the value of: `x = 5`, `f(x) = 2x`, `AB = 3`. `symbol` where that is one letter."""

    label: str
    value: Value
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class Approximated:
    r"""An exact value with its rounding: `\sqrt2 \approx 1.414`."""

    exact: Value
    rounded: Value


@dataclass(frozen=True, slots=True)
class Option:
    """A letter with a value beside it: `(D) 25`."""

    letter: str
    value: Value


@dataclass(frozen=True, slots=True)
class Cases:
    """Values under conditions, row by row."""

    rows: tuple[tuple[Value, ...], ...]


Value = (
    Number
    | Expression
    | Words
    | Name
    | Clock
    | Date
    | Span
    | Ratio
    | Based
    | Listing
    | Matrix
    | Region
    | Equation
    | Labelled
    | Approximated
    | Option
    | Cases
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value, and what had to be taken away to see it: words around it, a label, an option's letter; else empty."""

    value: Value
    removed: str = ""
