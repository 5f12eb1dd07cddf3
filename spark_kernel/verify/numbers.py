r"""Reading one number as people and models write it, exactly, without evaluating anything large.

Read: `-1,234.50`, `1\,234`, `\frac{3}{4}`, `3/4`, `2\frac12`, `2 1/2`, `1.5e3`, `1.5 \times 10^{3}`, `10^3`,
`0.\overline{3}`, a currency, `x = 5`, `\approx 5`, `50\%`, `2 million`, and a unit after it: `5 apples`,
`5\text{ cm}^2`, `30^\circ`. Anything else is not a number here; `(1,234)` is a pair.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from spark_kernel.verify.dress import undress
from spark_kernel.verify.unit_table import CURRENCY_CODES, CURRENCY_SIGNS, KNOWN
from spark_kernel.verify.units import NO_UNIT, Unit, read_tail, unit_values

MAX_LENGTH = 1000
MAX_EXPONENT = 1000

Tolerance = float | Fraction

PLAIN = r"(?:\d{1,3}(?P<sep>,| |')\d{3}(?:(?P=sep)\d{3})*|\d+)"
TEN_TO = r"10\s*(?:\^|\*\*)\s*"
SCIENTIFIC = (
    r"(?:[eE](?P<exp1>[+-]?\d+)"
    rf"|\s*(?:\\times|\\cdot|\*|x)\s*{TEN_TO}(?:\{{(?P<exp2>[+-]?\d+)\}}|(?P<exp3>[+-]?\d+)))"
)
DECIMAL = rf"(?P<whole>{PLAIN})?(?:\.(?P<digits>\d*)(?:\\overline\s*\{{(?P<repeat>\d+)\}})?)?(?:{SCIENTIFIC})?"
POWER_OF_TEN = rf"{TEN_TO}(?:\{{(?P<ten1>[+-]?\d+)\}}|(?P<ten2>[+-]?\d+))"
SIMPLE = r"[+-]?\d+(?:\.\d+)?"
RATIO = (
    rf"(?:(?P<mixed>\d+)\s*(?=\\frac)|(?P<mixed2>\d+)\s+(?=\d+\s*/))?"
    rf"(?:\\frac\s*(?:\{{\s*(?P<top1>{SIMPLE})\s*\}}|(?P<top2>\d))\s*(?:\{{\s*(?P<low1>{SIMPLE})\s*\}}|(?P<low2>\d))"
    rf"|(?P<top3>\d+(?:\.\d+)?)\s*/\s*(?P<low3>\d+(?:\.\d+)?))"
)
CURRENCY = "|".join(re.escape(sign) for sign in CURRENCY_SIGNS) + "|" + rf"(?:{'|'.join(CURRENCY_CODES)})(?![A-Za-z])"
NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?:(?P<money>{CURRENCY})\s*)?(?P<sign2>-?)\s*"
    rf"(?:{RATIO}|{POWER_OF_TEN}(?![\d.])|{DECIMAL})(?P<tail>.*)",
    re.DOTALL,
)
ASSIGNMENT = re.compile(r"[A-Za-z](?:_(?:\{\w+\}|\w))?\s*=\s*(?!=)")
APPROXIMATELY = re.compile(
    r"(?:\\approx(?![A-Za-z])|\\sim(?![A-Za-z])|(?P<text>\\text\{\s*)?(?:approximately|approx\.?|about|around|roughly|exactly)"
    r"(?![A-Za-z])(?(text)\s*\}))\s*"
)
PAIR = re.compile(r"\([^(),]+\)")
EACH = re.compile(r"\s*(?:(?:/|per\b|an?\b|every\b)\s*[A-Za-z]+|\beach(?:\s+[A-Za-z]+)?)\s*$")
LETTER_UNIT = re.compile(r"[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written.

    Attributes:
        value: without any percent sign applied.
        percent: it has a percent sign.
        decimal: it was written with a decimal point.
        unit: readings of a known unit, see `units`.
        letter: its unit is one letter that stands directly behind the digits, so that it may be a symbol instead.
        approximate: an approximation sign stood before it.
        label: the letter that it was assigned to, `x` in `x = 5`.
    """

    value: Fraction
    percent: bool = False
    decimal: bool = False
    unit: Unit = NO_UNIT
    letter: bool = False
    approximate: bool = False
    label: str = ""


@lru_cache(maxsize=4096)
def read_number(content: str) -> Number | None:
    """The one number that this text is, or None. Numbers beyond 1000 digits are not read."""
    if len(content) > MAX_LENGTH:
        return None
    text = undress(content)
    label = ASSIGNMENT.match(text)
    text = text[label.end() :] if label else text
    approximate = APPROXIMATELY.match(text)
    text = text[approximate.end() :] if approximate else text
    # A comma within brackets separates: (1,234) is a pair.
    if PAIR.fullmatch(text) or (text[:1] == "{" and text[-1:] == "}" and not set(text[1:-1]) & set("{},")):
        text = text[1:-1].strip()
    match = NUMBER.fullmatch(text)
    if match is None:
        return None
    value = _value(match)
    tail = read_tail(EACH.sub("", match["tail"]) if match["money"] else match["tail"])
    if value is None or tail is None:
        return None
    scale, percent, unit = tail
    negative = (match["sign"] == "-") != (match["sign2"] == "-")
    money = KNOWN.get(match["money"] or "", NO_UNIT)
    if money and unit and not set(unit) & set(money):  # "$5 dollars" says it twice, "$5 cents" is no amount
        return None
    return Number(
        value=(-value if negative else value) * scale,
        percent=percent,
        decimal=bool(match["digits"]) or any(match[name] and "." in match[name] for name in ("top1", "low1")),
        unit=unit or money,
        letter=LETTER_UNIT.fullmatch(match["tail"]) is not None,
        approximate=approximate is not None,
        label=re.sub(r"[\s={}]", "", label[0]) if label else "",
    )


def same_number(
    gold: Number, answer: Number, *, percent: bool = False, rel_tol: Tolerance = 0, abs_tol: Tolerance = 0
) -> bool:
    """Whether two numbers agree: |answer - gold| <= max(rel_tol |gold|, abs_tol), and no two known units or
    labels (`x = 5`, `y = 5`) differ.

    A unit on one side only is ignored. Units of one dimension are converted exactly (5 m is 500 cm, $2.50 is 250
    cents). A percent sign means hundredths; with `percent`, where the question asks for per cent, it may also be left
    out on either side (`question_form`).
    """
    return any(
        abs(b - a) <= max(Fraction(rel_tol) * abs(a), Fraction(abs_tol)) if rel_tol or abs_tol else a == b
        for a, b in _pairs(gold, answer, percent)
    )


def _pairs(gold: Number, answer: Number, percent: bool) -> list[tuple[Fraction, Fraction]]:
    if gold.label and answer.label and gold.label != answer.label:
        return []
    if gold.unit and answer.unit:
        ours, theirs = unit_values(gold.value, gold.unit), unit_values(answer.value, answer.unit)
        return [(ours[dimensions], theirs[dimensions]) for dimensions in ours.keys() & theirs.keys()]
    pairs = [(_plain(gold), _plain(answer))]
    if percent and gold.percent != answer.percent:
        pairs.append((gold.value, answer.value))
    return pairs


def _plain(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _value(match: re.Match[str]) -> Fraction | None:
    top = match["top1"] or match["top2"] or match["top3"]
    if top is not None:
        low = Fraction(match["low1"] or match["low2"] or match["low3"])
        mixed = Fraction(match["mixed"] or match["mixed2"] or 0)
        return mixed + Fraction(top) / low if low else None
    power = match["ten1"] or match["ten2"]
    if power is not None:
        return _times_ten(Fraction(1), int(power))
    whole = re.sub(r"\D", "", match["whole"] or "")
    digits = match["digits"] or ""
    if not (whole or digits or match["repeat"]):
        return None
    value = Fraction(int(whole + digits or "0"), 10 ** len(digits))
    if match["repeat"]:
        value += Fraction(int(match["repeat"]), (10 ** len(match["repeat"]) - 1) * 10 ** len(digits))
    exponent = match["exp1"] or match["exp2"] or match["exp3"]
    return _times_ten(value, int(exponent)) if exponent else value


def _times_ten(value: Fraction, exponent: int) -> Fraction | None:
    return value * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
