"""What the readers of problem files give: rows in order, each with its place, and what was left out on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spark_kernel.errors import ProblemError
from spark_kernel.records import ExclusionReason


@dataclass(frozen=True, slots=True)
class Row:
    """One record: `place` is "file:line", "file:record n, line m" in a JSON array, or "file:row n" without lines."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is no problem of its own and no fault either: an empty line, or a repetition of an earlier row."""

    place: str
    reason: ExclusionReason
    detail: str


Rows = Iterator[Row | ProblemError | Skipped]
"""A row that cannot be read stands as a `ProblemError` in its place."""


def blank(place: str) -> Skipped:
    """An empty line or record."""
    return Skipped(place, ExclusionReason.BLANK, "the line is empty")
