"""Multiple choice as data sets publish it: lists, objects from letter to text, text and label lists, labelled texts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

from spark_kernel.problems.texts import checked_text

MOST = len(ascii_uppercase)
OWN_LABEL = re.compile(r"\s*(?:\(\s*([A-Za-z])\s*\)|([A-Za-z])\s*[).:])\s*(?=\S)")
LETTER = re.compile(r"\(?\s*([A-Za-z])\s*\)?\s*[.:)]?")
ON_LINES = re.compile(r"(?:^|\n)[ \t]*(?:\(([A-Z])\)|([A-Z])[.):])[ \t]*(?=\S)")
INLINE = re.compile(r"(?<!\S)\(([A-Z])\)\s*(?=\S)")


@dataclass(frozen=True, slots=True)
class Choices:
    """The options' texts in order, and what the data set calls each: "A", "B", ... or its own labels."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def listed(self) -> str:
        """The options as they stand under a question."""
        return "".join(f"\n{letter}. {text}" for letter, text in zip(ascii_uppercase, self.texts, strict=False))


def read_choices(value: object, *, own_labels: bool = True) -> Choices | None:
    """The choices of a field; None where there are none.

    Args:
        own_labels: labels that the texts carry themselves ("A) 21", "(B) 22") are taken off where all have theirs.

    Raises:
        ValueError: not a list of 2 to 26 texts in any of the known forms.
    """
    if isinstance(value, str):
        value = _from_json(value)
    if value is None or value == [] or value == {}:
        return None
    labels: list[object] = []
    if isinstance(value, Mapping):
        labels, value = _from_object(value)
    elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        labels = [_first(one, "label", "key", "id") for one in value]
        value = [_first(one, "text", "content", "value") for one in value]
    if not isinstance(value, list) or not 2 <= len(value) <= MOST:
        raise ValueError(f"the choices must be a list of 2 to {MOST} texts")
    texts = [checked_text(str(one) if isinstance(one, int | float) else one, "choice") for one in value]
    if own_labels and not labels:
        texts = _without_labels(texts)
    return Choices(tuple(texts), _checked_labels(labels, len(texts)))


def choices_in(question: str, letter: str) -> list[str] | None:
    """The options that a question lists itself, if one of them has this letter: each on its line, or (A) ... (B) ..."""
    for pattern in (ON_LINES, INLINE):
        marks = [(match[1] or (match[2] if pattern.groups > 1 else ""), match) for match in pattern.finditer(question)]
        # The last run of A, B, C, ... that goes on to the end: a question may mention (A) before it lists its options.
        starts = [place for place, (name, _) in enumerate(marks) if name == "A"]
        if not starts:
            continue
        run = marks[starts[-1] :]
        if [name for name, _ in run] != list(ascii_uppercase[: len(run)]) or len(run) < 2 or letter not in dict(run):
            continue
        ends = [*(match.start() for _, match in run[1:]), len(question)]
        texts = [question[match.end() : end].strip() for (_, match), end in zip(run, ends, strict=True)]
        texts[-1] = texts[-1].partition("\n")[0].strip()
        if all(texts):
            return texts
    return None


def letter_of(gold: str) -> str | None:
    """The letter that a gold is, as "B", "(B)", "b." or "B)"; None for anything else."""
    match = LETTER.fullmatch(gold.strip())
    return match[1].upper() if match else None


def gold_letter(gold: object, choices: Choices, index_from: int | None) -> object:
    """The gold as a letter where it is an index or a label of the data set's own, else as it is.

    Args:
        index_from: what the data set's first option counts as; None: a whole number (not a text) counts from 0.

    Raises:
        ValueError: an index that no option has.
    """
    text = str(gold).strip()
    own_labels = choices.labels != tuple(ascii_uppercase[: len(choices.labels)])
    if own_labels and text in choices.labels and not isinstance(gold, bool):
        return ascii_uppercase[choices.labels.index(text)]
    is_number = isinstance(gold, int) and not isinstance(gold, bool)
    if is_number or (index_from is not None and text.isascii() and text.isdigit()):
        first = index_from or 0
        place = int(text) - first
        if not 0 <= place < len(choices.texts):
            last = len(choices.texts) - 1 + first
            raise ValueError(f"the gold {text} is no index of {len(choices.texts)} choices: {first} to {last}")
        return ascii_uppercase[place]
    return gold


def _from_json(text: str) -> object:
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('choices given as text must be a JSON list, such as ["red", "blue"]') from None
    return value if isinstance(value, list | dict) else [value]


def _from_object(value: Mapping[str, object]) -> tuple[list[object], object]:
    """Labels and texts of {"text": [...], "label": [...]} (ARC) or of {"A": ..., "B": ...}."""
    texts, labels = value.get("text"), value.get("label")
    if isinstance(texts, list):
        return (list(labels) if isinstance(labels, list) else []), texts
    # Parquet gives every row the keys of all rows, with null where a row has no such option.
    held = {key: text for key, text in value.items() if text is not None}
    by_label = {str(key).strip().upper() if len(str(key).strip()) == 1 else str(key): one for key, one in held.items()}
    if all(label in ascii_uppercase for label in by_label):
        by_label = dict(sorted(by_label.items()))
    return list(by_label), list(by_label.values())


def _first(one: Mapping[str, object], *names: str) -> object:
    return next((one[name] for name in names if one.get(name) is not None), None)


def _checked_labels(labels: Sequence[object], count: int) -> tuple[str, ...]:
    if not labels:
        return tuple(ascii_uppercase[:count])
    names = [str(label).strip() for label in labels]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"the choices are {count} and their labels {', '.join(names)}: each must have one of its own")
    return tuple(names)


def _without_labels(texts: Sequence[str]) -> list[str]:
    matches = [OWN_LABEL.match(text) for text in texts]
    letters = [(match[1] or match[2]).upper() if match else "" for match in matches]
    if letters != list(ascii_uppercase[: len(texts)]):
        return list(texts)
    return [text[match.end() :].strip() for text, match in zip(texts, matches, strict=True) if match]
