"""Sampling with the training process's own model: a group's prompt once, finished rows replaced by waiting prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from spark_kernel.errors import ModelError, StaleEngineError, StopCheck
from spark_kernel.models.policy import Policy
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.decoding import Decoder
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.slot_decoding import SlotDecoder, has_fixed_steps
from spark_kernel.rollout.streaming import IncrementalText, OnText


class TransformersEngine:
    """A `RolloutEngine` over a live `Policy`: it holds no weights of its own, so taking them only checks the version.

    Args:
        policy: the model, shared with the learner.
        batch_size: most rows decoded side by side.
        refill: let waiting prompts in as rows finish; off, a batch is decoded to its end before the next.
    """

    def __init__(self, policy: Policy, *, batch_size: int = 512, refill: bool = True) -> None:
        self._policy = policy
        self._batch_size = batch_size
        self._refill = refill
        self._taken = policy.version

    @property
    def version(self) -> int:
        """The policy's version; an error in mid-update or where the weights of an update were not taken."""
        version = self._policy.version
        if version != self._taken:
            raise StaleEngineError(
                f"The engine took policy version {self._taken}, but the policy is at {version}: call "
                "take(policy.publish(engine.wanted)) after an update."
            )
        return version

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt."""
        return [self._policy.encoder.count_tokens(prompt) for prompt in prompts]

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
        check_stop: StopCheck = lambda: None,
    ) -> list[list[Completion]]:
        """See `RolloutEngine.sample`. Shorter prompts come first; the result depends on that by rounding alone."""
        _ = self.version
        lengths = self.count_tokens(prompts)
        self._check_lengths(prompts, lengths, sampling)
        if not any(prompt.seeds for prompt in prompts):
            return [[] for _ in prompts]
        order = sorted((i for i in range(len(prompts)) if prompts[i].seeds), key=lambda i: (lengths[i], i))
        flat = iter(self._decode([prompts[i] for i in order], sampling, on_progress, check_stop))
        results: list[list[Completion]] = [[] for _ in prompts]
        for index in order:
            results[index] = [next(flat) for _ in prompts[index].seeds]
        return results

    def stream(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText, *, check_stop: StopCheck = lambda: None
    ) -> Completion:
        """See `StreamingEngine.stream`."""
        _ = self.version
        self._check_lengths([prompt], self.count_tokens([prompt]), sampling)
        encoder = self._policy.encoder
        text = IncrementalText(lambda ids: encoder.decode_pieces([ids])[0])
        if encoder.opened_thought:
            on_text(encoder.opened_thought, 0)

        def on_token(token: int) -> None:
            if piece := text.push(token):
                on_text(piece, text.tokens)

        (completion,) = self._decode([prompt], sampling, lambda _: None, check_stop, on_token)
        if rest := text.rest(encoder.decode_pieces([completion.token_ids])[0]):
            on_text(rest, text.tokens)
        return completion

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        _ = self.version
        return self._policy.score(prompts, outputs)

    @property
    def wanted(self) -> Wanted:
        """The policy itself, in memory."""
        return Wanted()

    def take(self, published: PublishedWeights) -> None:
        """Acknowledge a finished update of the shared policy.

        Raises:
            StaleEngineError: the weights are not those of the policy this engine shares, or no longer.
        """
        if published.source() is not self._policy:
            raise StaleEngineError("This engine shares its policy with the learner and takes no other weights.")
        self._taken = published.version

    def sleep(self) -> None:
        """Nothing to free: the weights are the learner's."""

    def wake(self) -> None:
        """Nothing to bring back."""

    def close(self) -> None:
        """Nothing of its own to close."""

    def _check_lengths(self, prompts: Sequence[Prompt], lengths: Sequence[int], sampling: Sampling) -> None:
        context = self._policy.loaded.context_length
        for prompt, length in zip(prompts, lengths, strict=True):
            if sampling.max_prompt_tokens is not None and length > sampling.max_prompt_tokens:
                raise ModelError(
                    f"The prompt of {prompt.task_id} has {length} tokens, more than max_prompt_tokens = "
                    f"{sampling.max_prompt_tokens}."
                )
            if length + sampling.max_new_tokens > context:
                raise ModelError(
                    f"The prompt of {prompt.task_id} has {length} tokens; with max_new_tokens = "
                    f"{sampling.max_new_tokens} it does not fit the model's context of {context}."
                )

    def _decoder(self, prompts: Sequence[Prompt], sampling: Sampling) -> Decoder | SlotDecoder:
        """On a GPU steps are replayed as a graph, where the network's steps are all alike."""
        if self._policy.device.type == "cuda" and self._refill and has_fixed_steps(self._policy.network):
            return SlotDecoder(self._policy, prompts, sampling, batch_size=self._batch_size)
        return Decoder(self._policy, prompts, sampling, batch_size=self._batch_size, refill=self._refill)

    def _decode(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_progress: Callable[[int], None],
        check_stop: StopCheck,
        on_token: Callable[[int], None] | None = None,
    ) -> list[Completion]:
        """One completion per seed, prompt by prompt; `on_token` receives the first row's tokens as they are drawn."""
        started = time.perf_counter()
        with torch.inference_mode(), self._policy.loaded.arithmetic():
            rows = self._decoder(prompts, sampling).run(on_progress, check_stop, on_token)
        texts = self._policy.encoder.decode([row.token_ids for row in rows])
        share = (time.perf_counter() - started) / len(rows)
        return [
            Completion(row.token_ids, row.logprobs, text, truncated=not row.ended, seconds=share)
            for row, text in zip(rows, texts, strict=True)
        ]
