"""From a configuration to the parts of a run: the one place that knows both pydantic and the plain settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError

from spark_kernel.config import RunConfig
from spark_kernel.engine_assembly import VLLM_CPU_CACHE_GIB, check_engine, make_engine
from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.evaluate.held_out import EvaluationSettings
from spark_kernel.learner.checkpoint import load_policy_state
from spark_kernel.learner.learner import Learner
from spark_kernel.learner.optimizers import STATE_BYTES, check_optimizer
from spark_kernel.learner.selection import planned_steps
from spark_kernel.learner.settings import LearnerSettings
from spark_kernel.models import memory
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.estimate import MemoryDemand, SamplerMemory
from spark_kernel.models.load import load_encoder, pick_device
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.preflight import Preflight, check_memory, check_sampling_memory
from spark_kernel.models.settings import LoraSettings, ModelSettings
from spark_kernel.objective.settings import LOSSES, ObjectiveSettings
from spark_kernel.problems.registry import make_source
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.problems.worked_examples import WithWorkedExamples
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.records import Problem
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.rollout.roll_out import RollOutSettings
from spark_kernel.verify.pool import VerifierPool

PROMPTS_CHECKED = 200
"""Problems whose prompts are measured before training starts; later ones that do not fit become exclusions."""


@dataclass(frozen=True, slots=True)
class EvaluationParts:
    """Everything that an evaluation needs; `config` with what was planned from memory filled in."""

    policy: Policy
    engine: RolloutEngine
    stream: ProblemStream
    pool: VerifierPool
    config: RunConfig
    remarks: Remarks = field(default_factory=Remarks)

    def close(self) -> None:
        """Release worker processes and engine; calling it twice is fine."""
        self.pool.close()
        self.engine.close()


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything a trainer drives.

    `config`: the run's, with what was planned from memory filled in. `preflight`: the estimate of memory from before
    the weights were loaded, None where none could be made. `remarks`: what the engine has to say.
    """

    policy: Policy
    engine: RolloutEngine
    learner: Learner
    stream: ProblemStream
    pool: VerifierPool
    config: RunConfig
    preflight: Preflight | None = None
    remarks: Remarks = field(default_factory=Remarks)

    @property
    def for_evaluation(self) -> EvaluationParts:
        """What an evaluation needs of them."""
        return EvaluationParts(self.policy, self.engine, self.stream, self.pool, self.config, self.remarks)

    def close(self) -> None:
        """Release worker processes and engine; calling it twice is fine."""
        self.for_evaluation.close()


def model_settings(config: RunConfig) -> ModelSettings:
    """The model section as plain settings."""
    section = config.model
    lora = None
    if section.lora.enabled:
        lora = LoraSettings(
            rank=section.lora.rank,
            alpha=section.lora.alpha,
            target_modules=section.lora.target_modules,
            rslora=section.lora.rslora,
            dora=section.lora.dora,
        )
    return ModelSettings(
        path=section.path,
        revision=section.revision,
        dtype=section.dtype,
        device=section.device,
        trust_remote_code=section.trust_remote_code,
        gradient_checkpointing=section.gradient_checkpointing,
        lora=lora,
        seed=config.seed,
    )


def objective_settings(config: RunConfig) -> ObjectiveSettings:
    """The objective section as plain settings."""
    section = config.objective
    named = LOSSES[section.loss]
    correction = section.importance_correction
    if correction == "auto":
        correction = "off" if config.rollout.engine == "transformers" else "truncate"
    return ObjectiveSettings(
        advantage=section.advantage,
        delta=section.delta,
        surrogate=named.surrogate,
        ratio_level=named.ratio_level,
        aggregation=section.aggregation or named.aggregation,
        constant_length=config.rollout.max_new_tokens,
        eps_low=section.eps_low,
        eps_high=section.eps_high,
        dual_clip=section.dual_clip,
        ratio_cap=section.ratio_cap,
        beta=section.beta,
        kl_estimator=section.kl_estimator,
        kl_times_ratio=section.kl_times_ratio,
        importance_correction=correction,
        importance_level=section.importance_level,
        importance_cap=section.importance_cap,
        pooled_kinds=section.kinds == "pooled",
        kind_weights={str(kind): weight for kind, weight in section.kind_weights.items()},
        negative_advantage_scale=section.negative_advantage_scale,
        mask_truncated=section.mask_truncated,
        mask_zero_variance=section.mask_zero_variance,
    )


def learner_settings(config: RunConfig) -> LearnerSettings:
    """The learner section as plain settings, with the schedule's horizon: rounds times planned steps a round."""
    section = config.learner
    return LearnerSettings(
        learning_rate=section.learning_rate,
        optimizer=section.optimizer,
        horizon_steps=config.rounds * _steps_per_round(config),
        schedule=section.schedule,
        warmup_share=section.warmup_share,
        floor_share=section.floor_share,
        betas=section.betas,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        minibatch_sequences=section.minibatch_sequences,
        epochs=section.epochs,
        micro_batch_tokens=section.micro_batch_tokens or memory.MOST_TOKENS["cpu"],
        shared_prefix=section.shared_prefix,
        temperature=config.rollout.temperature,
        seed=config.seed,
    )


def make_stream(config: RunConfig, pool: VerifierPool) -> ProblemStream:
    """The problems of a run, checked as far as they can be before training; golds by the pool, under its deadline.

    Raises:
        InputError: an unknown source or option, a bad record, a gold that its verifier cannot read, a prompt that
            does not fit, or fewer problems than a round asks for.
    """
    source = make_source(config.problems.source, config.problems.options, config.seed)
    if config.problems.worked_examples:
        source = WithWorkedExamples(source)
    encoder, context_length = load_encoder(model_settings(config))
    if config.rollout.max_new_tokens >= context_length:
        raise InputError(
            f"rollout.max_new_tokens = {config.rollout.max_new_tokens} leaves no room for a prompt: the context of "
            f"{config.model.path} is {context_length} tokens. Lower it."
        )
    checker = _ProblemChecker(config, encoder, context_length, pool)
    stream = ProblemStream(
        source,
        seed=config.seed,
        held_out_fraction=config.problems.held_out_fraction,
        on_bad_problem=config.problems.on_bad_problem,
        check_problems=checker.check,
    )
    if stream.trainable_count is None:
        stream.take(0, config.problems.per_round, round=1)  # a first look: taking is repeatable
    elif stream.trainable_count < config.problems.per_round:
        raise InputError(
            f"problems.per_round = {config.problems.per_round} asks for more problems than there are: "
            f"{stream.trainable_count} can be trained on (the rest is held out or bad). Lower problems.per_round."
        )
    return stream


def assemble(config: RunConfig, *, images_root: Path) -> Parts:
    """Load and build everything a run needs; cheap checks come before the weights are loaded.

    Raises:
        InputError: anything about the configuration, problems or model that cannot work.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_optimizer(config.learner.optimizer)
    check_engine(config)
    verify = config.verify
    pool = VerifierPool(verify.workers, verify.deadline_seconds, verify.correct_threshold)
    try:
        stream = make_stream(config, pool)
        preflight = check_memory(model_settings(config), memory_demand(config))
        policy = load_policy(model_settings(config))
        if config.model.gradient_checkpointing:
            policy.checkpoint_gradients()
        config = with_batch_plan(config, policy)
        learner = Learner(policy, objective_settings(config), learner_settings(config), images_root=images_root)
        remarks = Remarks()
        engine = make_engine(config, policy, remarks)
        return Parts(policy, engine, learner, stream, pool, config, preflight, remarks)
    except BaseException:
        pool.close()
        raise


def assemble_for_evaluation(config: RunConfig, checkpoint: Path | None = None) -> EvaluationParts:
    """Load what only samples and scores: no optimizer, no frozen copy, no bound on the number of problems to train on.

    Args:
        checkpoint: a checkpoint of this configuration's run, whose weights replace the initial model's.

    Raises:
        InputError: anything about the configuration, problems or model that cannot work.
        RunFolderError: the checkpoint cannot be read, as when its run has deleted it.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    config = config.model_copy(update={"threads": config.threads or torch.get_num_threads()})
    check_engine(config)
    verify = config.verify
    pool = VerifierPool(verify.workers, verify.deadline_seconds, verify.correct_threshold)
    try:
        one = config.problems.model_copy(update={"per_round": 1})
        stream = make_stream(config if checkpoint else config.model_copy(update={"problems": one}), pool)
        check_sampling_memory(model_settings(config), memory_demand(config))
        policy = load_policy(model_settings(config))
        if checkpoint is not None:
            try:
                load_policy_state(policy, checkpoint)
            except (OSError, SafetensorError) as error:
                raise RunFolderError(f"The checkpoint {checkpoint} cannot be read: {error}.") from error
        if config.rollout.batch_size is None:
            config = _with_decode_rows(config, policy, memory.shape_of(policy.network, autocast=policy.loaded.autocast))
        remarks = Remarks()
        return EvaluationParts(policy, make_engine(config, policy, remarks), stream, pool, config, remarks)
    except BaseException:
        pool.close()
        raise


def memory_demand(config: RunConfig) -> MemoryDemand:
    """What a run asks of memory besides its model, as the preflight has it."""
    rollout, sampler = config.rollout, None
    if rollout.engine == "vllm":
        device = pick_device(config.model.device)
        cache = rollout.vllm.cache_gib
        if device.type == "cuda" and cache is None:
            whole = int(rollout.vllm.memory_share * torch.cuda.mem_get_info(device)[1])
            sampler = SamplerMemory(whole_bytes=whole, sleeps=rollout.vllm.sleep)
        else:
            size = int((VLLM_CPU_CACHE_GIB if cache is None else cache) * 2**30)
            sampler = SamplerMemory(cache_bytes=size, sleeps=rollout.vllm.sleep and device.type == "cuda")
    return MemoryDemand(
        optimizer=config.learner.optimizer,
        reference=config.objective.beta > 0,
        max_new_tokens=rollout.max_new_tokens,
        rows=min(rollout.batch_size or memory.LEAST_ROWS, memory.LEAST_ROWS) if rollout.engine == "transformers" else 0,
        micro_batch_tokens=config.learner.micro_batch_tokens,
        sampler=sampler,
    )


def with_batch_plan(config: RunConfig, policy: Policy) -> RunConfig:
    """The configuration with batch sizes that it leaves open planned from the memory that is free now."""
    open_tokens, open_rows = config.learner.micro_batch_tokens is None, config.rollout.batch_size is None
    if not (open_tokens or open_rows):
        return config
    shape = memory.shape_of(policy.network, autocast=policy.loaded.autocast)
    free, device = memory.free_bytes(policy.device), policy.device.type
    state = memory.training_state_bytes(
        shape,
        optimizer_bytes=STATE_BYTES[config.learner.optimizer],
        reference_copy=config.objective.beta > 0 and not policy.has_adapter,
    )
    if open_tokens:
        per_token = memory.training_bytes_per_token(
            shape, samples=config.rollout.samples, checkpointing=policy.gradient_checkpointing
        )
        tokens = memory.plan_micro_batch_tokens(free, per_token, state + memory.head_bytes(shape), device)
        config = config.model_copy(update={"learner": config.learner.model_copy(update={"micro_batch_tokens": tokens})})
    return _with_decode_rows(config, policy, shape, reserved=state) if open_rows else config


def _with_decode_rows(config: RunConfig, policy: Policy, shape: memory.ModelShape, reserved: int = 0) -> RunConfig:
    """The configuration with the rows that are decoded side by side planned from what is free beside `reserved`."""
    free, device = memory.free_bytes(policy.device), policy.device.type
    longest = min(config.rollout.max_prompt_tokens + config.rollout.max_new_tokens, policy.loaded.context_length)
    per_row = memory.decoding_bytes_per_row(shape, tokens=longest)
    rows = memory.plan_decode_rows(max(0, free - reserved), per_row, device)
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"batch_size": rows})})


def roll_out_settings(config: RunConfig) -> RollOutSettings:
    """The rollout section as plain settings."""
    section = config.rollout
    return RollOutSettings(
        samples=section.samples,
        max_new_tokens=section.max_new_tokens,
        max_prompt_tokens=section.max_prompt_tokens,
        verdict_max_new_tokens=section.verdict_max_new_tokens,
        temperature=section.temperature,
        top_p=section.top_p,
        top_k=section.top_k,
    )


def evaluation_settings(config: RunConfig) -> EvaluationSettings:
    """The evaluation section as plain settings; kinds that are never trained are evaluated all the same."""
    section = config.evaluation
    return EvaluationSettings(
        max_new_tokens=config.rollout.max_new_tokens,
        verdict_max_new_tokens=config.rollout.verdict_max_new_tokens,
        max_prompt_tokens=config.rollout.max_prompt_tokens,
        samples=section.samples,
        judged=section.samples,
        reflections=section.reflections,
        methods=section.methods,
        same_answers=section.same_answers,
    )


class _ProblemChecker:
    """Checks gold answers of all problems, and the length of the first prompts."""

    def __init__(self, config: RunConfig, encoder: PromptEncoder, context_length: int, pool: VerifierPool) -> None:
        self._config = config
        self._context_length = context_length
        self._encoder = encoder
        self._pool = pool
        self._measured = 0

    def check(self, problems: Sequence[Problem]) -> list[str | None]:
        """For each problem, what is wrong with it; None where it can be used."""
        golds = self._pool.check_golds(problems)
        return [fault or self._against_model(problem) for problem, fault in zip(problems, golds, strict=True)]

    def _against_model(self, problem: Problem) -> str | None:
        if problem.images and not self._encoder.reads_images:
            return (
                f"Problem {problem.id} has images, but the model {self._encoder.name} reads none: use a "
                "vision-language model."
            )
        if self._measured < PROMPTS_CHECKED:
            self._measured += 1
            task = solve_task(problem, seed=self._config.seed, round=1)
            length = self._encoder.count_tokens(task_prompts([task], Path())[0])
            limit = self._config.rollout.max_prompt_tokens
            if length > limit:
                return (
                    f"The prompt of problem {problem.id} has {length} tokens, more than rollout.max_prompt_tokens = "
                    f"{limit}: raise it, or leave the problem out."
                )
            longest = self._config.rollout.max_new_tokens
            if length + longest > self._context_length:
                return (
                    f"The prompt of problem {problem.id} has {length} tokens; with rollout.max_new_tokens = {longest} "
                    f"it does not fit the model's context of {self._context_length}: lower that, or leave it out."
                )
        return None


def _steps_per_round(config: RunConfig) -> int:
    """Optimizer steps of a full round."""
    section = config.learner
    policy_groups = config.problems.per_round if config.period.train_policy else 0
    reward_groups = config.judge_quota + config.reflection_quota if config.period.train_reward else 0
    periods = [policy_groups + reward_groups] if config.period.order == "joint" else [policy_groups, reward_groups]
    return sum(
        planned_steps(groups, config.rollout.samples, section.minibatch_sequences, section.epochs)
        for groups in periods
        if groups
    )
