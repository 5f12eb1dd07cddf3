"""The fields of the schema as flags and form both need them: sections, types without None, help with bounds."""

from __future__ import annotations

from types import NoneType
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

NONE = "none"
"""How a person writes a setting that has no value."""
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The section that a field of the schema is; None for a setting."""
    hint = info.annotation
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None


def is_optional(hint: Any) -> bool:
    """Whether a setting may have no value."""
    return NoneType in get_args(hint)


def bare_type(hint: Any) -> Any:
    """An annotation without its None."""
    rest = [member for member in get_args(hint) if member is not NoneType]
    return rest[0] if is_optional(hint) and len(rest) == 1 else hint


def help_of(info: FieldInfo) -> str:
    """What a setting is, with its bounds: "n: outputs per task. [at least 1, at most 1024]"."""
    text = " ".join((info.description or "").split())
    limits = [f"{BOUNDS[key]} {getattr(m, key)}" for m in info.metadata for key in BOUNDS if hasattr(m, key)]
    return f"{text} [{', '.join(limits)}]" if limits else text
