"""The run configuration as command-line flags: `--section.field VALUE`, made from the one pydantic schema.

tyro parses and writes the help; the values go to `spark_kernel.config` as text, which checks them like those of a
file. So a flag, a YAML line and a Python argument are refused in the same words. A flag that was not given stays
`UNSET`, so that only what was given overrides the preset.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Sequence
from dataclasses import field, fields, make_dataclass
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spark_kernel.config import RunConfig, field_names, nearest_setting
from spark_kernel.errors import InputError


class _Unset:
    def __repr__(self) -> str:
        return "unset"


UNSET: Any = _Unset()
NULL = ("none", "null")


def flags_type(
    name: str, own: Sequence[tuple[Any, ...]], defaults: RunConfig, settings: Collection[str] | None = None
) -> type:
    """A dataclass for tyro: a command's own fields (as for `make_dataclass`), then fields of the schema.

    Args:
        name: the class's name.
        own: the command's own fields.
        defaults: what the help shows as defaults.
        settings: dotted names of the fields; by default all.
    """
    chosen = field_names() if settings is None else settings
    return make_dataclass(name, [*own, *_fields(RunConfig, defaults, chosen)], kw_only=True)


def given_overrides(parsed: Any) -> dict[str, Any]:
    """The nested settings that flags gave, from a parsed `flags_type`."""
    return _given(RunConfig, parsed)


def split_mapping_flags(arguments: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Take flags that reach into a mapping, such as `--problems.options.path FILE`, out of the arguments.

    Returns:
        The other arguments, and the settings these flags give, nested; a value is read as YAML.

    Raises:
        InputError: a flag without a value, or a value that is not YAML.
    """
    pattern = re.compile(rf"--({'|'.join(re.escape(name) for name in _mapping_names(RunConfig))})\.([^=]+)(?:=(.*))?")
    rest: list[str] = []
    found: dict[str, Any] = {}
    waiting = iter(arguments)
    for argument in waiting:
        match = pattern.fullmatch(argument)
        if match is None:
            rest.append(argument)
            continue
        value = match[3] if match[3] is not None else next(waiting, None)
        if value is None or value.startswith("--"):
            raise InputError(f"{argument} needs a value.")
        _put(found, [*match[1].split("."), *match[2].split(".")], read_value(argument, value))
    return rest, found


def refuse_unknown_flags(arguments: Sequence[str], own: Sequence[str], settings: Collection[str] | None = None) -> None:
    """Refuse a flag that is neither a setting nor one of the command's own, in the words a file's field is refused in.

    Args:
        arguments: what was typed, without the flags that reach into a mapping.
        own: names of the command's own flags.
        settings: dotted names of the settings that the command takes; by default all.

    Raises:
        InputError: such a flag; names the nearest one, else those of its section. Or a setting of another command.
    """
    known = {*(field_names() if settings is None else settings), *own, "help"}
    for argument in arguments:
        name = argument.removeprefix("--").partition("=")[0].replace("-", "_")
        if not argument.startswith("--") or name in known:
            continue
        if name in field_names():
            raise InputError(f"The setting --{name} has no part in this command; --help lists those that have.")
        similar = difflib.get_close_matches(name, own, n=1, cutoff=0.7)
        if nearest := (similar[0] if similar else nearest_setting(name)):
            raise InputError(f"There is no flag --{name}; did you mean --{nearest}?")
        section = [field for field in field_names() if field.startswith(f"{name.partition('.')[0]}.")]
        shown = ", ".join(f"--{field}" for field in section or sorted(own))
        raise InputError(f"There is no flag --{name}. There are {shown}; --help explains all.")


def read_value(flag: str, text: str) -> Any:
    """A value as YAML reads it.

    Raises:
        InputError: it is not YAML.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{flag} {text!r} is not readable as YAML: {' '.join(str(error).split())}.") from None


def read_mapping(flag: str, text: str) -> dict[str, Any]:
    """A mapping as YAML reads it, e.g. "{enable_thinking: false}"; an empty text is an empty mapping.

    Raises:
        InputError: it is not YAML, or no mapping with text keys.
    """
    value = read_value(flag, text) if text.strip() else {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{flag} {text!r} is refused: a mapping such as {{enable_thinking: false}}.")
    return value


def _fields(
    model: type[BaseModel], defaults: BaseModel, chosen: Collection[str], prefix: str = ""
) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    for name, info in model.model_fields.items():
        value = getattr(defaults, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner = _fields(info.annotation, value, chosen, f"{prefix}{name}.")
            if inner:
                section = make_dataclass(info.annotation.__name__, inner, kw_only=True)
                section.__doc__ = info.annotation.__doc__
                found.append((name, section, field(default_factory=section)))
        elif prefix + name in chosen:
            found.append((name, Annotated[Any, _spec(info, value), _help(info)], field(default=UNSET)))
    return found


def _spec(info: FieldInfo, default: Any) -> tyro.constructors.PrimitiveConstructorSpec[Any]:
    hint = info.annotation
    many = get_origin(_bare(hint)) is tuple

    def read(texts: list[str]) -> Any:
        values = [_typed(hint, text) for text in texts]
        return values if many else values[0]

    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar=_metavar(hint),
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda value: _shown(default if value is UNSET else value),
    )


def _typed(hint: Any, text: str) -> Any:
    """A text as the schema's validation wants it; what does not fit stays text and is refused there."""
    if NoneType in get_args(hint) and text.lower() in NULL:
        return None
    bare = _bare(hint)
    if get_origin(bare) is dict:
        return read_value("A mapping", text)
    number = {int: int, float: float}.get(bare)
    if number is not None:
        try:
            return number(text)
        except ValueError:
            return text
    return text


def _bare(hint: Any) -> Any:
    """An annotation without its None."""
    rest = [member for member in get_args(hint) if member is not NoneType]
    return rest[0] if NoneType in get_args(hint) and len(rest) == 1 else hint


def _metavar(hint: Any) -> str:
    bare = _bare(hint)
    origin = get_origin(bare)
    if origin is Literal:
        name = "{" + ",".join(map(str, get_args(bare))) + "}"
    elif origin is tuple:
        members = [member for member in get_args(bare) if member is not Ellipsis]
        name = " ".join(_metavar(member) for member in members) + (" ..." if Ellipsis in get_args(bare) else "")
    elif origin is dict:
        name = "{KEY: VALUE}"
    else:
        name = {int: "INT", float: "FLOAT", bool: "{true,false}"}.get(bare, "TEXT")
    return f"{name}|none" if NoneType in get_args(hint) else name


def _shown(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [text for item in value for text in _shown(item)]
    if isinstance(value, bool) or value is None:
        return [{True: "true", False: "false", None: "none"}[value]]
    return [str(value)]


def _help(info: FieldInfo) -> Any:
    limits = {
        name: getattr(item, name) for item in info.metadata for name in ("ge", "gt", "le", "lt") if hasattr(item, name)
    }
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    allowed = ", ".join(f"{words[name]} {value}" for name, value in limits.items())
    text = (info.description or "").rstrip()
    return tyro.conf.arg(help=f"{text} [{allowed}]" if allowed else text)


def _given(model: type[BaseModel], parsed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    known = {item.name for item in fields(parsed)}
    for name, info in model.model_fields.items():
        if name not in known:
            continue
        value = getattr(parsed, name)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            if inner := _given(info.annotation, value):
                found[name] = inner
        elif value is not UNSET:
            found[name] = value
    return found


def _mapping_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names += _mapping_names(info.annotation, f"{prefix}{name}.")
        elif get_origin(info.annotation) is dict:
            names.append(prefix + name)
    return names


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value
