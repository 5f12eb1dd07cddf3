"""Sampling with vLLM in this process: the weights are the learner's, pushed in place after every update."""

from __future__ import annotations

import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spark_kernel.errors import ModelError, StaleEngineError, StopCheck
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.settings import Adapter
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, PolicyWeights, Sampling
from spark_kernel.rollout.sync_check import Probe, check_synced, first_probe
from spark_kernel.rollout.vllm_install import check_vllm

UNSUPPORTED_BY_VLLM = ("use_dora", "modules_to_save", "lora_bias")
"""Adapter features that vLLM cannot apply: such adapters are merged before they are pushed."""
CPU_BATCH_TOKENS = 8192
"""Tokens that vLLM computes in one step on a CPU, at least one whole prompt."""


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """How vLLM runs.

    `max_model_len`: most tokens of prompt and output together. `cache_bytes`: size of the key-value cache; None lets
    vLLM take `memory_share` of the GPU. `sleeps`: give the GPU's memory to the learner during updates.
    `adapter_only`: push LoRA adapters as such rather than merged. `device`: "cpu" or "cuda".
    """

    device: str
    dtype: str
    max_model_len: int
    cache_bytes: int | None = None
    memory_share: float = 0.4
    enforce_eager: bool = True
    sleeps: bool = False
    adapter_only: bool = True
    seed: int = 0


class VllmEngine:
    """A `RolloutEngine` over an in-process vLLM: no server, no second process, nothing left behind after `close()`.

    vLLM builds the network from its configuration alone and then takes the weights as after any update, so that every
    kind of model reference works and nothing is read from disk twice.

    Args:
        encoder: turns prompts into token ids and tokens into text, as for the learner.
        weights: the policy whose weights are taken over now.
        settings: see `VllmSettings`.

    Raises:
        InputError: no vLLM that works here.
        ModelError: vLLM cannot run this model.
    """

    def __init__(self, encoder: PromptEncoder, weights: PolicyWeights, settings: VllmSettings) -> None:
        self._installed = check_vllm()
        self._encoder = encoder
        self._settings = settings
        self._version: int | None = None
        self._asleep = self._cache_gone = False
        self._requests = self._pushed = 0
        self._lora: Any | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="spark-vllm-")
        self._llm: Any | None = None
        self._shapes = {name: tuple(tensor.shape) for name, tensor in weights.named_tensors(merged=False)}
        self._probe = first_probe(encoder.text_ids("It is 42, because 12 and 30 make 42 together."))
        try:
            weights.save_description(Path(self._folder.name))
            adapter = weights.adapter()
            self._pushes_adapters = adapter is not None and settings.adapter_only and _vllm_applies(adapter)
            self._llm = self._start(adapter if self._pushes_adapters else None)
            if self._pushes_adapters:
                self._load_full(weights.named_tensors(merged=False))
            self.sync(weights)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The policy version held.

        Raises:
            StaleEngineError: its weights were given up, or an update of them failed.
        """
        if self._version is None or self._asleep:
            raise StaleEngineError("The vLLM engine holds no finished weights: call sync(policy) first.")
        return self._version

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt."""
        return [self._encoder.count_tokens(prompt) for prompt in prompts]

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
        check_stop: StopCheck = lambda: None,
    ) -> list[list[Completion]]:
        """See `RolloutEngine.sample`. One request per seed; the prompt of a group is computed once (prefix cache)."""
        _ = self.version
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        inputs = [self._input(prompt, sampling) for prompt in prompts]
        requests = [
            (
                inputs[index],
                SamplingParams(
                    seed=seed % 2**63,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    top_k=sampling.top_k or -1,
                    max_tokens=sampling.max_new_tokens,
                    stop_token_ids=list(self._encoder.eos_ids),
                    ignore_eos=True,  # only the ids above stop it, as in the learner's engine
                    logprobs=0,
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                ),
            )
            for index, prompt in enumerate(prompts)
            for seed in prompt.seeds
        ]
        started = time.perf_counter()
        outputs = [result.outputs[0] for result in self._run(requests, on_progress, check_stop)]
        texts = self._encoder.decode([output.token_ids for output in outputs])
        share = (time.perf_counter() - started) / max(1, len(outputs))
        flat = iter(_completion(output, text, share) for output, text in zip(outputs, texts, strict=True))
        groups = [[next(flat) for _ in prompt.seeds] for prompt in prompts]
        if groups:
            self._probe = Probe(prompts[0], groups[0][0].token_ids)
        return groups

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        from vllm import SamplingParams

        requests = []
        lengths = []
        for prompt, group in zip(prompts, outputs, strict=True):
            for output in group:
                given = self._input(prompt, Sampling(len(output) + 1), tail=output)
                requests.append((given, SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)))
                lengths.append(len(output))
        flat = iter(
            _tail_logprobs(result, length)
            for result, length in zip(self._run(requests, lambda _: None, lambda: None), lengths, strict=True)
        )
        return [[next(flat) for _ in group] for group in outputs]

    def sync(self, weights: PolicyWeights) -> None:
        """Take over the weights of a finished update, tensor by tensor or as adapter alone, and check them.

        Raises:
            ModelError: the weights are another model's.
            StaleEngineError: vLLM's log-probabilities afterwards are not the learner's.
        """
        self._version = None
        version = weights.version
        self.wake()
        adapter = weights.adapter() if self._pushes_adapters else None
        if adapter is None:
            self._load_full(weights.named_tensors())
        else:
            self._load_adapter(adapter, version)
        if self._cache_gone:
            self._required.wake_up(["kv_cache"])
            self._cache_gone = False
        self._engine.reset_prefix_cache()
        check_synced(self, weights, self._probe, self._settings.dtype)
        self._version = version

    def sleep(self) -> None:
        """On a GPU: give up the cache, and the weights too where the next sync replaces them. On a CPU: nothing."""
        if self._settings.device != "cuda" or not self._settings.sleeps or self._asleep:
            return
        replaced = not self._pushes_adapters
        self._required.sleep(level=2 if replaced else 1)
        self._asleep = self._cache_gone = True
        if replaced:
            self._version = None

    def wake(self) -> None:
        """Bring the weights' memory back; the cache's follows with the sync."""
        if self._asleep:
            self._required.wake_up(["weights"])
            self._asleep = False

    def close(self) -> None:
        """End vLLM and free its memory; calling it twice is fine."""
        llm, self._llm = self._llm, None
        self._version = None
        self._folder.cleanup()
        if llm is None:
            return
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()

    # --- the vLLM side

    @property
    def _required(self) -> Any:
        if self._llm is None:
            raise StaleEngineError("The vLLM engine is closed: make a new one.")
        return self._llm

    @property
    def _engine(self) -> Any:
        return self._required.llm_engine

    def _start(self, adapter: Adapter | None) -> Any:
        settings = self._settings
        _prepare_environment()
        set_threads = torch.set_num_threads  # vLLM's CPU worker replaces it by a function that does nothing
        options: dict[str, Any] = {
            "model": self._folder.name,
            "load_format": "dummy",
            "skip_tokenizer_init": not self._encoder.reads_images,
            "dtype": settings.dtype,
            "max_model_len": settings.max_model_len,
            "enable_prefix_caching": True,
            "enforce_eager": settings.enforce_eager,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            "seed": settings.seed,
        }
        if settings.cache_bytes is not None:
            options["kv_cache_memory_bytes"] = settings.cache_bytes
        if settings.device == "cpu":
            # A prompt cut in two makes vLLM rewind the request's random generator, which a CPU generator cannot.
            tokens = max(CPU_BATCH_TOKENS, settings.max_model_len)
            options |= {"enable_chunked_prefill": False, "max_num_batched_tokens": tokens}
        if settings.device == "cuda":
            options |= {"gpu_memory_utilization": settings.memory_share, "enable_sleep_mode": settings.sleeps}
        if adapter is not None:
            modules = adapter.config["target_modules"]
            options |= {
                "enable_lora": True,
                "max_loras": 1,
                "max_lora_rank": _lora_rank(int(adapter.config["r"])),
                # Without it vLLM wraps the output head too, and then cannot score prompts.
                "lora_target_modules": list(modules) if not isinstance(modules, str) else None,
            }
        try:
            from vllm import LLM

            return LLM(**options)
        except (ImportError, ValueError, RuntimeError, NotImplementedError, AssertionError, OSError, KeyError) as error:
            raise ModelError(
                f"{self._installed} cannot run {self._encoder.name} here ({_one_line(error)}): use "
                'rollout.engine = "transformers", or another model.'
            ) from error
        finally:
            torch.set_num_threads = set_threads

    def _run(
        self, requests: Sequence[tuple[Any, Any]], on_progress: Callable[[int], None], check_stop: StopCheck
    ) -> list[Any]:
        """Run requests to their end, in order; whatever interrupts them leaves no request behind."""
        engine = self._engine
        place: dict[str, int] = {}
        results: list[Any] = [None] * len(requests)
        internal: list[str] = []
        try:
            for index, (given, params) in enumerate(requests):
                self._requests += 1
                name = str(self._requests)
                place[name] = index
                internal.append(engine.add_request(name, given, params, lora_request=self._lora))
            while engine.has_unfinished_requests():
                check_stop()
                done = [output for output in engine.step() if output.finished]
                for output in done:
                    results[place[output.request_id]] = output
                if done:
                    on_progress(len(done))
        except BaseException:
            engine.abort_request(internal, internal=True)
            while engine.has_unfinished_requests():
                engine.step()
            raise
        return results

    def _input(self, prompt: Prompt, sampling: Sampling, tail: Sequence[int] = ()) -> dict[str, Any]:
        ids = self._encoder.prompt_ids(prompt)
        if sampling.max_prompt_tokens is not None and len(ids) > sampling.max_prompt_tokens:
            raise ModelError(
                f"The prompt of {prompt.task_id} has {len(ids)} tokens, more than max_prompt_tokens = "
                f"{sampling.max_prompt_tokens}."
            )
        if len(ids) + sampling.max_new_tokens > self._settings.max_model_len:
            raise ModelError(
                f"The prompt of {prompt.task_id} has {len(ids)} tokens; with max_new_tokens = "
                f"{sampling.max_new_tokens} it does not fit vLLM's context of {self._settings.max_model_len}: raise "
                "rollout.max_prompt_tokens, or make it shorter."
            )
        given: dict[str, Any] = {"prompt_token_ids": [*ids, *tail]}
        if prompt.images:
            given["multi_modal_data"] = {"image": self._encoder.open_images(prompt)}
        return given

    def _load_full(self, tensors: Iterator[tuple[str, Any]]) -> None:
        self._required.collective_rpc("reload_weights", kwargs={"weights_iterator": self._checked(tensors)})

    def _checked(self, tensors: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """The same tensors; one with another name or shape than at the start is refused."""
        for name, tensor in tensors:
            expected = self._shapes.get(name)
            if expected != tuple(tensor.shape):
                raise ModelError(
                    f"The weights pushed to vLLM are another model's: {name} has shape {tuple(tensor.shape)}, "
                    f"{'not ' + str(expected) if expected else 'and this model has no such tensor'}."
                )
            yield name, tensor

    def _load_adapter(self, adapter: Adapter, version: int) -> None:
        """vLLM takes adapters from folders: a few megabytes, under a name that no earlier version had."""
        from safetensors.torch import save_file
        from vllm.lora.request import LoRARequest

        folder = Path(self._folder.name) / "adapter"
        folder.mkdir()
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in adapter.tensors.items()},
            folder / "adapter_model.safetensors",
        )
        (folder / "adapter_config.json").write_text(json.dumps(dict(adapter.config), default=str), encoding="utf-8")
        before = self._lora
        if before is not None:
            self._engine.remove_lora(before.lora_int_id)
        self._pushed += 1
        self._lora = LoRARequest(f"policy-{version}-{self._pushed}", self._pushed, str(folder))
        self._engine.add_lora(self._lora)
        shutil.rmtree(folder)


def _prepare_environment() -> None:
    """vLLM reads these when it starts. What the user has set stays, but for what puts vLLM into this process."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    for name, value in {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}.items():
        os.environ.setdefault(name, value)


def _completion(output: Any, text: str, share: float) -> Completion:
    ids = tuple(int(token) for token in output.token_ids)
    logprobs = tuple(float(position[token].logprob) for token, position in zip(ids, output.logprobs, strict=True))
    return Completion(ids, logprobs, text, truncated=output.finish_reason != "stop", seconds=share)


def _tail_logprobs(result: Any, length: int) -> list[float]:
    """The log-probabilities of the last `length` prompt tokens."""
    ids = result.prompt_token_ids[-length:]
    positions = result.prompt_logprobs[-length:]
    return [float(position[token].logprob) for token, position in zip(ids, positions, strict=True)]


def _vllm_applies(adapter: Adapter) -> bool:
    return not any(adapter.config.get(name) for name in UNSUPPORTED_BY_VLLM)


def _lora_rank(rank: int) -> int:
    """The smallest of vLLM's bounds that holds the rank."""
    return next((bound for bound in (8, 16, 32, 64, 128, 256, 320, 512) if rank <= bound), rank)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300].rstrip(". ") or type(error).__name__
