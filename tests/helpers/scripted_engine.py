"""A rollout engine whose outputs are a function of prompt and seed: records in, records out, no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Problem, Score
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.verify.scoring import score_request
from spark_kernel.verify.verifier import VerifyRequest


@dataclass
class ScriptedEngine:
    """`write` gives the text of one output; a token is a word; a prompt has as many tokens as words."""

    write: Callable[[Prompt, int], str]
    version: int = 3
    calls: list[tuple[tuple[Prompt, ...], Sampling]] = field(default_factory=list)

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        return [len(prompt.messages[0].text.split()) for prompt in prompts]

    def sample(self, prompts, sampling, *, on_progress=lambda _: None, check_stop=lambda: None):
        check_stop()
        self.calls.append((tuple(prompts), sampling))
        outputs = [
            [self._completion(self.write(prompt, seed), sampling) for seed in prompt.seeds] for prompt in prompts
        ]
        on_progress(sum(map(len, outputs)))
        return outputs

    def _completion(self, text: str, sampling: Sampling) -> Completion:
        words = text.split()
        kept = words[: sampling.max_new_tokens]
        truncated = len(words) > len(kept)
        text = " ".join(kept) if truncated else text
        return Completion(tuple(range(len(kept))), (-1.0,) * len(kept), text, truncated, 0.0)


class LocalScorer:
    """Scores in this process; remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[VerifyRequest] = []

    def score(self, requests: Sequence[VerifyRequest]) -> list[Score]:
        self.requests += requests
        return [score_request(request) for request in requests]


def sum_problem(index: int) -> Problem:
    """index + 1, asked in words that name the index."""
    return Problem(f"p{index}", f"What is {index} plus 1?", str(index + 1), "integer")
