"""Small arithmetic as a tree: whole numbers, named unknowns, `+ - * / mod`, brackets and `digits(...)`. No eval.

    expression = term (("+" | "-") term)*
    term       = factor (("*" | "/" | "mod") factor)*
    factor     = whole number | name | "digits" "(" expression ")" | "(" expression ")" | "-" factor

Values are exact. `a mod b` is what a leaves when divided by b, `digits(a)` the sum of a's decimal digits.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 500
MAX_DEPTH = 40
MAX_DIGITS = 4000
TOKEN = re.compile(r"\s*(?:([0-9]{1,1000})|([A-Za-z]+)|(!=|<=|>=|[-+*/()=<>]))")
OPERATIONS: Mapping[str, Callable[[Fraction, Fraction], Fraction]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "mod": operator.mod,
}
RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "mod": 2}


class UnreadableError(ValueError):
    """A text that is no expression of this grammar; says where it stops being one."""


class UndefinedError(ArithmeticError):
    """An expression without a value: a division by 0, or the digits of what is no whole number."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number as written."""

    value: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """A named value."""

    name: str


@dataclass(frozen=True, slots=True)
class Binary:
    """left `operation` right."""

    operation: str
    left: Expression
    right: Expression


@dataclass(frozen=True, slots=True)
class Unary:
    """`-` or `digits` of an expression."""

    operation: str
    inside: Expression


Expression = Whole | Unknown | Binary | Unary


class TokenReader:
    """The tokens of a text, read one at a time. Shared by expressions and by what is made of them."""

    def __init__(self, text: str) -> None:
        """Raises: UnreadableError: too long, or a character that no token has."""
        if len(text) > MAX_LENGTH:
            raise UnreadableError(f"it is longer than {MAX_LENGTH} characters")
        self._tokens: list[str] = []
        position = 0
        text = text.rstrip()
        while position < len(text):
            match = TOKEN.match(text, position)
            if match is None:
                raise UnreadableError(f'"{text[position:].strip()[:20]}" is not understood')
            self._tokens.append(match[0].strip())
            position = match.end()
        self._at = 0

    @property
    def next(self) -> str:
        """The token that comes next, "" at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        """The next token, which is passed."""
        token = self.next
        self._at += 1
        return token

    def expect(self, token: str) -> None:
        """Pass this token. Raises: UnreadableError: another one comes."""
        if self.next != token:
            raise UnreadableError(
                f'"{token}" is missing before "{self.next}"' if self.next else f'"{token}" is missing'
            )
        self.take()

    def expression(self, depth: int = 0) -> Expression:
        """The expression that begins here. Raises: UnreadableError."""
        return self._chain(("+", "-"), lambda: self._chain(("*", "/", "mod"), lambda: self._factor(depth)))

    def _chain(self, operations: tuple[str, ...], part: Callable[[], Expression]) -> Expression:
        found = part()
        while self.next in operations:
            operation = self.take()
            found = Binary(operation, found, part())
        return found

    def _factor(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise UnreadableError(f"its brackets are nested deeper than {MAX_DEPTH}")
        token = self.take()
        if token.isdigit():
            return Whole(int(token))
        if token == "-":
            return Unary("-", self._factor(depth + 1))
        if token in ("(", "digits"):
            if token == "digits":
                self.expect("(")
            inside = self.expression(depth + 1)
            self.expect(")")
            return Unary("digits", inside) if token == "digits" else inside
        if token.isalpha() and token != "mod":
            return Unknown(token)
        raise UnreadableError(f'a number or name is missing before "{token}"' if token else "it ends too early")


def read_expression(text: str) -> Expression:
    """The expression that the whole text is. Raises: UnreadableError."""
    reader = TokenReader(text)
    found = reader.expression()
    if reader.next:
        raise UnreadableError(f'"{reader.next}" is too much')
    return found


def value_of(expression: Expression, values: Mapping[str, int]) -> Fraction:
    """The exact value. Raises: UndefinedError. KeyError: a name without a value."""
    match expression:
        case Whole(value):
            return Fraction(value)
        case Unknown(name):
            return Fraction(values[name])
        case Unary("-", inside):
            return -value_of(inside, values)
        case Unary(_, inside):
            return _digit_sum(value_of(inside, values))
        case Binary(operation, left, right):
            return operate(operation, value_of(left, values), value_of(right, values))


def operate(operation: str, left: Fraction, right: Fraction) -> Fraction:
    """left `operation` right, exactly. Raises: UndefinedError: a division by 0."""
    if operation in ("/", "mod") and right == 0:
        raise UndefinedError("it divides by 0")
    return OPERATIONS[operation](left, right)


def write_expression(expression: Expression) -> str:
    """The expression with no more brackets than it needs."""
    match expression:
        case Whole(value):
            return str(value)
        case Unknown(name):
            return name
        case Unary("-", inside):
            return f"-{_in_brackets(inside, RANK['*'] + 1)}"
        case Unary(operation, inside):
            return f"{operation}({write_expression(inside)})"
        case Binary(operation, left, right):
            rank = RANK[operation]
            return f"{_in_brackets(left, rank)} {operation} {_in_brackets(right, rank + 1)}"


def parts_of(expression: Expression) -> Iterator[Expression]:
    """The expression and everything in it, in reading order."""
    yield expression
    match expression:
        case Unary(_, inside):
            yield from parts_of(inside)
        case Binary(_, left, right):
            yield from parts_of(left)
            yield from parts_of(right)
        case _:
            return


def _in_brackets(expression: Expression, rank: int) -> str:
    text = write_expression(expression)
    weaker = isinstance(expression, Binary) and RANK[expression.operation] < rank
    return f"({text})" if weaker or (isinstance(expression, Unary) and expression.operation == "-") else text


def _digit_sum(value: Fraction) -> Fraction:
    if value.denominator != 1 or abs(value) >= 10**MAX_DIGITS:
        raise UndefinedError("it asks for the digits of what is no whole number, or of too large a one")
    return Fraction(sum(int(digit) for digit in str(abs(value.numerator))))
