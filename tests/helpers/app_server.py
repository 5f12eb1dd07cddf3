"""The app as it is served, in this process, with a model that writes what a test tells it to, at a pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_kernel.prompts.prompt import Prompt
from spark_kernel.rollout.engine import Completion, Sampling
from workbench.app.access import Access, decide_access
from workbench.app.catalog import ModelChoice
from workbench.app.desk import Respondent
from workbench.app.limits import LOCAL, Limits
from workbench.app.serve import AppSettings, RunningApp, serving


def answer_then_doubt(prompt: Prompt, seed: int) -> str:
    """A first answer of 41, a judge that says No to it and Yes to 42, a reflection that ends at 42."""
    text = "\n".join(message.text for message in prompt.messages)
    step = prompt.task_id.rpartition("-")[2]
    if step == "0":
        return "Adding them up by hand gives \\boxed{41}"
    if step in ("1", "3"):
        verdict = "Yes" if step == "3" else "No"
        letters = {"Yes": "A", "No": "B"} if "A" in text and "\\boxed{A}" in text else None
        return f"Looking at it again \\boxed{{{letters[verdict] if letters else verdict}}}"
    return "Adding them up with care gives \\boxed{42}"


@dataclass
class PacedEngine:
    """Writes word by word, `pause` seconds each, and counts what it wrote. A word is a token."""

    write: Callable[[Prompt, int], str] = answer_then_doubt
    pause: float = 0.0
    version: int = 0
    words: int = 0
    prompts: list[Prompt] = field(default_factory=list)
    running: threading.Event = field(default_factory=threading.Event)

    def count_tokens(self, prompts: Sequence[Prompt]) -> list[int]:
        return [sum(len(message.text.split()) for message in prompt.messages) for prompt in prompts]

    def stream(self, prompt, sampling: Sampling, on_text, *, check_stop=lambda: None) -> Completion:
        self.prompts.append(prompt)
        words = self.write(prompt, prompt.seeds[0]).split(" ")[: sampling.max_new_tokens]
        started = time.perf_counter()
        self.running.set()
        try:
            for index, word in enumerate(words):
                check_stop()
                time.sleep(self.pause)
                self.words += 1
                on_text(word if index == 0 else f" {word}", index + 1)
        finally:
            self.running.clear()
        text = " ".join(words)
        seconds = time.perf_counter() - started
        return Completion(tuple(range(len(words))), (-1.0,) * len(words), text, False, seconds)

    def sample(self, prompts, sampling, *, on_progress=lambda _: None, check_stop=lambda: None):
        return [[self.stream(prompt, sampling, lambda *_: None, check_stop=check_stop)] for prompt in prompts]

    def score(self, prompts, outputs):
        return [[[-0.1] * len(row) for row in rows] for rows in outputs]


@dataclass
class PacedModels:
    """Loads a `PacedEngine` for every model that is asked for."""

    engine: PacedEngine = field(default_factory=PacedEngine)
    eyes: bool = False
    loaded: list[str] = field(default_factory=list)

    def __call__(self, choice: ModelChoice) -> Respondent:
        self.loaded.append(choice.name)
        return Respondent(self.engine, lambda text: tuple(range(len(text.split()))), 4096, self.eyes)


@contextmanager
def running_app(
    runs: Path,
    models: PacedModels | None = None,
    *,
    access: Access | None = None,
    limits: Limits = LOCAL,
    recorded: dict[str, Path] | None = None,
    names: Sequence[str] = (),
    **bounds: int,
) -> Iterator[RunningApp]:
    """The app on a free port of this machine; by default without the run that ships with the package."""
    settings = AppSettings(
        access or decide_access(),
        runs,
        names,
        0,
        {} if recorded is None else recorded,
        replace(limits, **bounds),  # type: ignore[arg-type]
    )
    with serving(settings, models or PacedModels()) as app:
        yield app


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it became true in time; how long that takes is not judged."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return true()
