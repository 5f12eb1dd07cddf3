"""An experiment as a file says it: arms (presets and settings), seeds, and how the arms are compared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from spark_kernel.config import RunConfig, load_config, merge_settings
from spark_kernel.config.section import Section
from spark_kernel.errors import InputError
from workbench.experiment.matching import Match
from workbench.experiment.measures import MEASURES

SHIPPED = "shipped"
QUARTERS = 4
"""Evaluations of a run where a file does not say: one after each quarter of its rounds, and one before the first."""


class ArmSection(Section):
    """One arm: what is laid over the experiment's base."""

    preset: str = ""
    """A preset, or several joined with "+", over the base; empty: the base alone."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of this arm, nested or dotted, over those of the experiment."""
    about: str = ""
    """What a reader should know of it."""


class ExperimentFile(Section):
    """The schema of an experiment file."""

    title: str
    question: str = ""
    """What is asked, decided before the runs."""
    base: str = "quickstart"
    """The preset, or presets joined with "+", under every arm."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every arm, nested or dotted."""
    arms: dict[str, ArmSection]
    reference: str
    """The arm that every other one is compared with."""
    seeds: tuple[int, ...] = (0, 1, 2)
    until: str = "rounds"
    """rounds: every arm trains for as many; rollouts: until it has sampled as much as the arm that samples most."""
    match: tuple[Match, ...] = tuple(Match)
    """What arms are compared at equal amounts of."""
    primary: str = "own"
    """The measure that was chosen beforehand to decide."""

    @field_validator("arms")
    @classmethod
    def _named_arms(cls, arms: dict[str, ArmSection]) -> dict[str, ArmSection]:
        if len(arms) < 2:
            raise ValueError("an experiment compares at least two arms")
        for name in arms:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 .,%+-]{0,59}", name):
                raise ValueError(f'"{name}" is no name for an arm: letters, digits, spaces and . , % + -')
        if len({folder_name(name) for name in arms}) < len(arms):
            raise ValueError("two arms would have the same folder: give them names that differ by a letter or digit")
        return arms

    @field_validator("seeds")
    @classmethod
    def _different_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("at least one seed, each once, from 0")
        return seeds

    @model_validator(mode="after")
    def _known_names(self) -> ExperimentFile:
        if self.reference not in self.arms:
            raise ValueError(f'reference = "{self.reference}" is no arm: {", ".join(self.arms)}')
        if self.until not in ("rounds", "rollouts"):
            raise ValueError(f'until = "{self.until}" is refused: rounds or rollouts')
        if self.primary not in MEASURES:
            raise ValueError(f'primary = "{self.primary}" is no measure: {", ".join(MEASURES)}')
        return self


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of an experiment: an arm with a seed."""

    arm: str
    seed: int
    config: RunConfig

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{folder_name(self.arm)}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment with every configuration worked out. `cells`: seed by seed, so that early results are pairs."""

    name: str
    file: ExperimentFile
    cells: tuple[Cell, ...]

    def cells_of(self, arm: str) -> tuple[Cell, ...]:
        """An arm's cells."""
        return tuple(cell for cell in self.cells if cell.arm == arm)


def shipped_experiments() -> dict[str, str]:
    """The experiments that ship with the package: name and title."""
    folder = resources.files(__package__) / SHIPPED
    names = sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {name: str(yaml.safe_load(_shipped_text(name))["title"]) for name in names}


def load_experiment(
    source: str,
    *,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Experiment:
    """An experiment from a file or the name of a shipped one, with what the command line changes.

    Args:
        seeds: in place of the file's.
        arms: only these; the reference always belongs to them.
        settings: nested settings of every arm, over those of the file.

    Raises:
        InputError: no such file or name, or something in it that cannot work; says what.
    """
    values, name = _read(source)
    try:
        file = ExperimentFile.model_validate(values)
    except ValidationError as error:
        raise InputError("; ".join(_in_words(source, item) for item in error.errors())) from None
    if arms is not None:
        unknown = [arm for arm in arms if arm not in file.arms]
        if unknown:
            raise InputError(f'{source} has no arm "{unknown[0]}": {", ".join(file.arms)}.')
        kept = {arm: section for arm, section in file.arms.items() if arm in arms or arm == file.reference}
        file = file.model_copy(update={"arms": kept})
    if seeds is not None:
        file = file.model_copy(update={"seeds": tuple(seeds)})
    configs = {arm: _config(file, section, settings or {}) for arm, section in file.arms.items()}
    if file.until == "rollouts":
        configs = _equally_long(configs)
    cells = [Cell(arm, seed, _seeded(config, seed)) for seed in file.seeds for arm, config in configs.items()]
    return Experiment(name, file, tuple(cells))


def folder_name(arm: str) -> str:
    """An arm's name as part of a folder's."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", arm.replace("%", " percent")).strip("-").lower()


def rollouts_of_round(config: RunConfig, round: int) -> int:
    """How many outputs a full round samples."""
    tasks = config.problems.per_round
    if config.period.has_reward(round):
        tasks += config.quotas.judge + config.quotas.reflection
    return tasks * config.rollout.samples


def _config(file: ExperimentFile, arm: ArmSection, given: Mapping[str, Any]) -> RunConfig:
    preset = "+".join(part for part in (file.base, arm.preset) if part)
    settings: Mapping[str, Any] = {"threads": 1}
    for layer in (file.settings, arm.settings, given):
        settings = merge_settings(settings, nested(layer))
    config = load_config({"base": preset, **settings})
    if "every" in settings.get("evaluation", {}):
        return config
    every = max(1, config.rounds // QUARTERS)
    return config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": every})})


def _equally_long(configs: Mapping[str, RunConfig]) -> dict[str, RunConfig]:
    """Each arm with as many rounds as its share of the most rollouts takes, evaluated after the same amounts."""
    planned = {arm: sum(rollouts_of_round(c, n) for n in range(1, c.rounds + 1)) for arm, c in configs.items()}
    most = max(planned.values())
    found = {}
    for arm, config in configs.items():
        rounds, sampled = 0, 0
        while sampled < most:
            rounds += 1
            sampled += rollouts_of_round(config, rounds)
        every = max(1, round(config.evaluation.every * rounds / config.rounds)) if config.evaluation.every else 0
        evaluation = config.evaluation.model_copy(update={"every": every})
        found[arm] = config.model_copy(update={"rounds": rounds, "evaluation": evaluation})
    return found


def _seeded(config: RunConfig, seed: int) -> RunConfig:
    return config.model_copy(update={"seed": seed})


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with dotted names made nested; "problems.options.path" too."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        inside = nested(value) if isinstance(value, Mapping) and name.split(".")[0] != "problems" else value
        for part in reversed(name.split(".")):
            inside = {part: inside}
        found = merge_settings(found, inside)
    return found


def _read(source: str) -> tuple[dict[str, Any], str]:
    if source.endswith((".yaml", ".yml")):
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"There is no experiment file {source}.") from None
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not readable as YAML: {error}.") from None
    else:
        names = list(shipped_experiments())
        if source not in names:
            nearest = difflib.get_close_matches(source, names, n=1)
            hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
            raise InputError(
                f'There is no experiment "{source}"{hint}. Those that ship: {", ".join(names)}; a file ends in .yaml.'
            )
        text = _shipped_text(source)
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source} is not readable as YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise InputError(f"{source} must hold a mapping with title, arms and reference.")
    return values, Path(source).stem


def _shipped_text(name: str) -> str:
    return (resources.files(__package__) / SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _in_words(source: str, item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    message = re.sub(r"^Value error, ", "", item["msg"])
    if item["type"] == "extra_forbidden":
        return f'{source} has an entry "{name}" that experiments do not know: {", ".join(ExperimentFile.model_fields)}.'
    return f"{source}: {name + ': ' if name else ''}{message[0].lower()}{message[1:]}."
