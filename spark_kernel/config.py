"""The configuration of a run: one pydantic schema for preset, YAML file, command line, Python and notebook form.

`load_config` turns a preset name ("quickstart", "quickstart+policy-only"), a YAML file or a mapping into a
`RunConfig`; unknown and out-of-range fields are refused by name. `faithful` in a description means what the
authors' code does (docs/algorithm.md lists every difference).

Engine, learner and objective never see these classes: the trainer hands them the plain dataclasses of
`rollout.engine`, `learner.settings` and `objective.settings`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from spark_kernel.errors import InputError


class Section(BaseModel):
    """Base of every section: immutable, unknown fields refused, attribute docstrings serve as help texts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


class LoraSection(Section):
    """Low-rank adapters (peft)."""

    enabled: bool = False
    """Train adapters instead of all weights."""
    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update matrices."""
    alpha: int = Field(32, ge=1)
    """Scaling numerator: the update is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0.0, le=0.0)
    """Must stay 0: the objective needs the same probabilities in sampling and training."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Module names or suffixes to adapt; "all-linear" takes every linear layer but the output head."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank)."""
    dora: bool = False
    """Weight-decomposed adapters."""


class ModelSection(Section):
    """The model that is policy and judge."""

    path: str = "builtin:starter"
    """Hub id, folder, GGUF file, or a built-in or downloaded name (`workbench models list`)."""
    revision: str | None = None
    """Hub revision (branch, tag or commit)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Weight precision; auto: float32 weights, and arithmetic in bfloat16 on a GPU and, from 5 million parameters, on a
    CPU that has the instructions."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:N."""
    trust_remote_code: bool = False
    """Run Python code that a hub model brings along. Off unless you trust its author."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""
    lora: LoraSection = LoraSection()


class ProblemsSection(Section):
    """Where problems come from."""

    source: str = "arithmetic"
    """arithmetic, reasoning_gym, files, or a registered source."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the source, see docs/problems.md; e.g. {"path": "train.jsonl"} for files."""
    per_round: int = Field(64, ge=1)
    """P: new problems a round."""
    held_out_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of problems (by hash of the canonical problem) that is kept for evaluation and never trained on."""
    worked_examples: bool = False
    """Show small worked examples before every prompt, for a model too small to keep to the answer's form unaided."""
    on_bad_problem: Literal["stop", "skip"] = "stop"
    """What to do with a malformed record: stop with its file and line, or skip it and record an exclusion."""


class VllmSection(Section):
    """vLLM in the training process (docs/vllm.md). Used with rollout.engine = vllm."""

    memory_share: float = Field(0.4, gt=0.0, lt=1.0)
    """Share of the GPU's memory for vLLM's weights and cache; the learner needs the rest. No effect on a CPU."""
    cache_gib: float | None = Field(None, gt=0.0)
    """Size of the key-value cache; none: what memory_share leaves on a GPU, 1 GiB on a CPU."""
    enforce_eager: bool | None = None
    """Run without compiled graphs, which starts fastest; none: on a CPU yes, on a GPU no."""
    lora_sync: Literal["auto", "adapter", "merged"] = "auto"
    """What is pushed after an update of a LoRA adapter: its own bytes, or the weights with it merged; auto: adapter on
    a GPU, merged on a CPU, where vLLM's adapter kernels cost more than the larger push."""
    sleep: bool = True
    """On a GPU: give vLLM's memory to the learner during updates."""


class ServerSection(Section):
    """Running vLLM servers (docs/vllm.md). Used with rollout.engine = vllm-server."""

    urls: tuple[str, ...] = ()
    """Their addresses, as http://host:8000; prompts are spread over them."""
    model: str | None = None
    """The name they serve the model under; none: whatever name each has."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable that holds the API key; the key itself is never written down."""
    folder: Path | None = None
    """Where weights are put for the servers, which must see it under the same path; none: a temporary folder of this
    machine."""
    lora_sync: Literal["adapter", "merged"] = "merged"
    """What is pushed after an update of a LoRA adapter: the weights with it merged, or its own bytes."""
    timeout_seconds: float = Field(600.0, gt=0.0)
    """Seconds that one answer may take before a server counts as down."""
    connections: int = Field(64, ge=1, le=1024)
    """Most requests under way at one server."""

    @field_validator("urls")
    @classmethod
    def _plain_addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"{url!r} is no address such as http://host:8000")
            if parts.username is not None or parts.password is not None:
                raise ValueError("an address must not hold a password: use rollout.server.api_key_env")
            if parts.path.strip("/") or parts.query or parts.fragment:
                raise ValueError(f"{url!r} must end after host and port")
        if len(set(urls)) < len(urls):
            raise ValueError("an address stands there twice")
        return tuple(url.rstrip("/") for url in urls)


class RolloutSection(Section):
    """Sampling."""

    engine: Literal["transformers", "vllm", "vllm-server"] = "transformers"
    """What samples: the training process's own model, vLLM in the training process, or running vLLM servers."""
    vllm: VllmSection = VllmSection()
    server: ServerSection = ServerSection()
    samples: int = Field(8, ge=1, le=1024)
    """n: outputs per task."""
    temperature: float = Field(1.0, gt=0.0, le=10.0)
    """Sampling temperature in training rounds."""
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    """Nucleus mass; below 1 the sampled distribution is no longer the trained one."""
    top_k: int = Field(0, ge=0)
    """Keep only the k likeliest tokens; 0 keeps all."""
    max_new_tokens: int = Field(768, ge=1)
    """Longest output, in tokens."""
    verdict_max_new_tokens: int | None = Field(None, ge=1)
    """Longest judge output, in tokens; none: as max_new_tokens."""
    max_prompt_tokens: int = Field(8192, ge=1)
    """Longest prompt, in tokens; a longer task is excluded, with its reason recorded."""
    batch_size: int | None = Field(None, ge=1)
    """Rows decoded side by side by the transformers engine; none: planned from free memory when the run starts, and
    stored with it."""


class VerifySection(Section):
    """Scoring of outputs, in worker processes."""

    workers: int = Field(1, ge=1, le=256)
    """Worker processes."""
    deadline_seconds: float = Field(5.0, gt=0.0)
    """Seconds one output may take before it counts as a timeout."""
    correct_threshold: float = Field(1.0, ge=0.0, le=1.0)
    """A graded reward of at least this much counts as correct."""


class RecycleSection(Section):
    """What becomes of scored rollouts (algorithm.md, "Recycling rules")."""

    pointwise: bool = True
    """Make "is this answer correct?" tasks."""
    pairwise: bool = True
    """Make "which of the two is correct?" tasks."""
    reflection: bool = True
    """Make "look again and answer" tasks."""
    re_evaluation: bool = True
    """Recycle scored reflections into judge tasks too (faithful: off)."""
    judge_quota: int | None = Field(None, ge=0)
    """J: judge tasks taken a round; none: half of problems.per_round."""
    reflection_quota: int | None = Field(None, ge=0)
    """R: reflection tasks taken a round; none: half of problems.per_round."""
    minimum: int = Field(1, ge=1)
    """Fewest queued tasks for a reward period to take place (faithful: 64)."""
    max_age: int | None = Field(1, ge=0)
    """Rounds a task may wait; none: for ever (faithful)."""
    order: Literal["mixed_first", "fifo"] = "mixed_first"
    """Which queued tasks go first: those from mixed groups, then by age; or strictly by age (faithful)."""
    mixed_pairwise_share: float = Field(0.7, ge=0.0, le=1.0)
    """Probability that a mixed group becomes a pairwise rather than a pointwise task."""
    judge_view: Literal["answer", "full", "both"] = "both"
    """What a judge sees of a candidate: final answer, whole response, or half and half (faithful: answer)."""
    reflection_view: Literal["answer", "full", "both"] = "both"
    """What a reflection sees of the earlier response."""
    reflection_correct_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of reflections that start from a correct rollout (faithful: 0)."""
    balance_pointwise: bool = True
    """Stratify pointwise tasks to equally many "Yes" and "No" (faithful: off)."""
    extra: tuple[str, ...] = ()
    """Names of further recyclers, registered by other packages (docs/recycling.md)."""

    @property
    def recycles(self) -> bool:
        """Whether any kind is on."""
        return self.pointwise or self.pairwise or self.reflection or bool(self.extra)


class PeriodSection(Section):
    """How a round is cut into updates."""

    order: Literal["alternating", "joint"] = "alternating"
    """Two updates a round, judging by the updated policy; or one update from both halves."""
    train_policy: bool = True
    """Update on solve rollouts (off: the reward-only arm)."""
    train_reward: bool = True
    """Sample and update on recycled tasks (off: the policy-only arm)."""


class ObjectiveSection(Section):
    """The loss (algorithm.md section 3)."""

    model_config = ConfigDict(allow_inf_nan=False)

    advantage: Literal["group_std_ddof1", "group_std_ddof0", "mean_only", "batch_std", "leave_one_out"] = (
        "group_std_ddof1"
    )
    """How rewards become advantages."""
    delta: float = Field(1e-4, ge=0.0)
    """Added to the standard deviation."""
    loss: Literal["dapo", "bnpo", "grpo", "dr_grpo", "cispo", "gspo"] = "dapo"
    """The loss by its usual name: surrogate, level of the ratio and aggregation (docs/objectives.md)."""
    aggregation: Literal["token_mean", "sequence_mean", "constant_length"] | None = None
    """How token losses are averaged: over all loss tokens of the step, per sequence, or by a constant length; none:
    as the loss has it."""
    eps_low: float = Field(0.2, gt=0.0, lt=1.0)
    """Lower clip range of the ratio."""
    eps_high: float = Field(0.2, gt=0.0)
    """Upper clip range of the ratio."""
    dual_clip: float | None = Field(None, gt=1.0)
    """Bound of the ratio under a negative advantage (TRL's delta); above 1 + eps_high. None: no bound."""
    ratio_cap: float = Field(5.0, gt=0.0)
    """CISPO's absolute bound of the ratio."""
    beta: float = Field(0.0, ge=0.0)
    """Weight of the KL term against the run's initial policy; 0 keeps no reference in memory."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of the KL divergence."""
    kl_times_ratio: bool = False
    """Multiply the KL term by the ratio, which makes its gradient that of the reverse KL (TRL's default)."""
    importance_correction: Literal["auto", "off", "truncate", "mask"] = "auto"
    """Weight tokens by learner over sampler probability, bounded, where the two differ; auto: truncate for vLLM
    engines, off for transformers, whose sampler is the learner itself."""
    importance_level: Literal["token", "sequence"] = "token"
    """Whether that weight is taken per token or per whole output."""
    importance_cap: float = Field(2.0, gt=1.0)
    """Bound of that weight: truncated to it, or masked above it."""
    kinds: Literal["own", "pooled"] = "own"
    """Each kind normalised over its own loss tokens, or all kinds of a period pooled (faithful)."""
    kind_weights: dict[Literal["solve", "pointwise", "pairwise", "reflection"], Annotated[float, Field(ge=0.0)]] = (
        Field(default_factory=dict)
    )
    """Weight of each kind's loss; 1 where absent."""
    negative_advantage_scale: float = Field(1.0, gt=0.0, le=1.0)
    """Negative advantages are multiplied by this."""
    mask_truncated: bool = True
    """Leave truncated outputs out of the loss (faithful: kept)."""
    mask_zero_variance: bool = True
    """Leave groups with equal rewards out of the loss (faithful: kept, A = 0)."""


class LearnerSection(Section):
    """The optimizer and how a batch is cut."""

    learning_rate: float = Field(5e-7, gt=0.0)
    """Peak learning rate."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """AdamW, fused where available; or with its moments in 8 bits (bitsandbytes), a quarter of the state's memory."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape after the warm-up."""
    warmup_share: float = Field(0.03, ge=0.0, le=1.0)
    """Share of all planned optimizer steps used to warm up."""
    floor_share: float = Field(0.1, ge=0.0, le=1.0)
    """The rate ends at this share of its peak and stays there."""
    betas: tuple[float, float] = (0.9, 0.95)
    """AdamW's betas."""
    weight_decay: float = Field(0.0, ge=0.0)
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0.0)
    """Gradients are clipped to this norm."""
    minibatch_sequences: int | None = Field(64, ge=1)
    """Sequences per optimizer step, rounded to whole groups; none: the whole period in one step."""
    epochs: int = Field(1, ge=1, le=64)
    """Passes over a period's groups."""
    micro_batch_tokens: int | None = Field(None, ge=1)
    """Tokens (prompt once per group + outputs, padding included) computed side by side; none: planned from free memory
    when the run starts, and stored with it."""
    shared_prefix: bool = True
    """Compute the prompt of a group once."""


class EvaluationSection(Section):
    """Held-out evaluation. It draws from its own random stream and never touches training."""

    every: int = Field(10, ge=0)
    """Evaluate before the first round, after every k-th and after the last; 0: never."""
    problems: int = Field(64, ge=1)
    """Held-out problems."""
    samples: int = Field(4, ge=1)
    """Sampled answers per problem (greedy solving is evaluated besides)."""
    reflections: int = Field(2, ge=1, le=8)
    """R: most reflections in the test-time loop."""
    methods: bool = True
    """Beside the loop, at its token cost: majority vote, best of n by verdicts, vote weighted by the judge. They choose
    among the sampled answers that are there anyway."""
    same_answers: Literal["text", "mathematics"] = "text"
    """Which answers are the same in a vote: spelled alike, or also equal for math-verify (slower)."""


class CheckpointSection(Section):
    """Checkpoints."""

    every: int = Field(10, ge=1)
    """Rounds between checkpoints; the last round always has one."""
    keep: int | None = Field(3, ge=1)
    """Newest checkpoints kept; none: all. Round 0 needs none: it is the initial model."""


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
