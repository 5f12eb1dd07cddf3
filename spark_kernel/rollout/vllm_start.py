"""How vLLM is started in this process: its environment, and what it is told of model, memory and adapters."""

from __future__ import annotations

import os
from typing import Any

from spark_kernel.config.sections import VllmSection
from spark_kernel.models.published_weights import AdapterBytes

CPU_BATCH_TOKENS = 8192
"""Tokens that vLLM computes in one step on a CPU, at least one whole prompt."""


def start_options(
    section: VllmSection,
    *,
    folder: str,
    device: str,
    dtype: str,
    max_model_len: int,
    cache_bytes: int | None,
    seed: int,
    reads_images: bool,
    adapter: AdapterBytes | None,
) -> dict[str, Any]:
    """The keyword arguments of `vllm.LLM`.

    Args:
        section: the settings of vLLM.
        folder: configuration, tokenizer and processor of the model, without weights.
        device: "cpu" or "cuda".
        dtype: of the weights, as torch names it.
        max_model_len: most tokens of prompt and output together.
        cache_bytes: size of the key-value cache; None lets vLLM take `section.memory_share` of the GPU.
        seed: vLLM's own.
        reads_images: whether the model has eyes.
        adapter: the first that will be pushed apart from its base; None where weights are pushed whole.
    """
    options: dict[str, Any] = {
        "model": folder,
        "load_format": "dummy",
        "skip_tokenizer_init": not reads_images,
        "dtype": dtype,
        "max_model_len": max_model_len,
        "enable_prefix_caching": True,
        "enforce_eager": device != "cuda" if section.enforce_eager is None else section.enforce_eager,
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "seed": seed,
    }
    if cache_bytes is not None:
        options["kv_cache_memory_bytes"] = cache_bytes
    if device == "cpu":
        # A prompt cut in two makes vLLM rewind the request's random generator, which a CPU generator cannot.
        options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": max(CPU_BATCH_TOKENS, max_model_len)}
    if device == "cuda":
        options |= {"gpu_memory_utilization": section.memory_share, "enable_sleep_mode": section.sleep}
    if adapter is not None:
        modules = adapter.config["target_modules"]
        options |= {
            "enable_lora": True,
            "max_loras": 1,
            "max_lora_rank": _lora_rank(int(adapter.config["r"])),
            # Without it vLLM wraps the output head too, and then cannot score prompts.
            "lora_target_modules": list(modules) if not isinstance(modules, str) else None,
        }
    return options


def prepare_environment() -> None:
    """vLLM reads these when it starts. What the user has set stays, but for what puts vLLM into this process."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}.items():
        os.environ.setdefault(name, value)


def _lora_rank(rank: int) -> int:
    """The smallest of vLLM's bounds that holds the rank."""
    return next((bound for bound in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= bound), rank)
