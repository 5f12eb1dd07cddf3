"""The model card of an exported round, made from the run folder: what it is, how it was trained, what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from spark_kernel.config import RunConfig
from spark_kernel.models.load import BUILT_IN
from spark_kernel.publish.base_model import BaseModel
from spark_kernel.publish.export import ExportSource
from spark_kernel.records import RoundReport
from spark_kernel.runs.layout import INHERITED, evaluation_folder, list_evaluations
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.storage import read_evaluation_report
from workbench.reporting.figure_rows import (
    Row,
    evaluation_name,
    first_and_last,
    held_out_rows,
    on_policy_rows,
    one_sided_notes,
    show_figure,
)
from workbench.settings.differences import differing, nearest_preset

SPARK = (
    "SPARK ([arXiv 2509.22624](https://arxiv.org/abs/2509.22624)) is reinforcement learning with verifiable rewards "
    "in which scored answers are used a second time: each becomes a question about correctness with a known answer "
    "(is this right? which of the two is? look again and answer), and the same model is trained on these too. So one "
    "model learns to answer, to judge its own answers and to correct them, without a reward model or human preferences."
)
PACKAGES = ("spark-workbench", "torch", "transformers", "peft")


@dataclass(frozen=True, slots=True)
class Card:
    """Everything a card is made from. `merged`: an adapter was merged. `reads_images`: a vision-language model."""

    reader: RunReader
    source: ExportSource
    base: BaseModel
    merged: bool
    reads_images: bool
    location: str

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.source.config

    @property
    def is_adapter(self) -> bool:
        """Whether the folder holds an adapter."""
        return self.source.has_adapter and not self.merged

    @property
    def reports(self) -> list[RoundReport]:
        """Reports of the rounds that made these weights, since the fork where the run is one."""
        return [report for report in self.reader.reports() if report.round <= self.source.round]

    @property
    def evaluations(self) -> dict[int, Mapping[str, Any]]:
        """The first and the last held-out evaluation up to these weights, by round; a fork's first is its parent's."""
        inherited = self.reader.path / INHERITED

        def of_parent(round: int) -> dict[str, Any]:
            return read_evaluation_report(evaluation_folder(inherited, round))

        found: dict[int, Callable[[int], Mapping[str, Any]]] = dict.fromkeys(list_evaluations(inherited), of_parent)
        found |= dict.fromkeys(self.reader.evaluations, self.reader.evaluation)
        rounds = sorted(number for number in found if number <= self.source.round)
        return {number: found[number](number) for number in dict.fromkeys((*rounds[:1], *rounds[-1:]))}


def model_card(
    reader: RunReader,
    source: ExportSource,
    base: BaseModel,
    *,
    merged: bool,
    location: str,
) -> str:
    """The text of README.md.

    Args:
        reader: the run.
        source: the checkpoint that is exported.
        base: the run's base model.
        merged: whether an adapter is merged into full weights.
        location: the folder's or repository's name, for the example of how to load it.
    """
    reads_images = any(name.endswith("processor_config.json") for name in source.files)
    card = Card(reader, source, base, merged, reads_images, location)
    parts = [
        _metadata(card),
        f"# {reader.info.name}, round {source.round}",
        _what(card),
        SPARK,
        "## How it was trained",
        _table(("", ""), _training(card)),
        *_settings(card),
        "## What was measured",
        *_figures(card),
        "## Limits",
        "\n".join(f"- {sentence}" for sentence in _limits(card)),
        "## How to load it",
        _example(card),
    ]
    return "\n\n".join(parts) + "\n"


def _metadata(card: Card) -> str:
    """The block that the hub reads; what is None is left out."""
    base, licence = card.base.descends_from, card.base.licence
    data = ModelCardData(
        license=licence.get("license"),
        license_name=licence.get("license_name"),
        license_link=licence.get("license_link"),
        base_model=base,
        base_model_relation=("adapter" if card.is_adapter else "finetune") if base else None,
        library_name="peft" if card.is_adapter else "transformers",
        pipeline_tag="image-text-to-text" if card.reads_images else "text-generation",
        tags=["spark-workbench", "reinforcement-learning", "self-judging", *(["lora"] * card.source.has_adapter)],
    )
    return f"---\n{data.to_yaml()}\n---"


def _what(card: Card) -> str:
    kind = {
        (False, False): "All its weights, trained",
        (True, False): "A low-rank adapter (LoRA) for it, trained",
        (True, True): "Its weights with a low-rank adapter (LoRA) merged in, trained",
    }[card.source.has_adapter, card.merged]
    on_hub = card.base.on_hub
    name = f"[{card.base.name}](https://huggingface.co/{card.base.name})" if on_hub else _code(card.base.name)
    note = f" {card.base.note}" if card.base.note else ""
    return f"Base model: {name}.{note} {kind} with SPARK by spark-workbench."


def _training(card: Card) -> list[tuple[str, str]]:
    """How these weights came to be, line by line."""
    config, reports, info = card.config, card.reports, card.reader.info
    parent = info.parent
    rollouts = sum(line.n + line.missing for report in reports for line in report.kinds)
    seconds = sum(sum(report.seconds_by_phase.values()) for report in reports)
    environment = card.reader.environment
    packages = environment.get("packages", {})
    versions = [f"{name} {packages[name]}" for name in PACKAGES if packages.get(name)]
    since = f" since the fork after round {parent.round}" if parent else ""
    kinds = dict.fromkeys(str(line.kind) for report in reports for line in report.kinds)
    lines = [
        ("problems", f"{_code(config.problems.source)}, {config.problems.per_round} a round"),
        ("kinds of task", ", ".join(kinds) or "none yet"),
        ("rounds", f"{card.source.round} of {config.rounds} planned"),
        ("training rollouts", f"{rollouts}{since}"),
        ("optimizer steps", str(card.source.optimizer_steps)),
        ("policy version", f"{card.source.policy_version} (updates)"),
        ("loss", f"{config.objective.loss}, KL weight {config.objective.beta:g}"),
        ("precision", f"{config.model.dtype}{_device(environment)}"),
        ("seed", str(config.seed)),
        ("time in rounds", f"{seconds:.0f} s{since}"),
        ("versions", ", ".join([f"Python {environment.get('python')}", *versions])),
    ]
    if card.source.has_adapter:
        lora = config.model.lora
        extra = "".join(f", {name}" for name, on in (("rsLoRA", lora.rslora), ("DoRA", lora.dora)) if on)
        lines.insert(2, ("adapter", f"rank {lora.rank}, alpha {lora.alpha}, {', '.join(lora.target_modules)}{extra}"))
    if parent:
        lines.insert(0, ("forked from", f"{_code(parent.run)} after round {parent.round}"))
    return lines


def _device(environment: Mapping[str, Any]) -> str:
    """The devices a run had, and the processor."""
    devices = [str(device.get("name")) for device in (environment.get("torch") or {}).get("devices", [])]
    names = devices or [str((environment.get("cpu") or {}).get("model") or "")]
    return f", on a machine with {', '.join(names)}" if names[0] else ""


def _settings(card: Card) -> list[str]:
    """The settings that differ from the defaults, and the nearest preset."""
    preset, off = nearest_preset(card.config)
    changed = differing(card.config, RunConfig())
    differences = ", ".join(_code(name) for name in off)
    said = f"Nearest preset: {_code(preset)}" + (f"; it differs from that in {differences}." if off else ".")
    if not changed:
        return [f"{said} All settings are the defaults."]
    rows = [(_code(name), _code(_public(value)), _code(_public(default))) for name, (value, default) in changed.items()]
    return [f"{said} Settings that differ from the defaults:", _table(("setting", "here", "default"), rows)]


def _figures(card: Card) -> list[str]:
    """First and last held-out evaluation, and training rollouts of the first and last round."""
    evaluations, reports = card.evaluations, first_and_last(card.reports)
    intervals = "Shares with 95 % intervals, clustered by problem; n counts outputs."
    parts: list[str] = []
    if evaluations:
        heads = [evaluation_name(round, summary) for round, summary in evaluations.items()]
        parts += [f"Held-out problems, never trained on. {intervals}", _figure_table(heads, held_out_rows(evaluations))]
        parts += one_sided_notes(evaluations)
    else:
        parts.append("These weights were never evaluated on held-out problems.")
    if reports:
        parts += [
            "Rollouts during training, share correct (on the problems of the round, so no measure of generalisation):",
            _figure_table([f"round {report.round}" for report in reports], on_policy_rows(reports)),
        ]
    return parts


def _limits(card: Card) -> list[str]:
    config, evaluations = card.config, card.evaluations
    source = _code(config.problems.source)
    rollout = config.rollout
    said = [
        f"The figures are about problems of the source {source} alone. Nothing was measured on public benchmarks, on "
        "other tasks, or about safety and bias; the base model's limits hold.",
        "One run with one seed: the intervals are about problems, not about seeds. Two overlapping intervals do "
        "not show a difference.",
        "What the model says about its own answers is a judgement, not a verification.",
        f"It was trained on prompts of at most {rollout.max_prompt_tokens} tokens and outputs of at most "
        f"{rollout.max_new_tokens}, in its chat template, with final answers in `\\boxed{{}}`"
        + (", with worked examples before every prompt." if config.problems.worked_examples else "."),
    ]
    if evaluations and max(evaluations) != card.source.round:
        said.insert(0, f"The last evaluation is of round {max(evaluations)}, these weights are of {card.source.round}.")
    if card.merged and config.model.dtype == "bfloat16":
        said.append(
            "The adapter was trained beside the base model and merged in bfloat16, which rounds: probabilities differ "
            "slightly from those in training."
        )
    if card.base.licence.get("license") == "unknown":
        said.append("The licence of the base model could not be found out here: ask its authors before use.")
    return said


def _example(card: Card) -> str:
    """How to load it, as Python."""
    auto = "AutoModelForImageTextToText" if card.reads_images else "AutoModelForCausalLM"
    reader = "AutoProcessor" if card.reads_images else "AutoTokenizer"
    place = f'"{_public(card.location)}"'
    if not card.is_adapter:
        lines = [
            f"from transformers import {auto}, {reader}",
            "",
            f"model = {auto}.from_pretrained({place})",
            f"{'processor' if card.reads_images else 'tokenizer'} = {reader}.from_pretrained({place})",
        ]
        return _python(lines)
    base = card.base
    name = f'"{base.reference}"' if base.on_hub else f'"{base.name}"  # the folder that holds the base model'
    if base.name in BUILT_IN:
        name = f'resolve_model("{base.name}")'
    options = f'"{base.revision}"' if base.revision else ""
    keywords = (f", revision={options}" if options else "") + (f', gguf_file="{base.gguf}"' if base.gguf else "")
    imports = ["from spark_kernel.models.load import resolve_model"] if name.startswith("resolve") else []
    lines = [
        "from peft import PeftModel",
        *imports,
        f"from transformers import {auto}, {reader}",
        "",
        f"base = {name}",
        f"model = PeftModel.from_pretrained({auto}.from_pretrained(base{keywords}), {place})",
        f"{'processor' if card.reads_images else 'tokenizer'} = {reader}.from_pretrained({place})",
    ]
    return _python(lines)


def _python(lines: Iterable[str]) -> str:
    return "\n".join(("```python", *lines, "```"))


def _figure_table(heads: Sequence[str], rows: Sequence[Row]) -> str:
    return _table(("", *heads), [(label.strip(), *map(show_figure, figures)) for label, figures in rows])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _code(value: Any) -> str:
    text = " ".join(str(value).split()).replace("`", "'")
    return f"`{text}`" if text else "(empty)"


def _public(value: Any) -> Any:
    """A value without the folders of the machine it was used on: of a path only its own name."""
    if isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()):
        return Path(value).name
    if isinstance(value, Mapping):
        return {name: _public(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_public(item) for item in value]
    return value
