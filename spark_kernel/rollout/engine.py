"""The seam between the trainer and whatever samples: plain dataclasses and one protocol.

This module imports the standard library, the records and plain settings only, so that an engine can live in another
process or on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from spark_kernel.errors import StopCheck
from spark_kernel.models.adapter import Adapter
from spark_kernel.prompts.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. `temperature` 0 is greedy decoding. `max_new_tokens` counts the end-of-sequence token."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One output. `token_ids` [T] end with an end-of-sequence token unless `truncated`.

    `logprobs` [T]: natural-log probability of each token under the distribution it was sampled from (temperature,
    top_p and top_k applied; of the plain softmax when greedy). `seconds`: share of the batch's sampling time.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    truncated: bool
    seconds: float


class PolicyWeights(Protocol):
    """The weights an engine may pull after an update."""

    @property
    def version(self) -> int:
        """The policy version these weights are."""
        ...

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Any]]:
        """Full weights one by one, named as in the base model's state dict; adapters merged or left out."""
        ...

    def adapter(self) -> Adapter | None:
        """The adapter alone, or None where the whole model is trained."""
        ...

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """Log-probabilities as `RolloutEngine.score`: what an engine is compared with after a sync."""
        ...

    def save_description(self, folder: Path) -> None:
        """Configuration, tokenizer and processor without weights, as a Hugging Face folder."""
        ...


class RolloutEngine(Protocol):
    """Samples outputs and scores given ones with the policy it holds.

    `version` is the policy version whose weights the engine holds: what the trainer stamps on rollouts.
    """

    @property
    def version(self) -> int:
        """The policy version held.

        Raises:
            StaleEngineError: the weights are in mid-update and have no version.
        """
        ...

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        """Tokens of each prompt after the chat template, image tokens included."""
        ...

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        on_progress: Callable[[int], None] = lambda _: None,
        check_stop: StopCheck = lambda: None,
    ) -> list[list[Completion]]:
        """One list of completions per prompt, one completion per seed, in order.

        `on_progress` receives the number of outputs finished since the last call.

        Raises:
            StaleEngineError: the weights are in mid-update.
            ModelError: prompt plus max_new_tokens do not fit the context.
        """
        ...

    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """Log-probabilities, at temperature 1, of given output tokens: `[prompt][output][T]`. Seeds are ignored."""
        ...

    def sync(self, weights: PolicyWeights) -> None:
        """Take over the weights of a finished update, and their version."""
        ...

    def sleep(self) -> None:
        """Free what the device needs for training."""
        ...

    def wake(self) -> None:
        """Be ready to sample again."""
        ...

    def close(self) -> None:
        """Leave no process and no device memory behind; calling it twice is fine."""
        ...
