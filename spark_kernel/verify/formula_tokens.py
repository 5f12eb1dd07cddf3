r"""A formula's text in pieces: numbers, names, commands, words and signs. Input is what `dress.undress` gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from spark_kernel.verify.characters import GREEK_LETTERS
from spark_kernel.verify.word_lists import words

FUNCTIONS = frozenset(words("sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth exp ln log lg"))
PLAIN_NAMES = {
    **{name: name for name in FUNCTIONS},
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    "sqrt": "sqrt",
    "cbrt": "cbrt",
    "abs": "abs",
    "floor": "floor",
    "ceil": "ceil",
    "binom": "binom",
    "choose": "choose",
    "pi": "pi",
    "infinity": "infty",
    "infty": "infty",
    "inf": "infty",
    "oo": "infty",
    "degrees": "circ",
    "deg": "circ",
    **{name: name for name in GREEK_LETTERS if len(name) > 2},
}
"""Names that are known without a backslash. Where a run of letters holds none of these, it is a product."""
INSIDE_RUNS = sorted({*FUNCTIONS, "sqrt", "arcsin", "pi", "abs"} & PLAIN_NAMES.keys(), key=len, reverse=True)
"""Names that are also known within a run of letters: `xsin`, `2pir`."""
MAX_PRODUCT = 3
"""A longer run of letters is a word, not a product."""

TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+(?:\.\d*)?|\.\d+)(?:\\overline\s*\{(?P<repeat>\d+)\})?"
    r"|(?P<raised>\*\*)"
    r"|\\(?P<command>[A-Za-z]+)\s*"
    r"|(?P<escaped>\\[{}%$|])"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>[-+*/^_!|(){}\[\],;:%'])",
)
SCIENTIFIC = re.compile(r"[eE]([+-]?\d+)(?![\w.])")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece: `kind` is number, name (a command or known name), letter, word or sign.

    `spaced` says that white space stands before it.
    """

    kind: str
    text: str
    value: Fraction = Fraction(0)
    decimal: bool = False
    spaced: bool = False


class UnreadableError(ValueError):
    """The text is no formula that this reader knows."""


def tokenize(text: str) -> list[Token]:
    """The pieces of a formula.

    Raises:
        UnreadableError: a character or word that no formula has.
    """
    found: list[Token] = []
    position, spaced, brackets = 0, False, 0
    while position < len(text):
        match = TOKEN.match(text, position)
        if match is None:
            raise UnreadableError(f"{text[position]!r} is not read in formulas")
        position = match.end()
        if match["space"]:
            spaced = True
            continue
        if match["number"]:
            if brackets and "," in match["number"]:
                raise UnreadableError("a comma within brackets separates")
            token, position = _number(match, text, position, spaced)
            found.append(token)
        elif match["command"]:
            if match["command"] == "text":
                token, position = _upright(text, position, spaced)
                found.append(token)
            else:
                found.append(Token("name", match["command"], spaced=spaced))
        elif match["letters"]:
            found.extend(_letters(match["letters"], spaced))
        elif match["raised"]:
            found.append(Token("sign", "^", spaced=spaced))
        else:
            sign = match["escaped"] or match["sign"]
            brackets += (sign in ("(", "[")) - (sign in (")", "]"))
            found.append(Token("sign", sign, spaced=spaced))
        spaced = False
    return found


def _number(match: re.Match[str], text: str, position: int, spaced: bool) -> tuple[Token, int]:
    written = match["number"].replace(",", "")
    whole, _, digits = written.partition(".")
    value = Fraction(int(whole + digits or "0"), 10 ** len(digits))
    if match["repeat"]:
        value += Fraction(int(match["repeat"]), (10 ** len(match["repeat"]) - 1) * 10 ** len(digits))
    if (power := SCIENTIFIC.match(text, position)) and abs(int(power[1])) <= 1000:
        value *= Fraction(10) ** int(power[1])
        position = power.end()
    decimal = bool(digits) and not match["repeat"]
    return Token("number", written, value, decimal, spaced), position


def _upright(text: str, position: int, spaced: bool) -> tuple[Token, int]:
    r"""`\text{x}` is a letter, `\text{word}` a word."""
    end = text.find("}", position)
    if not text.startswith("{", position) or end < 0:
        raise UnreadableError("a text command without its braces")
    inner = text[position + 1 : end].strip()
    kind = "letter" if len(inner) == 1 and inner.isalpha() else "word"
    return Token(kind, inner, spaced=spaced), end + 1


def _letters(run: str, spaced: bool) -> list[Token]:
    """Known names and single letters; a run that is neither becomes one word."""
    if run in PLAIN_NAMES:
        return [Token("name", PLAIN_NAMES[run], spaced=spaced)]
    tokens: list[Token] = []
    position = product = longest = 0
    while position < len(run):
        name = next((name for name in INSIDE_RUNS if run.startswith(name, position)), None)
        if name is not None:
            tokens.append(Token("name", PLAIN_NAMES[name], spaced=spaced and not tokens))
            position += len(name)
            product = 0
            continue
        tokens.append(Token("letter", run[position], spaced=spaced and not tokens))
        position += 1
        product += 1
        longest = max(longest, product)
    return [Token("word", run, spaced=spaced)] if longest > MAX_PRODUCT else tokens
