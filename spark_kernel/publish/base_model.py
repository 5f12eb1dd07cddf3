"""Where a run's model came from, as those must know it who load what the run made of it: reference and licence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from spark_kernel.config.sections import ModelSection
from spark_kernel.models.download import HUB_TIMEOUT_SECONDS, PROVENANCE
from spark_kernel.models.load import BUILT_IN, models_folder, resolve_model

LICENCE_FIELDS = ("license", "license_name", "license_link")
"""Fields of a model card's metadata that say under which licence a model is."""
UNKNOWN: Mapping[str, str] = {"license": "unknown"}


@dataclass(frozen=True, slots=True)
class BaseModel:
    """A base model.

    `name`: as the run names it; of a folder or file its own name only. `reference`: what loads the very weights: hub
    id or absolute folder. `on_hub`: whether `reference` is a hub id. `revision`: of a hub id, if one was asked for.
    `gguf`: the file in the folder, where it is one. `descends_from`: hub id of these weights, or of those they were
    made from; None where unknown. `licence`: the fields of its model card. `note`: a remark for a person, or "".
    """

    name: str
    reference: str
    on_hub: bool
    revision: str | None = None
    gguf: str | None = None
    descends_from: str | None = None
    licence: Mapping[str, str] = field(default_factory=lambda: UNKNOWN)
    note: str = ""


def describe_base(settings: ModelSection) -> BaseModel:
    """The base model of a run. A hub model's licence is looked up where the hub can be reached.

    Raises:
        ModelError: a folder or file that is no longer there.
    """
    source = resolve_model(settings.path)
    local = Path(source)
    if settings.path in BUILT_IN:
        note = "It comes with the package spark-workbench."
        return BaseModel(settings.path, str(local.absolute()), False, licence={"license": "apache-2.0"}, note=note)
    if not local.exists():
        licence = _hub_licence(source, settings.revision)
        return BaseModel(source, source, True, settings.revision, descends_from=source, licence=licence)
    if local.is_file():
        folder, licence = local.parent.absolute(), licence_of(_read(local.parent / "README.md"))
        return BaseModel(local.name, str(folder), False, gguf=local.name, licence=licence)
    if local.parent == models_folder() and (local / PROVENANCE).is_file():
        return _downloaded(local)
    folder, licence = local.absolute(), licence_of(_read(local / "README.md"))
    return BaseModel(folder.name, str(folder), False, licence=licence)


def licence_of(card: str) -> Mapping[str, str]:
    """The licence fields in the metadata of a model card's text; "unknown" where it names none."""
    begin, _, rest = card.lstrip("\ufeff").partition("\n")
    if begin.rstrip() != "---":
        return UNKNOWN
    try:
        metadata = yaml.safe_load(rest.partition("\n---")[0])
    except yaml.YAMLError:
        return UNKNOWN
    return _licence_fields(metadata)


def _licence_fields(metadata: Any) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not isinstance(metadata.get("license"), str):
        return UNKNOWN
    return {name: metadata[name] for name in LICENCE_FIELDS if isinstance(metadata.get(name), str)}


def _downloaded(folder: Path) -> BaseModel:
    """A model that `models get` fetched: the hub's own weights, or what a package carries of them."""
    stored: dict[str, Any] = json.loads(_read(folder / PROVENANCE))
    licence = {"license": str(stored["licence"]).lower()} if stored.get("licence") else UNKNOWN
    if stored.get("source") == "hub":
        hub_id = str(stored["hub_id"])
        return BaseModel(hub_id, hub_id, True, descends_from=hub_id, licence=licence)
    parent, note = stored.get("same_model_on_hub"), str(stored.get("note", ""))
    return BaseModel(folder.name, str(folder.absolute()), False, descends_from=parent, licence=licence, note=note)


def _hub_licence(name: str, revision: str | None) -> Mapping[str, str]:
    """The licence of a hub model; "unknown" where its card names none or the hub cannot be asked."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        info = HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_SECONDS)
    except (OSError, HTTPError):  # offline, no such repository, no right to see it
        return UNKNOWN
    return _licence_fields({} if info.card_data is None else info.card_data.to_dict())


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
