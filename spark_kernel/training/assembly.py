"""From a configuration to the parts of a run: model, engine, learner, verifiers, problems, each given its section."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from spark_kernel.config import RunConfig
from spark_kernel.config.periods import Trains
from spark_kernel.evaluate.leaks import Trained, check_not_trained
from spark_kernel.evaluate.parts import EvaluationParts
from spark_kernel.learner.learner import Learner
from spark_kernel.learner.optimizers import STATE_BYTES, check_optimizer
from spark_kernel.learner.selection import planned_steps
from spark_kernel.learner.torch_learner import TorchLearner
from spark_kernel.models import memory
from spark_kernel.models.description import ModelDescription
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.models.prefix_form import PrefixForm, choose_form
from spark_kernel.models.preflight import Preflight, check_memory
from spark_kernel.models.thread_choice import ThreadChoice, choose_threads
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
    the weights were loaded, None where none could be made. `learner_of`: another learner of the same model, by other
    settings. `remarks`: what the engine has to say. `thread_choice`: how the number of threads was chosen, None
    where it was given.
    """

    model: ModelDescription
    engine: RolloutEngine
    learner: Learner
    stream: ProblemStream
    pool: VerifierPool
    config: RunConfig
    learner_of: Callable[[RunConfig], Learner]
    preflight: Preflight | None = None
    remarks: Remarks = field(default_factory=Remarks)
    thread_choice: ThreadChoice | None = None

    @property
    def for_evaluation(self) -> EvaluationParts:
        """What an evaluation needs of them."""
        return EvaluationParts(self.model, self.engine, self.stream, self.pool, self.config, self.remarks)

    def close(self) -> None:
        """Release worker processes and engine; calling it twice is fine."""
        self.for_evaluation.close()


def assemble(
    config: RunConfig,
    *,
    images_root: Path,
    trained: Trained | None = None,
    on_problems: Progress = lambda _done, _total: None,
) -> Parts:
    """Load and build everything a run needs; cheap checks come before the weights are loaded.

    Args:
        images_root: the folder that the paths of problems' images start from.
        trained: what was trained on before this run, of a fork.
        on_problems: told while the problems of a file are read and checked.

    Raises:
        InputError: anything about the configuration, problems or model that cannot work, or a problem that is held out
            and was trained on.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_optimizer(config.learner.optimizer)
    check_engine(config)
    verify = config.verify
    pool = VerifierPool(verify.workers, verify.deadline_seconds, verify.correct_threshold)
    try:
        stream = make_stream(config, pool, on_problems)
        if trained is not None and config.evaluation.every:
            chosen = stream.held_out(config.evaluation.problems, seed=config.seed)
            check_not_trained(chosen, trained, config.problems.held_out_fraction)
        preflight = check_memory(config.model, memory_demand(config))
        policy = load_policy(config.model, seed=config.seed)
        if config.model.gradient_checkpointing:
            policy.checkpoint_gradients()
        choice = None
        if config.threads is None:
            choice = choose_threads(policy)
            config = config.model_copy(update={"threads": choice.threads})
        config = with_batch_plan(config, policy)
        learner_of = partial(make_learner, policy=policy, images_root=images_root)
        learner = learner_of(config)
        remarks = Remarks()
        engine = make_engine(config, policy, remarks)
        return Parts(policy.description, engine, learner, stream, pool, config, learner_of, preflight, remarks, choice)
    except BaseException:
        pool.close()
        raise


def make_learner(config: RunConfig, policy: Policy, images_root: Path) -> TorchLearner:
    """The learner of a run: its sections, and what follows from the rest of the configuration.

    The learning rate's horizon is the planned steps of all rounds. Where the configuration leaves it open, the loss is
    corrected for every sampler but the transformers engine in float32, which is the learner's own network: in bfloat16
    even that differs, by rounding.
    """
    objective = config.objective
    if objective.importance_correction == "auto":
        own = config.rollout.engine == "transformers"
        exact = not policy.loaded.autocast and policy.network.dtype == torch.float32
        decided = "off" if own and exact else "truncate"
        objective = objective.model_copy(update={"importance_correction": decided})
    return TorchLearner(
        policy,
        objective,
        config.learner,
        horizon_steps=_planned_steps(config),
        constant_length=config.rollout.max_new_tokens,
        temperature=config.rollout.temperature,
        seed=config.seed,
        images_root=images_root,
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
        checkpointing, shared = policy.gradient_checkpointing, config.learner.shared_prefix
        fixed, share = state + memory.head_bytes(shape, device), memory.SHARE
        if choose_form(policy.network, shared=shared, checkpointing=checkpointing).form is PrefixForm.PACKED:
            per_token = memory.packed_bytes_per_token(shape, checkpointing=checkpointing)
            fixed, share = fixed + shape.cast_bytes, memory.PACKED_SHARE
        else:
            per_token = memory.training_bytes_per_token(
                shape, samples=config.rollout.samples, checkpointing=checkpointing
            )
        tokens = memory.plan_micro_batch_tokens(free, per_token, fixed, device, share)
        config = config.model_copy(update={"learner": config.learner.model_copy(update={"micro_batch_tokens": tokens})})
    return with_decode_rows(config, policy, shape, reserved=state) if open_rows else config


def _planned_steps(config: RunConfig) -> int:
    """Optimizer steps of all rounds, each of them full."""
    rounds = Counter(config.period.trains(round) for round in range(1, config.rounds + 1))
    return sum(count * _steps_of_round(config, trains) for trains, count in rounds.items())


def _steps_of_round(config: RunConfig, trains: Trains) -> int:
    """Optimizer steps of a full round."""
    section = config.learner
    policy_groups = config.problems.per_round if trains != "reward" else 0
    reward_groups = config.quotas.judge + config.quotas.reflection if trains != "policy" else 0
    periods = [policy_groups + reward_groups] if config.period.order == "joint" else [policy_groups, reward_groups]
    return sum(
        planned_steps(groups, config.rollout.samples, section.minibatch_sequences, section.epochs)
        for groups in periods
        if groups
    )
