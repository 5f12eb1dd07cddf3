"""Finding a record's field by name: exactly, else without regard to case, else step by step along dots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def find_field(values: Mapping[str, Any], name: str) -> Any:
    """The value of a field, None where there is none.

    "reward_model.ground_truth" is a field of that name, else the field `ground_truth` of the object in `reward_model`;
    a number in the path counts the items of a list from 0. Objects and lists may be given as JSON text, as in CSV.
    """
    found = _here(values, name)
    head, dot, rest = name.partition(".")
    while found is None and dot:
        inner = _opened(_here(values, head))
        if isinstance(inner, Mapping):
            found = find_field(inner, rest)
        elif isinstance(inner, list):
            found = _item(inner, rest)
        following, dot, rest = rest.partition(".")
        head = f"{head}.{following}"
    return found


def field_names(values: Mapping[str, Any]) -> str:
    """The names of a record's fields for a message, with those of its objects one level down."""
    names: list[str] = []
    for name, value in values.items():
        names.append(name)
        if isinstance(value, Mapping):
            names += [f"{name}.{inner}" for inner in value]
    return ", ".join(f'"{name}"' for name in names[:20]) or "none"


def _here(values: Mapping[str, Any], name: str) -> Any:
    if name in values:
        return values[name]
    plain = name.strip().casefold()
    alike = [key for key in values if isinstance(key, str) and key.strip().casefold() == plain]
    return values[alike[0]] if len(alike) == 1 else None


def _opened(value: Any) -> Any:
    """An object or list that is given as JSON text."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value


def _item(items: list[Any], path: str) -> Any:
    number, _, rest = path.partition(".")
    if not number.isascii() or not number.isdigit() or int(number) >= len(items):
        return None
    item = items[int(number)]
    if not rest:
        return item
    return (
        find_field(item, rest) if isinstance(item, Mapping) else _item(item, rest) if isinstance(item, list) else None
    )
