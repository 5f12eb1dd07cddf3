"""Supervised training of the starter on its demonstrations: loss on response tokens only, every batch keyed by step."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from starter.demonstrations import Demonstrations
from starter.muon import Muon
from starter.pieces import Demonstration
from starter.tokenizer import END, MAX_TOKENS, PAD, START, prompt_text

NUMBERS = 1000
PERIODS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 16, 20, 25, 32, 40, 50, 64, 80, 100, 128, 160, 200, 400)


@dataclass(frozen=True, slots=True)
class Shape:
    """Size of the model."""

    hidden: int = 128
    layers: int = 3
    heads: int = 4
    key_value_heads: int = 2
    inner: int = 256


@dataclass(frozen=True, slots=True)
class Schedule:
    """Length and rates of the training. `batch`: demonstrations a step. `muon`: "float32" (`starter.muon`) or "torch".

    Matrices inside the layers are trained by Muon at `matrix_rate`, everything else by AdamW at `vector_rate`: with
    AdamW alone the same loss took more than twice the tokens.
    """

    steps: int
    batch: int = 24
    matrix_rate: float = 1e-2
    vector_rate: float = 5e-3
    warmup: int = 20
    floor: float = 0.02
    micro_batch_tokens: int = 1024
    muon: Literal["float32", "torch"] = "float32"


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids [T] and their weights in the loss [T]; the end token closes every row."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


def new_model(tokenizer: Tokenizer, shape: Shape, seed: int) -> LlamaForCausalLM:
    """A Llama of this shape with weights drawn by the seed, in float32."""
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        intermediate_size=shape.inner,
        max_position_embeddings=MAX_TOKENS,
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=tokenizer.token_to_id(START),
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        numbers = [tokenizer.token_to_id(str(n)) for n in range(NUMBERS)]
        waves_NH = number_waves() * config.initializer_range
        model.get_input_embeddings().weight[numbers, : waves_NH.shape[1]] = waves_NH
    return model


def number_waves() -> torch.Tensor:
    """Cosine and sine of each number at several periods [NUMBERS, 2 * periods], of mean square 1.

    Neighbours begin alike and a sum is a product of waves, so arithmetic is learnt from fewer lines than from
    random vectors. The vectors are trained like any other weight.
    """
    angle_NP = 2 * math.pi * torch.arange(NUMBERS)[:, None] / torch.tensor(PERIODS)
    return torch.cat([angle_NP.cos(), angle_NP.sin()], dim=1) * math.sqrt(2)


def encode(tokenizer: Tokenizer, demonstrations: Sequence[Demonstration]) -> list[Row]:
    """Rows of the demonstrations; the end token is learnt where every piece of the response is."""
    prompts = tokenizer.encode_batch([prompt_text(d.user) for d in demonstrations])
    responses = tokenizer.encode_batch([d.response for d in demonstrations])
    end = tokenizer.token_to_id(END)
    rows = []
    for demonstration, prompt, response in zip(demonstrations, prompts, responses, strict=True):
        by_character = [weight for text, weight in demonstration.pieces for _ in text]
        weights = [by_character[start] for start, _ in response.offsets]
        ids = (*prompt.ids, *response.ids, end)
        rows.append(Row(ids, (*[0.0] * len(prompt.ids), *weights, float(all(weights)))))
    return rows


def train(
    model: LlamaForCausalLM, tokenizer: Tokenizer, data: Demonstrations, schedule: Schedule, *, every: int = 50
) -> None:
    """Train in place. A step's demonstrations depend on its number only; progress goes to standard error."""
    optimizers = _optimizers(model, schedule)
    clocks = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate(step, schedule)) for o in optimizers]
    model.train()
    start, total, tokens = time.monotonic(), 0.0, 0
    for step in range(schedule.steps):
        first = step * schedule.batch
        rows = encode(tokenizer, [data.demonstration(first + i) for i in range(schedule.batch)])
        total += _step(model, rows, schedule.micro_batch_tokens, tokenizer.token_to_id(PAD))
        tokens += sum(len(row.ids) for row in rows)
        for optimizer, clock in zip(optimizers, clocks, strict=True):
            optimizer.step()
            clock.step()
        model.zero_grad(set_to_none=True)
        if (step + 1) % every == 0:
            seconds = time.monotonic() - start
            print(
                f"step {step + 1}/{schedule.steps}  loss {total / every:.4f}  {tokens / seconds:.0f} tokens/s  "
                f"{seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
            total = 0.0
    model.eval()


def rate(step: int, schedule: Schedule) -> float:
    """Share of the peak learning rate at a step: linear warm-up, then cosine to the floor."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * done))


def _step(model: LlamaForCausalLM, rows: list[Row], micro_batch_tokens: int, pad: int) -> float:
    """Accumulate the gradient of the weighted mean loss over the tokens of all rows; returns that loss."""
    weight = sum(sum(row.weights) for row in rows)
    total = 0.0
    for batch in _micro_batches(rows, micro_batch_tokens):
        width = max(len(row.ids) for row in batch)
        ids_BT = torch.tensor([[*row.ids, *[pad] * (width - len(row.ids))] for row in batch])
        weights_BT = torch.tensor([[*row.weights, *[0.0] * (width - len(row.ids))] for row in batch])[:, 1:]
        learnt_BT = weights_BT > 0
        # Padding stands on the right and attention is causal, so no mask is needed.
        hidden = model.model(input_ids=ids_BT[:, :-1], use_cache=False).last_hidden_state
        losses = functional.cross_entropy(model.lm_head(hidden[learnt_BT]), ids_BT[:, 1:][learnt_BT], reduction="none")
        loss = (losses * weights_BT[learnt_BT]).sum() / weight
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return total


def _micro_batches(rows: list[Row], tokens: int) -> list[list[Row]]:
    """The rows by length, cut so that no padded batch holds more than `tokens` tokens."""
    batches: list[list[Row]] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if not batches or (len(batches[-1]) + 1) * len(row.ids) > tokens:
            batches.append([])
        batches[-1].append(row)
    return batches


def _optimizers(model: LlamaForCausalLM, schedule: Schedule) -> list[torch.optim.Optimizer]:
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    inner = (
        Muon(matrices, lr=schedule.matrix_rate)
        if schedule.muon == "float32"
        else torch.optim.Muon(
            matrices, lr=schedule.matrix_rate, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
    )
    return [inner, torch.optim.AdamW(others, lr=schedule.vector_rate, betas=(0.9, 0.98), weight_decay=0.0)]
