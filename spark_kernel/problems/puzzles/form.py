"""A form of puzzle: the words it is asked in, the property its gold states, and how its numbers are drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from random import Random

Numbers = Mapping[str, int]
"""The numbers of a puzzle by the names of their places."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The numbers of a puzzle, and one right answer to it."""

    numbers: Numbers
    answer: str


@dataclass(frozen=True, slots=True)
class Form:
    """Puzzles that differ in their numbers only.

    Attributes:
        family, level: what it belongs to, and how hard it is among these: 1 to 4.
        gold: the property in the words of `verify.conditions`, with places such as `{a}`.
        frames: ways to ask, with all of these places.
        draw: from a generator and the largest value that may occur, to numbers and an answer.
    """

    family: str
    level: int
    gold: str
    frames: tuple[str, ...]
    draw: Callable[[Random, int], Drawn]

    def ask(self, rng: Random, numbers: Numbers) -> str:
        """The question, in a way drawn by `rng`."""
        return rng.choice(self.frames).format(**numbers)

    def gold_of(self, numbers: Numbers) -> str:
        """The gold."""
        return self.gold.format(**numbers)

    def read(self, question: str) -> Numbers | None:
        """The numbers in a question of this form; None for any other. Case is forgiven."""
        for frame in self.frames:
            if match := _pattern(frame).fullmatch(question):
                return {name: int(text) for name, text in match.groupdict().items()}
        return None


@lru_cache(maxsize=256)
def _pattern(frame: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", frame)
    seen: set[str] = set()
    text = re.escape(pieces[0])
    for name, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        text += rf"(?P={name})" if name in seen else rf"(?P<{name}>[0-9]{{1,9}})"
        text += re.escape(piece)
        seen.add(name)
    return re.compile(text, re.IGNORECASE)
