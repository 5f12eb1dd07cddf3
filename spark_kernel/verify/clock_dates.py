"""Times of day and calendar dates, in the forms in which answers state them."""

from __future__ import annotations

import re

from spark_kernel.verify.answer_types import Clock, Date
from spark_kernel.verify.dress import without_text_commands
from spark_kernel.verify.word_lists import words

HALF = r"(?P<half>[ap]\.?\s*m\.?|noon|midnight|o'?\s*clock|上午|下午|中午|晚上)?"
TIME = re.compile(
    rf"(?:at\s+)?(?P<before>上午|下午|晚上|中午)?\s*(?P<hour>\d{{1,2}})(?:\s*:\s*(?P<minute>\d{{2}})(?:\s*:\s*(?P<second>\d{{2}}))?)?\s*{HALF}"
    r"(?:\s*\((?:noon|midnight)\))?",
    re.IGNORECASE,
)
CHINESE_TIME = re.compile(
    r"(?P<before>上午|下午|晚上|中午)?\s*(?P<hour>\d{1,2})\s*[时点]\s*(?:(?P<minute>\d{1,2})\s*分?)?"
)
NAMED = {"noon": Clock(12, 0, 0, "pm"), "midday": Clock(12, 0, 0, "pm"), "midnight": Clock(0, 0, 0, "am")}
MONTHS = words("january february march april may june july august september october november december")
MONTH = "|".join(f"{name}|{name[:3]}" for name in MONTHS) + "|sept"
ORDINAL = r"(?P<day>\d{1,2})(?:\s*(?:st|nd|rd|th))?"
WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day\s*,?\s*)?"
DATE_FORMS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        r"(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})",
        r"(?P<year>\d{4})[/.](?P<month>\d{1,2})[/.](?P<day>\d{1,2})",
        r"(?P<year>\d{4})\s*年\s*(?:(?P<month>\d{1,2})\s*月\s*(?:(?P<day>\d{1,2})\s*[日号])?)",
        r"(?P<month>\d{1,2})\s*月\s*(?P<day>\d{1,2})\s*[日号]",
        rf"{WEEKDAY}(?P<name>{MONTH})\.?\s*{ORDINAL}(?:\s*,?\s*(?P<year>\d{{4}}))?",
        rf"{WEEKDAY}(?:the\s+)?{ORDINAL}\s*(?:of\s+)?(?P<name>{MONTH})\.?(?:\s*,?\s*(?P<year>\d{{4}}))?",
        rf"(?P<name>{MONTH})\.?\s*,?\s*(?P<year>\d{{4}})",
    )
)
OPEN_DATE = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4}|\d{2})")


def read_clock(text: str) -> Clock | None:
    """A time of day that says so: with am, pm, noon, o'clock, or minutes in two digits and hours up to 24."""
    text = " ".join(without_text_commands(text).replace("\\", "").split())
    if (named := text.lower().removeprefix("12 ").removeprefix("12:00 ").strip("() ")) in NAMED:
        return NAMED[named]
    match = TIME.fullmatch(text) or CHINESE_TIME.fullmatch(text)
    if match is None:
        return None
    found = match.groupdict()
    said = re.sub(r"[.\s]", "", (found.get("half") or found.get("before") or "").lower())
    hour, minute, second = int(found["hour"]), int(found["minute"] or 0), int(found.get("second") or 0)
    if (not said and match.re is TIME and found["minute"] is None) or hour > 24 or minute > 59 or second > 59:
        return None
    half = {
        "a": "am",
        "p": "pm",
        "am": "am",
        "pm": "pm",
        "上午": "am",
        "下午": "pm",
        "晚上": "pm",
        "noon": "pm",
        "中午": "pm",
        "midnight": "am",
    }.get(said, "")
    if half and hour > 12:
        half = "pm"
    elif half:
        hour = hour % 12 + (12 if half == "pm" else 0)
    elif hour > 12 or hour == 0:  # only a clock of 24 hours says so
        half = "pm" if 12 < hour < 24 else "am"
        hour %= 24
    return Clock(hour, minute, second, half)


def read_date(text: str) -> Date | None:
    """A date; `1/2/2020`, whose order is open, stands as it is written."""
    text = " ".join(without_text_commands(text).split()).rstrip(".")
    for form in DATE_FORMS:
        if match := form.fullmatch(text):
            found = match.groupdict()
            month = int(found.get("month") or 0)
            if name := found.get("name"):
                month = next(place for place, full in enumerate(MONTHS, 1) if full.startswith(name.lower()[:3]))
            day = int(found.get("day") or 0)
            if month > 12 or day > 31:
                return None
            return Date(int(found.get("year") or 0), month, day)
    if match := OPEN_DATE.fullmatch(text):
        one, two = int(match[1]), int(match[3])
        if max(one, two) <= 31 and min(one, two) <= 12:
            return Date(0, 0, 0, f"{one}/{two}/{match[4]}")
    return None


def same_clock(gold: Clock, answer: Clock) -> bool:
    """The same time; where one of them leaves am and pm open, either will do."""
    if (gold.minute, gold.second) != (answer.minute, answer.second):
        return False
    return gold.hour == answer.hour if gold.half and answer.half else gold.hour % 12 == answer.hour % 12


def same_date(gold: Date, answer: Date) -> bool:
    """The same date; a year that only one of them gives is ignored."""
    if (gold.month, gold.day, gold.written) != (answer.month, answer.day, answer.written):
        return False
    return gold.year == answer.year or (0 in (gold.year, answer.year) and gold.day != 0)
