"""Configurations side by side: which settings differ from the defaults, and which preset is nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spark_kernel.config import RunConfig, field_names, load_config, preset_names

NOT_COMPARED = ("threads",)
"""Settings that a run fills in by itself, so that they say nothing of what was asked for."""


def differing(config: RunConfig, other: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Dotted settings in which two configurations differ, with the value of each."""
    pairs = {name: (setting(config, name), setting(other, name)) for name in field_names() if name not in NOT_COMPARED}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def setting(config: RunConfig, dotted: str) -> Any:
    """The value of a dotted setting."""
    value: Any = config
    for name in dotted.split("."):
        value = getattr(value, name)
    return value


def nearest_preset(config: RunConfig) -> tuple[str, Mapping[str, tuple[Any, Any]]]:
    """The preset from which the configuration differs least, and where it differs.

    Whole presets (they name a model or problems), others, and a whole one joined with another by "+". A run folder
    holds the complete configuration and not the name it was started by.
    """
    default = RunConfig()
    presets = {name: load_config(name) for name in preset_names()}
    whole = [
        name for name, preset in presets.items() if (preset.model, preset.problems) != (default.model, default.problems)
    ]
    others = [name for name in presets if name not in whole]
    presets |= {f"{first}+{second}": load_config(f"{first}+{second}") for first in whole for second in others}
    differences = {name: differing(config, preset) for name, preset in presets.items()}
    return min(differences.items(), key=lambda item: len(item[1]))
