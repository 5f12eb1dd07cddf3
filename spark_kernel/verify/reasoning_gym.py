"""Procedurally generated problems, scored by the reasoning-gym data set that made them.

`problem.meta["reasoning_gym"]` is `{"dataset": name, "config": {...}, "entry": {...}}`, with the entry as the data
set gave it. Rewards are graded. JSON turns the entry's tuples into lists; the two data sets whose scorers compare
tuples (arc_agi, rearc) get them back, the others do not mind (a test asks all of them).

Several of the library's scorers evaluate the answer as Python (`eval`, sympy's `parse_expr`). Answers are model text,
so these scorers see only literals or plain arithmetic; anything else is wrong without being evaluated.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.dress import undress, unwrap_text, without_text_commands
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, unreadable, wrong
from spark_kernel.verify.verifier import VerifyRequest

TUPLE_OUTPUTS = frozenset({"arc_agi", "rearc"})
EVALUATE_LITERALS = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
EVALUATE_FORMULAS = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
FUNCTION_NAMES = "exp log ln sqrt sin cos tan cot sec csc asin acos atan sinh cosh tanh asinh acosh atanh Abs pi"
FUNCTIONS = frozenset(FUNCTION_NAMES.split())
PLAIN_SIGNS = (("times", "*"), ("cdot", "*"), ("div", "/"), ("leq", "<="), ("geq", ">="), ("neq", "!="), ("pi", "pi"))
LABEL = re.compile(r"[A-Za-z]\w?\s*=\s*(?!=)")
FORMULA = re.compile(r"[\s+\-*/^(),!.\dA-Za-z]*")
STRAY_DOT = re.compile(r"\.(?!\d)")
NAME = re.compile(r"[A-Za-z]+")
# What a scorer raises on an answer that it cannot read; its entry was tried by `check_gold`.
UNREADABLE = (ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


class ReasoningGymVerifier:
    """The data set's own graded reward for the content of the last box."""

    def __init__(self) -> None:
        """Raises: InputError: reasoning-gym is not installed."""
        _library()

    def score(self, request: VerifyRequest) -> Score:
        """OK with the reward; NONE without a box, or where the scorer cannot read its content.

        Raises:
            ValueError: the problem has no reasoning-gym entry, or names an unknown data set.
        """
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        name, config, entry = _parts(request.problem)
        answer = unwrap_text(answer)
        found = _scored(name, config, entry, answer)
        if not found.correct:  # the scorers know no LaTeX and no label: what scores full without them is right
            for plain in plainer(answer):
                other = _scored(name, config, entry, plain)
                if other.correct:
                    return other
        return found

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the entry is malformed, or its own answer does not score 1.

        Some data sets (boxnet, rush_hour) give no answer; for these only the entry's form is checked.
        """
        try:
            name, config, entry = _parts(problem)
            scorer = _dataset(name, config)
        except ValueError as error:
            raise bad_gold(problem, str(error)) from error
        answer = entry.get("answer")
        if not isinstance(answer, str):
            return
        check_boxable(problem, answer)
        try:
            reward = _quietly(scorer, answer.strip(), entry)
        except UNREADABLE as error:
            why = f'the scorer of "{name}" fails on the entry\'s own answer ({type(error).__name__}: {error})'
            raise bad_gold(problem, why) from error
        if reward < 1.0:
            raise bad_gold(problem, f'the entry\'s own answer scores {reward:g} with "{name}", not 1')


def plainer(answer: str) -> list[str]:
    r"""The answer as plain text, for scorers that read that: `\times` as `*`, `\frac{a}{b}` as `(a)/(b)`, no `x =`."""
    text = without_text_commands(undress(answer))
    for command, sign in PLAIN_SIGNS:
        text = re.sub(rf"\\{command}(?![A-Za-z])\s*", sign, text)
    text = re.sub(r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r"((\1)/(\2))", text)
    text = re.sub(r"\^\s*\{([^{}]*)\}", r"^(\1)", text)
    text = re.sub(r"\\([{}%$_])", r"\1", text)
    found = [text.strip()]
    if label := LABEL.match(text):
        found.append(text[label.end() :].strip())
    return [plain for plain in dict.fromkeys(found) if plain and plain != answer]


def _scored(name: str, config: str, entry: dict[str, Any], answer: str) -> Score:
    if not _may_evaluate(name, answer, entry):
        return wrong(answer, f'The scorer of "{name}" would run it as Python, and it is no plain value.')
    try:
        reward = _quietly(_dataset(name, config), answer, entry)
    except UNREADABLE as error:
        return unreadable(answer, f'an answer that the scorer of "{name}" can read ({type(error).__name__})')
    return Score(reward, reward >= 1.0, Parse.OK, answer, f'Scored by reasoning-gym\'s "{name}".')


def _parts(problem: Problem) -> tuple[str, str, dict[str, Any]]:
    """Data set name, configuration as JSON, and the entry with its tuples restored."""
    meta = problem.meta.get("reasoning_gym")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("entry"), Mapping):
        raise ValueError('meta["reasoning_gym"] must hold "dataset", "config" and "entry"')
    entry = dict(meta["entry"])
    name = str(meta.get("dataset"))
    if not isinstance(entry.get("metadata"), Mapping) or "answer" not in entry:
        raise ValueError('the reasoning-gym entry must hold "question", "answer" and "metadata"')
    if name in TUPLE_OUTPUTS:
        metadata = dict(entry["metadata"])
        entry["metadata"] = metadata | {key: _tuples(metadata[key]) for key in ("input", "output") if key in metadata}
    return name, json.dumps(meta.get("config") or {}, sort_keys=True), entry


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list | tuple) else value


@lru_cache(maxsize=64)
def _dataset(name: str, config: str) -> Any:
    """The data set; made once per configuration, because some read files and some scorers use their configuration."""
    library = _library()
    if name not in library.factory.DATASETS or name == "composite":
        raise ValueError(f'reasoning-gym {library.__version__} has no single data set "{name}"')
    try:
        return library.create_dataset(name, **json.loads(config))
    except (AssertionError, TypeError, AttributeError) as error:
        raise ValueError(f'the data set "{name}" refuses its configuration ({error})') from error


def _quietly(scorer: Any, answer: str, entry: dict[str, Any]) -> float:
    """The reward, with what some scorers print thrown away."""
    with contextlib.redirect_stdout(io.StringIO()):
        return float(scorer.score_answer(answer, entry))


def _may_evaluate(name: str, answer: str, entry: Mapping[str, Any]) -> bool:
    """Whether the scorer of this data set may see the answer (it compares the text before it evaluates it)."""
    if name in EVALUATE_LITERALS:
        solutions = entry["metadata"].get("valid_answers") or ()
        return answer.strip() == str(entry["answer"]).strip() or answer in solutions or _is_literal(answer)
    if name in EVALUATE_FORMULAS:
        plain = FORMULA.fullmatch(answer) is not None and STRAY_DOT.search(answer) is None
        return plain and all(len(word) == 1 or word in FUNCTIONS for word in NAME.findall(answer))
    return True


def _is_literal(answer: str) -> bool:
    try:
        ast.literal_eval(answer)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _library() -> Any:
    try:
        import reasoning_gym
        import reasoning_gym.factory
    except ImportError as error:
        raise InputError(
            'The verifier "reasoning_gym" needs the package reasoning-gym: pip install reasoning-gym==0.1.25.'
        ) from error
    return reasoning_gym
