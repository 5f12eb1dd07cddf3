"""The forward pass of groups as one module: trunk, both passes and output head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from spark_kernel.models.group_batches import GroupBatch
from spark_kernel.models.token_logprobs import output_projection, token_logprobs


class GroupForward(nn.Module):
    """Groups in, log-probabilities and entropies of their output tokens out.

    Everything that touches a parameter in training and scoring happens inside `forward`: sharding (`fully_shard`) and
    compilation hook in there, and a pass that went around it would meet parameters that are not gathered. Call the
    module, not the network's trunk or head.

    Args:
        network: a causal language model or vision-language model; its `base_model` and its output head are run.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: GroupBatch, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Log-probability of every output token and entropy of its distribution, both [N], in float32.

        Args:
            batch: groups, made by the form of the forward pass (`ChosenForm.batch`).
            temperature: divides the logits.
        """
        states = batch.hidden(self.network)
        return token_logprobs(
            states.hidden,
            states.targets,
            output_projection(self.network),
            temperature=temperature,
            vocabulary=self.network.config.get_text_config().vocab_size,
        )
