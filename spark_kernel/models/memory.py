"""How much memory sampling and training take, by arithmetic, and how large a batch may be in what is free.

Estimates for planning: they decide how work is cut, never what comes out. A plan is made once, when a run starts, and
stored with it (docs/training.md).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from spark_kernel.models.token_logprobs import CHUNK_LOGITS

SHARE = 0.6
"""Of what is free after weights, gradients and optimizer, the share that activations or a cache may fill."""
PACKED_SHARE = 0.9
"""The same for packed groups, whose bytes are counted rather than estimated."""
LEAST_TOKENS, MOST_TOKENS = 256, {"cpu": 16_384, "cuda": 65_536}
"""Bounds of a micro-batch: below it fixed costs rule, above it nothing is gained."""
LEAST_ROWS, MOST_ROWS = 8, {"cpu": 512, "cuda": 2048}
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
CGROUP_USED = Path("/sys/fs/cgroup/memory.current")
CGROUP_DETAILS = Path("/sys/fs/cgroup/memory.stat")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimates need to know of a network. `kv_size`: size of all key heads together (values likewise).

    `heads`, `query_size`: query heads, and their size together. `normed_heads`: whether queries and keys are normed.
    `bytes_of_stream`: of a value that goes from layer to layer. `adapted`: low-rank values that a token keeps in a
    layer. `cast_bytes`: copies of float32 weights that autocast makes for a pass.
    """

    layers: int
    hidden: int
    intermediate: int
    kv_size: int
    vocabulary: int
    parameters: int
    trainable: int
    bytes_per_weight: int
    bytes_per_activation: int
    heads: int = 1
    query_size: int = 0
    normed_heads: bool = False
    bytes_of_stream: int = 4
    adapted: int = 0
    cast_bytes: int = 0


def shape_of(network: Any, *, autocast: bool) -> ModelShape:
    """The shape of a loaded network; activations are bfloat16 under autocast, else as the weights."""
    config = network.config.get_text_config()
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    weights = list(network.parameters())
    width = weights[0].element_size()
    full = [weight for weight in weights if weight.element_size() == 4 and weight.ndim == 2 and weight.requires_grad]
    names = dict(network.named_parameters())
    ranks = sum(weight.shape[0] for name, weight in names.items() if "lora_A" in name)
    return ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        kv_size=head * (getattr(config, "num_key_value_heads", None) or heads),
        vocabulary=config.vocab_size,
        parameters=sum(p.numel() for p in weights),
        trainable=sum(p.numel() for p in weights if p.requires_grad),
        bytes_per_weight=width,
        bytes_per_activation=2 if autocast else width,
        heads=heads,
        query_size=head * heads,
        normed_heads=any(name.endswith("q_norm.weight") for name in names),
        bytes_of_stream=width,
        adapted=ranks // config.num_hidden_layers,
        cast_bytes=2 * sum(weight.numel() for weight in full) if autocast else 0,
    )


def training_state_bytes(shape: ModelShape, *, optimizer_bytes: int, reference_copy: bool) -> int:
    """What training holds besides the weights.

    trainable x (gradient + optimizer_bytes), optimizer_bytes being 8 for AdamW's two float32 moments and 2 in 8 bits;
    and a frozen copy of all weights where a KL term needs one.
    """
    copy = shape.parameters * shape.bytes_per_weight if reference_copy else 0
    return shape.trainable * (shape.bytes_per_weight + optimizer_bytes) + copy


def training_bytes_per_token(shape: ModelShape, *, samples: int, checkpointing: bool) -> int:
    """Activations that one token of a micro-batch keeps for the backward pass.

    A layer keeps about 8 vectors of the hidden size (residual, norms, query, attention output), 2 of the key-value
    size, 4 of the intermediate size (gate, up, their product, its input), and `samples` more copies of keys and values
    where a prompt's cache is repeated for its group. With gradient checkpointing each layer keeps its input only, and
    one layer at a time is whole.
    """
    inner = 8 * shape.hidden + 4 * shape.intermediate + 2 * shape.kv_size
    if checkpointing:
        values = shape.layers * shape.hidden + inner
    else:
        values = shape.layers * (inner + 2 * shape.kv_size * samples)
    return values * shape.bytes_per_activation


def packed_bytes_per_token(shape: ModelShape, *, checkpointing: bool) -> int:
    """The same for packed groups (`models.packed`): what is saved in each layer, tensor by tensor.

    In the precision of the arithmetic: 4 vectors of the intermediate size; queries, keys and values repeated to all
    query heads, and the output, of attention; inputs of the linear layers (2 vectors, and 3 more where autocast makes a
    copy for each). In float32: the 2 normed inputs, a number a query head. In the precision of the stream: the 2 inputs
    of norms that are trained. Tests hold it to what FakeTensor counts, within 10 %; on an H200 it was within 2 %.
    """
    layer = _packed_layer(shape)
    if checkpointing:
        return shape.layers * shape.hidden * shape.bytes_of_stream + layer
    return shape.layers * layer + 2 * 4 * shape.hidden


def _packed_layer(shape: ModelShape) -> int:
    trained = shape.trainable == shape.parameters
    copied = shape.bytes_per_activation < shape.bytes_of_stream
    inputs = (5 if copied else 2) * shape.hidden
    values = 4 * shape.intermediate + 4 * shape.query_size + inputs + shape.adapted
    stream = 2 * shape.hidden * shape.bytes_of_stream if trained else 0
    norms = 2 * 4 * shape.hidden + 4 * shape.heads
    if shape.normed_heads:
        norms += (4 + shape.bytes_per_activation) * (shape.query_size + shape.kv_size)
    return values * shape.bytes_per_activation + stream + norms


def decoding_bytes_per_row(shape: ModelShape, *, tokens: int) -> int:
    """Keys and values of one row of `tokens` tokens, twice while rows are dropped, and three rows of float32 logits."""
    return 2 * 2 * shape.kv_size * shape.layers * tokens * shape.bytes_per_activation + 3 * 4 * shape.vocabulary


def head_bytes(shape: ModelShape, device: str) -> int:
    """The output head's chunk: logits and their softmax in float32, and the head's gradient."""
    return (
        2 * 4 * max(CHUNK_LOGITS[device], shape.vocabulary) + shape.vocabulary * shape.hidden * shape.bytes_per_weight
    )


def plan_micro_batch_tokens(free: int, per_token: int, fixed: int, device: str, share: float = SHARE) -> int:
    """Tokens of a micro-batch that fit into `free` bytes beside `fixed` ones, a multiple of 256 within bounds."""
    fitting = int(share * max(0, free - fixed)) // per_token
    return max(LEAST_TOKENS, min(MOST_TOKENS[device], fitting // 256 * 256))


def plan_decode_rows(free: int, per_row: int, device: str) -> int:
    """Rows decoded side by side that fit into `free` bytes, a multiple of 8 within bounds."""
    return max(LEAST_ROWS, min(MOST_ROWS[device], int(SHARE * free) // per_row // 8 * 8))


def free_bytes(device: torch.device) -> int:
    """Memory that can be had now: of the GPU, or of the machine and the control group this process is in.

    What torch keeps of a GPU for later, and what a control group is charged for copies of files, can be had.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    information = Path("/proc/meminfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                available = int(line.split()[1]) * 1024
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        available = min(available, int(limit) - int(CGROUP_USED.read_text()) + _reclaimable())
    return max(0, available)


def _reclaimable() -> int:
    """Bytes of files' contents that the control group holds and that give way when memory is asked for."""
    if not CGROUP_DETAILS.exists():
        return 0
    lines = (line.split() for line in CGROUP_DETAILS.read_text().splitlines())
    return sum(int(value) for name, value in lines if name in ("active_file", "inactive_file"))
