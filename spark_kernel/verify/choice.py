"""Multiple choice: a letter, or the text of an option."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, unreadable, wrong
from spark_kernel.verify.markup import tidy, unwrap_all_text
from spark_kernel.verify.verifier import VerifyRequest

OPTION_WORD = re.compile(r"(?:option|choice|answer)\s*:?\s*", re.IGNORECASE)
LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?\s*[.:]?")
LETTER_AND_TEXT = re.compile(r"(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[).:])\s*(\S.*)", re.DOTALL)


class ChoiceVerifier:
    r"""Reward 1 when the last box names the gold option.

    Read: `A`, `a`, `(A)`, `A.`, `\text{A}`, `\textbf{(A)}`, `Option A`, `A) 12`. `meta["choices"]`, a list of option
    texts in the order A, B, ... or a mapping from letter to text, limits the letters and lets an option's text
    stand for its letter; a letter beside another option's text is ambiguous.
    """

    def score(self, request: VerifyRequest) -> Score:
        """OK with the letter, AMBIGUOUS where letter and text name two options, NONE where neither is found."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        options = _options(request.problem)
        letters = read_letters(answer, options)
        if not letters:
            return unreadable(answer, "one of the options")
        if len(letters) > 1:
            return Score(0.0, False, Parse.AMBIGUOUS, None, f"The last box names the options {', '.join(letters)}.")
        gold = read_letters(request.task.label, options)
        return right(letters[0]) if letters == gold else wrong(letters[0])

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the choices are malformed, or the gold names no option or two."""
        check_boxable(problem, problem.gold)
        choices = problem.meta.get("choices")
        if choices is not None and not (
            isinstance(choices, list | tuple | Mapping)
            and 1 <= len(choices) <= len(ascii_uppercase)
            and (
                not isinstance(choices, Mapping)
                or all(len(str(key)) == 1 and str(key).upper() in ascii_uppercase for key in choices)
            )
        ):
            raise bad_gold(problem, 'meta["choices"] must be a list of up to 26 texts or a mapping from letter to text')
        options = _options(problem)
        if len(read_letters(problem.gold, options)) != 1:
            allowed = f"one of {', '.join(options)} or an option's text" if options else "a letter"
            raise bad_gold(problem, f"it must be {allowed}")


def read_letters(answer: str, options: Mapping[str, str]) -> list[str]:
    """The letters an answer names: by letter and by text; more than one where these disagree."""
    text = unwrap_all_text(tidy(answer)).replace("*", " ").strip()
    # The option's text is asked first: "A" may be the text of option C only if it is no letter of its own.
    by_text = [letter for letter, option in options.items() if _plain(option) == _plain(answer)]
    bare = text[match.end() :].strip() if (match := OPTION_WORD.match(text)) else text
    if match := LETTER.fullmatch(bare):
        return [letter] if _allowed(letter := match[1].upper(), options) else by_text
    if len(by_text) == 1:
        return by_text
    if match := LETTER_AND_TEXT.fullmatch(bare):
        letter = (match[1] or match[2]).upper()
        if not _allowed(letter, options):
            return []
        named = {other for other, option in options.items() if _plain(option) == _plain(match[3])}
        return sorted({letter} | named) if named and letter not in named else [letter]
    return by_text


def _allowed(letter: str, options: Mapping[str, str]) -> bool:
    return letter in options if options else letter in ascii_uppercase


def _options(problem: Problem) -> dict[str, str]:
    choices = problem.meta.get("choices") or ()
    pairs = choices.items() if isinstance(choices, Mapping) else zip(ascii_uppercase, choices, strict=False)
    return {str(letter).upper(): str(text) for letter, text in pairs}


def _plain(text: str) -> str:
    return " ".join(unwrap_all_text(tidy(text)).casefold().split())
