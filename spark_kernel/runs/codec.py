"""Records as JSON values and back, typed by the records' own annotations. Exact, strict, and standard JSON.

    dataclass      -> object with every field; one of several dataclasses (TextPart | ImagePart) also names its "type"
    enum           -> its value            tuple -> array            Mapping -> object with text keys
    float          -> number; NaN and infinities, which JSON lacks, -> {"$float": "nan" | "inf" | "-inf"}

In a field annotated `Any` (a problem's meta) an object key that begins with "$" gets a second "$", so that no user
data can be taken for a float. Tuples in such a field come back as lists, because JSON knows one sequence only.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.typed_json import read_any, reading_step, write_any, writing_step

Record = TypeVar("Record")


def to_json(record: Any) -> Any:
    """A record as JSON values: dicts, lists, text, numbers, bools and None.

    Raises:
        InputError: a field holds something other than its annotation says, or text that is not valid Unicode.
    """
    return writing_step(cast(Any, type(record)))(record, (None, type(record).__name__))


def from_json(cls: type[Record], value: Any) -> Record:
    """The record that `to_json` made this value from.

    Raises:
        RunFolderError: a field is missing, unknown or of another type; says which.
    """
    decoded: Record = reading_step(cast(Any, cls))(value, (None, cls.__name__))
    return decoded


def encode_plain(value: Any, where: str = "value") -> Any:
    """JSON values (a problem's meta, a phase's meta) with NaN, infinities and "$" keys made safe.

    Raises:
        InputError: something that is not a JSON value; says where it stands.
    """
    return write_any(value, (None, where))


def decode_plain(value: Any, where: str = "value") -> Any:
    """The values that `encode_plain` was given; tuples come back as lists."""
    return read_any(value, (None, where))


def dumps(value: Any, *, indent: int | None = None) -> str:
    """Standard JSON text of JSON values, Unicode as it is.

    Raises:
        InputError: not JSON (a number too long to write, a NaN that was not encoded).
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"This cannot be written as JSON: {error}.") from error


def loads(text: str | bytes, where: str) -> Any:
    """JSON values from text; `where` names the file in the error.

    Raises:
        RunFolderError: not standard JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunFolderError(f"{where} is damaged: it is not valid JSON ({error}).") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
