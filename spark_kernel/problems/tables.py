"""Rows of problem files, in order, each with its file and line: JSON Lines, JSON arrays, CSV/TSV, Parquet, hub data.

A row that cannot be read is yielded as a `ProblemError` in its place, so that the rows after it keep their index. A
file that cannot be read at all, or not beyond some point, is an error at once.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spark_kernel.errors import InputError, ProblemError

if TYPE_CHECKING:
    import pyarrow

BATCH_ROWS = 64
"""Parquet rows held at once: rows with images are large."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record: `place` is "file:line" (or "file:row n" where a format has no lines)."""

    place: str
    values: Mapping[str, Any]


Rows = Iterator["Row | ProblemError"]


def read_rows(path: Path) -> Rows:
    """The rows of a problem file, by its suffix.

    Raises:
        InputError: no such file, an unknown suffix, or a file that is broken as a whole.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} is no problem file: the name must end in one of {', '.join(READERS)}.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the problem file or files in it.")
    if not path.is_file():
        raise InputError(f"There is no problem file {path}.")
    try:
        yield from reader(path)
    except OSError as error:
        raise InputError(f"The problem file {path} cannot be read: {error}.") from None


def read_json(path: Path) -> Rows:
    """A JSON array of objects; a file that does not open with a bracket is read as JSON Lines.

    Raises:
        ProblemError: broken JSON, after which nothing can be told apart any more; file, line and reason.
    """
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        if head != b"[":
            yield from read_json_lines(path)
            return
        file.seek(0)
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ProblemError(f"{path}:{line}: byte {error.start} is not UTF-8.") from None
    yield from _array_rows(path, text)


def read_json_lines(path: Path) -> Rows:
    """One JSON object per line, UTF-8, no empty lines."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path}:{number}"
            content = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if not content.strip():
                yield ProblemError(f"{place}: the line is empty.")
                continue
            try:
                yield _row(place, _decoder().decode(content.decode("utf-8").strip()))
            except UnicodeDecodeError as error:
                yield ProblemError(f"{place}: the line is not UTF-8 (byte {error.start + 1}).")
            except json.JSONDecodeError as error:
                yield ProblemError(f"{place}: broken JSON: {error.msg} at column {error.pos + 1}.")
            except (ValueError, RecursionError) as error:
                yield ProblemError(f"{place}: unusable JSON: {error}.")


def read_csv(path: Path, delimiter: str = ",") -> Rows:
    """Comma-separated values with a header line. A quoted field may hold line breaks; a record's line is its first.

    Raises:
        ProblemError: no header, or one that names a column twice.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
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
            yield _csv_row(place, header, fields)


def read_tsv(path: Path) -> Rows:
    """As `read_csv`, with tabs."""
    return read_csv(path, "\t")


def read_parquet(path: Path) -> Rows:
    """The rows of a Parquet file, a batch at a time.

    Raises:
        InputError: not a readable Parquet file.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield from arrow_rows(batch, str(path), number)
                number += batch.num_rows
    except pyarrow.ArrowException as error:
        raise InputError(f"{path} is not a readable Parquet file: {' '.join(str(error).split())}.") from None


def arrow_rows(batch: pyarrow.RecordBatch | pyarrow.Table, name: str, before: int) -> Rows:
    """The rows of an Arrow batch; `before` rows came before it. Rows count from 1."""
    for index in range(batch.num_rows):
        place = f"{name}:row {before + index + 1}"
        try:
            yield Row(place, batch.slice(index, 1).to_pylist()[0])
        except (UnicodeDecodeError, ValueError, OverflowError) as error:
            yield ProblemError(f"{place}: a value cannot be read: {error}.")


READERS = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}


def _array_rows(path: Path, text: str) -> Rows:
    position, line = _skip_space(text, text.index("[") + 1, text[: text.index("[")].count("\n") + 1)
    while position < len(text) and text[position] != "]":
        place = f"{path}:{line}"
        row, end = _array_row(place, path, text, position)
        yield row
        position, line = _skip_space(text, end, line + text.count("\n", position, end))
        if text[position : position + 1] == ",":
            position, line = _skip_space(text, position + 1, line)
            if text[position : position + 1] in ("]", ""):
                raise ProblemError(f"{path}:{line}: broken JSON: a record is missing after the comma.")
        elif text[position : position + 1] != "]":
            raise ProblemError(f"{path}:{line}: broken JSON: a comma or ] is missing after the record.")
    if position >= len(text):
        raise ProblemError(f"{path}:{line}: broken JSON: the closing ] is missing.")
    position, line = _skip_space(text, position + 1, line)
    if position < len(text):
        raise ProblemError(f"{path}:{line}: broken JSON: there is text after the closing ].")


def _array_row(place: str, path: Path, text: str, position: int) -> tuple[Row | ProblemError, int]:
    """The record at a position, and where it ends."""
    try:
        value, end = _decoder().raw_decode(text, position)
        return _row(place, value), end
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}.") from None
    except RecursionError as error:
        raise ProblemError(f"{place}: unusable JSON: {error}.") from None
    except ValueError as error:
        # Well formed, but holding what we refuse: a plain decoder finds its end, and the file can go on.
        return ProblemError(f"{place}: unusable JSON: {error}."), json.JSONDecoder(parse_int=str).raw_decode(
            text, position
        )[1]


def _skip_space(text: str, position: int, line: int) -> tuple[int, int]:
    while position < len(text) and text[position] in " \t\r\n":
        line += text[position] == "\n"
        position += 1
    return position, line


def _decoder() -> json.JSONDecoder:
    return json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the field "{twice}" stands twice in one object')
    return values


def _row(place: str, value: object) -> Row | ProblemError:
    if not isinstance(value, dict):
        return ProblemError(f"{place}: the record is {_json_name(value)}, not an object with named fields.")
    return Row(place, value)


def _csv_row(place: str, header: Sequence[str], fields: Sequence[str]) -> Row | ProblemError:
    if not fields:
        return ProblemError(f"{place}: the line is empty.")
    if len(fields) != len(header):
        return ProblemError(f"{place}: {len(fields)} fields where the header has {len(header)}.")
    if any("\udc80" <= character <= "\udcff" for character in chain.from_iterable(fields)):
        return ProblemError(f"{place}: the line is not UTF-8.")
    # An empty CSV field is an absent one: the format has no other way to say so.
    return Row(place, {name: value if value else None for name, value in zip(header, fields, strict=True)})


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
