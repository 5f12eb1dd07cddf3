"""What an evaluation needs besides the problems' texts: policy, engine, verifiers; loaded alone, or a trainer's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError

from spark_kernel.config import RunConfig
from spark_kernel.errors import RunFolderError
from spark_kernel.evaluate.leaks import Trained, check_not_trained
from spark_kernel.learner.checkpoint import load_policy_state
from spark_kernel.models import memory
from spark_kernel.models.description import ModelDescription
from spark_kernel.models.policy import load_policy
from spark_kernel.models.preflight import check_sampling_memory
from spark_kernel.models.thread_choice import choose_threads
from spark_kernel.problems.checked_stream import make_stream
from spark_kernel.problems.stream import ProblemStream, Progress
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.rollout.make_engine import check_engine, make_engine
from spark_kernel.rollout.memory_use import memory_demand, with_decode_rows
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.verify.pool import VerifierPool


@dataclass(frozen=True, slots=True)
class EvaluationParts:
    """Everything that an evaluation needs; `config` with what was planned from memory filled in."""

    model: ModelDescription
    engine: RolloutEngine
    stream: ProblemStream
    pool: VerifierPool
    config: RunConfig
    remarks: Remarks = field(default_factory=Remarks)

    def close(self) -> None:
        """Release worker processes and engine; calling it twice is fine."""
        self.pool.close()
        self.engine.close()


def assemble_for_evaluation(
    config: RunConfig,
    checkpoint: Path | None = None,
    trained: Trained | None = None,
    on_problems: Progress = lambda _done, _total: None,
) -> EvaluationParts:
    """Load what only samples and scores: no optimizer, no frozen copy, no bound on the number of problems to train on.

    Args:
        checkpoint: a checkpoint of this configuration's run, whose weights replace the initial model's.
        trained: what these weights were trained on, where that is known.
        on_problems: told while the problems of a file are read and checked.

    Raises:
        InputError: anything about the configuration, problems or model that cannot work, or a held-out problem that
            was trained on.
        RunFolderError: the checkpoint cannot be read, as when its run has deleted it.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    check_engine(config)
    verify = config.verify
    pool = VerifierPool(verify.workers, verify.deadline_seconds, verify.correct_threshold)
    try:
        one = config.problems.model_copy(update={"per_round": 1})
        stream = make_stream(config.model_copy(update={"problems": one}), pool, on_problems)
        if trained is not None:
            chosen = stream.held_out(config.evaluation.problems, seed=config.seed)
            check_not_trained(chosen, trained, config.problems.held_out_fraction)
        check_sampling_memory(config.model, memory_demand(config))
        policy = load_policy(config.model, seed=config.seed)
        if checkpoint is not None:
            try:
                load_policy_state(policy, checkpoint)
            except (OSError, SafetensorError) as error:
                raise RunFolderError(f"The checkpoint {checkpoint} cannot be read: {error}.") from error
        if config.threads is None:
            config = config.model_copy(update={"threads": choose_threads(policy).threads})
        if config.rollout.batch_size is None:
            config = with_decode_rows(config, policy, memory.shape_of(policy.network, autocast=policy.loaded.autocast))
        remarks = Remarks()
        engine = make_engine(config, policy, remarks)
        return EvaluationParts(policy.description, engine, stream, pool, config, remarks)
    except BaseException:
        pool.close()
        raise
