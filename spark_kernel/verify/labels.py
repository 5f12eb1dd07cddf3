r"""What stands around a value and only says which value it is: `x =`, `f(x) =`, "The answer is", "(apples)"."""

from __future__ import annotations

import re

from spark_kernel.verify.formula import Const, Op, Sym
from spark_kernel.verify.formula_reader import read_formula
from spark_kernel.verify.word_lists import words

SENTENCE = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|and|we\s+(?:get|have|find)|finally)\b[\s,]*)*"
    r"(?:(?:the|my|our|your|its?|final|correct|right|exact|possible|required|desired|numeric(?:al)?)\s+)*"
    r"(?:answers?|results?|solutions?|values?|total|sum|product|probability|area|volume|length|number|ans)\b"
    r"(?:\s+(?:of|to|for)\b[A-Za-z\s]{0,40}?)?"
    r"(?:\s*(?:is|are|equals?|be|as)\b(?:\s+(?:equal\s+to|that|simply|therefore|then|thus))?)?\s*[:=]?\s*",
    re.IGNORECASE,
)
WORDS_BEFORE = re.compile(r"\\text\{((?:[^{}\d]*[\s:=,])?(?:is|are|equals|be|:|=)\s*)\}\s*", re.IGNORECASE)
UPRIGHT_LABEL = re.compile(r"\\text\{([A-Za-z' -]*):?\s*\}\s*:?\s*")
COLON_LABEL = re.compile(r"[A-Za-z][A-Za-z ]{2,30}\s*:\s*")
CHINESE_SENTENCE = re.compile(
    r"(?:所以|因此|故)?\s*(?:最终|正确|最后)?(?:的)?(?:答案|结果|答|解)\s*(?:是|为|等于)?\s*[:=]?\s*"
)
CONNECTIVE = re.compile(
    r"(?:\\text\{\s*(?:so|thus|hence|therefore|then|finally)\b[\s,]*\}|(?:so|thus|hence|therefore|finally)\b[\s,]+)\s*(?=\S)",
    re.IGNORECASE,
)
NEGATING = re.compile(r"\b(?:not|no|least|most|less|more|than|between|except|never|cannot)\b", re.IGNORECASE)
LEADING_EQUALS = re.compile(r"=\s*(?!=)")
NOTE_BEHIND = re.compile(r"\s*(?:\\text\{\s*)?\(\s*([A-Za-z][A-Za-z\s'-]*)\)\s*\}?\s*$")
BEHIND = re.compile(
    r"\s*(?:\\text\{)?\s*(?:is|as)\s+(?:the|my|our)\s+(?:final\s+|correct\s+)?(?:answer|result|solution|value)\s*\}?$",
    re.IGNORECASE,
)
OPTION = re.compile(r"\s*(?:\\text\{\s*)?(?:\(\s*([A-Z])\s*\)|([A-Z])\s*[).])\s*[:.]?\s*\}?\s*(?=\S)")
FUNCTION_NAMES = frozenset(words("sin cos tan cot sec csc arcsin arccos arctan ln log lg exp sqrt abs frac"))
FUNCTION_OF = re.compile(
    r"(?:\\text\{)?\\?(?P<name>[A-Za-z]+)\}?(?:'|_\{?\w+\}?|\^\{?-1\}?|\^\{?\([a-z0-9]\)\}?)*\s*(?P<opening>[(\[])(?P<inside>.*)[)\]]",
    re.DOTALL,
)
DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*(?:\\partial\s*|d)(?:\^\{?\d\}?)?\s*[A-Za-z]?\s*\}\s*\{\s*(?:\\partial\s*|d)\s*[A-Za-z](?:\^\{?\d\}?)?\s*\}.*|d[A-Za-z]/d[A-Za-z]"
)
POINTS = re.compile(
    r"(?:m\s*)?(?:\\(?:angle|triangle|odot)\s*)?\|?(?:\\(?:overline|overrightarrow|vec|widehat)\s*)?\{?[A-Z](?:\s*[A-Z]'*)+\}?\|?|\[[A-Z]{2,}\]"
)
UNEVALUATED = re.compile(r"\\(?:i?int|iint|iiint|oint|sum|prod|lim|max|min|gcd|lcm|det|Pr)(?![A-Za-z])")
WORD_LABEL = re.compile(r"(?:\\text\{[^{}]*\}|[A-Za-z][A-Za-z']{3,})(?:\\text\{[^{}]*\}|(?!\\text\{)[A-Za-z'_{}\\\s])*")


def strip_words(text: str) -> tuple[str, str]:
    """The text without words that introduce it or a noun in brackets behind it; and what was taken away."""
    removed: list[str] = []
    for _ in range(3):
        before = text
        for pattern in (WORDS_BEFORE, CHINESE_SENTENCE, SENTENCE, LEADING_EQUALS):
            match = pattern.match(text)
            if match and 0 < match.end() < len(text) and not NEGATING.search(match[0]) and _ended(match):
                removed.append(match[0].strip())
                text = text[match.end() :].strip()
        if match := CONNECTIVE.match(text):
            removed.append(match[0].strip())
            text = text[match.end() :].strip()
        if (match := UPRIGHT_LABEL.match(text)) and ":" in match[0] and match.end() < len(text):
            removed.append(match[0].strip())
            text = text[match.end() :].strip()
        if (match := COLON_LABEL.match(text)) and match.end() < len(text):
            removed.append(match[0].strip())
            text = text[match.end() :].strip()
        if (match := NOTE_BEHIND.search(text)) and match.start() > 0 and re.search(r"[\d}]$", text[: match.start()]):
            if NEGATING.search(match[0]) or len(match[1]) < 2:
                continue
            removed.append(match[0].strip())
            text = text[: match.start()].strip()
        if (match := BEHIND.search(text)) and match.start() > 0:
            removed.append(match[0].strip())
            text = text[: match.start()].strip()
        if text == before:
            break
    return text, " ".join(removed)


def split_option(text: str) -> tuple[str, str] | None:
    """An option's letter and the text beside it, where it is written as one: `(D) 25`, `D. 25`."""
    match = OPTION.match(text)
    if match is None or match.end() >= len(text):
        return None
    rest = text[match.end() :].strip()
    # "(A)(B)" and "(A)+1" are formulas.
    if not rest or (rest[0] in "+-*/^_!=<>)]}," and not re.match(r"-\s*[\d\\.]", rest)):
        return None
    return match[1] or match[2], rest


def label_symbol(text: str) -> str | None:
    """Where this left side of an equation only names a value: its one symbol, or "" for another kind of name.

    None where it is a condition, such as `2x`, `x+y` or `x/y`.
    """
    text = text.strip()
    if not text:
        return ""
    formula = read_formula(text)
    if isinstance(formula, Sym):
        return formula.name
    if isinstance(formula, Const):
        return formula.name if formula.name in ("e", "i") else None
    if isinstance(formula, Op) and formula.name == "*" and formula.args[0] == Sym("\\Delta") and len(formula.args) == 2:
        return ""
    if POINTS.fullmatch(text) or DERIVATIVE.fullmatch(text) or UNEVALUATED.match(text):
        return ""
    if (match := FUNCTION_OF.fullmatch(text)) and match["name"] not in FUNCTION_NAMES and _closes(match["inside"]):
        return "" if len(match["name"]) == 1 or match["name"] in ("Pr", "Var", "Cov", "Area", "area", "deg") else None
    if WORD_LABEL.fullmatch(text) and formula is None:
        return ""
    return None


def _closes(inside: str) -> bool:
    """Whether the brackets around this are one pair: `(x)(y)` is a product."""
    depth = 0
    for character in inside:
        depth += character in "([{"
        depth -= character in ")]}"
        if depth < 0:
            return False
    return depth == 0


def _ended(match: re.Match[str]) -> bool:
    """Whether the words introduce what follows: they end in a sign or a verb, not in the middle of a word."""
    said = match[0].rstrip()
    return said.endswith((":", "=", "}", "是", "为", "于")) or bool(
        re.search(r"\b(?:is|are|equals?|be|as|to|that|simply|therefore|then|thus)$", said, re.IGNORECASE)
    )
