r"""From the text of an answer to its typed value: every verifier that knows mathematics reads with this.

The order of trials is the order of certainty: a number, a time, a date; then what brackets, signs and separators say;
a formula; and words last. A value is never guessed out of text that does not read as one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from spark_kernel.verify.answer_types import (
    Approximated,
    Based,
    Clock,
    Expression,
    Labelled,
    Listing,
    Name,
    Option,
    Ratio,
    Reading,
    Span,
    Value,
    Words,
)
from spark_kernel.verify.clock_dates import read_clock, read_date
from spark_kernel.verify.dress import undress, without_text_commands
from spark_kernel.verify.formula import Formula, Op, has_decimal, rational, uses
from spark_kernel.verify.formula_equal import expand_signs
from spark_kernel.verify.formula_reader import read_formula
from spark_kernel.verify.labels import split_option, strip_words
from spark_kernel.verify.numbers import Number, read_number
from spark_kernel.verify.quantities import read_compound
from spark_kernel.verify.relations import read_relations
from spark_kernel.verify.splitting import split_relations
from spark_kernel.verify.structures import read_brackets, read_environment, read_joined, read_sets
from spark_kernel.verify.unit_table import KNOWN, NOT_A_UNIT
from spark_kernel.verify.units import NO_UNIT, Unit, read_unit
from spark_kernel.verify.word_lists import words

MAX_LENGTH = 2000
MAX_DEPTH = 6
BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
         "twelve": 12, "sixteen": 16}  # fmt: skip
BASED = re.compile(
    r"\(?(?P<digits>[0-9A-F]+)\)?\s*(?:_\s*\{?\s*\(?(?:\\text\{)?\s*(?P<base>\d+|[a-z]+)\s*\}?\)?\s*\}?"
    r"|(?:\\text\{)?\s*\(?\s*(?:in\s+)?base\s*-?\s*(?P<word>\d+|[a-z]+)\s*\)?\s*\}?)"
)
NAME = re.compile(r"(?P<kind>\\(?:angle|triangle)\s*)?(?P<letters>[A-Z](?:\s*[A-Z])+)")
SPAN = re.compile(r"(?P<low>[^-]*\d)\s*(?:-|to|\\text\{\s*to\s*\}|\\ldots|至|到)\s*(?P<high>\d.*)")
TEXT_UNIT = r"\\text\{[^{}]*\}(?:\s*\^\s*\{?-?\d\}?)?"
NOUN_BEHIND = r"\s+[A-Za-z]{2,}[A-Za-z ]*(?:\^\{?[23]\}?)?|\s*[\u4e00-\u9fff]{1,6}"
UNIT_BEHIND = re.compile(rf"(?:\s*{TEXT_UNIT}(?:\s*/\s*{TEXT_UNIT})*|{NOUN_BEHIND})\s*$")
PLAIN_UNIT = re.compile(r"(?<=[\d}\s)])\s*(?:[ck]?m|mm|kg|km|cm|ft|mph|kmh)(?:\s*\^\s*\{?[23]\}?)?$")
MONEY_BEFORE = re.compile(r"(?:\\\$|\$|€|£|¥)\s*(?=\S)")
COUNTED = re.compile(r"[\d\\]")
LETTERS_ONLY = re.compile(r"[^\W\d_][^\W\d_'.,!?:;\"&()-]*(?:[\s'.,!?:;\"&()-]+[^\W\d_'.,!?:;\"&()-]+)*[.!?)]*")
PRODUCT_RUN = re.compile(r"[a-z]{1,3}|[A-Za-z]")
# "4:30p" is neither a time that is written out nor a ratio.
HALF_WRITTEN = re.compile(r"\d:\d\d\s*[A-Za-z]")
FORMS = (read_environment, read_joined, read_sets, read_relations, read_brackets)
FIRST_NAME = re.compile(r"(?=[A-Z][a-z]*[aeiou])[A-Z][a-z]{2}|(?=[AEIOU])[A-Z][a-z]{2}")
KNOWN_WORDS = frozenset(
    words(
        "yes no odd even one two six ten all any none red low far old new man boy girl god dog cat won sun mon tue wed "
        "thu fri sat sun up down left in out on off"
    )
)


@lru_cache(maxsize=4096)
def read_answer_value(content: str, *, letter_units: bool = True) -> Reading | None:
    """The value that a box's content or a gold states, and what was taken away to see it; None if there is none.

    Args:
        content: as written.
        letter_units: whether a letter right behind digits may be a unit (`5m`); else it is a symbol.
    """
    number = read_number(content)
    if number is not None and (letter_units or not number.letter):
        return Reading(_labelled(number))
    text = undress(content)
    if not text or len(text) > MAX_LENGTH:
        return None
    value = read_value(text)
    if value is not None and not isinstance(value, Words):
        return Reading(value)
    words = value
    stripped, removed = strip_words(text)
    if removed and stripped:
        value = read_value(undress(stripped))
        if value is not None:
            return Reading(value, removed)
    option = split_option(text)
    if option is not None:
        value = read_value(undress(option[1]))
        if value is not None and not isinstance(value, Words):
            return Reading(Option(option[0], value), f"({option[0]})")
    return None if words is None else Reading(words)


def read_value(text: str, depth: int = 0) -> Value | None:
    """The value of a text that has been undressed; None if there is none."""
    if depth > MAX_DEPTH or not text:
        return None
    number = read_number(text)
    if number is not None:
        return _labelled(number)
    simple = read_clock(text) or read_date(text) or _based(text) or read_compound(text) or _short_word(text)
    if simple is not None:
        return _ratio(text, simple) if isinstance(simple, Clock) and not simple.half and ":" in text else simple

    def read(part: str) -> Value | None:
        return read_value(undress(part), depth + 1)

    for form in FORMS:
        found = form(text, read)
        if found is not None:
            return found
    return _ratio(text) or _name(text) or _span(text) or _expression(text) or _words(text)


def _labelled(number: Number) -> Value:
    return Labelled(number.label, replace(number, label=""), number.label) if number.label else number


def _based(text: str) -> Based | None:
    match = BASED.fullmatch(text)
    if match is None:
        return None
    written = match["base"] or match["word"]
    base = int(written) if written.isdigit() else BASES.get(written, 0)
    if not 2 <= base <= 36 or any(int(digit, 36) >= base for digit in match["digits"]):
        return None
    return Based(match["digits"].lstrip("0") or "0", base)


def _ratio(text: str, clock: Clock | None = None) -> Ratio | None:
    if ":" not in text or HALF_WRITTEN.search(text):
        return None
    terms = [read_formula(part.strip()) for part in re.split(r":|\\text\{\s*to\s*\}", text)]
    if len(terms) < 2 or any(term is None for term in terms):
        return None
    return Ratio(tuple(term for term in terms if term is not None), clock)


def _name(text: str) -> Name | None:
    match = NAME.fullmatch(text)
    if match is None:
        return None
    letters = "".join(match["letters"].split())
    if match["kind"]:
        return Name(match["kind"].strip() + letters, None)
    return Name(letters, read_formula(" ".join(letters)))


def _span(text: str) -> Span | None:
    match = SPAN.fullmatch(text)
    if match is None:
        return None
    low, high = read_number(match["low"]), read_number(match["high"])
    if low is None or high is None or low.value < 0 or high.value <= low.value or "/" in text or "^" in text:
        return None
    return Span(low, high)


def _expression(text: str) -> Value | None:
    """A formula, with a unit behind it; a plain number where that is its exact value."""
    formula, unit = read_formula(text), NO_UNIT
    if formula is None and (money := MONEY_BEFORE.match(text)):
        formula, unit = read_formula(text[money.end() :]), KNOWN[money[0].strip()]
    if formula is None or PLAIN_UNIT.search(text):
        for pattern in (PLAIN_UNIT, UNIT_BEHIND):
            match = pattern.search(text)
            found = read_formula(text[: match.start()].strip()) if match else None
            if match is None or found is None or not COUNTED.search(text[: match.start()]):
                continue
            known = read_unit(" ".join(without_text_commands(match[0]).split()))
            if known is None and not is_noun(match[0]):
                continue
            formula, unit = found, known or NO_UNIT
            break
    if formula is None:
        return None
    if uses(formula, "pm", "mp"):
        items = tuple(_single(item, unit) for item in expand_signs(formula))
        return Listing("list", items) if items else None
    return _single(formula, unit)


def _single(formula: Formula, unit: Unit) -> Value:
    if isinstance(formula, Op) and formula.name == "degree":
        formula, unit = formula.args[0], KNOWN["degree"]
    exact = rational(formula)
    if exact is not None:
        return Number(exact, decimal=has_decimal(formula), unit=unit)
    return Expression(formula, unit)


def is_noun(text: str) -> bool:
    """Whether words behind a value can be what it counts."""
    words = without_text_commands(text).split()
    return bool(words) and all(word.isalpha() and word.lower() not in NOT_A_UNIT and len(word) > 1 for word in words)


def _short_word(text: str) -> Words | None:
    """A word of two or three letters that would otherwise be a product: `yes`, `two`, `Bob`."""
    plain = without_text_commands(text).strip(".!? ")
    if plain.lower() in KNOWN_WORDS or FIRST_NAME.fullmatch(plain):
        return Words(plain_words(plain))
    return None


def _words(text: str) -> Words | None:
    """Words: letters of any script without an operator, more than a product of a few symbols."""
    plain = " ".join(without_text_commands(text).split())
    if not LETTERS_ONLY.fullmatch(plain):
        return None
    if "\\text" not in text and PRODUCT_RUN.fullmatch(plain) and plain.lower() not in KNOWN_WORDS:
        return None
    return Words(plain_words(plain))


def plain_words(text: str) -> str:
    """Words without case, commas and closing marks."""
    return " ".join(without_text_commands(text).casefold().replace(",", " ").rstrip(".!?) ").split())


def read_stated_number(content: str) -> Number | None:
    """The number that a text states, without evaluating anything: behind words, a label, or as one side of an equation.

    `The answer is 42`, `n = 42`, `42 = 40 + 2`; never `40 + 2`. The sides of an equation must agree.
    """
    number = read_number(content)
    if number is not None or len(content) > MAX_LENGTH:
        return number
    text = undress(strip_words(undress(content))[0])
    number = read_number(text)
    if number is not None:
        return number
    sides, signs = split_relations(text)
    if not signs or not set(signs) <= {"=", "\\approx"}:
        return None
    value = read_value(text)
    if isinstance(value, Labelled):
        value = value.value
    for found in (value.rounded, value.exact) if isinstance(value, Approximated) else (value,):
        for side in sides:
            number = read_number(side)
            if number is not None and isinstance(found, Number) and number.value == found.value:
                return number
    return None
