"""Rows of CSV and TSV files: a header line with the names of the columns, then one record for each line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from spark_kernel.errors import ProblemError
from spark_kernel.problems.images import MAX_BYTES
from spark_kernel.problems.rows import Row, Rows, Skipped, blank

if TYPE_CHECKING:
    from _csv import Reader

LONGEST_FIELD = MAX_BYTES * 4 // 3 + 1024
"""Characters a field may have: an image of the largest size that is read, in base64."""


def read_csv(path: Path, delimiter: str | None = None) -> Rows:
    """Comma-separated values with a header line. A quoted field may hold line breaks; a record's line is its first.

    Args:
        delimiter: between fields; None: a comma, or what the header has in its place, semicolons or tabs.

    Raises:
        ProblemError: no header, or one that names a column twice.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        first = file.readline()
        file.seek(0)
        mark = delimiter or next((mark for mark in ",;\t" if mark in first), ",")
        # "question, answer": a space after the comma is part of the layout, not of the names and values.
        spaced = f"{mark} " in first
        reader = csv.reader(file, delimiter=mark, strict=True, skipinitialspace=spaced)
        with _wide_fields():
            yield from _rows(path, reader)


def read_tsv(path: Path) -> Rows:
    """As `read_csv`, with tabs."""
    return read_csv(path, "\t")


def _rows(path: Path, reader: Reader) -> Rows:
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise ProblemError(f"{path}:1: broken CSV header: {error}.") from None
    if not any(header):
        raise ProblemError(f"{path}:1: the header line with the column names is missing.")
    if len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise ProblemError(f'{path}:1: the header names the column "{twice}" twice.')
    while True:
        place = f"{path}:{reader.line_num + 1}"
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield ProblemError(f"{place}: broken CSV: {error}.")
            continue
        if fields is None:
            return
        yield _row(place, header, fields)


@contextmanager
def _wide_fields() -> Iterator[None]:
    """The csv module's bound on a field, which belongs to the whole process, raised for the time of reading."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _row(place: str, header: Sequence[str], fields: Sequence[str]) -> Row | ProblemError | Skipped:
    if not any(field.strip() for field in fields):
        return blank(place)
    if len(fields) != len(header):
        return ProblemError(f"{place}: {len(fields)} fields where the header has {len(header)}.")
    if any("\udc80" <= character <= "\udcff" for character in chain.from_iterable(fields)):
        return ProblemError(f"{place}: the line is not UTF-8.")
    # An empty CSV field is an absent one: the format has no other way to say so.
    return Row(place, {name: value if value else None for name, value in zip(header, fields, strict=True)})
