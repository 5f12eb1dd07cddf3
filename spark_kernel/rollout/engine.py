"""The seam between the trainer and whatever samples: plain dataclasses and one protocol.

This module imports the standard library, the records and plain settings only, so that an engine can live in another
process or on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spark_kernel.errors import StopCheck
from spark_kernel.models.published_weights import PublishedWeights, Wanted
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

    @property
    def wanted(self) -> Wanted:
        """What it asks of the next publication of weights."""
        ...

    def take(self, published: PublishedWeights) -> None:
        """Take over published weights, and their version.

        Raises:
            StaleEngineError: they are not in a form that it takes, or are not what it holds afterwards.
        """
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
