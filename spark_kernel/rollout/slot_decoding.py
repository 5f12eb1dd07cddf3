"""Decoding on a GPU: a fixed number of slots, every step the same kernels, replayed as one CUDA graph.

A step of a 1.5B model is over a thousand kernels, and launching them one by one takes a hundred times as long as
running them. So nothing changes shape here: a row keeps its slot until it has ended, the slot then takes the next
waiting row, and the host looks at the device once in `CHECK_EVERY` steps. `decoding.Decoder` is the plain way; both
draw the same tokens up to rounding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from spark_kernel.errors import StopCheck
from spark_kernel.models.policy import Policy
from spark_kernel.models.token_logprobs import output_projection
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.decode_cache import rows_can_join
from spark_kernel.rollout.decoding import PREFILL_TOKENS, REFILL_SHARE, DecodedRow
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.sampling import choose_tokens, row_uniforms

CHECK_EVERY = 8
"""Steps between two looks at which rows have ended."""
GRAPHED_ROPES = {"default", "linear", "llama3", "yarn"}
"""Position embeddings that ask nothing of the device; others recompute their frequencies from the positions."""


def has_fixed_steps(network: Any) -> bool:
    """Whether a decode step of a network is the same kernels every time, so that it can be replayed."""
    config = network.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    experts = any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    with_eyes = getattr(network.config, "vision_config", None) is not None
    return (
        rows_can_join(network) and rope.get("rope_type", "default") in GRAPHED_ROPES and not experts and not with_eyes
    )


class SlotLayer(DynamicLayer):
    """A cache layer of fixed size: `keys` and `values` [B, K, W, D]; a step's go to the column that all slots share."""

    def __init__(self, keys: Tensor, values: Tensor, slots: int, columns: int, column: Tensor) -> None:
        """For states like these [_, K, _, D].

        They are held in the precision that attention takes them in: under autocast the prompt's are float32, because
        keys are rotated in it and transformers gives both one type.
        """
        super().__init__()
        narrow = torch.is_autocast_enabled(values.device.type)
        self.dtype = torch.get_autocast_dtype(values.device.type) if narrow else values.dtype
        self.device, self.is_initialized = values.device, True
        self.keys: Tensor = values.new_zeros(slots, keys.shape[1], columns, keys.shape[3], dtype=self.dtype)
        self.values: Tensor = values.new_zeros(slots, values.shape[1], columns, values.shape[3], dtype=self.dtype)
        self._column = column

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: Any,  # noqa: ARG002 - the signature is transformers'
        **kwargs: Any,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Write one new token of every slot; all columns, of which the mask hides what is not a row's."""
        self.keys.index_copy_(2, self._column, key_states.to(self.dtype))
        self.values.index_copy_(2, self._column, value_states.to(self.dtype))
        return self.keys, self.values

    def place(self, slots: Tensor, keys: Tensor, values: Tensor, end: int) -> None:
        """Put states [R, K, T, D] into some slots [R], their last one before column `end`."""
        columns = slice(end - keys.shape[2], end)
        self.keys[slots, :, columns] = keys.to(self.dtype)
        self.values[slots, :, columns] = values.to(self.dtype)

    def move(self, columns: int) -> None:
        """Move everything so many columns to the right, or to the left where they are negative."""
        for buffer in (self.keys, self.values):
            buffer.copy_(buffer.roll(columns, dims=2))


@dataclass(slots=True)
class _Slots:
    """The state that a step reads and writes in place. [B]: `rows` (place in the call), `steps` (tokens drawn),
    `places` (where the next token stands), `running`. `logits` [B, V] of the next token, `mask` [B, W] over the
    cache's columns, `column` [1] that the next token is written to, `drawn` [B] the last tokens."""

    rows: Tensor
    steps: Tensor
    places: Tensor
    running: Tensor
    logits: Tensor
    mask: Tensor
    column: Tensor
    drawn: Tensor
    layers: list[SlotLayer]
    cache: Cache


@dataclass(frozen=True, slots=True)
class _Prefilled:
    """Some prompts computed: keys and values [P, K, T, D] of each layer, flush right; logits [P, V] of the first token
    and its place [P]."""

    states: list[tuple[Tensor, Tensor]]
    logits: Tensor
    places: Tensor


class SlotDecoder:
    """One call's rows, from the first prompt to the last output.

    Args:
        policy: the model; `has_fixed_steps` of its network.
        prompts: in the order in which they are let in; one row per seed.
        sampling: how tokens are chosen.
        batch_size: most rows side by side; a prompt with more seeds has as many slots as it needs.
        graph: replay steps as a CUDA graph; off, the same steps are launched one by one.
    """

    def __init__(
        self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, *, batch_size: int, graph: bool = True
    ) -> None:
        self._policy, self._network = policy, policy.network
        self._project = output_projection(policy.network)
        self._prompts, self._sampling = prompts, sampling
        self._waiting = deque(range(len(prompts)))
        self._counts = [len(prompt.seeds) for prompt in prompts]
        self._starts = [sum(self._counts[:i]) for i in range(len(prompts))]
        self._lengths = [policy.encoder.count_tokens(prompt) for prompt in prompts]
        total, device, room = sum(self._counts), policy.device, sampling.max_new_tokens
        self._slots_free = list(range(max(*self._counts, min(batch_size, total), 1)))
        self._taken: dict[int, tuple[int, int]] = {}
        self._size = len(self._slots_free)
        self._columns = max(self._lengths) + room + room // 2
        self._eos = torch.tensor(policy.encoder.eos_ids, device=device)
        seeds = [seed for prompt in prompts for seed in prompt.seeds]
        nobody = 1  # a row for slots that have none
        self._uniforms = torch.cat(
            [row_uniforms(seeds, room, device), torch.zeros(nobody, room, dtype=torch.float64, device=device)]
        )
        self._tokens = torch.zeros(total + nobody, room, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(total + nobody, room, dtype=torch.float32, device=device)
        self._output_lengths = torch.zeros(total + nobody, dtype=torch.long, device=device)
        self._ended = torch.zeros(total + nobody, dtype=torch.bool, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._wants_graph = graph
        self._total = total
        self._column = 0

    def run(
        self,
        on_progress: Callable[[int], None],
        check_stop: StopCheck,
        on_token: Callable[[int], None] | None = None,
    ) -> list[DecodedRow]:
        """All outputs, prompt by prompt, in order of their seeds; `on_token` is for a single row."""
        slots = self._admit(None)
        while self._taken or self._waiting:
            check_stop()
            if self._may_admit():
                slots = self._admit(slots)
            steps = 1 if on_token is not None else min(CHECK_EVERY, self._columns - self._column)
            for _ in range(steps):
                self._step(slots)
            self._column += steps
            if on_token is not None:
                on_token(int(slots.drawn[0]))
            self._look(slots, on_progress)
        lengths = self._output_lengths.tolist()
        self._graph = None
        rows = zip(self._tokens.cpu(), self._logprobs.cpu(), lengths, self._ended.tolist(), strict=True)
        return [DecodedRow(tuple(t[:n].tolist()), tuple(p[:n].tolist()), ended) for t, p, n, ended in rows][:-1]

    def _look(self, slots: _Slots, on_progress: Callable[[int], None]) -> None:
        """Free the slots whose rows have ended; of the others note how many tokens they have drawn."""
        running, steps = torch.stack([slots.running.long(), slots.steps]).tolist()
        finished = [slot for slot in self._taken if not running[slot]]
        for slot in finished:
            del self._taken[slot]
            self._slots_free.append(slot)
        self._slots_free.sort()
        self._taken = {slot: (length, steps[slot]) for slot, (length, _) in self._taken.items()}
        if finished:
            on_progress(len(finished))

    def _step(self, slots: _Slots) -> None:
        """One token of every slot; after the first step from a graph, where one is wanted."""
        if not self._wants_graph:
            self._compute(slots)
        elif self._graph is not None:
            self._graph.replay()
        else:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._compute(slots)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._compute(slots)

    def _compute(self, slots: _Slots) -> None:
        """Draw the next token of every slot, note it where its row is running, and compute the logits after it."""
        last = self._sampling.max_new_tokens - 1
        rows, going, steps = slots.rows, slots.running.clone(), slots.steps.clamp(max=last)
        tokens, logprobs = choose_tokens(slots.logits, self._sampling, self._uniforms[rows, steps])
        ends = (tokens.unsqueeze(-1) == self._eos).any(dim=-1)
        for kept, index, new in (
            (self._tokens, (rows, steps), tokens),
            (self._logprobs, (rows, steps), logprobs),
            (self._output_lengths, (rows,), steps + 1),
            (self._ended, (rows,), ends),
        ):
            kept.index_put_(index, torch.where(going, new, kept[index]))
        slots.running.copy_(going & ~ends & (steps < last))
        slots.steps.add_(1)
        slots.drawn.copy_(tokens)
        slots.mask.index_fill_(1, slots.column, True)
        output = self._network.base_model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=slots.mask[:, None, None, :],
            position_ids=self._policy.encoder.step_positions(slots.places),
            past_key_values=slots.cache,
            use_cache=True,
        )
        slots.places.add_(1)
        slots.column.add_(1).clamp_(max=self._columns - 1)
        slots.logits.copy_(self._project(output.last_hidden_state[:, -1, :]))

    def _may_admit(self) -> bool:
        """Whether waiting prompts are let in now: enough slots are free, and there is room for their outputs."""
        if not self._waiting:
            return False
        if not self._taken:
            return True
        free = len(self._slots_free)
        longest = max(length + steps for length, steps in self._taken.values())
        fits = max(longest, self._lengths[self._waiting[0]]) + self._sampling.max_new_tokens <= self._columns
        return fits and free >= self._counts[self._waiting[0]] and free >= REFILL_SHARE * self._size

    def _admit(self, slots: _Slots | None) -> _Slots:
        """Put as many waiting prompts as find room into free slots."""
        chunks = self._take()
        held = [length + steps for length, steps in self._taken.values()]
        needed = max([*held, *(self._lengths[i] for chunk in chunks for i in chunk)])
        if needed > self._column or self._column + self._sampling.max_new_tokens > self._columns:
            if slots is not None:
                self._move(slots, needed - self._column)
            self._column = needed
        for chunk in chunks:
            prefilled = self._prefill(chunk)
            slots = slots or self._empty(prefilled)
            self._place(slots, chunk, prefilled)
        assert slots is not None  # the first call lets at least one prompt in
        slots.column.fill_(self._column)
        return slots

    def _take(self) -> list[list[int]]:
        """Waiting prompts for the free slots, in chunks that are computed in one pass."""
        free, longest = len(self._slots_free), 0
        chunks: list[list[int]] = [[]]
        while self._waiting and self._counts[self._waiting[0]] <= free:
            length = self._lengths[self._waiting[0]]
            longest = max(longest, length)
            if chunks[-1] and (len(chunks[-1]) + 1) * longest > PREFILL_TOKENS:
                chunks.append([])
                longest = length
            free -= self._counts[self._waiting[0]]
            chunks[-1].append(self._waiting.popleft())
        return chunks

    def _prefill(self, chunk: Sequence[int]) -> _Prefilled:
        device = self._policy.device
        prompts = self._policy.encoder.collate([self._prompts[i] for i in chunk], device)
        cache = DynamicCache(config=self._network.config)
        output = self._network.base_model(**prompts.model_inputs(), use_cache=True, past_key_values=cache)
        logits = self._project(output.last_hidden_state[:, -1, :])
        states = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
        return _Prefilled(states, logits, prompts.positions.after)

    def _empty(self, like: _Prefilled) -> _Slots:
        """Slots without rows, for a model whose prompts have such states and such logits."""
        size, device = self._size, self._policy.device
        column = torch.zeros(1, dtype=torch.long, device=device)
        whole = torch.zeros(size, dtype=torch.long, device=device)
        layers = [SlotLayer(keys, values, size, self._columns, column) for keys, values in like.states]
        return _Slots(
            rows=torch.full_like(whole, self._total),
            steps=whole.clone(),
            places=whole.clone(),
            running=torch.zeros(size, dtype=torch.bool, device=device),
            logits=like.logits.new_zeros(size, like.logits.shape[-1]),
            mask=torch.zeros(size, self._columns, dtype=torch.bool, device=device),
            column=column,
            drawn=whole.clone(),
            layers=layers,
            cache=Cache(layers=list(layers)),
        )

    def _place(self, slots: _Slots, chunk: Sequence[int], prefilled: _Prefilled) -> None:
        """Write prompts into free slots, one for each of their rows, flush right before the next column."""
        device, end = self._policy.device, self._column
        lengths = [self._lengths[i] for i in chunk for _ in range(self._counts[i])]
        taken, self._slots_free = self._slots_free[: len(lengths)], self._slots_free[len(lengths) :]
        self._taken |= {slot: (length, 0) for slot, length in zip(taken, lengths, strict=True)}
        index = torch.tensor(taken, device=device)
        row_of = torch.tensor([k for k, i in enumerate(chunk) for _ in range(self._counts[i])], device=device)
        for layer, (keys, values) in zip(slots.layers, prefilled.states, strict=True):
            layer.place(index, keys.index_select(0, row_of), values.index_select(0, row_of), end)
        columns = torch.arange(self._columns, device=device)
        first = end - torch.tensor(lengths, device=device).unsqueeze(1)
        slots.mask[index] = (columns >= first) & (columns < end)
        rows = [self._starts[i] + k for i in chunk for k in range(self._counts[i])]
        slots.rows[index] = torch.tensor(rows, device=device)
        slots.steps[index] = 0
        slots.places[index] = prefilled.places.index_select(0, row_of)
        slots.running[index] = True
        slots.logits[index] = prefilled.logits.index_select(0, row_of)

    def _move(self, slots: _Slots, columns: int) -> None:
        """Move all rows so many columns to the right; what is pushed over an edge is no running row's."""
        for layer in slots.layers:
            layer.move(columns)
        slots.mask.copy_(slots.mask.roll(columns, dims=1))
