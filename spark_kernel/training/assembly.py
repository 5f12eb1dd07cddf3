"""From a configuration to the parts of a run: the one place that knows both pydantic and the plain settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from spark_kernel.config import RunConfig
from spark_kernel.evaluate.parts import EvaluationParts
from spark_kernel.learner.learner import Learner
from spark_kernel.learner.optimizers import STATE_BYTES, check_optimizer
from spark_kernel.learner.selection import planned_steps
from spark_kernel.learner.settings import LearnerSettings
from spark_kernel.models import memory
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.preflight import Preflight, check_memory
from spark_kernel.objective.settings import LOSSES, ObjectiveSettings
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.problems.stream import ProblemStream, Progress
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.rollout.make_engine import check_engine, make_engine
from spark_kernel.rollout.memory_use import memory_demand, with_decode_rows
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.verify.pool import VerifierPool


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


def assemble(config: RunConfig, *, images_root: Path, on_problems: Progress = lambda _done, _total: None) -> Parts:
    """Load and build everything a run needs; cheap checks come before the weights are loaded.

    Args:
        on_problems: told while the problems of a file are read and checked.

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
        stream = make_stream(config, pool, on_problems)
        preflight = check_memory(config.model, memory_demand(config))
        policy = load_policy(config.model, seed=config.seed)
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
    return with_decode_rows(config, policy, shape, reserved=state) if open_rows else config


def _steps_per_round(config: RunConfig) -> int:
    """Optimizer steps of a full round."""
    section = config.learner
    policy_groups = config.problems.per_round if config.period.train_policy else 0
    reward_groups = config.quotas.judge + config.quotas.reflection if config.period.train_reward else 0
    periods = [policy_groups + reward_groups] if config.period.order == "joint" else [policy_groups, reward_groups]
    return sum(
        planned_steps(groups, config.rollout.samples, section.minibatch_sequences, section.epochs)
        for groups in periods
        if groups
    )
