"""From a preset name, a YAML file or a mapping to a validated `RunConfig`.

Unknown and out-of-range fields are refused by name, with the nearest one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from spark_kernel.config.schema import RunConfig
from spark_kernel.errors import InputError

PRESETS = "presets"
RUN_JSON = "run.json"
"""A configuration beside this file belongs to a run."""


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    folder = resources.files(__package__) / PRESETS
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str | Path | Mapping[str, Any], **overrides: Any) -> RunConfig:
    """A validated configuration from a preset name, a YAML file or a mapping.

    Presets combine with "+", later ones winning: "smollm2+policy-only+faithful". A file or preset may name its
    own `base` (a preset combination) and then only states what differs. `overrides` are dotted fields with double
    underscores, e.g. `load_config("quickstart", rollout__samples=4)`.

    Raises:
        InputError: unknown preset, file or field, or a value out of range; says which, and what is allowed.
    """
    values = _read_source(source)
    for dotted, value in overrides.items():
        values = merge_settings(values, _nest(dotted.split("__"), value))
    return validate_config(values)


def validate_config(values: Mapping[str, Any], model: type[RunConfig] = RunConfig) -> RunConfig:
    """Validate a nested mapping.

    Raises:
        InputError: one line per bad field, with the allowed values or the nearest field name.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_describe(item) for item in error.errors())) from None


def field_names(model: type[BaseModel] = RunConfig, prefix: str = "") -> list[str]:
    """Every dotted field name of the schema."""
    names = []
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            names += field_names(info.annotation, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def nearest_setting(name: str) -> str | None:
    """The field that a mistyped dotted name most likely means, None where nothing is near.

    That of the same name in another section; else the most similar name of its section, or of all where there is no
    such section.
    """
    known = field_names()
    section, _, leaf = name.rpartition(".")
    same = [field for field in known if field.rpartition(".")[2] == leaf]
    inside = {field.removeprefix(f"{section}."): field for field in known if field.startswith(f"{section}.")}
    if inside:
        similar = [inside[found] for found in difflib.get_close_matches(leaf, inside, n=1, cutoff=0.5)]
    else:
        similar = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return next(iter(same or similar), None)


def _read_source(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(source, Mapping):
        values = dict(source)
    elif str(source).endswith((".yaml", ".yml")):
        values = _read_yaml(Path(source))
    else:
        values = {}
        for name in str(source).split("+"):
            values = merge_settings(values, _read_preset(name.strip()))
        return values
    base = values.pop("base", None)
    return merge_settings(_read_source(str(base)), values) if base else values


def _read_preset(name: str) -> dict[str, Any]:
    if name not in preset_names():
        nearest = difflib.get_close_matches(name, preset_names(), n=1)
        hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
        raise InputError(
            f'There is no preset or file "{name}"{hint}. Presets: {", ".join(preset_names())}; '
            "a configuration file ends in .yaml."
        )
    text = (resources.files(__package__) / PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text) or {}
    base = values.pop("base", None)
    return merge_settings(_read_source(base), values) if base else values


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no configuration file {path}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a mapping of sections, not {type(values).__name__}.")
    found: dict[str, Any] = as_first_written(values) if (path.parent / RUN_JSON).is_file() else values
    return found


def as_first_written(values: Any) -> Any:
    """A run's stored configuration, with what it means by saying nothing about settings that came later.

    A run from before `problems.canonical_form` keeps the split that it began with: its problems are read and held out
    as they were then, its pairs are recycled without `recycle.balance_pairs`, and its loss is not corrected for the
    transformers engine in bfloat16. Any other configuration is returned as it is.
    """
    problems = values.get("problems") if isinstance(values, Mapping) else None
    if not isinstance(problems, Mapping) or "canonical_form" in problems:
        return values
    first: dict[str, Any] = {**problems, "canonical_form": 1}
    if problems.get("source") == "files":
        first["options"] = {"format": "columns-1", **(problems.get("options") or {})}
    recycle = values.get("recycle")
    pairs = {"balance_pairs": False, **(recycle if isinstance(recycle, Mapping) else {})}
    found = {**values, "problems": first, "recycle": pairs}
    objective, rollout = (dict(values.get(name) or {}) for name in ("objective", "rollout"))
    own = rollout.get("engine", "transformers") == "transformers"
    in_bfloat16 = dict(values.get("model") or {}).get("dtype") == "bfloat16"
    if own and in_bfloat16 and objective.get("importance_correction", "auto") == "auto":
        found["objective"] = {**objective, "importance_correction": "off"}
    return found


def _nest(path: list[str], value: Any) -> dict[str, Any]:
    return {path[0]: value if len(path) == 1 else _nest(path[1:], value)}


def merge_settings(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, section by section; `problems.options` is replaced whole when the source changes."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if key == "problems" and isinstance(value, Mapping) and isinstance(old, Mapping):
            changed = value.get("source", old.get("source")) != old.get("source")
            old = {k: v for k, v in old.items() if not (changed and k == "options")}
        merged[key] = merge_settings(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _describe(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    message = re.sub(r"^Value error, ", "", item["msg"])
    if item["type"] == "extra_forbidden":
        suggestion = nearest_setting(name)
        return f'There is no setting "{name}"' + (f'; did you mean "{suggestion}"?' if suggestion else ".")
    if not name:
        return message
    return f"{name} = {item['input']!r} is refused: {message[0].lower()}{message[1:]}."
