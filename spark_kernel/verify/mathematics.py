r"""Mathematics: read into typed values, and compared by the kind of value that the gold is.

Plain numbers are read and compared without any parser. Everything else goes through our own reader (`answer_reader`,
`compare`), and what that does not read through math-verify and sympy (`library`).
"""

from __future__ import annotations

import re

from spark_kernel.prompts.verdicts import read_answer, write_box
from spark_kernel.records import Problem, Score
from spark_kernel.verify import library
from spark_kernel.verify.answer_reader import plain_words, read_answer_value
from spark_kernel.verify.answer_types import Option, Reading, Value, Words
from spark_kernel.verify.compare import close_numbers, same_value
from spark_kernel.verify.dress import undress
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, unreadable, wrong
from spark_kernel.verify.formula import NoValueError, TooLargeError, symbols, uses
from spark_kernel.verify.formula_value import value_at
from spark_kernel.verify.gold_advice import advice, is_placeholder, is_worked
from spark_kernel.verify.numbers import Number, read_number
from spark_kernel.verify.quantities import number_word
from spark_kernel.verify.question_form import FORMS, Form, form_of
from spark_kernel.verify.relations import plain_formula
from spark_kernel.verify.verifier import VerifyRequest

PROSE = re.compile(r"(?=.*[A-Za-z\u00c0-\uffff]{2,})[\w\s.,;:'\"%()/?!-]+", re.DOTALL)


class MathVerifier:
    """Reward 1 when the last box is mathematically equal to the gold.

    Units and labels (`x =`) are ignored unless both sides have a known one and these differ. A decimal agrees with an
    exact value to six places. Sets, tuples, intervals, equations, times and dates are compared with their own kind.
    Words are compared as words, without case.
    """

    def __init__(self) -> None:
        """Load math-verify and build its parser's tables, so that no output's deadline pays for it."""
        library.load()

    def score(self, request: VerifyRequest) -> Score:
        """OK with the answer; NONE without a box or where the box is not readable as mathematics."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        gold = request.task.label
        if answer == gold.strip():
            return right(answer)
        return _score(gold, answer, form_of(request.problem))

    def check_gold(self, problem: Problem) -> None:
        """Refuse a gold that is not one value as it stands, or that does not score right against itself.

        Raises:
            ProblemError: says what is wrong with it, and what would read it.
        """
        check_boxable(problem, problem.gold)
        setting = problem.meta.get("form", FORMS[0])
        if setting not in FORMS:
            raise bad_gold(problem, f'meta["form"] = {setting!r} must be one of {", ".join(FORMS)}')
        if is_placeholder(problem.gold):
            raise bad_gold(problem, 'it stands for a missing answer; give one, or use the verifier "exact"')
        form = form_of(problem)
        reading = _read(problem.gold, form)
        if is_worked(problem.gold):
            raise bad_gold(problem, advice(problem.gold, None))
        if reading is not None and (reading.removed or isinstance(reading.value, Option)):
            raise bad_gold(problem, advice(problem.gold, reading))
        if reading is None and library.parse(problem.gold) is None:
            raise bad_gold(problem, advice(problem.gold, None))
        if reading is not None and not _has_value(reading.value):
            raise bad_gold(problem, "it has no value")
        score = _score(problem.gold, read_answer(write_box(problem.gold)) or "", form)
        if not score.correct:
            why = (score.reason or "it is not equal to itself").rstrip(".")
            raise bad_gold(problem, f"its own answer does not score right ({why})")


def _has_value(value: Value) -> bool:
    """Whether a formula without symbols can be computed, if it is not too large for that."""
    formula = plain_formula(value)
    if formula is None or isinstance(value, Number) or symbols(formula) or uses(formula, "infty"):
        return True
    for real in (True, False):
        try:
            value_at(formula, {}, digits=20, real=real)
        except NoValueError:
            continue
        except TooLargeError:
            return True
        return True
    return False


def _score(gold: str, answer: str, form: Form) -> Score:
    number, gold_number = read_number(answer), read_number(gold)
    if number is not None and gold_number is not None and not (number.letter or gold_number.letter):
        return right(answer) if close_numbers(gold_number, number, form) else wrong(answer)
    ours = _read(gold, form)
    theirs = _read(answer, form, gold=ours.value if ours is not None else None)
    if ours is not None and isinstance(ours.value, Words):
        return _score_words(ours.value, theirs, answer)
    if ours is not None and theirs is not None:
        same = same_value(ours.value, theirs.value, form)
        if same is not None:
            return right(answer) if same else wrong(answer)
    return _score_by_library(gold, answer, theirs)


def _score_words(gold: Words, theirs: Reading | None, answer: str) -> Score:
    if theirs is not None and isinstance(theirs.value, Words):
        return right(answer) if theirs.value == gold else wrong(answer)
    if theirs is not None and isinstance(theirs.value, Number) and theirs.value.value == number_word(gold.text):
        return right(answer)
    return right(answer) if plain_words(undress(answer)) == gold.text else wrong(answer)


def _score_by_library(gold: str, answer: str, theirs: Reading | None) -> Score:
    if theirs is not None and isinstance(theirs.value, Words):
        return wrong(answer)
    if undress(answer) == undress(gold):
        return right(answer)
    parsed = library.parse(answer)
    if parsed is None:
        # Prose is an answer, if no mathematics; symbols that make no sense are none.
        return wrong(answer) if theirs is not None or PROSE.fullmatch(undress(answer)) else _unreadable(answer)
    expected = library.parse(gold)
    if expected is None:
        return wrong(answer, "The gold is read in another way than the answer.")
    try:
        return right(answer) if library.same(expected, parsed) else wrong(answer)
    except library.ERRORS as error:
        return wrong(answer, f"It cannot be compared with the gold ({type(error).__name__}).")


def _unreadable(answer: str) -> Score:
    return unreadable(answer, "readable mathematics")


def _read(text: str, form: Form, gold: Value | None = None) -> Reading | None:
    """The text's value; a letter behind digits is a symbol where the question or the gold uses it as one."""
    reading = read_answer_value(text)
    if reading is None or not isinstance(reading.value, Number) or not reading.value.letter:
        return reading
    formula = plain_formula(gold) if gold is not None else None
    letter = undress(text)[-1:]
    if letter in form.symbols or (formula is not None and letter in symbols(formula)):
        return read_answer_value(text, letter_units=False)
    return reading
