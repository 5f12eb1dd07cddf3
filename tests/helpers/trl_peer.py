"""TRL's GRPOTrainer as an oracle: its own loss and its own advantages, on tensors that we give it.

TRL is imported when a trainer is made: it takes seconds, which collecting the fast tests should not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trl import GRPOTrainer

from tests.helpers.tiny_models import save_tiny_llama


def make_trainer(folder: Path, rewards: Any, *, num_generations: int, batch: int, **settings: Any) -> GRPOTrainer:
    """A trainer of a tiny model on the CPU, in float32, that logs and saves nothing."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from trl import GRPOConfig, GRPOTrainer

    save_tiny_llama(folder / "model")
    arguments = {
        "output_dir": str(folder / "out"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": batch,
        "num_generations": num_generations,
        "max_completion_length": 8,
    }
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model"),
        reward_funcs=rewards,
        args=GRPOConfig(**(arguments | settings)),
        train_dataset=Dataset.from_list([{"prompt": f"question {i}"} for i in range(8)]),
        processing_class=PreTrainedTokenizerFast.from_pretrained(folder / "model"),
    )


class LossOracle:
    """TRL's `_compute_loss` with the model's log-probabilities replaced by given ones."""

    def __init__(self, trainer: GRPOTrainer) -> None:
        self.trainer = trainer
        self.trainer.model.train()

    def loss(
        self,
        logps_B_T: Tensor,
        mask_B_T: Tensor,
        advantages_B: Tensor,
        *,
        loss_type: str,
        old_B_T: Tensor | None = None,
        reference_B_T: Tensor | None = None,
        importance_B_X: Tensor | None = None,
        eps_low: float = 0.2,
        eps_high: float = 0.2,
        delta: float | None = None,
        beta: float = 0.0,
        kl_times_ratio: bool = False,
        level: str = "token",
        max_length: int = 8,
        accumulation: int = 1,
        items: int | None = None,
    ) -> Tensor:
        """The loss of one micro-batch of an optimizer step of `accumulation` micro-batches; carries the gradient."""
        trainer = self.trainer
        trainer.loss_type, trainer.beta, trainer.importance_sampling_level = loss_type, beta, level
        trainer.epsilon_low, trainer.epsilon_high, trainer.args.delta = eps_low, eps_high, delta
        trainer.max_completion_length = max_length
        trainer.current_gradient_accumulation_steps = trainer.args.steps_per_generation = accumulation
        trainer.args.use_bias_correction_kl = kl_times_ratio
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = importance_B_X is not None

        def given(*_: Any, **__: Any) -> tuple[Tensor, Tensor, None]:
            return logps_B_T, torch.zeros_like(logps_B_T.detach()), None

        trainer._get_per_token_logps_and_entropies = given  # type: ignore[method-assign]
        rows, width = mask_B_T.shape
        inputs = {
            "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
            "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
            "completion_ids": torch.zeros(rows, width, dtype=torch.long),
            "completion_mask": mask_B_T,
            "advantages": advantages_B,
            "num_items_in_batch": torch.tensor(
                items if items is not None else int(mask_B_T.sum()), dtype=torch.float64
            ),
        }
        optional = {
            "old_per_token_logps": old_B_T,
            "ref_per_token_logps": reference_B_T,
            "importance_sampling_ratio": importance_B_X,
        }
        return trainer._compute_loss(trainer.model, inputs | {k: v for k, v in optional.items() if v is not None})

    def importance(
        self, old_B_T: Tensor, sampler_B_T: Tensor, mask_B_T: Tensor, *, mode: str, level: str, cap: float
    ) -> Tensor:
        """TRL's own weights between vLLM and trainer, [B, T] or [B, 1], as its scoring stage computes them.

        `sampler_B_T` must hold float32 values: TRL makes a float32 tensor of what the engine reports.
        """
        trainer = self.trainer
        trainer.beta, trainer.use_vllm, trainer.vllm_importance_sampling_correction = 0.0, True, True
        trainer.vllm_importance_sampling_mode = f"{level}_{mode}"
        trainer.vllm_importance_sampling_clip_max = cap
        lengths = mask_B_T.sum(dim=1).tolist()
        completions = [[5] * length for length in lengths]
        reported = [row[:length].tolist() for row, length in zip(sampler_B_T, lengths, strict=True)]

        def given(*_: Any, **__: Any) -> tuple[Tensor, None, None]:
            return old_B_T, None, None

        trainer._generate = lambda prompts: _generated(completions, reported)  # type: ignore[method-assign]
        trainer._get_per_token_logps_and_entropies = given  # type: ignore[method-assign]
        rows = [{"prompt": f"question {i}"} for i in range(len(lengths))]
        return trainer._generate_and_score_completions(rows)["importance_sampling_ratio"]


class AdvantageOracle:
    """TRL's own advantages of given rewards: its scoring stage without its generation."""

    def __init__(self, folder: Path, *, groups: int, size: int) -> None:
        self.size = size
        self._rewards: list[float | None] = []
        self.trainer = make_trainer(folder, lambda **_: self._rewards, num_generations=size, batch=groups * size)
        self.trainer.model.train()
        completions = [[5]] * (groups * size)
        self.trainer._generate = lambda prompts: _generated(completions, None)  # type: ignore[method-assign]

    def advantages(self, rewards_P_G: list[list[float | None]], *, scale: str) -> list[list[float]]:
        """Advantages [P][G]; `scale` is TRL's `scale_rewards`."""
        self._rewards = [reward for rewards in rewards_P_G for reward in rewards]
        self.trainer.scale_rewards = scale
        rows = [{"prompt": f"question {i}"} for i in range(len(rewards_P_G)) for _ in range(self.size)]
        flat = self.trainer._generate_and_score_completions(rows)["advantages"].tolist()
        return [flat[i : i + self.size] for i in range(0, len(flat), self.size)]


def _generated(completions: list[list[int]], reported: list[list[float]] | None) -> tuple[Any, ...]:
    """What TRL's `_generate` returns: prompt and completion ids, texts, the engine's log-probabilities."""
    rows = len(completions)
    return [[4]] * rows, completions, None, ["text"] * rows, reported, {}, None, None
