"""The rollout engine that a configuration names, and what can be said of it before a model is loaded."""

from __future__ import annotations

import os

from spark_kernel.config import RunConfig
from spark_kernel.config.sections import ServerSection, VllmSection
from spark_kernel.errors import InputError
from spark_kernel.models.load import pick_device
from spark_kernel.models.policy import Policy
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.rollout.vllm_engine import VllmEngine
from spark_kernel.rollout.vllm_install import check_vllm
from spark_kernel.rollout.vllm_server import VllmServerEngine
from spark_kernel.rollout.vllm_servers import check_servers
from spark_kernel.rollout.vllm_transfer import BACKEND

VLLM_CPU_CACHE_GIB = 1.0
"""vLLM's key-value cache on a CPU where the configuration names no size."""


def check_engine(config: RunConfig) -> None:
    """Whether the engine can be had at all, found out in a second.

    Raises:
        InputError: vLLM is absent or does not work here; no server can be reached, or one cannot be used.
    """
    if config.rollout.engine == "vllm":
        check_vllm()
    if config.rollout.engine == "vllm-server":
        server = config.rollout.server
        check_servers(server, api_key=server_key(server), device=pick_device(config.model.device).type)
        if server.transfer == BACKEND:
            check_vllm()


def make_engine(config: RunConfig, policy: Policy, remarks: Remarks) -> RolloutEngine:
    """The configured rollout engine.

    Raises:
        InputError: an engine that this installation does not have, or that cannot run this model.
    """
    section = config.rollout
    device, dtype = policy.device.type, _arithmetic_dtype(policy)
    context = min(_longest_sequence(config), policy.description.context_length)
    if section.engine == "vllm":
        return VllmEngine(
            policy.encoder,
            policy,
            section.vllm,
            device=device,
            dtype=dtype,
            max_model_len=context,
            cache_bytes=_cache_bytes(section.vllm, device),
            seed=config.seed,
        )
    if section.engine == "vllm-server":
        return VllmServerEngine(
            policy.encoder,
            policy,
            section.server,
            device=device,
            dtype=dtype,
            context=context,
            api_key=server_key(section.server),
            remark=remarks.add,
        )
    rows = section.batch_size
    return TransformersEngine(policy) if rows is None else TransformersEngine(policy, batch_size=rows)


def server_key(section: ServerSection) -> str | None:
    """The servers' API key, which is in the environment and nowhere else; None where none is named.

    Raises:
        InputError: the environment variable that should hold it is not set.
    """
    if section.api_key_env is None:
        return None
    key = os.environ.get(section.api_key_env)
    if not key:
        raise InputError(
            f"rollout.server.api_key_env names {section.api_key_env}, but that environment variable is not set: "
            "export it with the servers' key."
        )
    return key


def _cache_bytes(section: VllmSection, device: str) -> int | None:
    """The size of vLLM's cache; None leaves it to `memory_share` of a GPU."""
    if section.cache_gib is None and device == "cuda":
        return None
    return int((VLLM_CPU_CACHE_GIB if section.cache_gib is None else section.cache_gib) * 2**30)


def _longest_sequence(config: RunConfig) -> int:
    """Most tokens of prompt and output, and one more: vLLM scores tokens only together with one that follows them."""
    section = config.rollout
    return section.max_prompt_tokens + max(section.max_new_tokens, section.verdict_max_new_tokens or 0) + 1


def _arithmetic_dtype(policy: Policy) -> str:
    """The precision that the learner computes in."""
    if policy.loaded.autocast:
        return "bfloat16"
    return str(next(policy.network.parameters()).dtype).removeprefix("torch.")
