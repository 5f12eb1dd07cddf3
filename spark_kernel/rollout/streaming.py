"""Text as it is sampled: one output, token by token, from any engine.

An engine that can stream has a method `stream` (`StreamingEngine`); one that cannot delivers its output in one piece.
No torch here, so that a page or terminal may import it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from spark_kernel.errors import StopCheck
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, RolloutEngine, Sampling

OnText = Callable[[str, int], None]
"""Receives text that became readable and the number of tokens sampled so far; the pieces add up to the output."""

UNREADABLE = "\N{REPLACEMENT CHARACTER}"
MOST_PENDING = 3
"""A UTF-8 character has at most 4 bytes, so 3 tokens or marks at the end may still become one; more may not."""
WINDOW, CONTEXT = 48, 8
"""The last tokens are decoded anew with each one; once they are WINDOW of them, about the last CONTEXT are kept."""


@runtime_checkable
class StreamingEngine(Protocol):
    """What an engine has besides `RolloutEngine` if it can stream."""

    def stream(
        self, prompt: Prompt, sampling: Sampling, on_text: OnText, *, check_stop: StopCheck = lambda: None
    ) -> Completion:
        """Sample one output (the prompt has one seed): the completion that `sample` would give for it.

        `check_stop` is called before every token.

        Raises:
            StaleEngineError: the weights are in mid-update.
            ModelError: prompt plus max_new_tokens do not fit the context.
        """
        ...


def stream_one(
    engine: RolloutEngine, prompt: Prompt, sampling: Sampling, on_text: OnText, *, check_stop: StopCheck = lambda: None
) -> Completion:
    """Sample the one output of a prompt with one seed, streamed where the engine can."""
    if isinstance(engine, StreamingEngine):
        return engine.stream(prompt, sampling, on_text, check_stop=check_stop)
    ((completion,),) = engine.sample([prompt], sampling, check_stop=check_stop)
    if completion.text:
        on_text(completion.text, len(completion.token_ids))
    return completion


class IncrementalText:
    """Tokens in, readable text out, at a bounded cost per token; half a character is held back until it is whole.

    Bytes that never become a character come out as replacement characters, as in the whole output's text. With one
    exception: a tokenizer with byte fallback takes back the characters of a run of byte tokens if the run turns out
    invalid in the end; only the whole output's text then shows it.

    Args:
        decode: token ids to text, the same that decodes whole outputs.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._whole_at: list[int] = []  # lengths of the window at which its text ended in a whole character
        self._shown = 0
        self._given = 0
        self.tokens = 0

    def push(self, token: int) -> str:
        """The text that this token makes readable; often one word, empty in the middle of a character."""
        self.tokens += 1
        if len(self._window) >= WINDOW:
            self._restart()
        self._window.append(token)
        text = self._decode(self._window)
        ready = self._readable(text)
        if ready == len(text):
            self._whole_at.append(len(self._window))
        piece = text[self._shown : ready]
        self._shown = max(self._shown, ready)
        self._given += len(piece)
        return piece

    def rest(self, whole: str) -> str:
        """What is left of the whole output's text once its last token is in."""
        return whole[self._given :]

    def _restart(self) -> None:
        """Keep the last tokens only, from where a character begins if there is such a place."""
        latest = len(self._window) - CONTEXT
        earlier = [place for place in self._whole_at if place <= latest]
        start = earlier[-1] if earlier else min(self._whole_at, default=latest)
        self._window = self._window[start:]
        self._whole_at = [place - start for place in self._whole_at if place >= start]
        # With half a character behind it, a run of byte tokens may look unreadable as a whole: count it without.
        whole = self._decode(self._window[: self._whole_at[-1]]) if self._whole_at else ""
        self._shown = max(len(whole), self._readable(self._decode(self._window)))

    def _readable(self, text: str) -> int:
        """Length of the window's text without what may be half a character at its end."""
        marks = len(text) - len(text.rstrip(UNREADABLE))
        since_whole = len(self._window) - (self._whole_at[-1] if self._whole_at else 0)
        return len(text) - (marks if since_whole <= MOST_PENDING else min(marks, MOST_PENDING))
