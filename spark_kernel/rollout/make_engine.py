"""The rollout engine that a configuration names, and what can be said of it before a model is loaded."""

from __future__ import annotations

import os
from dataclasses import replace

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError
from spark_kernel.models.load import pick_device
from spark_kernel.models.policy import Policy
from spark_kernel.rollout.engine import RolloutEngine
from spark_kernel.rollout.remarks import Remarks
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.rollout.vllm_engine import VllmEngine, VllmSettings
from spark_kernel.rollout.vllm_install import check_vllm
from spark_kernel.rollout.vllm_server import VllmServerEngine
from spark_kernel.rollout.vllm_servers import VllmServerSettings, check_servers
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
        check_servers(server_settings(config))
        if config.rollout.server.transfer == BACKEND:
            check_vllm()


def make_engine(config: RunConfig, policy: Policy, remarks: Remarks) -> RolloutEngine:
    """The configured rollout engine.

    Raises:
        InputError: an engine that this installation does not have, or that cannot run this model.
    """
    if config.rollout.engine == "vllm":
        return VllmEngine(policy.encoder, policy, vllm_settings(config, policy))
    if config.rollout.engine == "vllm-server":
        context = min(_longest_sequence(config), policy.loaded.context_length)
        settings = replace(server_settings(config), dtype=_arithmetic_dtype(policy), context=context)
        return VllmServerEngine(policy.encoder, policy, settings, remarks.add)
    rows = config.rollout.batch_size
    return TransformersEngine(policy) if rows is None else TransformersEngine(policy, batch_size=rows)


def vllm_settings(config: RunConfig, policy: Policy) -> VllmSettings:
    """The section of vLLM as plain settings, with what it leaves open decided by the device."""
    section, loaded = config.rollout.vllm, policy.loaded
    on_gpu = loaded.device.type == "cuda"
    cache = section.cache_gib if section.cache_gib is not None or on_gpu else VLLM_CPU_CACHE_GIB
    merged = section.lora_sync == "merged" or (section.lora_sync == "auto" and not on_gpu)
    return VllmSettings(
        device=loaded.device.type,
        dtype=_arithmetic_dtype(policy),
        max_model_len=min(_longest_sequence(config), loaded.context_length),
        cache_bytes=None if cache is None else int(cache * 2**30),
        memory_share=section.memory_share,
        enforce_eager=not on_gpu if section.enforce_eager is None else section.enforce_eager,
        sleeps=section.sleep,
        adapter_only=not merged,
        seed=config.seed,
    )


def server_settings(config: RunConfig) -> VllmServerSettings:
    """The section of running servers as plain settings, as far as they do not depend on the model.

    The key comes from the environment.

    Raises:
        InputError: the environment variable that should hold the key is not set.
    """
    section, key = config.rollout.server, None
    if section.api_key_env is not None:
        key = os.environ.get(section.api_key_env)
        if not key:
            raise InputError(
                f"rollout.server.api_key_env names {section.api_key_env}, but that environment variable is not set: "
                "export it with the servers' key."
            )
    return VllmServerSettings(
        urls=section.urls,
        model=section.model,
        api_key=key,
        folder=section.folder,
        adapter_only=section.lora_sync == "adapter",
        transfer=section.transfer,
        transfer_address=section.transfer_address,
        device=pick_device(config.model.device).type,
        timeout=section.timeout_seconds,
        connections=section.connections,
    )


def _longest_sequence(config: RunConfig) -> int:
    """Most tokens of prompt and output, and one more: vLLM scores tokens only together with one that follows them."""
    section = config.rollout
    return section.max_prompt_tokens + max(section.max_new_tokens, section.verdict_max_new_tokens or 0) + 1


def _arithmetic_dtype(policy: Policy) -> str:
    """The precision that the learner computes in."""
    if policy.loaded.autocast:
        return "bfloat16"
    return str(next(policy.network.parameters()).dtype).removeprefix("torch.")
