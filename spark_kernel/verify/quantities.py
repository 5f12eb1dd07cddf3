"""Quantities in several units, `3 hours 30 minutes`, as one; and numbers that are written in words."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from spark_kernel.verify.dress import without_text_commands
from spark_kernel.verify.numbers import Number, read_number
from spark_kernel.verify.units import unit_values

PIECE = re.compile(r"\s*(?:,|and\b|&)?\s*(\d[\d,]*(?:\.\d+)?\s*[A-Za-z\u4e00-\u9fff]+\.?)(?=\s*(?:,|and\b|&|\d|$))")
ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
WORDS = {word: value for value, word in enumerate(ONES.split(" "))} | {
    word: 10 * value for value, word in enumerate(TENS.split(" "), 2)
}


def read_compound(text: str) -> Number | None:
    """A quantity whose units of one dimension become smaller from left to right, in base units; None for another."""
    plain = without_text_commands(text).strip()
    pieces: list[Number] = []
    position = 0
    while match := PIECE.match(plain, position):
        number = read_number(match[1])
        if number is None or not number.unit or number.percent:
            return None
        pieces.append(number)
        position = match.end()
    if len(pieces) < 2 or position != len(plain):
        return None
    for dimensions, _ in pieces[0].unit:
        factors = [dict(piece.unit).get(dimensions) for piece in pieces]
        known = [factor for factor in factors if factor is not None]
        if len(known) == len(factors) and all(a > b for a, b in pairwise(known)):
            total = sum((unit_values(piece.value, piece.unit)[dimensions] for piece in pieces), Fraction(0))
            decimal = any(piece.decimal for piece in pieces)
            return Number(total, decimal=decimal, unit=((dimensions, Fraction(1)),))
    return None


def number_word(text: str) -> int | None:
    """The number that a word or two name, up to ninety-nine."""
    first, _, second = text.replace("-", " ").partition(" ")
    if not second:
        return WORDS.get(first)
    tens, ones = WORDS.get(first), WORDS.get(second)
    return tens + ones if tens and ones and tens >= 20 and ones < 10 else None
