"""Configurations side by side: which settings differ from the defaults, and which preset is nearest."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

from spark_kernel.config import RunConfig, field_names, load_config, preset_names
from spark_kernel.errors import InputError

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
    """The preset, or two joined with "+", from which the configuration differs least; and where it differs.

    A run folder holds the complete configuration and not the name it was started by.
    """
    default = RunConfig()
    names = sorted(preset_names(), key=lambda name: -len(differing(load_config(name), default)))  # the widest first
    best: tuple[str, Mapping[str, tuple[Any, Any]]] = ("", {})
    for name in (*names, *("+".join(pair) for pair in permutations(names, 2))):
        try:
            found = differing(config, load_config(name))
        except InputError:  # two presets that do not go together
            continue
        if not best[0] or len(found) < len(best[1]):
            best = (name, found)
    return best
