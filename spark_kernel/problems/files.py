"""Problems from files and hub data sets: JSON Lines, JSON, CSV, TSV, Parquet; images by path or bytes.

All records are read once, when the source is made: their texts stay in memory, their images on disk. A record that
cannot be used keeps its index and raises its `ProblemError` whenever it is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.keyed_random import content_hash
from spark_kernel.problems.chat import read_chat
from spark_kernel.problems.held_out import canonical_text
from spark_kernel.problems.hub import read_hub
from spark_kernel.problems.image_fields import ImageReader
from spark_kernel.problems.images import MAX_PIXELS
from spark_kernel.problems.tables import Row, Rows, read_rows
from spark_kernel.prompts.build import IMAGE_MARK
from spark_kernel.prompts.verdicts import read_boxes, write_box
from spark_kernel.records import Problem

HUB = "hub:"
DEFAULT_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem"),
    "message": ("message",),
    "gold": ("gold", "answer"),
    "id": ("id",),
    "images": ("images", "image"),
    "choices": ("choices",),
}
"""What a column mapping may name, and the field names looked for where it does not."""


class FilesSource:
    """The problems of one or more files, or of a hub data set, in file order.

    Args:
        path: a problem file, several of them, or "hub:owner/name".
        dataset: a hub data set "owner/name", instead of path.
        subset, split, revision: which part of the hub data set.
        columns: our name (question, message, gold, id, images, choices) to the record's field name.
        verifier: the verifier of every problem; none: "choice" for records with choices, else "math".
        image_root: images given by path must lie in this folder; none: the problem file's own folder.
        image_cache: folder for images given as bytes; none: a folder of this user under the temporary directory.
        max_pixels: the most pixels an image may have.

    Raises:
        InputError: a file or option that cannot be used as a whole.
    """

    def __init__(
        self,
        *,
        path: str | list[str] | None = None,
        dataset: str | None = None,
        subset: str | None = None,
        split: str = "train",
        revision: str | None = None,
        columns: dict[str, str] | None = None,
        verifier: str | None = None,
        image_root: str | None = None,
        image_cache: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        files, dataset = _which(path, dataset)
        images = ImageReader(
            root=Path(image_root) if image_root else files[0].parent if files else None,
            cache=Path(image_cache) if image_cache else None,
            max_pixels=max_pixels,
        )
        rows: Rows = (
            read_hub(dataset, subset=subset, split=split, revision=revision)
            if dataset
            else chain.from_iterable(read_rows(file) for file in files)
        )
        reader = RecordReader(_checked_columns(columns), verifier, images)
        self._problems = _read_all(rows, reader)
        if not self._problems:
            raise InputError(f"{dataset or ', '.join(map(str, files))} holds no problems.")
        self.size: int | None = len(self._problems)

    def problem(self, index: int) -> Problem:
        """The problem at an index.

        Raises:
            ProblemError: the record at this index is malformed; says file, line and reason.
            IndexError: the index is not below `size`.
        """
        if not 0 <= index < len(self._problems):
            raise IndexError(f"problem {index} of {len(self._problems)}")
        found = self._problems[index]
        if isinstance(found, ProblemError):
            raise ProblemError(*found.args)
        return found


@dataclass(frozen=True, slots=True)
class RecordReader:
    """From a record to a problem: which field is which, and what its values may be."""

    columns: Mapping[str, str]
    verifier: str | None
    images: ImageReader

    def read(self, row: Row) -> Problem:
        """The problem of a record; its id is "" where the record brings none.

        Raises:
            ValueError: what is wrong with the record.
            InputError: what is wrong with one of its images.
        """
        question, given, meta = self._question(row.values)
        choices = _choices(self._get(row.values, "choices"))
        gold = self._required(row.values, "gold")
        if choices:
            meta["choices"] = choices
            question += "".join(f"\n{letter}. {text}" for letter, text in zip(ascii_uppercase, choices, strict=False))
        images = tuple(self.images.read(value) for value in given)
        marks = question.count(IMAGE_MARK)
        if marks and marks != len(images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks for {len(images)} images")
        return Problem(
            id=_identity(self._get(row.values, "id")),
            question=question,
            gold=_gold(gold, choices),
            verifier=self.verifier or ("choice" if choices else "math"),
            images=images,
            meta=meta,
        )

    def _question(self, values: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
        """The question's text, the raw images in order, and the meta entries."""
        column = ImageReader.listed(self._get(values, "images"))
        if not self._is_chat(values):
            return _text(self._required(values, "question"), "question"), column, {}
        chat = read_chat(self._required(values, "message"))
        given = [image for image in chat.images if image is not None]
        if given and (column or len(given) < len(chat.images)):
            raise ValueError("some images stand in the chat and some beside it: give them in one place")
        if not given and chat.images and len(chat.images) != len(column):
            raise ValueError(f"the chat has {len(chat.images)} image parts and the record {len(column)} images")
        return _text(chat.question, "question"), given or column, {"system": chat.system} if chat.system else {}

    def _is_chat(self, values: Mapping[str, Any]) -> bool:
        """A mapped field decides; otherwise a record with a message and no question is a chat."""
        if "question" in self.columns or "message" in self.columns:
            return "message" in self.columns
        return self._get(values, "question") is None and self._get(values, "message") is not None

    def _get(self, values: Mapping[str, Any], role: str) -> Any:
        """The value of a role's field; None where there is none."""
        names = [self.columns[role]] if role in self.columns else DEFAULT_COLUMNS[role]
        return next((values[name] for name in names if values.get(name) is not None), None)

    def _required(self, values: Mapping[str, Any], role: str) -> Any:
        value = self._get(values, role)
        if value is None:
            names = [self.columns[role]] if role in self.columns else DEFAULT_COLUMNS[role]
            wanted = " or ".join(f'"{name}"' for name in names)
            present = ", ".join(f'"{name}"' for name in list(values)[:20]) or "none"
            raise ValueError(
                f"the {role} is missing (field {wanted}; present: {present}); "
                f'problems.options.columns can name another field: {{"{role}": "..."}}'
            )
        return value


def _which(path: str | list[str] | None, dataset: str | None) -> tuple[list[Path], str | None]:
    if isinstance(path, str) and path.startswith(HUB) and dataset is None:
        dataset, path = path.removeprefix(HUB), None
    if (path is None) == (dataset is None):
        raise InputError(
            "The files source needs either problems.options.path (a file, a list of files, or hub:owner/name) or "
            "problems.options.dataset (owner/name on the hub)."
        )
    files = [Path(path)] if isinstance(path, str) else [Path(name) for name in path or []]
    if dataset is None and not files:
        raise InputError("problems.options.path = [] is refused: name at least one problem file.")
    return files, dataset


def _checked_columns(columns: Mapping[str, str] | None) -> Mapping[str, str]:
    known = ", ".join(DEFAULT_COLUMNS)
    if unknown := sorted(set(columns or {}) - set(DEFAULT_COLUMNS)):
        raise InputError(f'problems.options.columns names "{unknown[0]}", which is refused: {known} can be mapped.')
    if {"question", "message"} <= set(columns or {}):
        raise InputError("problems.options.columns maps question and message: a record's problem is one or the other.")
    return columns or {}


def _read_all(rows: Rows, reader: RecordReader) -> list[Problem | ProblemError]:
    problems: list[Problem | ProblemError] = []
    places: dict[str, str] = {}
    for row in rows:
        problems.append(row if isinstance(row, ProblemError) else _read_one(row, reader, places))
    return problems


def _read_one(row: Row, reader: RecordReader, places: dict[str, str]) -> Problem | ProblemError:
    """The problem of a row, or what is wrong with it; `places` knows where each id was seen first, and learns."""
    try:
        problem = reader.read(row)
    except (ValueError, InputError) as error:
        return ProblemError(f"{row.place}: {str(error).rstrip('.')}.")
    identity = problem.id or f"q-{content_hash(canonical_text(problem), length=16)}"
    if identity in places:
        repeated = (
            f'the id "{identity}" was'
            if problem.id
            else "a problem without an id, with the same question and images, was"
        )
        return ProblemError(f"{row.place}: {repeated} given before, at {places[identity]}.")
    places[identity] = row.place
    meta = {**problem.meta, "record": row.place}
    return Problem(identity, problem.question, problem.gold, problem.verifier, problem.images, meta)


def _text(value: object, role: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the {role} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"the {role} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the {role} holds half of a surrogate pair, which is no character") from None
    return value


def _identity(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"the id must be a text or a whole number, not {type(value).__name__}")
    return _text(str(value), "id").strip()


def _gold(value: object, choices: Sequence[str]) -> str:
    """Gold as text: a number is written out, a box around it taken off, a choice's index or text made its letter."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        raise ValueError(f"the gold must be a text or a number, not {type(value).__name__}")
    if not isinstance(value, str) and not math.isfinite(value):
        raise ValueError(f"the gold is {value}")
    if choices and isinstance(value, int):
        if not 0 <= value < len(choices):
            raise ValueError(f"the gold {value} is no index of {len(choices)} choices: 0 to {len(choices) - 1}")
        return ascii_uppercase[value]
    text = _text(str(value), "gold").strip()
    boxes = read_boxes(text)
    if len(boxes) == 1 and boxes[0] and text == write_box(boxes[0]):
        text = boxes[0]
    return text


def _choices(value: object) -> list[str]:
    if value is None or value == []:
        return []
    if isinstance(value, str):
        value = list(_split_choices(value))
    if not isinstance(value, list) or not 2 <= len(value) <= len(ascii_uppercase):
        raise ValueError(f"the choices must be a list of 2 to {len(ascii_uppercase)} texts")
    return [_text(str(choice) if isinstance(choice, int | float) else choice, "choice") for choice in value]


def _split_choices(text: str) -> Iterator[object]:
    import json

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('choices given as text must be a JSON list, such as ["red", "blue"]') from None
    yield from value if isinstance(value, list) else [value]
