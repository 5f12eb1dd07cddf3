"""Sampling with the training process's own model: the prompt of a group once, finished rows dropped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spark_kernel.errors import ModelError, StaleEngineError, StopCheck
from spark_kernel.models.policy import Policy
from spark_kernel.models.token_logprobs import output_projection
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.decode_cache import expand_for_decoding
from spark_kernel.rollout.engine import Completion, PolicyWeights, Sampling
from spark_kernel.rollout.sampling import choose_tokens, row_uniforms
from spark_kernel.rollout.streaming import IncrementalText, OnText

DROP_SHARE = 0.125
"""Finished rows are dropped from the batch once they are this share of it: a drop copies the cache."""


class TransformersEngine:
    """A `RolloutEngine` over a live `Policy`: it holds no weights of its own, so a sync only checks the version.

    Args:
        policy: the model, shared with the learner.
        batch_size: most rows decoded side by side.
    """

    def __init__(self, policy: Policy, *, batch_size: int = 512) -> None:
        self._policy = policy
        self._batch_size = batch_size
        self._synced = policy.version

    @property
    def version(self) -> int:
        """The policy's version; an error in mid-update or where a sync is due."""
        version = self._policy.version
        if version != self._synced:
            raise StaleEngineError(
                f"The engine was synced at policy version {self._synced}, but the policy is at {version}: "
                "call sync(policy) after an update."
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
        """See `RolloutEngine.sample`. Prompts of like length share a batch; the result does not depend on it."""
        _ = self.version
        lengths = self.count_tokens(prompts)
        self._check_lengths(prompts, lengths, sampling)
        results: list[list[Completion]] = [[] for _ in prompts]
        for batch in _batches(prompts, lengths, self._batch_size):
            check_stop()
            for index, completions in zip(
                batch, self._decode([prompts[i] for i in batch], sampling, check_stop), strict=True
            ):
                results[index] = completions
            on_progress(sum(len(prompts[i].seeds) for i in batch))
        return results

    def stream(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText, *, check_stop: StopCheck = lambda: None
    ) -> Completion:
        """See `StreamingEngine.stream`."""
        _ = self.version
        self._check_lengths([prompt], self.count_tokens([prompt]), sampling)
        text = IncrementalText(lambda ids: self._policy.encoder.decode([ids])[0])

        def on_token(token: int) -> None:
            if piece := text.push(token):
                on_text(piece, text.tokens)

        ((completion,),) = self._decode([prompt], sampling, check_stop, on_token)
        if rest := text.rest(completion.text):
            on_text(rest, text.tokens)
        return completion

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """See `RolloutEngine.score`."""
        _ = self.version
        return self._policy.score(prompts, outputs)

    def sync(self, weights: PolicyWeights) -> None:
        """Acknowledge a finished update of the shared policy.

        Raises:
            StaleEngineError: the weights are not those of the policy this engine shares.
        """
        if id(weights) != id(self._policy):
            raise StaleEngineError("This engine shares its policy with the learner and takes no other weights.")
        self._synced = weights.version

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

    @torch.inference_mode()
    def _decode(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        check_stop: StopCheck,
        on_token: Callable[[int], None] | None = None,
    ) -> list[list[Completion]]:
        started = time.perf_counter()
        policy = self._policy
        counts = [len(prompt.seeds) for prompt in prompts]
        uniforms = row_uniforms([s for p in prompts for s in p.seeds], sampling.max_new_tokens, policy.device)
        with policy.loaded.arithmetic():
            tokens, logprobs, lengths, ended = _decode_rows(
                policy, prompts, counts, sampling, uniforms, check_stop, on_token
            )
        rows = [tuple(row[:n]) for row, n in zip(tokens.tolist(), lengths, strict=True)]
        values = [tuple(row[:n]) for row, n in zip(logprobs.tolist(), lengths, strict=True)]
        texts = policy.encoder.decode(rows)
        share = (time.perf_counter() - started) / len(rows)
        flat = (
            Completion(row, value, text, truncated=not done, seconds=share)
            for row, value, text, done in zip(rows, values, texts, ended, strict=True)
        )
        return [[next(flat) for _ in range(count)] for count in counts]


def _decode_rows(
    policy: Policy,
    prompts: Sequence[Prompt],
    counts: Sequence[int],
    sampling: Sampling,
    uniforms_B_T: Tensor,
    check_stop: StopCheck,
    on_token: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor, list[int], list[bool]]:
    """Decode all rows; tokens and log-probabilities [rows, max_new_tokens] on the CPU, lengths, and who ended.

    `on_token` receives each token of the first row as soon as it is drawn; for a single row.
    """
    device = policy.device
    network = policy.network
    project = output_projection(network)
    batch = policy.encoder.collate(prompts, device)
    group_of_row = torch.repeat_interleave(
        torch.arange(len(prompts), device=device), torch.tensor(counts, device=device)
    )
    first = network.base_model(**batch.model_inputs(), use_cache=True)
    cache = first.past_key_values
    expand_for_decoding(cache, group_of_row, sampling.max_new_tokens)
    logits = project(first.last_hidden_state[:, -1, :]).index_select(0, group_of_row)
    rows = len(group_of_row)
    mask = torch.ones(rows, batch.attention_mask.shape[1] + sampling.max_new_tokens, dtype=torch.long, device=device)
    mask[:, : batch.attention_mask.shape[1]] = batch.attention_mask.index_select(0, group_of_row)
    positions = torch.tensor(batch.lengths, device=device).index_select(0, group_of_row)
    eos = torch.tensor(policy.encoder.eos_ids, device=device)
    tokens_out = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.long, device=device)
    logprobs_out = torch.zeros(rows, sampling.max_new_tokens, dtype=torch.float32, device=device)
    lengths = torch.full((rows,), sampling.max_new_tokens, dtype=torch.long, device=device)
    ended = torch.zeros(rows, dtype=torch.bool, device=device)
    alive = torch.arange(rows, device=device)
    prompt_width = batch.attention_mask.shape[1]
    for step in range(sampling.max_new_tokens):
        check_stop()
        tokens, logprobs = choose_tokens(logits, sampling, uniforms_B_T[alive, step])
        tokens_out[alive, step] = tokens
        logprobs_out[alive, step] = logprobs
        if on_token is not None:
            on_token(int(tokens[0]))
        finishing = torch.isin(tokens, eos) & ~ended[alive]
        lengths[alive[finishing]] = step + 1
        ended[alive[finishing]] = True
        running = ~ended[alive]
        count = int(running.sum())
        if count == 0 or step + 1 == sampling.max_new_tokens:
            break
        if count <= len(alive) * (1 - DROP_SHARE):
            kept = running.nonzero().squeeze(-1)
            cache.batch_select_indices(kept)
            tokens, alive = tokens[kept], alive[kept]
        output = network.base_model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=mask[alive, : prompt_width + step + 1],
            position_ids=(positions[alive] + step).unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        )
        logits = project(output.last_hidden_state[:, -1, :])
    return tokens_out.cpu(), logprobs_out.cpu(), lengths.tolist(), ended.tolist()


def _batches(prompts: Sequence[Prompt], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices of prompts, sorted by length and cut into batches of at most `batch_size` rows (at least one prompt)."""
    order = sorted(range(len(prompts)), key=lambda i: (lengths[i], i))
    batches: list[list[int]] = []
    rows = 0
    for index in order:
        size = len(prompts[index].seeds)
        if not batches or rows + size > batch_size:
            batches.append([])
            rows = 0
        batches[-1].append(index)
        rows += size
    return batches
