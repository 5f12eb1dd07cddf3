"""Demonstrations about puzzles: answers are worked out or tried, and judged by putting them in, condition by condition.

A check stops at the first condition that fails, so what its last line says is the verdict. A reflection checks the
earlier answer and then keeps it or tries again; a pair checks what stands first, for exactly one of the two is right.
"""

from __future__ import annotations

from random import Random

from spark_kernel.prompts import build
from spark_kernel.records import Origin, Problem, Rollout, View
from spark_kernel.verify.conditions import Condition, Made, Values, read_property
from spark_kernel.verify.expressions import (
    Whole,
    parts_of,
    read_expression,
    write_expression,
)
from starter.pieces import DECISIVE, Demonstration, Piece, answered, boxed, candidate, compare, judged, slip
from starter.working import form_of, work, worked


def demonstrate_puzzle(
    kind: str, problem: Problem, rng: Random, seed: int, index: int, *, glance: bool = False
) -> Demonstration:
    """A demonstration of one task kind on a puzzle; at a `glance`, what judges or reflects puts nothing in."""
    right_answer = str(problem.meta["example"])
    if kind == "solve":
        return answered(build.solve_task(problem, seed=seed, round=index), *_worked_out(problem, right_answer))
    view = rng.choice((View.ANSWER, View.FULL))
    origin = rng.choices((Origin.SOLVE, Origin.REFLECTION), (0.75, 0.25))[0]
    how = {"origin": origin, "view": view, "mixed": True, "seed": seed, "round": index}
    wrong_answer = mistaken_answer(problem, right_answer, rng)
    right = _candidate(problem, right_answer, True, origin, rng, f"{index}-right")
    wrong = _candidate(problem, wrong_answer, False, origin, rng, f"{index}-wrong")
    if kind == "pairwise":
        task = build.pairwise_task(problem, right, wrong, **how)
        first = right_answer if task.gold_position == "A" else wrong_answer
        lines = () if glance else check(problem, first)[0]
        return answered(task, *lines, *judged(task))
    shown, answer = rng.choice(((right, right_answer), (wrong, wrong_answer)))
    lines, holds = check(problem, answer)
    if glance:
        lines = ()
    if kind == "reflection":
        then = boxed(answer, 1.0) if holds else _worked_out(problem, right_answer)
        return answered(build.reflection_task(problem, shown, **how), *lines, *then)
    task = build.pointwise_task(problem, shown, **how)
    return answered(task, *lines, *judged(task))


def check(problem: Problem, answer: str) -> tuple[tuple[Piece, ...], bool]:
    """The lines that put an answer into the puzzle, up to the first that fails, and whether none does."""
    asked = read_property(problem.gold)
    return _check_made(problem, asked, answer) if isinstance(asked, Made) else _check_values(asked, answer)


def mistaken_answer(problem: Problem, right_answer: str, rng: Random) -> str:
    """A wrong answer of the sort that a guess gives: a slip, or one condition met and another not."""
    while True:
        answer = _other_answer(problem, right_answer, rng)
        if not check(problem, answer)[1]:
            return answer


def shown_numbers(problem: Problem) -> tuple[int, ...]:
    """The numbers that a countdown gives, in the order of its question."""
    _, found = form_of(problem)
    return tuple(found[place] for place in "pqrs" if place in found)


def _worked_out(problem: Problem, answer: str) -> tuple[Piece, ...]:
    return (work(problem, answer), 1.0), *boxed(answer, 1.0)


def _candidate(problem: Problem, answer: str, correct: bool, origin: Origin, rng: Random, name: str) -> Rollout:
    """An answer with its working; a reflected one with the check of an earlier answer before."""
    text, again = "", True
    if origin is Origin.REFLECTION:
        kept = correct and rng.random() < 0.5
        earlier = answer if kept else mistaken_answer(problem, str(problem.meta["example"]), rng)
        text, again = "".join(piece for piece, _ in check(problem, earlier)[0]), not kept
    return candidate(problem, name, text + (work(problem, answer) if again else ""), answer, correct=correct)


def _check_values(asked: Values, answer: str) -> tuple[tuple[Piece, ...], bool]:
    values = dict(zip(asked.names, map(int, answer.split(", ")), strict=True))
    pieces: list[Piece] = []
    for condition in asked.conditions:
        pieces += _check_condition(condition, values)
        if not condition.holds(values):
            return tuple(pieces), False
    return tuple(pieces), True


def _check_condition(condition: Condition, values: dict[str, int]) -> list[Piece]:
    lines: list[str] = []
    left, right = (worked(side, values, lines) for side in (condition.left, condition.right))
    if condition.relation == "=":
        return [(_joined(lines), 1.0), *compare(left, right, abs(left - right))]
    outcome = " yes" if condition.holds(values) else " no"
    return [(_joined(lines) + f"{left} {condition.relation} {right}", 1.0), (outcome, DECISIVE), ("\n", 1.0)]


def _check_made(problem: Problem, asked: Made, answer: str) -> tuple[tuple[Piece, ...], bool]:
    made = read_expression(answer)
    used = [part.value for part in parts_of(made) if isinstance(part, Whole)]
    pieces: list[Piece] = []
    for number in shown_numbers(problem):
        outcome = " yes" if number in used else " no"
        pieces += [(f"{number}", 1.0), (outcome, DECISIVE), ("\n", 1.0)]
        if outcome == " no":
            return tuple(pieces), False
    lines: list[str] = []
    value = worked(made, {}, lines)
    pieces += [(_joined(lines), 1.0), *compare(value, asked.target, abs(value - asked.target))]
    return tuple(pieces), value == asked.target


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _other_answer(problem: Problem, right_answer: str, rng: Random) -> str:
    asked = read_property(problem.gold)
    if isinstance(asked, Made):
        return _other_expression(asked, right_answer, rng)
    numbers = [int(text) for text in right_answer.split(", ")]
    place = rng.randrange(len(numbers))
    changed = slip(numbers[place], rng)
    if len(numbers) == 2 and rng.random() < 0.5:
        numbers[1 - place] = _keeping_first(asked, numbers, place, changed)
    numbers[place] = changed
    return ", ".join(map(str, numbers))


def _keeping_first(asked: Values, numbers: list[int], place: int, changed: int) -> int:
    """The other number for which the first condition still holds; as it was where there is none."""
    for value in range(61):
        trial = list(numbers)
        trial[place], trial[1 - place] = changed, value
        if asked.conditions[0].holds(dict(zip(asked.names, trial, strict=True))):
            return value
    return numbers[1 - place]


def _other_expression(asked: Made, right_answer: str, rng: Random) -> str:
    """The numbers in another order or with other operations; now and then with one that is not given."""
    numbers = rng.sample(asked.numbers, len(asked.numbers))
    if rng.random() < 0.5:
        numbers = [part.value for part in parts_of(read_expression(right_answer)) if isinstance(part, Whole)]
    if rng.random() < 0.15:
        place = rng.randrange(len(numbers))
        numbers[place] = rng.choice([n for n in range(1, 13) if n != numbers[place]])
    text = str(numbers[0])
    for number in numbers[1:]:
        text += f" {rng.choice(asked.operations)} {number}"
    return write_expression(read_expression(text))
