"""What may follow a number: a scale ("million"), a percent sign, a unit."""

from __future__ import annotations

import re

WORD = re.compile(r"[A-Za-z]+")
POWER = r"(?:\s*\^\s*\{?-?[123]\}?|(?<=[A-Za-z])[23])?"
UNIT = re.compile(rf"[A-Za-zµΩ\\][A-Za-zµΩ\\\s.^{{}}()'*-]*?{POWER}(?:/[A-Za-z]+{POWER})?")
COMMAND = re.compile(r"\\(?!(?:circ|degree|mu|Omega)(?![A-Za-z]))")
CURRENCIES = frozenset({"$", "\\$", "€", "£", "¥", "₹"})
PERCENT = re.compile(r"\s*(?:\\?%|per\s?cent\b|percentage points?\b)\s*")
NOT_A_UNIT_TEXT = """
or and to not no minus plus times over mod point if when but between than more less per of by divided squared
cubed sqrt frac pi infty sin cos tan log ln exp cdot pm mp leq geq neq in cup dots ldots mathbf overline
remainder half halves third thirds quarter quarters fourths fifths sixths eighths tenths hundredths thousandths
"""
NOT_A_UNIT = frozenset(NOT_A_UNIT_TEXT.split())
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
SYNONYMS = {
    "metre": "m meter meters metre metres",
    "centimetre": "cm centimeter centimeters centimetre centimetres",
    "millimetre": "mm millimeter millimeters millimetre millimetres",
    "kilometre": "km kilometer kilometers kilometre kilometres",
    "inch": "in inch inches",
    "foot": "ft foot feet",
    "yard": "yd yard yards",
    "mile": "mi mile miles",
    "gram": "g gram grams",
    "kilogram": "kg kilogram kilograms",
    "milligram": "mg milligram milligrams",
    "pound": "lb lbs pound pounds",
    "second": "s sec secs second seconds",
    "minute": "min mins minute minutes",
    "hour": "h hr hrs hour hours",
    "day": "day days",
    "week": "week weeks",
    "month": "month months",
    "year": "year years",
    "litre": "L l liter liters litre litres",
    "millilitre": "mL ml milliliter milliliters millilitre millilitres",
    "degree": "deg degree degrees \\circ circ",
    "radian": "rad radian radians",
    "cent": "cent cents",
    "dollar": "dollar dollars",
    "euro": "euro euros",
    "newton": "N newton newtons",
    "joule": "J joule joules",
    "watt": "W watt watts",
    "volt": "V volt volts",
    "ampere": "A amp amps ampere amperes",
    "kelvin": "K kelvin",
    "celsius": "C celsius",
    "fahrenheit": "F fahrenheit",
}
KNOWN = {word: name for name, words in SYNONYMS.items() for word in words.split()}


def read_tail(text: str) -> tuple[int, bool, str] | None:
    """Scale, percent and unit of what follows the digits; None where it is none of these."""
    scale = 1
    for word, factor in SCALES.items():
        if match := re.match(rf"\s*{word}s?\b", text):
            scale, text = factor, text[match.end() :]
            break
    if match := PERCENT.match(text):
        return (scale, True, "") if match.end() == len(text) else None
    spaced = text[:1].isspace() or scale != 1
    text = text.strip()
    if not text or text in CURRENCIES:
        return scale, False, ""
    text = re.sub(r"^\^\s*\{?\s*\\circ\s*\}?", "\\\\circ ", text).strip()
    unit = re.sub(r"\s*\([A-Za-z ]+\)$", "", text).rstrip(".")
    if len(unit) > 40 or not UNIT.fullmatch(unit) or COMMAND.search(unit):
        return None
    if unit in KNOWN:
        return scale, False, KNOWN[unit]
    words = WORD.findall(unit)
    if not words or NOT_A_UNIT & {word.lower() for word in words}:
        return None
    known = all(word in KNOWN for word in words)
    spelled = spaced and all(len(word) >= 3 for word in words[:1])
    return (scale, False, unit) if known or spelled else None
