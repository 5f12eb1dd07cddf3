"""Policy, optimizer and an update under way, to and from a folder.

The folder is an ordinary Hugging Face (or peft adapter) folder that other programs load as it is. What only this
program needs lies in its subfolder `state/`: the optimizer's tensors in `optimizer.safetensors`, everything else in
`learner.json`. Nothing is pickled.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spark_kernel.errors import ModelError
from spark_kernel.learner.learner import Learner
from spark_kernel.learner.optimizers import optimizer_tensors, restore_state
from spark_kernel.learner.progress import UpdateProgress
from spark_kernel.models.load import no_progress_bars
from spark_kernel.models.policy import Policy

STATE_FOLDER = "state"


def save_learner(learner: Learner, folder: Path) -> None:
    """Write everything that `load_learner` needs to go on bit for bit; also in mid-update, after a stop."""
    learner.policy.save(folder)
    state = folder / STATE_FOLDER
    state.mkdir()
    tensors: dict[str, Tensor] = {}
    for index, (_, parameter) in enumerate(learner.policy.trainable):
        for name, tensor in optimizer_tensors(learner.optimizer, parameter).items():
            tensors[f"{index}/{name}"] = tensor
    progress = learner.progress
    if progress is not None:
        tensors |= {f"progress/{name}": tensor for name, tensor in progress.tensors().items()}
    save_file(tensors, state / "optimizer.safetensors")
    meta = {
        "version": progress.version if progress is not None else learner.policy.version,
        "steps_taken": learner.steps_taken,
        "progress": progress.meta() if progress is not None else None,
        "parameters": [name for name, _ in learner.policy.trainable],
    }
    (state / "learner.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def load_learner(learner: Learner, folder: Path) -> None:
    """Put a learner, fresh from the run's initial model, into the stored state.

    Raises:
        ModelError: the stored weights are another model's.
    """
    meta = load_policy_state(learner.policy, folder)
    state_folder = folder / STATE_FOLDER
    trainable = learner.policy.trainable
    tensors = load_file(state_folder / "optimizer.safetensors")
    for index, (_, parameter) in enumerate(trainable):
        state = {key.split("/", 1)[1]: tensor for key, tensor in tensors.items() if key.split("/", 1)[0] == str(index)}
        if state:
            restore_state(learner.optimizer, parameter, state)
    learner.steps_taken = meta["steps_taken"]
    learner.progress = None
    if meta["progress"] is not None:
        stored = {k.removeprefix("progress/"): t for k, t in tensors.items() if k.startswith("progress/")}
        learner.progress = UpdateProgress.restore(meta["progress"], stored)
        if learner.progress.steps_done:
            learner.policy.begin_update()


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
