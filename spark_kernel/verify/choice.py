"""Multiple choice: a letter in any dress, or an option's text or value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from string import ascii_uppercase

from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import Parse, Problem, Score
from spark_kernel.verify.answer_reader import read_answer_value
from spark_kernel.verify.answer_types import Option, Words
from spark_kernel.verify.compare import same_value
from spark_kernel.verify.dress import undress, without_text_commands
from spark_kernel.verify.findings import bad_gold, check_boxable, no_box, right, unreadable, wrong
from spark_kernel.verify.labels import strip_words
from spark_kernel.verify.question_form import Form
from spark_kernel.verify.verifier import VerifyRequest

OPTION_WORD = re.compile(
    r"(?:(?:the|my)\s+)?(?:(?:correct|right|final|best)\s+)?(?:options?|choices?|answers?|letter|选项|选择|选|答案)"
    r"(?:\s*(?:is|are|是|为))?\s*[:=]?\s*(?=\W*\w)",
    re.IGNORECASE,
)
CORRECT = re.compile(
    r"\s+(?:is|was)\s+(?:the\s+)?(?:correct|right|true|best)(?:\s+(?:answer|option|choice))?$", re.IGNORECASE
)
LETTER = re.compile(r"[(\[{<*_]*\s*([A-Za-z])\s*[)\]}>*_]*\s*[.:,]?")
LETTER_AND_TEXT = re.compile(
    r"(?:[(\[{]\s*([A-Za-z])\s*[)\]}]\s*[.:=,-]?|([A-Za-z])\s*[).:\]=,-]|([A-Z])(?=\s*\(|\s))\s*(\S.*)", re.DOTALL
)
OWN_LETTER = re.compile(r"\s*(?:[(\[]\s*([A-Za-z])\s*[)\]]\s*[.:]?|([A-Za-z])\s*[).:])\s*(?=\S)")


class ChoiceVerifier:
    r"""Reward 1 when the last box names the gold option.

    Read: `A`, `a`, `(A)`, `[A]`, `A.`, `\text{A}`, `\textbf{(A)}`, `Option A`, `The answer is A`, `A) 12`, `A 12`.
    `meta["choices"]`, a list of option texts in the order A, B, ... or a mapping from letter to text, limits the
    letters and lets an option's text or value stand for its letter; a letter beside another option's text is
    ambiguous. Texts that carry their own letter (`A) 12`) are read without it.
    """

    def score(self, request: VerifyRequest) -> Score:
        """OK with the letter, AMBIGUOUS where letter and text name two options, NONE where neither is found."""
        answer = read_answer(request.output)
        if answer is None:
            return no_box()
        options = read_options(request.problem)
        letters = read_letters(answer, options)
        if not letters:
            return unreadable(answer, "one of the options")
        if len(letters) > 1:
            return Score(0.0, False, Parse.AMBIGUOUS, None, f"The last box names the options {', '.join(letters)}.")
        gold = read_letters(request.task.label, options)
        return right(letters[0]) if letters == gold else wrong(letters[0])

    def check_gold(self, problem: Problem) -> None:
        """Raises: ProblemError: the choices are malformed, or the gold names no option, two, or a letter beside a text
        that cannot be compared with one."""
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
        options = read_options(problem)
        letters = read_letters(problem.gold, options)
        if len(letters) != 1:
            allowed = f"one of {', '.join(options)} or an option's text" if options else "a letter"
            raise bad_gold(problem, f"it must be {allowed}")
        if not options and LETTER.fullmatch(_bare(problem.gold)) is None:
            raise bad_gold(problem, f'it is a letter beside a text: write the gold "{letters[0]}" alone')


def read_letters(answer: str, options: Mapping[str, str]) -> list[str]:
    """The letters an answer names: by letter, by text and by value; more than one where these disagree."""
    # The option's text is asked first: "A" may be the text of option C only if it is no letter of its own.
    by_text = _by_text(answer, options)
    bare = _bare(answer)
    if match := LETTER.fullmatch(bare):
        return [letter] if _allowed(letter := match[1].upper(), options) else by_text
    if len(by_text) == 1:
        return by_text
    if match := LETTER_AND_TEXT.fullmatch(bare):
        letter = (match[1] or match[2] or match[3]).upper()
        named = _by_text(match[4], options)
        loose = match[3] is not None
        if not _allowed(letter, options) or (loose and not named):
            return named if loose and len(named) == 1 and not options else []
        return sorted({letter, *named}) if named and letter not in named else [letter]
    return by_text or _by_text(bare, options)


def read_options(problem: Problem) -> dict[str, str]:
    """The options by letter; a letter that every text carries itself is taken off."""
    choices = problem.meta.get("choices") or ()
    pairs = choices.items() if isinstance(choices, Mapping) else zip(ascii_uppercase, choices, strict=False)
    options = {str(letter).upper(): str(text) for letter, text in pairs}
    own = {letter: OWN_LETTER.match(text) for letter, text in options.items()}
    if options and all(match and (match[1] or match[2]).upper() == letter for letter, match in own.items()):
        return {letter: options[letter][match.end() :] for letter, match in own.items() if match}
    return options


def _bare(answer: str) -> str:
    """The answer without dress and without the words that only introduce it."""
    text = " ".join(without_text_commands(undress(answer)).replace("*", " ").split())
    text = strip_words(text)[0]
    if match := OPTION_WORD.match(text):
        text = text[match.end() :]
    return CORRECT.sub("", text).strip().strip("\"'`“”").strip()


def _allowed(letter: str, options: Mapping[str, str]) -> bool:
    return letter in options if options else letter in ascii_uppercase


def _by_text(answer: str, options: Mapping[str, str]) -> list[str]:
    """The options whose text this is; where there is none, those whose value it is."""
    if not options:
        return []
    shown = _plain(answer)
    found = [letter for letter, option in options.items() if _plain(option) == shown]
    if found:
        return found
    reading = read_answer_value(answer)
    if reading is None or isinstance(reading.value, Words | Option):
        return []
    for letter, option in options.items():
        other = read_answer_value(option)
        if other is None or isinstance(other.value, Words):
            continue
        if same_value(other.value, reading.value, Form()) is True:
            found.append(letter)
    return found


def _plain(text: str) -> str:
    return " ".join(without_text_commands(undress(text)).casefold().split())
