r"""What the form of the question decides: the one rule for per cent, degrees and bases, with its one setting.

- *Per cent.* A percent sign means hundredths: 7% is 0.07 and is not 7. Where the question asks for per cent (its asking
  sentence names them), the sign may also be left out on either side.
- *Degrees.* A number of degrees may leave its sign out (30° is 30); it is also the angle in radians where that is
  written with pi (45° is pi/4). Within functions degrees are converted: sin 30° is 1/2.
- *Bases.* Digits with a base as subscript equal the same digits with the same base or without one; never their value
  in another base: the question asked for that base.

`meta["form"]` of a problem overrides it: `asked` (this rule; the default), `value` (signs always count: 30° is pi/6
and not 30; the sign of per cent never goes missing; a base is converted) or `free` (a sign of per cent may always be
left out).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from spark_kernel.records import Problem

FORMS = ("asked", "value", "free")
PER_CENT = re.compile(r"per\s?cent|percentage|\bpct\b|\\?%|百分", re.IGNORECASE)
GIVEN = re.compile(r"\d[\d.,]*\s*\$?\s*(?:\\?%|per\s?cent\b|pct\b)", re.IGNORECASE)
ASKING = re.compile(
    r"\?|？|\b(?:what|which|how|find|compute|calculate|determine|express|give|write|state|estimate|evaluate|enter|report)\b",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"(?<=[.?!。？！])\s+|\n+")
# A letter by itself, which is neither a unit behind a number ("5 m", "in m") nor the end of a word ("it's").
SYMBOL = re.compile(r"(?<![A-Za-z\\\d'’])(?<!\d[\s~])(?<!\bin )([A-Za-z])(?![A-Za-z])")


@dataclass(frozen=True, slots=True)
class Form:
    """What may be left out.

    Attributes:
        percent: the sign of per cent.
        degrees: the sign of degrees.
        bases: digits are compared in their own base; else by value.
        symbols: single letters that the question uses, which are therefore no units.
    """

    percent: bool = False
    degrees: bool = True
    bases: bool = True
    symbols: frozenset[str] = frozenset()


def form_of(problem: Problem) -> Form:
    """The form that a problem's question and its `meta["form"]` ask for."""
    return _form(str(problem.meta.get("form", "asked")), problem.question)


@lru_cache(maxsize=2048)
def _form(setting: str, question: str) -> Form:
    letters = frozenset(SYMBOL.findall(question)) - {"a", "A", "I"}
    if setting == "value":
        return Form(percent=False, degrees=False, bases=False, symbols=letters)
    if setting == "free":
        return Form(percent=True, symbols=letters)
    return Form(percent=PER_CENT.search(GIVEN.sub("", _asking(question))) is not None, symbols=letters)


def _asking(question: str) -> str:
    """The last sentence that asks something, and what follows it (a hint such as "Give your answer in per cent")."""
    sentences = SENTENCE_END.split(question.strip())
    places = [place for place, sentence in enumerate(sentences) if ASKING.search(sentence)]
    return " ".join(sentences[places[-1] :]) if places else sentences[-1]
