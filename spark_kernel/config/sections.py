"""The sections of a run's configuration: every setting with its default, its range and its help text.

`spark_kernel.config` puts them together and reads them. `faithful` in a description means what the authors' code does
(docs/algorithm.md lists every difference).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from spark_kernel.config.section import Section
from spark_kernel.records import Kind

ViewChoice = Literal["answer", "full", "both"]
TrainedKind = Literal["solve", "pointwise", "pairwise", "reflection"]
TEMPLATE_ARGUMENTS = frozenset(
    {"conversation", "messages", "tokenize", "add_generation_prompt", "continue_final_message", "chat_template"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"}
)
"""Arguments of `apply_chat_template` that the encoder decides."""


class LoraSection(Section):
    """Low-rank adapters (peft)."""

    enabled: bool = False
    """Train adapters instead of all weights."""
    rank: int = Field(16, ge=1, le=1024)
    """Rank of the update matrices."""
    alpha: int = Field(32, ge=1)
    """Scaling numerator: the update is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ("all-linear",)
    """Module names or suffixes to adapt; "all-linear" takes every linear layer but the output head."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank)."""
    dora: bool = False
    """Weight-decomposed adapters."""

    @model_validator(mode="before")
    @classmethod
    def _without_dropout(cls, values: Any) -> Any:
        """Configurations of 0.1.0 hold `dropout: 0.0`, the only value there was: it is read and left out."""
        if not isinstance(values, Mapping) or "dropout" not in values:
            return values
        if values["dropout"] != 0:
            raise ValueError(
                "an adapter's dropout is always 0, because the objective needs the same probabilities in sampling and "
                "training: leave dropout out"
            )
        return {name: value for name, value in values.items() if name != "dropout"}


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
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """What the chat template is given besides the messages, wherever a prompt is written; e.g. {"enable_thinking":
    false}."""
    thinking_tags: dict[str, str] = Field(default_factory=dict)
    """Further tags, opening to closing, between which the model thinks; e.g. {"<scratch>": "</scratch>"}. The usual
    ones are known (docs/sampling.md). Recorded texts have <think> in their place."""
    lora: LoraSection = LoraSection()

    @field_validator("chat_template_kwargs")
    @classmethod
    def _free_arguments(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(arguments) & TEMPLATE_ARGUMENTS):
            raise ValueError(f"{', '.join(taken)} cannot be given: the program itself says how prompts are written")
        return arguments

    @field_validator("thinking_tags")
    @classmethod
    def _two_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        if any(not opening.strip() or not closing.strip() or opening == closing for opening, closing in tags.items()):
            raise ValueError("an opening tag needs a closing one that differs, and neither may be empty")
        return tags


class ProblemsSection(Section):
    """Where problems come from."""

    source: str = "arithmetic"
    """arithmetic, puzzles, reasoning_gym, files, or a registered source."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of the source, see docs/problems.md; e.g. {"path": "train.jsonl"} for files."""
    per_round: int = Field(64, ge=1)
    """P: new problems a round."""
    held_out_fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of problems (by hash of the canonical problem) that is kept for evaluation and never trained on."""
    canonical_form: int = Field(2, ge=1, le=2)
    """Version of the canonical text by which problems are the same and held out; a run keeps its own. 1: as written,
    for runs from before there was a second one; 2: however a problem is read or phrased (docs/problems.md)."""
    difficulty: Literal["as_drawn", "adaptive"] = "as_drawn"
    """adaptive: take a graded problem with a chance that follows how often its grade is solved, so that groups stay
    mixed (docs/problems.md); as_drawn: every problem of the source."""
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
    transfer: Literal["folder", "nccl"] = "folder"
    """How full weights get there: by a folder, or from GPU to GPU over NCCL (docs/vllm.md; not run on a GPU yet)."""
    transfer_address: str | None = None
    """This machine's address as the servers reach it, for nccl; none: found by vLLM."""
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
    refill: float = Field(0.0, ge=0.0, le=8.0)
    """Further problems, at most this share of problems.per_round, that a policy period rolls out in place of groups
    whose answers all have the same reward; 0: none."""
    max_new_tokens: int = Field(768, ge=1)
    """Longest output, in tokens."""
    verdict_max_new_tokens: int | None = Field(None, ge=1)
    """Longest judge output, in tokens; none: as max_new_tokens."""
    max_prompt_tokens: int = Field(8192, ge=1)
    """Longest prompt, in tokens; a longer task is excluded, with its reason recorded."""
    batch_size: int | None = Field(None, ge=1)
    """Rows decoded side by side by the transformers engine; none: planned from free memory when the run starts, and
    stored with it."""

    def limit(self, kind: Kind) -> int:
        """The longest output of a kind of task, in tokens."""
        judged = self.verdict_max_new_tokens if kind.judges else None
        return judged or self.max_new_tokens


class VerifySection(Section):
    """Scoring of outputs, in worker processes."""

    workers: int = Field(1, ge=1, le=256)
    """Worker processes."""
    deadline_seconds: float = Field(5.0, gt=0.0)
    """Seconds one output may take before it counts as a timeout."""
    correct_threshold: float = Field(1.0, ge=0.0, le=1.0)
    """A graded reward of at least this much counts as correct."""
    flip_share: float = Field(0.0, ge=0.0, le=1.0)
    """Label noise, for experiments: in training this share of the verdicts on answers and reflections is turned round,
    drawn by key and stated with each score. Never in evaluations."""


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
    """J: judge tasks taken a round, 0 for none at all; none: half of problems.per_round."""
    reflection_quota: int | None = Field(None, ge=0)
    """R: reflection tasks taken a round, 0 for none at all; none: half of problems.per_round."""
    minimum: int = Field(1, ge=1)
    """Fewest queued tasks for a reward period to take place (faithful: 64)."""
    max_age: int | None = Field(1, ge=0)
    """Rounds a task may wait; none: for ever (faithful)."""
    order: Literal["mixed_first", "fifo"] = "mixed_first"
    """Which queued tasks go first: those from mixed groups, then by age; or strictly by age (faithful)."""
    mixed_pairwise_share: float = Field(0.7, ge=0.0, le=1.0)
    """Probability that a mixed group becomes a pairwise rather than a pointwise task."""
    judge_view: ViewChoice = "both"
    """What a judge sees of a candidate: final answer, whole response, or half and half (faithful: answer)."""
    reflection_view: ViewChoice = "both"
    """What a reflection sees of the earlier response."""
    reflection_correct_share: float = Field(0.3, ge=0.0, le=1.0)
    """Share of reflections that start from a correct rollout (faithful: 0)."""
    balance_pointwise: bool = True
    """Stratify pointwise tasks to equally many "Yes" and "No" (faithful: off)."""
    balance_pairs: bool = True
    """Of pairs of a first and a reflected answer, take equally many in which either is right: else "the reflection" is
    the better guess, and recognisable by its form."""
    extra: tuple[str, ...] = ()
    """Names of further recyclers, registered by other packages (docs/recycling.md)."""

    @property
    def recycles(self) -> bool:
        """Whether any kind is on."""
        return self.pointwise or self.pairwise or self.reflection or bool(self.extra)


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
    engines and in bfloat16, off for transformers in float32, whose sampler is the learner itself."""
    importance_level: Literal["token", "sequence"] = "token"
    """Whether that weight is taken per token or per whole output."""
    importance_cap: float = Field(2.0, gt=1.0)
    """Bound of that weight: truncated to it, or masked above it."""
    kinds: Literal["own", "pooled"] = "own"
    """Each kind normalised over its own loss tokens, or all kinds of a period pooled (faithful)."""
    kind_weights: dict[TrainedKind, Annotated[float, Field(ge=0.0)]] = Field(default_factory=dict)
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
    tournament: bool = False
    """Besides, let each problem's sampled answers meet in pairs until one is left, and put it beside the best of all of
    them by single judgements (docs/test-time.md). It asks twice for every pair."""
    same_answers: Literal["text", "mathematics"] = "text"
    """Which answers are the same in a vote: spelled alike, or also equal for math-verify (slower)."""


class LoopSection(Section):
    """The test-time loop, wherever a run is evaluated (docs/test-time.md)."""

    faithful: bool = False
    """The authors' rules: an unreadable verdict forces a reflection, and the last reflection is returned unjudged."""
    reflection_temperature: float = Field(0.0, ge=0.0, le=2.0)
    """Sampling temperature of reflections. 0: the likeliest answer, and a second try often repeats the first; above,
    tries differ, and a good judge finds the right ones among them. First answers and verdicts are greedy."""


class CheckpointSection(Section):
    """Checkpoints."""

    every: int = Field(10, ge=1)
    """Rounds between checkpoints; the last round always has one."""
    keep: int | None = Field(3, ge=1)
    """Newest checkpoints kept; none: all. Round 0 needs none: it is the initial model."""
