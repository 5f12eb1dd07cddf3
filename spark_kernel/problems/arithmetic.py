"""Graded chains of arithmetic in plain English: unlimited, deterministic by seed, made for the starter model.

"Start with 17, add 25, then take away 8." Every intermediate value stays within 0 and `max_value`, so that the
left-to-right reading is the only sensible one and the starter model's one-token numbers suffice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import ClassVar

from spark_kernel.errors import InputError
from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.records import Problem

VERBS = {
    "+": ("add {}",),
    "-": ("take away {}", "subtract {}"),
    "*": ("multiply by {}",),
}
FRAMES = (
    "Start with {start}, {steps}. What do you get?",
    "Take {start}, {steps}. Which number is it?",
    "Begin at {start}, {steps}. Where do you end?",
)
SIGNS = {"a": "+", "s": "-", "m": "*"}
"""A letter for each operator, for names in regular expressions."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a chain: value_before `operator` operand = value_after."""

    before: int
    operator: str
    operand: int
    after: int


@dataclass(frozen=True, slots=True)
class Chain:
    """A start value and the steps that follow; the last value is the answer."""

    start: int
    steps: tuple[Step, ...]

    @property
    def answer(self) -> int:
        """The value after the last step."""
        return self.steps[-1].after


class ArithmeticSource:
    """Chains of `min_operations` to `max_operations` steps with values from 0 to `max_value`.

    Args:
        seed: together with the index it determines a problem.
        min_operations, max_operations: length of the chains; difficulty grows with both.
        max_value: the largest value that occurs, 10 to 999.
        operators: any of "+", "-", "*".
    """

    size: ClassVar[int | None] = None

    def __init__(
        self,
        *,
        seed: int = 0,
        min_operations: int = 2,
        max_operations: int = 4,
        max_value: int = 60,
        operators: str = "+-*",
    ) -> None:
        if not 1 <= min_operations <= max_operations <= 20:
            raise InputError(
                f"problems.options: min_operations = {min_operations} and max_operations = {max_operations} are "
                "refused: 1 <= min_operations <= max_operations <= 20."
            )
        if not 10 <= max_value <= 999:
            raise InputError(f"problems.options.max_value = {max_value} is refused: 10 to 999.")
        if not operators or set(operators) - set(VERBS):
            raise InputError(f"problems.options.operators = {operators!r} is refused: any of + - *.")
        self._seed = seed
        self._lengths = (min_operations, max_operations)
        self._max_value = max_value
        self._operators = operators

    def problem(self, index: int) -> Problem:
        """The problem at an index."""
        rng = keyed_random(self._seed, "arithmetic", index)
        chain = draw_chain(rng, rng.randint(*self._lengths), self._max_value, self._operators)
        question = phrase(rng, chain)
        return Problem(
            id=f"arithmetic-{content_hash(question)}",
            question=question,
            gold=str(chain.answer),
            verifier="integer",
            meta={
                "operations": len(chain.steps),
                "start": chain.start,
                "steps": [[s.operator, s.operand] for s in chain.steps],
            },
        )


def draw_chain(rng: Random, length: int, max_value: int, operators: str = "+-*") -> Chain:
    """A random chain whose values all lie in [0, max_value]."""
    value = start = rng.randint(2, max_value)
    steps = []
    for _ in range(length):
        step = _draw_step(rng, value, max_value, operators)
        steps.append(step)
        value = step.after
    return Chain(start, tuple(steps))


def chain_of(problem: Problem) -> Chain:
    """The chain a problem of this source was made from."""
    value = int(problem.meta["start"])
    steps = []
    for operator, operand in problem.meta["steps"]:
        after = apply(value, operator, operand)
        steps.append(Step(value, operator, operand, after))
        value = after
    return Chain(int(problem.meta["start"]), tuple(steps))


def read_chain(question: str) -> Chain | None:
    """The chain that a question of this source asks about, whichever words it is phrased in; None for any other.

    Case is forgiven, and what stands before and after the question is not.
    """
    frames, step = _phrasings()
    found = next((match for frame in frames if (match := frame.fullmatch(question))), None)
    if found is None:
        return None
    steps: list[Step] = []
    start = value = int(found["start"])
    for match in step.finditer(found["steps"]):
        verb, operand = next((name, text) for name, text in match.groupdict().items() if text is not None)
        operator = SIGNS[verb[0]]
        after = apply(value, operator, int(operand))
        steps.append(Step(value, operator, int(operand), after))
        value = after
    return Chain(start, tuple(steps))


def apply(value: int, operator: str, operand: int) -> int:
    """value operator operand."""
    return {"+": value + operand, "-": value - operand, "*": value * operand}[operator]


def phrase(rng: Random, chain: Chain) -> str:
    """The chain as a question."""
    steps = [rng.choice(VERBS[step.operator]).format(step.operand) for step in chain.steps]
    text = ", ".join(steps[:-1]) + ", then " + steps[-1] if len(steps) > 1 else steps[0]
    return rng.choice(FRAMES).format(start=chain.start, steps=text)


@lru_cache(maxsize=1)
def _phrasings() -> tuple[tuple[re.Pattern[str], ...], re.Pattern[str]]:
    """The frames with places for start and steps, and one step with its operand under the name of its verb."""
    verbs = [
        re.escape(verb).replace(r"\{\}", rf"(?P<{letter}{number}>[0-9]{{1,9}})")
        for letter, operator in SIGNS.items()
        for number, verb in enumerate(VERBS[operator])
    ]
    one = "|".join(verbs)
    bare = re.sub(r"\?P<\w+>", "?:", one)
    steps = rf"(?P<steps>(?:{bare})(?:, (?:{bare}))*(?:, then (?:{bare}))?)"
    frames = [
        re.escape(frame).replace(r"\{start\}", "(?P<start>[0-9]{1,9})").replace(r"\{steps\}", steps) for frame in FRAMES
    ]
    return tuple(re.compile(frame, re.IGNORECASE) for frame in frames), re.compile(one, re.IGNORECASE)


def _draw_step(rng: Random, value: int, max_value: int, operators: str) -> Step:
    possible = [
        operator
        for operator in operators
        if (operator == "+" and value < max_value)
        or (operator == "-" and value > 0)
        or (operator == "*" and 0 < value <= max_value // 2)
    ]
    operator = rng.choice(possible or ["-" if value == max_value else "+"])
    limit = {"+": max_value - value, "-": value, "*": max_value // max(value, 1)}[operator]
    operand = rng.randint(2, limit) if operator == "*" else rng.randint(1, limit)
    return Step(value, operator, operand, apply(value, operator, operand))
