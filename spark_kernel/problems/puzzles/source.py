"""The source `puzzles`: unlimited, deterministic by seed and index, graded in levels."""

from __future__ import annotations

from typing import ClassVar

from spark_kernel.errors import InputError
from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.problems.puzzles.catalogue import FAMILIES, FORMS, LEVELS
from spark_kernel.records import Problem
from spark_kernel.verify.conditions import read_property


class PuzzlesSource:
    """Puzzles whose answers are hard to find and easy to check by putting them in.

    Args:
        seed: together with the index it determines a problem.
        families: any of "equation", "system", "factors", "countdown", "number"; all are equally frequent.
        min_level, max_level: 1 to 4; difficulty grows with them.
        max_value: the largest number that a question or a calculation with its drawn answer holds, 40 to 999.
    """

    size: ClassVar[int | None] = None

    def __init__(
        self,
        *,
        seed: int = 0,
        families: tuple[str, ...] = FAMILIES,
        min_level: int = 1,
        max_level: int = 2,
        max_value: int = 60,
    ) -> None:
        unknown = [family for family in families if family not in FAMILIES]
        if unknown or not families:
            raise InputError(
                f"problems.options.families = {list(families)} is refused: one or more of {', '.join(FAMILIES)}."
            )
        if not LEVELS[0] <= min_level <= max_level <= LEVELS[-1]:
            raise InputError(
                f"problems.options: min_level = {min_level} and max_level = {max_level} are refused: "
                f"{LEVELS[0]} <= min_level <= max_level <= {LEVELS[-1]}."
            )
        if not 40 <= max_value <= 999:
            raise InputError(f"problems.options.max_value = {max_value} is refused: 40 to 999.")
        self._seed = seed
        self._families = tuple(dict.fromkeys(families))
        self._levels = range(min_level, max_level + 1)
        self._max_value = max_value

    def problem(self, index: int) -> Problem:
        """The problem at an index."""
        rng = keyed_random(self._seed, "puzzles", index)
        family, level = rng.choice(self._families), rng.choice(self._levels)
        form = rng.choice([form for form in FORMS if form.family == family and form.level == level])
        drawn = form.draw(rng, self._max_value)
        question = form.ask(rng, drawn.numbers)
        return Problem(
            id=f"puzzle-{content_hash(question)}",
            question=question,
            gold=str(read_property(form.gold_of(drawn.numbers))),
            verifier="property",
            meta={"family": family, "level": level, "example": drawn.answer},
        )
