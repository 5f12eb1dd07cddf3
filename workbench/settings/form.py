"""The fields of the configuration schema as a form needs them: type of control, choices, bounds, help, text forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from spark_kernel.config import RunConfig
from workbench.settings.fields import NONE, bare_type, help_of, is_optional, section_of


@dataclass(frozen=True, slots=True)
class FormField:
    """One setting. `name` is dotted; `choices` are empty unless the schema has an enumeration; `help` holds bounds."""

    name: str
    control: Literal["check", "choice", "text"]
    hint: Any
    help: str
    choices: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """The dotted section; empty for a setting of the run as a whole."""
        return self.name.rpartition(".")[0]

    @property
    def leaf(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]

    def show(self, value: Any) -> Any:
        """A value of the schema as the control has it."""
        if self.control == "check":
            return bool(value)
        if value is None:
            return NONE
        if isinstance(value, tuple | list):
            return ", ".join(map(str, value))
        if isinstance(value, dict):
            return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
        return str(value)

    def read(self, shown: Any) -> Any:
        """What the control has as the schema's validation wants it; what does not fit is left for it to refuse."""
        if self.control == "check":
            return bool(shown)
        text = str(shown).strip()
        if is_optional(self.hint) and text.lower() in (NONE, ""):
            return None
        bare = bare_type(self.hint)
        if get_origin(bare) is tuple:
            return [part.strip() for part in text.split(",") if part.strip()]
        if get_origin(bare) is dict:
            try:
                return yaml.safe_load(text) if text else {}
            except yaml.YAMLError:
                return text
        return text


@dataclass(frozen=True, slots=True)
class FormSection:
    """A section of the schema with its own settings; `about` is the section's docstring."""

    name: str
    about: str
    fields: tuple[FormField, ...]


def form_sections() -> tuple[FormSection, ...]:
    """Every section in the order of the schema, nested ones after the one they belong to."""
    return tuple(_sections(RunConfig, ""))


def _sections(model: type[BaseModel], prefix: str) -> list[FormSection]:
    own = []
    nested: list[FormSection] = []
    for name, info in model.model_fields.items():
        if (section := section_of(info)) is not None:
            nested += _sections(section, f"{prefix}{name}.")
        else:
            own.append(_field(prefix + name, info))
    return [FormSection(prefix.rstrip("."), (model.__doc__ or "").strip(), tuple(own)), *nested]


def _field(name: str, info: FieldInfo) -> FormField:
    bare = bare_type(info.annotation)
    optional, text = is_optional(info.annotation), help_of(info)
    if bare is bool and not optional:
        return FormField(name, "check", info.annotation, text)
    if get_origin(bare) is Literal or bare is bool:
        choices = ["True", "False"] if bare is bool else [str(choice) for choice in get_args(bare)]
        return FormField(name, "choice", info.annotation, text, tuple(choices + [NONE] * optional))
    return FormField(name, "text", info.annotation, text)
