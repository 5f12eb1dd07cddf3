"""What a right answer has to satisfy, as a gold that a person can read and a program can check.

    x: 3 * x + 4 = 25                               one whole number
    x, y: x + y = 12; x - y = 4                     two whole numbers, in this order
    x: x > 20; x < 40; x mod 6 = 0; digits(x) = 3   several numbers may do
    3, 5, 7 with + - *: 22                          an expression made of these numbers, each used once

Unknowns are one letter each and stand for whole numbers. Nothing is evaluated but this grammar (`verify.expressions`).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from spark_kernel.verify.expressions import (
    MAX_LENGTH,
    Binary,
    Expression,
    TokenReader,
    Unary,
    UndefinedError,
    Unknown,
    UnreadableError,
    Whole,
    parts_of,
    value_of,
    write_expression,
)

RELATIONS: Mapping[str, Callable[[Fraction, Fraction], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
NAMES = re.compile(r"[A-Za-z](?:\s*,\s*[A-Za-z])*")
NUMBERS = re.compile(r"([0-9]{1,9}(?:\s*,\s*[0-9]{1,9})*)\s+with((?:\s+[-+*/])+)")
TARGET = re.compile(r"\s*(-?[0-9]{1,18})\s*")
MAX_NAMES = 6
MAX_NUMBERS = 8


@dataclass(frozen=True, slots=True)
class Condition:
    """left `relation` right."""

    left: Expression
    relation: str
    right: Expression

    def __str__(self) -> str:
        """As it is written in a gold."""
        return f"{write_expression(self.left)} {self.relation} {write_expression(self.right)}"

    def holds(self, values: Mapping[str, int]) -> bool:
        """Whether it holds for these values; one whose sides have no value does not."""
        try:
            return RELATIONS[self.relation](value_of(self.left, values), value_of(self.right, values))
        except UndefinedError:
            return False


@dataclass(frozen=True, slots=True)
class Values:
    """Whole numbers with these names, of which all conditions hold."""

    names: tuple[str, ...]
    conditions: tuple[Condition, ...]

    def __str__(self) -> str:
        """As a gold."""
        return f"{', '.join(self.names)}: {'; '.join(map(str, self.conditions))}"

    def broken(self, values: Mapping[str, int]) -> Condition | None:
        """The first condition that does not hold; None where all do."""
        return next((condition for condition in self.conditions if not condition.holds(values)), None)


@dataclass(frozen=True, slots=True)
class Made:
    """An expression that uses each of these numbers once, no others, and of the operations only these; its value."""

    numbers: tuple[int, ...]
    operations: tuple[str, ...]
    target: int

    def __str__(self) -> str:
        """As a gold, with the numbers in order of size: in which order they are given is no part of the problem."""
        return f"{', '.join(map(str, sorted(self.numbers)))} with {' '.join(self.operations)}: {self.target}"

    def fault(self, expression: Expression) -> str | None:
        """Why the expression is not what is asked for, as the end of a sentence; None where it is."""
        parts = list(parts_of(expression))
        if any(isinstance(part, Unknown | Unary) for part in parts):
            return "holds more than numbers, operations between them and brackets"
        used = sorted(part.value for part in parts if isinstance(part, Whole))
        if used != sorted(self.numbers):
            return f"uses {_listed(used)} and not {_listed(sorted(self.numbers))}, each once"
        for part in parts:
            if isinstance(part, Binary) and part.operation not in self.operations:
                return f'uses "{part.operation}", which is not among {" ".join(self.operations)}'
        try:
            value = value_of(expression, {})
        except UndefinedError:
            return "divides by 0"
        return None if value == self.target else f"is {value} and not {self.target}"


Property = Values | Made


def read_property(gold: str) -> Property:
    """The property that a gold states. Raises: UnreadableError: says what is wrong with it."""
    if len(gold) > MAX_LENGTH:
        raise UnreadableError(f"it is longer than {MAX_LENGTH} characters")
    head, colon, body = gold.partition(":")
    head = head.strip()
    if not colon:
        raise UnreadableError('there is no ":" between what is looked for and what holds of it')
    if NAMES.fullmatch(head):
        return _values(tuple(name.strip() for name in head.split(",")), body)
    if match := NUMBERS.fullmatch(head):
        return _made(match, body)
    raise UnreadableError(f'"{head[:40]}" is neither names such as "x, y" nor numbers such as "3, 5, 7 with + - *"')


def _values(names: tuple[str, ...], body: str) -> Values:
    if len(set(names)) != len(names) or len(names) > MAX_NAMES:
        raise UnreadableError(f"its unknowns are up to {MAX_NAMES} different letters")
    conditions = tuple(_condition(part) for part in body.split(";"))
    known = {
        part.name
        for condition in conditions
        for side in (condition.left, condition.right)
        for part in parts_of(side)
        if isinstance(part, Unknown)
    }
    if strangers := sorted(known - set(names)):
        raise UnreadableError(f'"{strangers[0]}" is not among its unknowns {", ".join(names)}')
    if idle := [name for name in names if name not in known]:
        raise UnreadableError(f'none of its conditions says anything of "{idle[0]}"')
    return Values(names, conditions)


def _condition(text: str) -> Condition:
    reader = TokenReader(text)
    left = reader.expression()
    relation = reader.take()
    if relation not in RELATIONS:
        raise UnreadableError(
            f'"{text.strip()[:40]}" is no condition: {" ".join(RELATIONS)} stands between two expressions'
        )
    right = reader.expression()
    if reader.next:
        raise UnreadableError(f'"{reader.next}" is too much in "{text.strip()[:40]}"')
    return Condition(left, relation, right)


def _made(head: re.Match[str], body: str) -> Made:
    target = TARGET.fullmatch(body)
    if target is None:
        raise UnreadableError(f'"{body.strip()[:40]}" is no whole number to be made')
    numbers = tuple(int(number) for number in head[1].split(","))
    if len(numbers) > MAX_NUMBERS:
        raise UnreadableError(f"it gives more than {MAX_NUMBERS} numbers")
    return Made(numbers, tuple(dict.fromkeys(head[2].split())), int(target[1]))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "no numbers"
