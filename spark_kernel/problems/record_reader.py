"""From a record of a file to a problem: which field is which, and what its values may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from spark_kernel.errors import InputError
from spark_kernel.problems.answer_format import set_apart
from spark_kernel.problems.chat import read_chat
from spark_kernel.problems.choices import Choices, choices_in, gold_letter, letter_of, read_choices
from spark_kernel.problems.fields import field_names, find_field
from spark_kernel.problems.formats.columns import FIRST
from spark_kernel.problems.formats.layout import ROLES, Layout
from spark_kernel.problems.golds import in_a_dress, is_placeholder, read_golds
from spark_kernel.problems.held_out import GIVEN_IMAGES
from spark_kernel.problems.image_fields import ImageReader
from spark_kernel.problems.rows import Row
from spark_kernel.problems.texts import checked_text
from spark_kernel.prompts.build import IMAGE_MARK
from spark_kernel.records import Problem
from spark_kernel.verify.any_of import ANY_OF, AnyOfVerifier
from spark_kernel.verify.registry import verifier_names

ANSWER_FORMAT = "answer_format"
"""The key of a problem's meta with the answer-format sentence that was set apart from its question."""
OF_VALUES = frozenset({"math", "numeric", "integer"})
"""Verifiers to which a placeholder such as "N/A" is no gold."""

Columns = Mapping[str, str | list[str]]


def check_columns(columns: Columns) -> None:
    """Refuse a mapping of roles that do not exist or exclude each other.

    Raises:
        InputError: says which, and what can be mapped.
    """
    if unknown := sorted(set(columns) - set(ROLES)):
        raise InputError(
            f'problems.options.columns names "{unknown[0]}", which is refused: {", ".join(ROLES)} can be mapped.'
        )
    if {"question", "message"} <= set(columns):
        raise InputError("problems.options.columns maps question and message: a record's problem is one or the other.")
    for role, name in columns.items():
        if not isinstance(name, str) and role != "choices":
            raise InputError(f"problems.options.columns.{role} must name one field; only choices may name several.")


@dataclass(frozen=True, slots=True)
class RecordReader:
    """How the records of a source are read.

    Attributes:
        layout: the format.
        columns: what a person mapped, which goes before the format's own fields.
        verifier: of every problem, None: the record's own, else by what the problem is.
        images: reads image fields.
        keep_answer_format: leave answer-format sentences in the question.
        gold_pattern: where in a gold's text the gold is.
        gold_index: what the first choice counts as where golds are indices in text.
    """

    layout: Layout
    columns: Columns
    verifier: str | None
    images: ImageReader
    keep_answer_format: bool = False
    gold_pattern: re.Pattern[str] | None = None
    gold_index: int | None = None

    def read(self, row: Row) -> Problem:
        """The problem of a record; its id is "" where the record brings none.

        Raises:
            ValueError: what is wrong with the record.
            InputError: what is wrong with one of its images.
        """
        question, given, meta = self._question(row.values)
        images = [self.images.read(value, shrink=not self._first) for value in given]
        if any(image.given != image.shown.sha256 for image in images):
            meta[GIVEN_IMAGES] = [image.given for image in images]
        marks = question.count(IMAGE_MARK)
        if marks and marks != len(images):
            raise ValueError(f"{marks} {IMAGE_MARK} marks for {len(images)} images")
        if not (self._first or self.keep_answer_format):
            apart = set_apart(question)
            question = apart.question
            meta |= {ANSWER_FORMAT: apart.removed} if apart.removed else {}
        choices = self._choices(row.values)
        golds = self._golds(row.values, choices)
        verifier = self._verifier(row.values)
        if choices:
            meta["choices"] = list(choices.texts)
            question += choices.listed()
        elif verifier is None and (own := self._choices_in(question, golds)):
            meta["choices"] = own
            golds = [letter_of(golds[0]) or golds[0]]
        problem = Problem(
            id=_identity(self._get(row.values, "id")),
            question=question,
            gold=golds[0],
            verifier=verifier or ("choice" if "choices" in meta else "math"),
            images=tuple(image.shown for image in images),
            meta=meta,
        )
        if not self._first and problem.verifier in OF_VALUES and all(map(is_placeholder, golds)):
            raise ValueError(
                f'the gold "{golds[0]}" only says that there is none: leave the record out, or name the verifier exact '
                "where this is what an answer should say"
            )
        if (
            not self._first
            and problem.verifier in OF_VALUES
            and (why := next(filter(None, map(in_a_dress, golds)), None))
        ):
            raise ValueError(f'the gold "{golds[0][:60]}" cannot be compared with an answer: {why}')
        return problem if len(golds) == 1 else _with_alternatives(problem, golds)

    @property
    def _first(self) -> bool:
        """Whether records are read as they were before there were formats, for the sake of an older run's split."""
        return self.layout is FIRST

    def _question(self, values: Mapping[str, Any]) -> tuple[str, list[Any], dict[str, Any]]:
        """The question's text, the raw images in order, and the meta entries."""
        column = ImageReader.listed(self._get(values, "images"))
        if not self._is_chat(values):
            return checked_text(self._required(values, "question"), "question"), column, {}
        chat = read_chat(self._required(values, "message"))
        given = [image for image in chat.images if image is not None]
        if given and (column or len(given) < len(chat.images)):
            raise ValueError("some images stand in the chat and some beside it: give them in one place")
        if not given and chat.images and len(chat.images) != len(column):
            raise ValueError(f"the chat has {len(chat.images)} image parts and the record {len(column)} images")
        meta = {"system": chat.system} if chat.system else {}
        return checked_text(chat.question, "question"), given or column, meta

    def _is_chat(self, values: Mapping[str, Any]) -> bool:
        """A mapped field decides; otherwise a record with a message and no question is a chat."""
        if "question" in self.columns or "message" in self.columns:
            return "message" in self.columns
        if "question" not in self.layout.columns:
            return True
        return self._get(values, "question") is None and self._get(values, "message") is not None

    def _choices(self, values: Mapping[str, Any]) -> Choices | None:
        mapped = self.columns.get("choices")
        names = mapped if isinstance(mapped, list) else self.layout.columns.get("choices", ())
        if isinstance(mapped, list) or (mapped is None and self.layout.split_choices):
            held = [find_field(values, name) for name in names]
            return read_choices([one for one in held if one is not None])
        return read_choices(self._get(values, "choices"), own_labels=not self._first)

    def _choices_in(self, question: str, golds: list[str]) -> list[str] | None:
        """The options that a question lists itself, where the gold is the letter of one of them."""
        letter = letter_of(golds[0]) if len(golds) == 1 and not self._first else None
        return choices_in(question, letter) if letter else None

    def _golds(self, values: Mapping[str, Any], choices: Choices | None) -> list[str]:
        """The acceptable golds, of which the first is shown."""
        raw = self._required(values, "gold")
        if choices:
            first = self.layout.index_from if self.gold_index is None else self.gold_index
            items = raw if isinstance(raw, list) else [raw]
            raw = [gold_letter(item, choices, first) for item in items]
            raw = raw if len(raw) != 1 else raw[0]
        if self.gold_pattern is not None or ("gold" in self.columns and not self._first):
            golds = read_golds(raw, self.gold_pattern)
        else:
            golds = self.layout.read_gold(raw)
        if choices and len(golds) > 1:
            golds = list(dict.fromkeys(letter_of(gold) or gold for gold in golds))
        return golds

    def _verifier(self, values: Mapping[str, Any]) -> str | None:
        """The verifier that a setting or the record itself names."""
        mapped = "verifier" in self.columns
        name = self._get(values, "verifier") if mapped or self.verifier is None else None
        if name is None:
            return self.verifier
        known = verifier_names()
        if not isinstance(name, str) or (name not in known and not (mapped and ":" in name)):
            raise ValueError(f'there is no verifier "{name}": {", ".join(known)}')
        return name

    def _get(self, values: Mapping[str, Any], role: str) -> Any:
        """The value of a role's field; None where there is none."""
        return next((value for name in self._names(role) if (value := find_field(values, name)) is not None), None)

    def _names(self, role: str) -> tuple[str, ...]:
        mapped = self.columns.get(role)
        return (mapped,) if isinstance(mapped, str) else self.layout.columns.get(role, ())

    def _required(self, values: Mapping[str, Any], role: str) -> Any:
        value = self._get(values, role)
        if value is None:
            wanted = " or ".join(f'"{name}"' for name in self._names(role))
            raise ValueError(
                f"the {role} is missing (field {wanted}; present: {field_names(values)}); "
                f'problems.options.columns can name another field: {{"{role}": "..."}}'
            )
        return value


def _with_alternatives(problem: Problem, golds: list[str]) -> Problem:
    """The problem with several acceptable golds, any of which is right."""
    meta = {**problem.meta, ANY_OF: {"verifier": problem.verifier, "golds": golds}}
    return replace(problem, verifier=AnyOfVerifier.NAME, meta=meta)


def _identity(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"the id must be a text or a whole number, not {type(value).__name__}")
    return checked_text(str(value), "id").strip()
