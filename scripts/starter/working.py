"""The working behind an answer to a puzzle, as the starter writes it before the box: a line per step.

It is written from the answer backwards, so that a wrong answer gets a working with a slip in it. Where an answer can
only be found by trying (countdown, factors, numbers), the working is the try.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from spark_kernel.problems.puzzles.catalogue import FORMS
from spark_kernel.problems.puzzles.form import Form, Numbers
from spark_kernel.records import Problem
from spark_kernel.verify.expressions import Binary, Expression, operate, read_expression, value_of

Lines = list[str]


def work(problem: Problem, answer: str) -> str:
    """The working that ends in this answer, right or wrong."""
    form, numbers = form_of(problem)
    if form.family == "countdown":
        lines: Lines = []
        worked(read_expression(answer), {}, lines)
    else:
        lines = STEPS[form.gold](numbers, *map(int, answer.split(", ")))
    return "".join(f"{line}\n" for line in lines)


def form_of(problem: Problem) -> tuple[Form, Numbers]:
    """The form of a puzzle and its numbers."""
    return next((form, found) for form in FORMS if (found := form.read(problem.question)) is not None)


def worked(expression: Expression, values: dict[str, int], lines: Lines) -> Fraction:
    """The value of an expression, with a line for every operation on the way to it."""
    if not isinstance(expression, Binary):
        return value_of(expression, values)
    left, right = worked(expression.left, values, lines), worked(expression.right, values, lines)
    value = operate(expression.operation, left, right)
    lines.append(f"{left} {expression.operation} {right} = {value}")
    return value


STEPS: dict[str, Callable[..., Lines]] = {
    "x: x + {a} = {c}": lambda n, x: [f"{n['c']} - {n['a']} = {x}"],
    "x: x - {a} = {c}": lambda n, x: [f"{n['c']} + {n['a']} = {x}"],
    "x: {a} * x = {c}": lambda n, x: [f"{n['c']} / {n['a']} = {x}"],
    "x: {a} * x + {b} = {c}": lambda n, x: [
        f"{n['c']} - {n['b']} = {n['a'] * x}",
        f"{n['a'] * x} / {n['a']} = {x}",
    ],
    "x: {a} * x - {b} = {c}": lambda n, x: [
        f"{n['c']} + {n['b']} = {n['a'] * x}",
        f"{n['a'] * x} / {n['a']} = {x}",
    ],
    "x, y: x + y = {s}; x - y = {d}": lambda n, x, y: [
        f"{n['s']} - {n['d']} = {2 * y}",
        f"{2 * y} / 2 = {y}",
        f"{n['s']} - {y} = {x}",
    ],
    "x, y: x + y = {s}; x = {k} * y": lambda n, x, y: [
        f"{n['k']} + 1 = {n['k'] + 1}",
        f"{n['s']} / {n['k'] + 1} = {y}",
        f"{n['k']} * {y} = {x}",
    ],
    "x, y: x * y = {p}; x > 1; y > 1": lambda n, x, y: [f"{x} * {y} = {n['p']}"],
    "x, y: x * y = {p}; x + y = {s}": lambda n, x, y: [f"{x} * {y} = {n['p']}", f"{x} + {y} = {n['s']}"],
    "x: x > {a}; x < {b}; x mod {m} = 0": lambda n, x: [f"{n['m']} * {x // n['m']} = {x}"],
    "x: x > {a}; x < {b}; x mod {m} = {r}": lambda n, x: [
        f"{n['m']} * {(x - n['r']) // n['m']} = {x - n['r']}",
        f"{x - n['r']} + {n['r']} = {x}",
    ],
}
"""By the gold of a form: the lines that end in an answer."""
