"""Policy, optimizer and an update under way, to and from a folder.

The folder is an ordinary Hugging Face (or peft adapter) folder that other programs load as it is. What only this
program needs lies in its subfolder `state/`: the optimizer's tensors in `optimizer.safetensors`, everything else in
`learner.json`. Nothing is pickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spark_kernel.errors import ModelError
from spark_kernel.learner.optimizers import optimizer_tensors, restore_state
from spark_kernel.learner.progress import UpdateProgress
from spark_kernel.models.load import no_progress_bars
from spark_kernel.models.policy import Policy

STATE_FOLDER = "state"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a learner stands, besides its weights and its optimizer's state.

    `steps_taken`: optimizer steps. `update`: the one under way, None between two. `micro_batch_tokens`: what a
    micro-batch was cut down to when memory ran out; None where it never did.
    """

    steps_taken: int = 0
    update: UpdateProgress | None = None
    micro_batch_tokens: int | None = None


def save_state(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer, standing: Standing) -> None:
    """Write the policy and everything else that `load_state` needs to go on bit for bit."""
    progress = standing.update
    policy.save(folder)
    state = folder / STATE_FOLDER
    state.mkdir()
    tensors: dict[str, Tensor] = {}
    for index, (_, parameter) in enumerate(policy.trainable):
        for name, tensor in optimizer_tensors(optimizer, parameter).items():
            tensors[f"{index}/{name}"] = tensor
    if progress is not None:
        tensors |= {f"progress/{name}": tensor for name, tensor in progress.tensors().items()}
    save_file(tensors, state / "optimizer.safetensors")
    meta = {
        "version": progress.version if progress is not None else policy.version,
        "steps_taken": standing.steps_taken,
        "micro_batch_tokens": standing.micro_batch_tokens,
        "progress": progress.meta() if progress is not None else None,
        "parameters": [name for name, _ in policy.trainable],
    }
    (state / "learner.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def load_state(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Standing:
    """Put policy and optimizer, fresh from the run's initial model, into the stored state; where the learner stood.

    Raises:
        ModelError: the stored weights are another model's.
    """
    meta = load_policy_state(policy, folder)
    tensors = load_file(folder / STATE_FOLDER / "optimizer.safetensors")
    for index, (_, parameter) in enumerate(policy.trainable):
        state = {key.split("/", 1)[1]: tensor for key, tensor in tensors.items() if key.split("/", 1)[0] == str(index)}
        if state:
            restore_state(optimizer, parameter, state)
    progress = None
    if meta["progress"] is not None:
        stored = {k.removeprefix("progress/"): t for k, t in tensors.items() if k.startswith("progress/")}
        progress = UpdateProgress.restore(meta["progress"], stored)
        if progress.steps_done:
            policy.begin_update()
    return Standing(meta["steps_taken"], progress, meta.get("micro_batch_tokens"))


def load_policy_state(policy: Policy, folder: Path) -> dict[str, Any]:
    """Put a policy, fresh from the run's initial model, into the stored state, weights and version; for what only asks.

    Returns:
        What learner.json holds.

    Raises:
        ModelError: the stored weights are another model's.
    """
    meta: dict[str, Any] = json.loads((folder / STATE_FOLDER / "learner.json").read_text(encoding="utf-8"))
    if meta["parameters"] != [name for name, _ in policy.trainable]:
        raise ModelError(f"The checkpoint {folder} belongs to another model: its trained parameters differ.")
    _load_weights(policy, folder)
    policy.finish_update(meta["version"])
    return meta


def _load_weights(policy: Policy, folder: Path) -> None:
    """Trained tensors out of a Hugging Face or peft folder, through the libraries' own loaders, exactly."""
    if policy.has_adapter:
        policy.load_adapter(folder)
        return
    network: Any = policy.network
    with torch.no_grad(), no_progress_bars():
        stored = type(network).from_pretrained(folder, dtype=network.dtype)
        policy.load_tensors({name: p.detach() for name, p in stored.named_parameters()})
