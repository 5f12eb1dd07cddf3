"""The run configuration as command-line flags: `--section.field VALUE`, by tyro from the one pydantic schema.

A command has a field `settings: SETTINGS`, and is parsed by `parse_flags`. tyro reads and explains the flags; their
values go to `spark_kernel.config` as text, which checks them like those of a file. So a flag, a YAML line and a Python
argument are refused in the same words, and only what was given overrides the preset.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from spark_kernel.config import RunConfig, field_names, nearest_setting
from spark_kernel.errors import InputError
from workbench.settings.fields import NONE, bare_type, help_of, is_optional, section_of

NULL = (NONE, "null")
ArgumentsT = TypeVar("ArgumentsT")


@dataclass(frozen=True, slots=True)
class Settings:
    """The flags of a section, or of the whole schema.

    `shown`: what the help shows as defaults. `names`: dotted names of the settings that have flags. `prefix`: the
    section's name with a dot. `given`: after parsing, the nested settings that were given.
    """

    shown: BaseModel
    names: Collection[str] = field(default_factory=field_names)
    prefix: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)


SETTINGS = Annotated[Settings, tyro.conf.arg(name="")]
"""The field of a command's arguments that takes the settings, without a prefix of its own."""


@dataclass(frozen=True, slots=True)
class _NotGiven:
    """What a flag is unless it is given; `shown` in the help."""

    shown: Any


def parse_flags(default: ArgumentsT, prog: str, arguments: Sequence[str], about: str = "") -> ArgumentsT:
    """A command's arguments with settings among them.

    Args:
        default: the arguments with their defaults, `tyro.MISSING` where one has to be given.
        arguments: what was typed, without the flags that reach into a mapping.
        about: what the help says about the command; by default the docstring of its arguments.
    """
    registry = ConstructorRegistry()
    registry.struct_rule(_flags_of_section)
    return tyro.cli(
        type(default),
        prog=prog,
        args=arguments,
        description=about or None,
        default=default,
        use_underscores=True,
        registry=registry,
    )


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


def _flags_of_section(info: StructTypeInfo) -> StructConstructorSpec | None:
    """tyro's rule for `Settings`: a flag for each setting, and the same rule again for each section inside."""
    settings = info.default
    if not isinstance(settings, Settings):
        return None
    found = []
    for name, about in type(settings.shown).model_fields.items():
        value, dotted = getattr(settings.shown, name), settings.prefix + name
        section = section_of(about)
        if section is None and dotted in settings.names:
            hint = Annotated[Any, _value_of(about)]
            found.append(StructFieldSpec(name, hint, _NotGiven(value), help_of(about)))
        elif section is not None and any(known.startswith(f"{dotted}.") for known in settings.names):
            inside = Settings(value, settings.names, f"{dotted}.")
            found.append(StructFieldSpec(name, Settings, inside, section.__doc__))

    def collect(**values: Any) -> Settings:
        given: dict[str, Any] = {}
        for name, value in values.items():
            if not isinstance(value, Settings | _NotGiven):
                given[name] = value
            elif isinstance(value, Settings) and value.given:
                given[name] = value.given
        return replace(settings, given=given)

    return StructConstructorSpec(collect, tuple(found))


def _value_of(about: FieldInfo) -> PrimitiveConstructorSpec[Any]:
    hint = about.annotation
    many = get_origin(bare_type(hint)) is tuple

    def read(texts: list[str]) -> Any:
        values = [_typed(hint, text) for text in texts]
        return values if many else values[0]

    return PrimitiveConstructorSpec(
        nargs="*" if many else 1,
        metavar=_metavar(hint),
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda value: _shown(value.shown if isinstance(value, _NotGiven) else value),
    )


def _typed(hint: Any, text: str) -> Any:
    """A text as the schema's validation wants it; what does not fit stays text and is refused there."""
    if is_optional(hint) and text.lower() in NULL:
        return None
    bare = bare_type(hint)
    if get_origin(bare) is dict:
        return read_value("A mapping", text)
    number = {int: int, float: float}.get(bare)
    if number is not None:
        try:
            return number(text)
        except ValueError:
            return text
    return text


def _metavar(hint: Any) -> str:
    bare = bare_type(hint)
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
    return f"{name}|none" if is_optional(hint) else name


def _shown(value: Any) -> list[str]:
    if isinstance(value, tuple | list):
        return [text for item in value for text in _shown(item)]
    if isinstance(value, bool) or value is None:
        return [{True: "true", False: "false", None: NONE}[value]]
    return [str(value)]


def _mapping_names(model: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, info in model.model_fields.items():
        if (section := section_of(info)) is not None:
            names += _mapping_names(section, f"{prefix}{name}.")
        elif get_origin(info.annotation) is dict:
            names.append(prefix + name)
    return names


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        target = target.setdefault(key, {})
    target[path[-1]] = value
