"""Records as JSON values and back, typed by the records' own annotations. Exact, strict, and standard JSON.

    dataclass      -> object with every field; one of several dataclasses (TextPart | ImagePart) also names its "type"
    enum           -> its value            tuple -> array            Mapping -> object with text keys
    float          -> number; NaN and infinities, which JSON lacks, -> {"$float": "nan" | "inf" | "-inf"}

In a field annotated `Any` (a problem's meta) an object key that begins with "$" gets a second "$", so that no user
data can be taken for a float. Tuples in such a field come back as lists, because JSON knows one sequence only.
"""

from __future__ import annotations

import json
import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from spark_kernel.errors import InputError, RunFolderError

Record = TypeVar("Record")
FLOAT = "$float"
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(record: Any) -> Any:
    """A record as JSON values: dicts, lists, text, numbers, bools and None.

    Raises:
        InputError: a field holds something other than its annotation says, or text that is not valid Unicode.
    """
    return _encode(type(record), record, type(record).__name__)


def from_json(cls: type[Record], value: Any) -> Record:
    """The record that `to_json` made this value from.

    Raises:
        RunFolderError: a field is missing, unknown or of another type; says which.
    """
    return _decode(cls, value, cls.__name__)


def encode_plain(value: Any, where: str = "value") -> Any:
    """JSON values (a problem's meta, a phase's meta) with NaN, infinities and "$" keys made safe.

    Raises:
        InputError: something that is not a JSON value; says where it stands.
    """
    return _encode(Any, value, where)


def decode_plain(value: Any, where: str = "value") -> Any:
    """The values that `encode_plain` was given; tuples come back as lists."""
    return _decode(Any, value, where)


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


@lru_cache(maxsize=256)
def _hints(cls: type) -> dict[str, Any]:
    """The annotations of a record's fields, resolved."""
    return get_type_hints(cls)


def _members(hint: Any) -> tuple[Any, ...] | None:
    """The alternatives of a union without None; None if the hint is no union."""
    if get_origin(hint) not in (Union, types.UnionType):
        return None
    return tuple(member for member in get_args(hint) if member is not type(None))


def _encode(hint: Any, value: Any, where: str) -> Any:
    members = _members(hint)
    if members is not None:
        if value is None and type(None) in get_args(hint):
            return None
        if len(members) == 1:
            return _encode(members[0], value, where)
        if type(value) not in members:
            raise _misfit(where, " or ".join(member.__name__ for member in members), value)
        return {"type": type(value).__name__} | _encode(type(value), value, where)
    if hint is Any:
        return _encode_any(value, where)
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, tuple):
            raise _misfit(where, "a tuple", value)
        item_hint = _item_hint(hint)
        return [_encode(item_hint, item, f"{where}[{i}]") for i, item in enumerate(value)]
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _misfit(where, "a mapping", value)
        key_hint, item_hint = get_args(hint)
        return {
            _encode(key_hint, key, f"key of {where}"): _encode(item_hint, item, f"{where}.{key}")
            for key, item in value.items()
        }
    if is_dataclass(hint):
        if type(value) is not hint:
            raise _misfit(where, hint.__name__, value)  # type: ignore[union-attr]
        hints_by_name = _hints(hint)  # type: ignore[arg-type]
        return {
            item.name: _encode(hints_by_name[item.name], getattr(value, item.name), f"{where}.{item.name}")
            for item in fields(hint)
        }
    return _encode_scalar(hint, value, where)


def _encode_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit(where, "a number", value)
        return _encode_float(float(value))
    if isinstance(hint, type) and issubclass(hint, Enum):
        if not isinstance(value, hint):
            raise _misfit(where, hint.__name__, value)
        return value.value
    if hint is int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _misfit(where, "an integer", value)
        return int(value)
    if hint is bool:
        if not isinstance(value, bool):
            raise _misfit(where, "True or False", value)
        return value
    if hint is str:
        if not isinstance(value, str):
            raise _misfit(where, "text", value)
        return _valid_text(value, where)
    raise TypeError(f"{where} has an annotation that records do not use: {hint!r}")


def _encode_any(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _valid_text(str(value), where)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _encode_float(value)
    if isinstance(value, list | tuple):
        return [_encode_any(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        encoded = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _misfit(f"a key of {where}", "text", key)
            name = _valid_text(str(key), where)
            encoded["$" + name if name.startswith("$") else name] = _encode_any(item, f"{where}.{key}")
        return encoded
    raise _misfit(where, "a JSON value (text, number, true, false, null, list or mapping)", value)


def _encode_float(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    return {FLOAT: "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}


def _valid_text(value: str, where: str) -> str:
    """The text itself, if it can be written as UTF-8: half of a surrogate pair cannot."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where} is not valid Unicode text: {error.reason} at character {error.start}.") from error
    return str(value)


def _decode(hint: Any, value: Any, where: str) -> Any:
    members = _members(hint)
    if members is not None:
        if value is None and type(None) in get_args(hint):
            return None
        if len(members) == 1:
            return _decode(members[0], value, where)
        names = {member.__name__: member for member in members}
        tag = value.get("type") if isinstance(value, dict) else None
        if tag not in names:
            raise _damaged(where, f'an object whose "type" is one of {", ".join(names)}', value)
        return _decode(names[tag], {key: item for key, item in value.items() if key != "type"}, where)
    if hint is Any:
        return _decode_any(value, where)
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise _damaged(where, "an array", value)
        item_hint = _item_hint(hint)
        return tuple(_decode(item_hint, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise _damaged(where, "an object", value)
        key_hint, item_hint = get_args(hint)
        return {
            _decode(key_hint, key, f"key of {where}"): _decode(item_hint, item, f"{where}.{key}")
            for key, item in value.items()
        }
    if is_dataclass(hint):
        return _decode_record(hint, value, where)
    return _decode_scalar(hint, value, where)


def _decode_record(cls: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _damaged(where, "an object", value)
    known = {item.name: item for item in fields(cls)}
    unknown = sorted(value.keys() - known.keys())
    if unknown:
        raise RunFolderError(f"{where} has a field that this version does not know: {unknown[0]}.")
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise RunFolderError(f"{where} lacks its field {name}.")
    hints = _hints(cls)
    return cls(**{name: _decode(hints[name], item, f"{where}.{name}") for name, item in value.items()})


def _decode_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float:
        if isinstance(value, dict) and value.keys() == {FLOAT} and value[FLOAT] in NON_FINITE:
            return NON_FINITE[value[FLOAT]]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _damaged(where, "a number", value)
        return float(value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _damaged(where, "one of " + ", ".join(str(member.value) for member in hint), value) from None
    if (hint is int and isinstance(value, int) and not isinstance(value, bool)) or (
        hint in (bool, str) and type(value) is hint
    ):
        return value
    if hint in (int, bool, str):
        raise _damaged(where, {int: "an integer", bool: "true or false", str: "text"}[hint], value)
    raise TypeError(f"{where} has an annotation that records do not use: {hint!r}")


def _decode_any(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return [_decode_any(item, where) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {FLOAT}:
        return _decode_scalar(float, value, where)
    return {key[1:] if key.startswith("$") else key: _decode_any(item, f"{where}.{key}") for key, item in value.items()}


def _item_hint(hint: Any) -> Any:
    """The annotation of every item of a `tuple[X, ...]`, the only kind of tuple that records use."""
    arguments = get_args(hint)
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise TypeError(f"Records hold tuple[X, ...] only, not {hint!r}.")
    return arguments[0]


def _misfit(where: str, wanted: str, value: Any) -> InputError:
    return InputError(f"{where} must be {wanted}, not {_short(value)}.")


def _damaged(where: str, wanted: str, value: Any) -> RunFolderError:
    return RunFolderError(f"{where} should be {wanted}, but is {_short(value)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
