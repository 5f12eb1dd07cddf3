"""How a value is written as JSON and read back, by its annotation; the rules are in `runs.codec`.

What to do with an annotation is found out once, not for every value: scoring sends every problem and task through
here. Where a value stands is put into words only for an error.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from spark_kernel.errors import InputError, RunFolderError

Place = tuple[Any, str | int]
"""Where a value stands: the place of what it is in (None for the outermost), and its part of the path."""
Step = Callable[[Any, Place], Any]
"""From a value and its place to what is written or read for it."""
KEY = "key of "
FLOAT = "$float"
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _path(place: Place) -> str:
    """A place in words: `Task.messages[0].role`."""
    within, part = place
    if part == KEY:
        return KEY + _path(within)
    found = f"[{part}]" if isinstance(part, int) else part
    return found if within is None else _path(within) + found


def _members(hint: Any) -> tuple[Any, ...] | None:
    """The alternatives of a union without None; None if the hint is no union."""
    if get_origin(hint) not in (Union, types.UnionType):
        return None
    return tuple(member for member in get_args(hint) if member is not type(None))


def _or_none(step: Step, hint: Any) -> Step:
    """The step, but None for None where the union allows it."""
    if type(None) not in get_args(hint):
        return step
    return lambda value, place: None if value is None else step(value, place)


@cache
def writing_step(hint: Any) -> Step:
    """How a value of this annotation is written."""
    members = _members(hint)
    if members is not None:
        return _or_none(writing_step(members[0]) if len(members) == 1 else _write_one_of(members), hint)
    origin = get_origin(hint)
    if origin is tuple:
        return _write_tuple(writing_step(_item_hint(hint)))
    if origin is Mapping:
        return _write_mapping(*map(writing_step, get_args(hint)))
    if is_dataclass(hint):
        return _write_record(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _write_enum(hint)
    try:
        return WRITERS[hint]
    except KeyError:
        raise TypeError(f"An annotation that records do not use: {hint!r}") from None


def _write_one_of(members: tuple[Any, ...]) -> Step:
    writers = {member: writing_step(member) for member in members}

    def write(value: Any, place: Place) -> Any:
        writer = writers.get(type(value))
        if writer is None:
            raise _misfit(place, " or ".join(member.__name__ for member in members), value)
        return {"type": type(value).__name__} | writer(value, place)

    return write


def _write_tuple(writer: Step) -> Step:
    def write(value: Any, place: Place) -> Any:
        if not isinstance(value, tuple):
            raise _misfit(place, "a tuple", value)
        return [writer(item, (place, i)) for i, item in enumerate(value)]

    return write


def _write_mapping(key_writer: Step, writer: Step) -> Step:
    def write(value: Any, place: Place) -> Any:
        if not isinstance(value, Mapping):
            raise _misfit(place, "a mapping", value)
        return {key_writer(key, (place, KEY)): writer(item, (place, f".{key}")) for key, item in value.items()}

    return write


def _write_record(cls: Any) -> Step:
    hints = get_type_hints(cls)
    members = [(item.name, f".{item.name}", writing_step(hints[item.name])) for item in fields(cls)]

    def write(value: Any, place: Place) -> Any:
        if type(value) is not cls:
            raise _misfit(place, cls.__name__, value)
        return {name: writer(getattr(value, name), (place, part)) for name, part, writer in members}

    return write


def _write_enum(cls: type[Enum]) -> Step:
    def write(value: Any, place: Place) -> Any:
        if not isinstance(value, cls):
            raise _misfit(place, cls.__name__, value)
        return value.value

    return write


def _write_float(value: Any, place: Place) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _misfit(place, "a number", value)
    return _finite(float(value))


def _write_int(value: Any, place: Place) -> Any:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _misfit(place, "an integer", value)
    return int(value)


def _write_bool(value: Any, place: Place) -> Any:
    if not isinstance(value, bool):
        raise _misfit(place, "True or False", value)
    return value


def _write_text(value: Any, place: Place) -> Any:
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise _misfit(place, "text", value)
    return _valid_text(value, place)


def write_any(value: Any, place: Place) -> Any:
    """JSON values, made safe."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _valid_text(value, place)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, list | tuple):
        return [write_any(item, (place, i)) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        encoded = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _misfit((place, KEY), "text", key)
            name = _valid_text(key, place)
            encoded["$" + name if name.startswith("$") else name] = write_any(item, (place, f".{key}"))
        return encoded
    raise _misfit(place, "a JSON value (text, number, true, false, null, list or mapping)", value)


WRITERS: dict[Any, Step] = {
    Any: write_any,
    float: _write_float,
    int: _write_int,
    bool: _write_bool,
    str: _write_text,
}


def _finite(value: float) -> Any:
    if math.isfinite(value):
        return float(value)
    return {FLOAT: "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"}


def _valid_text(value: str, place: Place) -> str:
    """The text itself, if it can be written as UTF-8: half of a surrogate pair cannot."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            reason = f"{error.reason} at character {error.start}"
            raise InputError(f"{_path(place)} is not valid Unicode text: {reason}.") from error
    return str(value)


@cache
def reading_step(hint: Any) -> Step:
    """How a value of this annotation is read."""
    members = _members(hint)
    if members is not None:
        return _or_none(reading_step(members[0]) if len(members) == 1 else _read_one_of(members), hint)
    origin = get_origin(hint)
    if origin is tuple:
        return _read_tuple(reading_step(_item_hint(hint)))
    if origin is Mapping:
        return _read_mapping(*map(reading_step, get_args(hint)))
    if is_dataclass(hint):
        return _read_record(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _read_enum(hint)
    try:
        return READERS[hint]
    except KeyError:
        raise TypeError(f"An annotation that records do not use: {hint!r}") from None


def _read_one_of(members: tuple[Any, ...]) -> Step:
    readers = {member.__name__: reading_step(member) for member in members}

    def read(value: Any, place: Place) -> Any:
        reader = readers.get(str(value.get("type"))) if isinstance(value, dict) else None
        if reader is None:
            raise _damaged(place, f'an object whose "type" is one of {", ".join(readers)}', value)
        return reader({key: item for key, item in value.items() if key != "type"}, place)

    return read


def _read_tuple(reader: Step) -> Step:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, list):
            raise _damaged(place, "an array", value)
        return tuple([reader(item, (place, i)) for i, item in enumerate(value)])

    return read


def _read_mapping(key_reader: Step, reader: Step) -> Step:
    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            raise _damaged(place, "an object", value)
        return {key_reader(key, (place, KEY)): reader(item, (place, f".{key}")) for key, item in value.items()}

    return read


def _read_record(cls: Any) -> Step:
    hints = get_type_hints(cls)
    readers = {item.name: (f".{item.name}", reading_step(hints[item.name])) for item in fields(cls)}
    needed = [item.name for item in fields(cls) if item.default is MISSING and item.default_factory is MISSING]

    def read(value: Any, place: Place) -> Any:
        if not isinstance(value, dict):
            raise _damaged(place, "an object", value)
        if not value.keys() <= readers.keys():
            unknown = min(value.keys() - readers.keys())
            raise RunFolderError(f"{_path(place)} has a field that this version does not know: {unknown}.")
        for name in needed:
            if name not in value:
                raise RunFolderError(f"{_path(place)} lacks its field {name}.")
        arguments = {}
        for name, item in value.items():
            part, reader = readers[name]
            arguments[name] = reader(item, (place, part))
        return cls(**arguments)

    return read


def _read_enum(cls: type[Enum]) -> Step:
    def read(value: Any, place: Place) -> Any:
        try:
            return cls(value)
        except ValueError:
            raise _damaged(place, "one of " + ", ".join(str(member.value) for member in cls), value) from None

    return read


def _read_float(value: Any, place: Place) -> Any:
    if isinstance(value, dict) and value.keys() == {FLOAT} and value[FLOAT] in NON_FINITE:
        return NON_FINITE[value[FLOAT]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _damaged(place, "a number", value)
    return float(value)


def _read_exactly(kind: type, words: str) -> Step:
    def read(value: Any, place: Place) -> Any:
        if type(value) is not kind:
            raise _damaged(place, words, value)
        return value

    return read


def read_any(value: Any, place: Place) -> Any:
    """JSON values that `write_any` wrote."""
    if isinstance(value, list):
        return [read_any(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {FLOAT}:
        return _read_float(value, place)
    return {key[1:] if key.startswith("$") else key: read_any(item, (place, f".{key}")) for key, item in value.items()}


READERS: dict[Any, Step] = {
    Any: read_any,
    float: _read_float,
    int: _read_exactly(int, "an integer"),
    bool: _read_exactly(bool, "true or false"),
    str: _read_exactly(str, "text"),
}


def _item_hint(hint: Any) -> Any:
    """The annotation of every item of a `tuple[X, ...]`, the only kind of tuple that records use."""
    arguments = get_args(hint)
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        raise TypeError(f"Records hold tuple[X, ...] only, not {hint!r}.")
    return arguments[0]


def _misfit(place: Place, wanted: str, value: Any) -> InputError:
    return InputError(f"{_path(place)} must be {wanted}, not {_short(value)}.")


def _damaged(place: Place, wanted: str, value: Any) -> RunFolderError:
    return RunFolderError(f"{_path(place)} should be {wanted}, but is {_short(value)}.")


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
