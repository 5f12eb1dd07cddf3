"""What sampling asks of memory, and how many rows are decoded side by side in what is left."""

from __future__ import annotations

import torch

from spark_kernel.config import RunConfig
from spark_kernel.models import memory
from spark_kernel.models.estimate import MemoryDemand, SamplerMemory
from spark_kernel.models.load import pick_device
from spark_kernel.models.policy import Policy
from spark_kernel.rollout.make_engine import VLLM_CPU_CACHE_GIB


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
        learning_rate=config.learner.learning_rate,
    )


def with_decode_rows(config: RunConfig, policy: Policy, shape: memory.ModelShape, reserved: int = 0) -> RunConfig:
    """The configuration with the rows that are decoded side by side planned from what is free beside `reserved`."""
    free, device = memory.free_bytes(policy.device), policy.device.type
    longest = min(config.rollout.max_prompt_tokens + config.rollout.max_new_tokens, policy.loaded.context_length)
    per_row = memory.decoding_bytes_per_row(shape, tokens=longest)
    rows = memory.plan_decode_rows(max(0, free - reserved), per_row, device)
    return config.model_copy(update={"rollout": config.rollout.model_copy(update={"batch_size": rows})})
