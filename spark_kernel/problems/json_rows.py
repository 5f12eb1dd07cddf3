"""Rows of JSON files: one object a line, an array of objects, or objects under a key or under their ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spark_kernel.errors import ProblemError
from spark_kernel.problems.rows import Row, Rows, blank

BOM = b"\xef\xbb\xbf"
WRAPPERS = frozenset(
    {
        *("data", "dataset", "rows", "records", "examples", "instances", "items", "problems", "questions"),
        *("train", "training", "validation", "val", "dev", "test", "testmini"),
    }
)
"""Keys under which a file's records may lie; any other list of objects is a field of a single record."""
ASKING = frozenset({"question", "problem", "prompt", "query", "message"})
"""A field of this name tells a record from another object."""


def read_json(path: Path) -> Rows:
    """An array of objects; one object that holds the records under a key or under their ids; or JSON Lines.

    Raises:
        ProblemError: broken JSON, after which nothing can be told apart any more; file, line and reason.
    """
    data = path.read_bytes()
    head = data[:4096].removeprefix(BOM).lstrip()[:1]
    if head == b"[":
        yield from _array_rows(path, _text(path, data))
    elif head == b"{" and _is_document(data):
        yield from _document_rows(path, _text(path, data))
    else:
        yield from read_json_lines(path)


def read_json_lines(path: Path) -> Rows:
    """One JSON object per line, UTF-8. A file of one line may hold its records under a key."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            place = f"{path}:{number}"
            content = line.removeprefix(BOM) if number == 1 else line
            if not content.strip():
                yield blank(place)
                continue
            try:
                value = _decoder().decode(content.decode("utf-8").strip())
            except UnicodeDecodeError as error:
                yield ProblemError(f"{place}: the line is not UTF-8 (byte {error.start + 1}).")
            except json.JSONDecodeError as error:
                yield ProblemError(f"{place}: broken JSON: {error.msg} at column {error.pos + 1}.")
            except (ValueError, RecursionError) as error:
                yield ProblemError(f"{place}: unusable JSON: {error}.")
            else:
                found = _wrapped(value) if number == 1 else None
                if found is None:
                    yield _row(place, value)
                else:
                    yield from _rows_of(path, *found)


def _is_document(data: bytes) -> bool:
    """Whether an object goes on over several lines; JSON Lines has a whole one on a line of its own."""
    lines = [line for line in data.removeprefix(BOM).splitlines() if line.strip()]
    if len(lines) == 1:
        return False
    try:
        json.loads(data.removeprefix(BOM))
    except (ValueError, RecursionError):
        return not any(map(_is_object, lines))
    return True


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _text(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ProblemError(f"{path}:{line}: byte {error.start} is not UTF-8.") from None


def _document_rows(path: Path, text: str) -> Rows:
    try:
        value = _decoder().decode(text.strip())
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}:{error.lineno}: broken JSON: {error.msg} at column {error.colno}.") from None
    except (ValueError, RecursionError) as error:
        raise ProblemError(f"{path}: unusable JSON: {error}.") from None
    found = _wrapped(value)
    if found is None:
        yield _row(f"{path}:record 1", value)
    else:
        yield from _rows_of(path, *found)


def _wrapped(value: object) -> tuple[str, Sequence[object] | Mapping[str, object]] | None:
    """The key and the records of an object that only holds them ("" and the object itself where ids are the keys)."""
    if not isinstance(value, dict) or not value:
        return None
    if all(isinstance(record, dict) and ASKING & {name.lower() for name in record} for record in value.values()):
        return "", value
    keys = [
        key
        for key, held in value.items()
        if key.lower() in WRAPPERS and isinstance(held, list) and held and all(isinstance(one, dict) for one in held)
    ]
    return (keys[0], value[keys[0]]) if len(keys) == 1 else None


def _rows_of(path: Path, key: str, records: Sequence[object] | Mapping[str, object]) -> Rows:
    if isinstance(records, Mapping):
        for name, record in records.items():
            yield _row(f'{path}:record "{name}"', record)
    else:
        for number, record in enumerate(records, start=1):
            yield _row(f'{path}:"{key}", record {number}', record)


def _array_rows(path: Path, text: str) -> Rows:
    position, line = _skip_space(text, text.index("[") + 1, text[: text.index("[")].count("\n") + 1)
    number = 0
    while position < len(text) and text[position] != "]":
        number += 1
        row, end = _array_row(path, number, line, text, position)
        yield row
        position, line = _skip_space(text, end, line + text.count("\n", position, end))
        if text[position : position + 1] == ",":
            position, line = _skip_space(text, position + 1, line)
            if text[position : position + 1] in ("]", ""):
                missing = f"a record is missing after the comma of record {number}"
                raise ProblemError(f"{path}:{line}: broken JSON: {missing}.")
        elif text[position : position + 1] != "]":
            raise ProblemError(f"{path}:{line}: broken JSON: a comma or ] is missing after record {number}.")
    if position >= len(text):
        raise ProblemError(f"{path}:{line}: broken JSON: the closing ] is missing.")
    position, line = _skip_space(text, position + 1, line)
    if position < len(text):
        raise ProblemError(f"{path}:{line}: broken JSON: there is text after the closing ].")


def _array_row(path: Path, number: int, line: int, text: str, position: int) -> tuple[Row | ProblemError, int]:
    """The record at a position, and where it ends."""
    place = f"{path}:record {number}, line {line}"
    try:
        value, end = _decoder().raw_decode(text, position)
        return _row(place, value), end
    except json.JSONDecodeError as error:
        raise ProblemError(
            f"{path}:{error.lineno}: broken JSON in record {number}: {error.msg} at column {error.colno}."
        ) from None
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
    # NaN and Infinity are no JSON, but pandas writes them, in fields that no problem needs.
    return json.JSONDecoder(object_pairs_hook=_unique_keys)


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


def _json_name(value: object) -> str:
    names = {list: "an array", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
