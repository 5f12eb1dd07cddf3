"""The decoding loop: rows side by side, finished ones replaced by waiting prompts, each prompt computed once.

Every row draws by its own random numbers, at its own step. What a row's neighbours are changes rounding and nothing
else, and the order in which prompts are let in follows from the arguments alone: the same call gives the same result
to the last bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from spark_kernel.errors import StopCheck
from spark_kernel.models.policy import Policy
from spark_kernel.models.token_logprobs import output_projection
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.decode_cache import Arrival, joined, keep_rows, rows_can_join, with_room
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.sampling import choose_tokens, row_uniforms

DROP_SHARE = 0.125
"""Finished rows are dropped once they are this share of the batch: a drop copies the cache."""
REFILL_SHARE = 0.25
"""Waiting prompts are let in once this share of the batch size is free: a refill copies the cache and runs prompts."""
PREFILL_TOKENS = 8192
"""Prompt tokens, padding included, that are computed in one pass; at least one prompt."""


@dataclass(frozen=True, slots=True)
class DecodedRow:
    """One output: token ids and their log-probabilities [T], and whether it ended by itself."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    ended: bool


@dataclass(slots=True)
class _Batch:
    """The rows being decoded, all [B]: `rows` (place in the call), `steps` (tokens drawn), `lengths` (tokens in the
    cache), `places` (where the next token stands), `running`. `logits` [B, V] of the next token. `mask`
    [B, width + room] over the cache's columns."""

    cache: Any
    rows: Tensor
    steps: Tensor
    lengths: Tensor
    places: Tensor
    running: Tensor
    logits: Tensor
    mask: Tensor
    width: int


class Decoder:
    """One call's rows, from the first prompt to the last output.

    Args:
        policy: the model.
        prompts: in the order in which they are let in; one row per seed.
        sampling: how tokens are chosen.
        batch_size: most rows side by side; a prompt with more seeds runs alone.
        refill: let waiting prompts in as rows finish; off, a batch is decoded to its end first (the plain way).
    """

    def __init__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, *, batch_size: int, refill: bool = True
    ) -> None:
        self._policy = policy
        self._network = policy.network
        self._project = output_projection(policy.network)
        self._prompts = prompts
        self._sampling = sampling
        self._batch_size = batch_size
        self._joins = rows_can_join(policy.network)
        self._refill = refill and self._joins
        self._waiting = deque(range(len(prompts)))
        self._counts = [len(prompt.seeds) for prompt in prompts]
        self._starts = [sum(self._counts[:i]) for i in range(len(prompts))]
        total, device = sum(self._counts), policy.device
        self._eos = torch.tensor(policy.encoder.eos_ids, device=device)
        seeds = [seed for prompt in prompts for seed in prompt.seeds]
        self._uniforms = row_uniforms(seeds, sampling.max_new_tokens, device)
        self._tokens = torch.zeros(total, sampling.max_new_tokens, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(total, sampling.max_new_tokens, dtype=torch.float32, device=device)
        self._output_lengths = torch.zeros(total, dtype=torch.long, device=device)
        self._ended = torch.zeros(total, dtype=torch.bool, device=device)

    def run(
        self,
        on_progress: Callable[[int], None],
        check_stop: StopCheck,
        on_token: Callable[[int], None] | None = None,
    ) -> list[DecodedRow]:
        """All outputs, prompt by prompt, in order of their seeds; `on_token` is for a single row."""
        batch: _Batch | None = None
        while batch is not None or self._waiting:
            check_stop()
            if batch is None:
                batch = self._admit(None)
            finished = int(batch.running.sum())
            tokens = self._choose(batch)
            running = int(batch.running.sum())
            if on_token is not None:
                on_token(int(tokens[0]))
            if finished > running:
                on_progress(finished - running)
            if running == 0:
                batch = None
                continue
            refill = self._may_refill(running)
            if not refill and running <= len(batch.rows) * (1 - DROP_SHARE):
                tokens = self._drop(batch, tokens)
            self._advance(batch, tokens)
            if refill:
                batch = self._admit(batch)
        lengths = self._output_lengths.tolist()
        rows = zip(self._tokens.cpu(), self._logprobs.cpu(), lengths, self._ended.tolist(), strict=True)
        return [DecodedRow(tuple(t[:n].tolist()), tuple(p[:n].tolist()), ended) for t, p, n, ended in rows]

    def _choose(self, batch: _Batch) -> Tensor:
        """Draw the next token of every row and note it; rows that end stop running."""
        last = self._sampling.max_new_tokens - 1
        steps = batch.steps.clamp(max=last)  # rows that are done stay in the batch until they are dropped
        tokens, logprobs = choose_tokens(batch.logits, self._sampling, self._uniforms[batch.rows, steps])
        going = batch.running
        rows, steps = batch.rows[going], steps[going]
        self._tokens[rows, steps] = tokens[going]
        self._logprobs[rows, steps] = logprobs[going]
        self._output_lengths[rows] = steps + 1
        ends = torch.isin(tokens, self._eos)
        self._ended[rows] = ends[going]
        batch.steps += 1
        batch.running = going & ~ends & (batch.steps <= last)
        return tokens

    def _advance(self, batch: _Batch, tokens: Tensor) -> None:
        """Compute the logits after these tokens [B]."""
        batch.width += 1
        output = self._network.base_model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=batch.mask[:, : batch.width],
            position_ids=self._policy.encoder.step_positions(batch.places),
            past_key_values=batch.cache,
            use_cache=True,
        )
        batch.lengths += 1
        batch.places += 1
        batch.logits = self._project(output.last_hidden_state[:, -1, :])

    def _drop(self, batch: _Batch, tokens: Tensor) -> Tensor:
        """Take finished rows out; the tokens of those that stay."""
        kept = batch.running.nonzero().squeeze(-1)
        keep_rows(batch.cache, kept, batch.mask.shape[1] - batch.width)
        batch.rows, batch.steps, batch.running = batch.rows[kept], batch.steps[kept], batch.running[kept]
        batch.lengths, batch.places, batch.mask = batch.lengths[kept], batch.places[kept], batch.mask[kept]
        return tokens[kept]

    def _may_refill(self, running: int) -> bool:
        if not (self._refill and self._waiting):
            return False
        free = self._batch_size - running
        return free >= self._counts[self._waiting[0]] and free >= REFILL_SHARE * self._batch_size

    def _admit(self, batch: _Batch | None) -> _Batch:
        """The running rows of a batch, if there is one, and as many waiting prompts as find room."""
        device = self._policy.device
        kept = batch.running.nonzero().squeeze(-1) if batch is not None else torch.zeros(0, dtype=torch.long)
        chunks = self._take(self._batch_size - len(kept), alone=batch is None)
        arrivals, logits, lengths, places = zip(*(self._prefill(chunk) for chunk in chunks), strict=True)
        new = [self._starts[i] + k for chunk in chunks for i in chunk for k in range(self._counts[i])]
        rows = torch.tensor(new, device=device)
        steps, all_logits = torch.zeros_like(rows), torch.cat(logits)
        all_lengths, all_places = torch.cat(lengths), torch.cat(places)
        if batch is not None:
            rows = torch.cat([batch.rows[kept], rows])
            steps = torch.cat([batch.steps[kept], steps])
            all_lengths = torch.cat([batch.lengths[kept], all_lengths])
            all_places = torch.cat([batch.places[kept], all_places])
            all_logits = torch.cat([batch.logits[kept], all_logits])
        width, room = int(all_lengths.max()), self._sampling.max_new_tokens
        if self._joins:
            cache = joined(batch.cache if batch is not None else None, kept, arrivals, width, room)
        else:
            (arrival,) = arrivals
            cache = with_room(arrival.cache, arrival.row_of, room)
        mask = flush_right_mask(all_lengths, width, room)
        running = torch.ones_like(rows, dtype=torch.bool)
        return _Batch(cache, rows, steps, all_lengths, all_places, running, all_logits, mask, width)

    def _take(self, free: int, *, alone: bool) -> list[list[int]]:
        """Waiting prompts for `free` rows, in chunks that are computed in one pass; `alone`: at least one prompt."""
        chunks: list[list[int]] = []
        longest = 0
        while self._waiting and (self._counts[self._waiting[0]] <= free or (alone and not chunks)):
            index = self._waiting.popleft()
            free -= self._counts[index]
            length = self._policy.encoder.count_tokens(self._prompts[index])
            longest = max(longest, length)
            if not chunks or (self._joins and (len(chunks[-1]) + 1) * longest > PREFILL_TOKENS):
                chunks.append([])
                longest = length
            chunks[-1].append(index)
        return chunks

    def _prefill(self, chunk: Sequence[int]) -> tuple[Arrival, Tensor, Tensor, Tensor]:
        """Compute some prompts; their cache, and for each row logits [rows, V], length and first place [rows]."""
        device = self._policy.device
        prompts = self._policy.encoder.collate([self._prompts[i] for i in chunk], device)
        counts = torch.tensor([self._counts[i] for i in chunk], device=device)
        row_of = torch.repeat_interleave(torch.arange(len(chunk), device=device), counts)
        cache = {"past_key_values": DynamicCache(config=self._network.config)} if self._joins else {}
        output = self._network.base_model(**prompts.model_inputs(), use_cache=True, **cache)
        logits = self._project(output.last_hidden_state[:, -1, :]).index_select(0, row_of)
        lengths = torch.tensor(prompts.lengths, device=device).index_select(0, row_of)
        places = prompts.positions.after.index_select(0, row_of)
        return Arrival(output.past_key_values, row_of), logits, lengths, places


def flush_right_mask(lengths: Tensor, width: int, room: int) -> Tensor:
    """1 where a row of so many tokens, flush right in `width` columns, has one, and on all columns to come."""
    columns = torch.arange(width + room, device=lengths.device)
    return (columns >= width - lengths.unsqueeze(1)).long()
