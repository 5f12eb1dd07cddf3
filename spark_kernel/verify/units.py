r"""What may follow a number: a scale ("million"), a percent sign, a unit, a counted noun.

A unit is a tuple of readings, each its dimensions and its factor to the base unit; empty for none and for nouns.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from itertools import product

from spark_kernel.verify.dress import without_text_commands
from spark_kernel.verify.unit_table import CHINESE_NO_UNIT, KNOWN, NOT_A_UNIT, SCALES, Dimensions, Reading

Unit = tuple[Reading, ...]
NO_UNIT: Unit = ()

MAX_LENGTH = 48
WORD = re.compile(r"[A-Za-z]+")
NOUNS = re.compile(r"[A-Za-z][A-Za-z\s.'-]*(?:\([A-Za-z ]+\))?")
CHINESE = re.compile(r"[\u4e00-\u9fff]{1,6}")
PERCENT = re.compile(r"\s*(?:\\?%|per\s?cent\b|percentage points?\b|pct\b|％)\s*(?:\([A-Za-z ]+\))?\s*")
SQUARE = re.compile(r"^(?:square|sq\.?|平方)\s*|\s*squared$")
CUBIC = re.compile(r"^(?:cubic|cu\.?|立方)\s*|\s*cubed$")
POWER = re.compile(r"\s*\^\s*(?:\{\s*(-?\d)\s*\}|(-?\d))$|(?<=[A-Za-z])([23])$")
PER = re.compile(r"\s*(?:/|\bper\b|\ban?\b|每)\s*")
TIMES = re.compile(r"\s*(?:\\cdot|\*|(?<=[A-Za-z])-(?=[A-Za-z]))\s*|\s+")
IN_ALL = re.compile(r"[\s,]*\b(?:in\s+total|in\s+all|altogether|all\s+together|overall|total)\s*$", re.IGNORECASE)
"""What says no more than that this is the sum."""
NOTE = re.compile(r"(?<=\w)\s*\([A-Za-z ]+\)$")


@lru_cache(maxsize=2048)
def read_tail(text: str) -> tuple[int, bool, Unit] | None:
    """Scale, percent and unit of what follows the digits; None where it is none of these."""
    text = without_text_commands(text) if "\\text" not in text else " " + without_text_commands(text)
    text = IN_ALL.sub("", text)
    scale, spaced = 1, text[:1].isspace()
    for word, factor in SCALES.items():
        if match := re.match(rf"\s*{word}(?:s?\b|(?<=[万亿]))", text):
            scale, spaced, text = factor, True, text[match.end() :]
            break
    if match := PERCENT.match(text):
        return (scale, True, NO_UNIT) if match.end() == len(text) else None
    text = text.strip()
    if not text:
        return scale, False, NO_UNIT
    if len(text) > MAX_LENGTH:
        return None
    unit = read_unit(text)
    if unit is not None:
        return scale, False, unit
    if CHINESE.fullmatch(text):
        return (scale, False, NO_UNIT) if not set(text) & set(CHINESE_NO_UNIT) else None
    if not NOUNS.fullmatch(text):
        return None
    words = WORD.findall(text)
    if NOT_A_UNIT & {word.lower() for word in words} or not spaced or len(words[0]) < 3:
        return None
    return scale, False, NO_UNIT


@lru_cache(maxsize=2048)
def read_unit(text: str) -> Unit | None:
    """A unit made of known ones, with powers and `per`; None where any part is not known."""
    text = NOTE.sub("", text.strip()).rstrip(".").strip() or text.strip()
    if text in KNOWN:
        return KNOWN[text]
    joined = re.sub(r"\s*\^\s*", "^", text)
    joined = re.sub(r"\^\\circ\s*(?=[CF]$)", r"^\\circ", joined)
    if joined in KNOWN:
        return KNOWN[joined]
    top, *lows = PER.split(joined)
    found = _product(top, 1)
    for low in lows:
        found = _combined(found, _product(low, -1))
    return found


def unit_values(value: Fraction, unit: Unit) -> dict[Dimensions, Fraction]:
    """The quantity in base units, by dimensions; under every reading of its unit."""
    return {dimensions: value * factor for dimensions, factor in unit}


def _product(text: str, sign: int) -> Unit | None:
    whole = _power(text.strip(), sign)
    if whole is not None:
        return whole
    found: Unit | None = (((), Fraction(1)),)
    for part in TIMES.split(text.strip()):
        found = _combined(found, _power(part, sign))
    return found


def _power(text: str, sign: int) -> Unit | None:
    power = sign
    if match := POWER.search(text):
        power, text = sign * int(match[1] or match[2] or match[3]), text[: match.start()]
    elif SQUARE.search(text):
        power, text = 2 * sign, SQUARE.sub("", text)
    elif CUBIC.search(text):
        power, text = 3 * sign, CUBIC.sub("", text)
    known = KNOWN.get(text.strip("() "))
    if known is None:
        return None
    return tuple((tuple((name, exponent * power) for name, exponent in dims), factor**power) for dims, factor in known)


def _combined(one: Unit | None, other: Unit | None) -> Unit | None:
    if one is None or other is None:
        return None
    found = []
    for (dims_one, factor_one), (dims_other, factor_other) in product(one, other):
        total: dict[str, int] = dict(dims_one)
        for name, exponent in dims_other:
            total[name] = total.get(name, 0) + exponent
        found.append((tuple(sorted((n, e) for n, e in total.items() if e)), factor_one * factor_other))
    return tuple(found)
