"""The peers: TRL's GRPOTrainer and transformers' `generate`, at their best configuration for the work."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.shapes import Scale
from spark_kernel.records import Group


def make_trl(model_folder: Path, out: Path, scale: Scale, prompts: list[str], *, output: int, device: str) -> Any:
    """A GRPOTrainer on the same weights: same dtype and threads, no checkpointing, no logging, beta 0, `grpo` off.

    `loss_type="dapo"` is the token mean that ours uses; one optimizer step per generation.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    settings: dict[str, Any] = {
        "output_dir": str(out),
        "use_cpu": device == "cpu",
        "bf16": device != "cpu",
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": scale.groups * scale.samples,
        "num_generations": scale.samples,
        "max_completion_length": output,
        "temperature": 1.0,
        "beta": 0.0,
        "loss_type": "dapo",
        "learning_rate": 1e-6,
        "generation_kwargs": {"min_new_tokens": output},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model_folder),
            reward_funcs=lambda completions, **_: [float(i % 2) for i in range(len(completions))],
            args=GRPOConfig(**settings),
            train_dataset=Dataset.from_list([{"prompt": text} for text in prompts]),
            processing_class=PreTrainedTokenizerFast.from_pretrained(model_folder),
        )
    trainer.create_optimizer()
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def trl_inputs(trainer: Any, prompt_ids: list[list[int]], groups: list[Group], device: str) -> dict[str, Tensor]:
    """Our rollouts as the batch that TRL's loss takes."""
    pad = trainer.processing_class.pad_token_id
    rows = [(prompt_ids[g], rollout) for g, group in enumerate(groups) for rollout in group.rollouts]
    outputs = [list(rollout.token_ids) for _, rollout in rows]
    prompt, prompt_mask = padded([ids for ids, _ in rows], pad, left=True)
    completion, completion_mask = padded(outputs, pad, left=False)
    batch = {
        "prompt_ids": prompt,
        "prompt_mask": prompt_mask,
        "completion_ids": completion,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([rollout.advantage for _, rollout in rows]),
        "num_items_in_batch": completion_mask.sum(),
    }
    return {name: tensor.to(device) for name, tensor in batch.items()}


def trl_update(trainer: Any, batch: dict[str, Tensor], micro_batch: int) -> tuple[float, float]:
    """One optimizer step as the trainer takes it: its loss, backward, clip, step. The loss and the gradient's norm."""
    trainer.model.train()
    trainer.optimizer.zero_grad(set_to_none=True)  # what a pass that ran out of memory may have left
    total = 0.0
    size = len(batch["advantages"])
    for start in range(0, size, micro_batch):
        part = {n: t if t.dim() == 0 else t[start : start + micro_batch] for n, t in batch.items()}
        with trainer.accelerator.autocast():
            loss = trainer._compute_loss(trainer.model, part)
        loss.backward()
        total += float(loss.detach())
    norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    return total, float(norm)


def trl_step(trainer: Any, prompts: list[str], samples: int, micro_batch: int) -> int:
    """Generation, scoring and update as in training; the number of output tokens."""
    trainer.model.train()
    batch = trainer._generate_and_score_completions([{"prompt": text} for text in prompts for _ in range(samples)])
    wanted = ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch")
    given = {name: batch[name] for name in wanted}
    trl_update(trainer, given, micro_batch)
    return int(batch["completion_mask"].sum())


def generate(
    network: Any,
    prompt_ids: list[list[int]],
    samples: int,
    output: int,
    pad: int,
    device: str,
    ends: tuple[int, ...] = (),
) -> Tensor:
    """`model.generate` on the same prompts, each repeated: outputs of exactly `output` tokens, or that end at one
    of `ends`."""
    until = {"eos_token_id": list(ends)} if ends else {"min_new_tokens": output}
    rows = [ids for ids in prompt_ids for _ in range(samples)]
    ids, mask = padded(rows, pad, left=True)
    with torch.inference_mode():
        result: Tensor = network.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=output,
            pad_token_id=pad,
            **until,
        )
    return result[:, ids.shape[1] :]


def padded(rows: list[list[int]], pad: int, *, left: bool) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    fill = [[pad] * (width - len(row)) for row in rows]
    ids = [gap + row if left else row + gap for row, gap in zip(rows, fill, strict=True)]
    ones = [
        [0] * len(gap) + [1] * len(row) if left else [1] * len(row) + [0] * len(gap)
        for row, gap in zip(rows, fill, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(ones)
