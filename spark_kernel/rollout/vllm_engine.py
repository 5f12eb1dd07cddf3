"""Sampling with vLLM in this process: the weights are the learner's, pushed in place after every update."""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from spark_kernel.config.sections import VllmSection
from spark_kernel.errors import EngineError, ModelError, StaleEngineError, StopCheck
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.published_weights import AdapterBytes, Form, PublishedWeights, Publisher, Wanted
from spark_kernel.models.publishing import checked_tensors
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.sync_check import check_taken, first_probe, longest_probe
from spark_kernel.rollout.vllm_install import check_vllm
from spark_kernel.rollout.vllm_requests import (
    SCORING_FIELDS,
    Output,
    check_expanded,
    completions,
    one_line,
    sampling_fields,
    sent_ids,
)
from spark_kernel.rollout.vllm_start import prepare_environment, start_options
from spark_kernel.rollout.vllm_weights import REFUSED_ADAPTERS, SameModel, write_adapter


class VllmEngine:
    """A `RolloutEngine` over an in-process vLLM: no server, no second process, nothing left behind after `close()`.

    vLLM builds the network from its configuration alone and then takes the weights as after any update, so that every
    kind of model reference works and nothing is read from disk twice. vLLM's state is the whole process's, so that
    there can be one engine at a time: a new one closes the one before, as when a notebook's cell is run again.

    Args:
        encoder: turns prompts into token ids and tokens into text, as for the learner.
        weights: the policy whose weights are taken over now; it must be in this process.
        section: the settings of vLLM.
        device: the learner's, "cpu" or "cuda".
        dtype: of the learner's arithmetic, as torch names it.
        max_model_len: most tokens of prompt and output together.
        cache_bytes: size of the key-value cache; None lets vLLM take `section.memory_share` of the GPU.
        seed: vLLM's own; every request has a seed besides.

    Raises:
        InputError: no vLLM that works here.
        ModelError: vLLM cannot run this model, or its context is too short.
    """

    _open: ClassVar[weakref.ref[VllmEngine] | None] = None

    def __init__(
        self,
        encoder: PromptEncoder,
        weights: Publisher,
        section: VllmSection,
        *,
        device: str,
        dtype: str,
        max_model_len: int,
        cache_bytes: int | None,
        seed: int = 0,
    ) -> None:
        self._installed = check_vllm()
        self._encoder = encoder
        self._section = section
        self._device, self._dtype = device, dtype
        self._max_model_len, self._cache_bytes, self._seed = max_model_len, cache_bytes, seed
        self._version: int | None = None
        self._asleep = self._cache_gone = False
        self._requests = self._pushed = 0
        self._lora: Any | None = None
        self._llm: Any | None = None
        self._probe = first_probe(encoder, max_model_len)
        before = VllmEngine._open() if VllmEngine._open is not None else None
        if before is not None:
            before.close()
        VllmEngine._open = weakref.ref(self)
        self._folder = tempfile.TemporaryDirectory(prefix="spark-vllm-")
        try:
            source = weights.publish().source()
            source.save_description(Path(self._folder.name))
            first = weights.publish(self.wanted)
            self._model = SameModel(first)
            self._pushes_adapters = isinstance(first.way, AdapterBytes)
            with self._starting():
                self._llm = self._start(first.way if isinstance(first.way, AdapterBytes) else None)
                if self._pushes_adapters:
                    self._load_full(source.named_tensors(merged=False))
                self.take(first)
        except BaseException:
            self.close()
            raise

    @property
    def version(self) -> int:
        """The policy version held.

        Raises:
            StaleEngineError: it is closed, its weights were given up, or an update of them failed.
        """
        _ = self._required
        if self._version is None or self._asleep:
            raise StaleEngineError(
                "The vLLM engine holds no finished weights: call take(policy.publish(engine.wanted)) first."
            )
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

        requests = []
        for prompt in prompts:
            given, expected = self._input(prompt, sampling)
            for seed in prompt.seeds:
                fields = sampling_fields(sampling, seed, self._encoder.eos_ids)
                params = SamplingParams(**fields, output_kind=RequestOutputKind.FINAL_ONLY)
                requests.append(_Request(prompt, given, expected, params))
        started = time.perf_counter()
        outputs = [_output(result.outputs[0]) for result in self._run(requests, on_progress, check_stop)]
        groups = completions(self._encoder, prompts, outputs, started)
        self._probe = longest_probe(self._encoder, self._max_model_len, prompts, groups, self._probe)
        return groups

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        from vllm import SamplingParams

        requests = []
        lengths = []
        for prompt, group in zip(prompts, outputs, strict=True):
            for output in group:
                given, expected = self._input(prompt, Sampling(len(output) + 1), tail=output)
                requests.append(_Request(prompt, given, expected, SamplingParams(**SCORING_FIELDS)))
                lengths.append(len(output))
        flat = iter(
            _tail_logprobs(result, length)
            for result, length in zip(self._run(requests, lambda _: None, lambda: None), lengths, strict=True)
        )
        return [[next(flat) for _ in group] for group in outputs]

    @property
    def wanted(self) -> Wanted:
        """The learner's tensors, or an adapter alone where `lora_sync` says so and vLLM can apply it."""
        wish = self._section.lora_sync
        alone = wish == "adapter" or (wish == "auto" and self._device == "cuda")
        forms = (Form.ADAPTER, Form.MEMORY) if alone else (Form.MEMORY,)
        return Wanted(forms, self._probe, refused=REFUSED_ADAPTERS)

    def take(self, published: PublishedWeights) -> None:
        """Take over the weights of a finished update, tensor by tensor or as adapter alone, and check them.

        Raises:
            ModelError: the weights are another model's.
            StaleEngineError: they cannot be read from here, or vLLM's log-probabilities are not the learner's then.
        """
        self._version = None
        self._model.check(published)
        self.wake()
        if isinstance(published.way, AdapterBytes):
            pushed = "the adapter's weights"
            self._load_adapter(published.way, published.version)
        else:
            pushed = "the full weights"
            self._load_full(published.source().named_tensors())
        if self._cache_gone:
            self._required.wake_up(["kv_cache"])
            self._cache_gone = False
        self._engine.reset_prefix_cache()
        if self._encoder.reads_images:
            self._engine.reset_mm_cache()
            self._engine.reset_encoder_cache()
        check_taken(self, published, self._dtype, who="vLLM", pushed=pushed)
        self._version = published.version

    def sleep(self) -> None:
        """On a GPU: give up the cache, and the weights too where those taken next replace them. On a CPU: nothing."""
        if self._device != "cuda" or not self._section.sleep or self._asleep:
            return
        replaced = not self._pushes_adapters
        self._required.sleep(level=2 if replaced else 1)
        self._asleep = self._cache_gone = True
        if replaced:
            self._version = None

    def wake(self) -> None:
        """Bring the weights' memory back; the cache's follows when weights are taken."""
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
            raise StaleEngineError("This vLLM engine is closed, perhaps by a newer one in this process: use that.")
        return self._llm

    @property
    def _engine(self) -> Any:
        return self._required.llm_engine

    def _start(self, adapter: AdapterBytes | None) -> Any:
        prepare_environment()
        set_threads = torch.set_num_threads  # vLLM's CPU worker replaces it by a function that does nothing
        options = start_options(
            self._section,
            folder=self._folder.name,
            device=self._device,
            dtype=self._dtype,
            max_model_len=self._max_model_len,
            cache_bytes=self._cache_bytes,
            seed=self._seed,
            reads_images=self._encoder.reads_images,
            adapter=adapter,
        )
        try:
            from vllm import LLM

            return LLM(**options)
        finally:
            torch.set_num_threads = set_threads

    @contextmanager
    def _starting(self) -> Iterator[None]:
        """Say in a sentence what vLLM does not support: it finds out as it starts, or in its first step."""
        try:
            yield
        except (ImportError, ValueError, RuntimeError, AssertionError, AttributeError, OSError, KeyError) as error:
            raise self._cannot_run(one_line(error)) from error
        except EngineError as error:
            raise self._cannot_run(one_line(error.__cause__ or error)) from error

    def _cannot_run(self, why: str) -> ModelError:
        return ModelError(
            f"{self._installed} cannot run {self._encoder.name} here ({why}): use "
            'rollout.engine = "transformers", or another model.'
        )

    def _run(
        self, requests: Sequence[_Request], on_progress: Callable[[int], None], check_stop: StopCheck
    ) -> list[Any]:
        """Run requests to their end, in order; whatever interrupts them leaves no request behind.

        Raises:
            EngineError: vLLM failed.
        """
        engine = self._engine
        place: dict[str, int] = {}
        results: list[Any] = [None] * len(requests)
        internal: list[str] = []
        try:
            for index, request in enumerate(requests):
                self._requests += 1
                name = str(self._requests)
                place[name] = index
                internal.append(engine.add_request(name, request.given, request.params, lora_request=self._lora))
            while engine.has_unfinished_requests():
                check_stop()
                done = [output for output in self._step() if output.finished]
                for output in done:
                    index = place[output.request_id]
                    check_expanded(requests[index].prompt, requests[index].expected, output.prompt_token_ids)
                    results[index] = output
                if done:
                    on_progress(len(done))
        except BaseException as error:
            engine.abort_request(internal, internal=True)
            while not isinstance(error, EngineError) and engine.has_unfinished_requests():
                engine.step()
            raise
        return results

    def _step(self) -> Any:
        """One step of all requests.

        Raises:
            EngineError: vLLM failed in it, for want of memory perhaps.
        """
        try:
            return self._engine.step()
        except (RuntimeError, ValueError, AssertionError) as error:
            raise EngineError(
                f"{self._installed} failed while it computed ({one_line(error)}): the run can be resumed, if memory "
                "was short with a smaller rollout.vllm.memory_share or cache_gib."
            ) from error

    def _input(self, prompt: Prompt, sampling: Sampling, tail: Sequence[int] = ()) -> tuple[dict[str, Any], list[int]]:
        """What vLLM is given, and the token ids it must make of that."""
        sent, expected = sent_ids(self._encoder, prompt, sampling, self._max_model_len, tail)
        given: dict[str, Any] = {"prompt_token_ids": sent}
        if prompt.images:
            given["multi_modal_data"] = {"image": self._encoder.open_images(prompt)}
        return given, expected

    def _load_full(self, tensors: Iterator[tuple[str, Any]]) -> None:
        checked = checked_tensors(tensors, self._model.shapes)
        self._required.collective_rpc("reload_weights", kwargs={"weights_iterator": checked})

    def _load_adapter(self, adapter: AdapterBytes, version: int) -> None:
        """vLLM takes adapters from folders, under a name that no earlier version had."""
        from vllm.lora.request import LoRARequest

        folder = Path(self._folder.name) / "adapter"
        write_adapter(adapter, folder)
        before = self._lora
        if before is not None:
            self._engine.remove_lora(before.lora_int_id)
        self._pushed += 1
        self._lora = LoRARequest(f"policy-{version}-{self._pushed}", self._pushed, str(folder))
        try:
            self._engine.add_lora(self._lora)
        finally:
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class _Request:
    """`given` goes to vLLM with `params`; `expected` are the prompt's token ids as the learner has them."""

    prompt: Prompt
    given: dict[str, Any]
    expected: list[int]
    params: Any


def _output(sampled: Any) -> Output:
    ids = tuple(int(token) for token in sampled.token_ids)
    logprobs = tuple(float(position[token].logprob) for token, position in zip(ids, sampled.logprobs, strict=True))
    return Output(ids, logprobs, ended=sampled.finish_reason == "stop")


def _tail_logprobs(result: Any, length: int) -> list[float]:
    """The log-probabilities of the last `length` prompt tokens."""
    ids = result.prompt_token_ids[-length:]
    positions = result.prompt_logprobs[-length:]
    return [float(position[token].logprob) for token, position in zip(ids, positions, strict=True)]
