"""The configuration of a run: one pydantic schema for preset, YAML file, command line, Python and notebook form.

`load_config` turns a preset name ("quickstart", "quickstart+policy-only"), a YAML file or a mapping into a
`RunConfig`; unknown and out-of-range fields are refused by name. The sections are in `config_sections.py`.

Engine, learner and objective never see these classes: the trainer hands them the plain dataclasses of
`rollout.engine`, `learner.settings` and `objective.settings`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from spark_kernel.config_sections import (
    CheckpointSection,
    EvaluationSection,
    LearnerSection,
    ModelSection,
    ObjectiveSection,
    PeriodSection,
    ProblemsSection,
    RecycleSection,
    RolloutSection,
    Section,
    VerifySection,
)
from spark_kernel.errors import InputError


class RunConfig(Section):
    """A whole run."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of every random draw."""
    rounds: int = Field(10, ge=1)
    """Rounds to train; also the horizon of the learning-rate schedule."""
    threads: int | None = Field(None, ge=1)
    """CPU threads for torch; none: as torch decides. Stored with the run, because results depend on it."""
    model: ModelSection = ModelSection()
    problems: ProblemsSection = ProblemsSection()
    rollout: RolloutSection = RolloutSection()
    verify: VerifySection = VerifySection()
    recycle: RecycleSection = RecycleSection()
    period: PeriodSection = PeriodSection()
    objective: ObjectiveSection = ObjectiveSection()
    learner: LearnerSection = LearnerSection()
    evaluation: EvaluationSection = EvaluationSection()
    checkpoint: CheckpointSection = CheckpointSection()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if not (self.period.train_policy or self.period.train_reward):
            raise ValueError("period.train_policy and period.train_reward are both off: there is nothing to train")
        if self.period.train_reward and not self.recycle.recycles:
            raise ValueError(
                "period.train_reward is on but recycle.pointwise, recycle.pairwise and recycle.reflection are all "
                "off: switch one on, or train_reward off"
            )
        self._check_objective()
        if self.rollout.engine == "vllm-server" and not self.rollout.server.urls:
            raise ValueError(
                "rollout.engine = vllm-server needs rollout.server.urls: the addresses of running servers, as "
                "http://host:8000"
            )
        return self

    def _check_objective(self) -> None:
        section = self.objective
        if section.dual_clip is not None and section.loss == "cispo":
            raise ValueError(
                "objective.dual_clip has no part in objective.loss = cispo, whose ratio is bounded by "
                "objective.ratio_cap: leave dual_clip out"
            )
        if section.dual_clip is not None and section.dual_clip <= 1.0 + section.eps_high:
            raise ValueError(
                f"objective.dual_clip = {section.dual_clip} must be above 1 + objective.eps_high = "
                f"{1.0 + section.eps_high}: raise it, or leave it out"
            )
        if self.rollout.samples == 1 and section.advantage != "mean_only":
            raise ValueError(
                f"rollout.samples = 1 leaves no group to compare with (objective.advantage = {section.advantage}): "
                "use at least 2 samples"
            )

    @property
    def judge_quota(self) -> int:
        """J, with its default of half the problems of a round."""
        quota = self.recycle.judge_quota
        return max(1, self.problems.per_round // 2) if quota is None else quota

    @property
    def reflection_quota(self) -> int:
        """R, with its default of half the problems of a round."""
        quota = self.recycle.reflection_quota
        return max(1, self.problems.per_round // 2) if quota is None else quota

    def to_yaml(self) -> str:
        """The complete configuration as YAML; `load_config` reads it back equal."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def preset_names() -> list[str]:
    """The presets that ship with the package."""
    folder = resources.files("spark_kernel") / "presets"
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
    text = (resources.files("spark_kernel") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
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
    return values


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
