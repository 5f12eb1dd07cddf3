"""The desk: one thread that owns the models and answers one question at a time, telling what happens as it happens.

A question with a gold answer passes the gold desk before and after: what takes long there does not hold the models.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spark_kernel.errors import InputError, SparkError, Stopped
from workbench.app.catalog import ModelChoice
from workbench.app.gold import GoldDesk
from workbench.app.question import Question

if TYPE_CHECKING:
    from spark_kernel.rollout.engine import RolloutEngine
    from spark_kernel.test_time.events import ChainEvent
    from spark_kernel.test_time.steps import Attempt
    from spark_kernel.test_time.verdict_probability import Encode

DEFAULT_NEW_TOKENS = 512
CLOSING_SECONDS = 5.0
SMALL_PARAMETERS = 20_000_000
"""Below this a second thread costs more than it gains, all the more on a busy machine."""
NEEDS_EXAMPLES = 1_000_000_000
"""A language model of fewer parameters that nobody trained for this boxes hardly an answer without worked examples."""


@dataclass(frozen=True, slots=True)
class Respondent:
    """A loaded model, ready to be asked.

    `context`: most tokens of prompt and output together; `eyes`: whether it reads images; `examples`: whether worked
    examples stand before every prompt, as its run had them or as a small model needs them; `threads`: how many torch
    may use, None for its own choice.
    """

    engine: RolloutEngine
    encode: Encode
    context: int
    eyes: bool
    examples: bool = False
    threads: int | None = None


Load = Callable[[ModelChoice], Respondent]


@dataclass(frozen=True, slots=True)
class Loading:
    """The model is being read from disk."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How the model is asked: with worked examples before every prompt or without."""

    examples: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What the verifier says about the answer of step `index`; `correct` None where it could not tell."""

    index: int
    correct: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The last event. `problem`: what went wrong, in a sentence; `stopped`: someone asked for it. Seconds in all."""

    stopped: bool
    problem: str
    seconds: float


Tell = Callable[["ChainEvent | Loading | Manner | Finding | Ended"], None]


@dataclass(slots=True)
class Job:
    """A question on its way; `started`: when its turn came; `done` is set once nothing of it runs any more."""

    choice: ModelChoice
    question: Question
    tell: Tell
    stop: threading.Event
    started: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)


class ModelDesk:
    """Owns the models.

    Args:
        load: makes a model ready to be asked; called on the desk's thread.
        keep: how many models stay loaded.
    """

    def __init__(self, load: Load, keep: int = 2) -> None:
        self._load, self._keep = load, keep
        self._loaded: OrderedDict[str, Respondent] = OrderedDict()
        self._jobs: queue.SimpleQueue[Job | ModelChoice | None] = queue.SimpleQueue()
        self._golds = GoldDesk()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="model-desk", daemon=True)
        self._thread.start()

    def ask(self, choice: ModelChoice, question: Question, tell: Tell, stop: threading.Event) -> Job:
        """Queue a question.

        Args:
            tell: called on the desk's thread with every event; must return at once. `Ended` comes last.
            stop: may be set from any thread; sampling ends before the next token.
        """
        job = Job(choice, question, tell, stop)
        if question.has_gold:
            self._golds.put(lambda: self._check_gold(job))
        else:
            self._jobs.put(job)
        return job

    def warm(self, choice: ModelChoice) -> None:
        """Load a model when there is nothing else to do, so that the first question need not wait for it."""
        self._jobs.put(choice)

    def close(self) -> None:
        """Stop the question at hand and end the thread; one that reads a model from disk is not waited for long."""
        self._closing.set()
        self._jobs.put(None)
        self._thread.join(timeout=CLOSING_SECONDS)
        self._golds.close()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            if isinstance(item, ModelChoice):
                try:
                    self._respondent(item)
                except (SparkError, OSError, RuntimeError, MemoryError):
                    continue  # whoever asks it is told
            else:
                self._answer(item)

    def _check_gold(self, job: Job) -> None:
        """On the gold desk's thread: a gold answer that is no use is said before any model is asked."""
        job.started = time.perf_counter()

        def check() -> None:
            self._check(job)
            self._golds.check(job.question.problem)

        if self._ended(job, check) is None:
            self._jobs.put(job)

    def _answer(self, job: Job) -> None:
        job.started = time.perf_counter()
        attempts: list[Attempt] = []
        end = self._ended(job, lambda: attempts.append(self._chain(job)))
        if end is None and job.question.has_gold:
            self._golds.put(lambda: self._find(job, attempts[0]))
        elif end is None:
            self._end(job)

    def _find(self, job: Job, attempt: Attempt) -> None:
        """On the gold desk's thread: the verifier's findings about every answer of the chain."""

        def find() -> None:
            for finding in self._golds.findings(job.question.problem, attempt, lambda: self._check(job)):
                job.tell(Finding(*finding))

        if self._ended(job, find) is None:
            self._end(job)

    def _ended(self, job: Job, work: Callable[[], None]) -> Ended | None:
        """Do a part of a job; how the job ended if that was its end, which was told then."""
        try:
            self._check(job)
            work()
        except Stopped:
            return self._end(job, stopped=True)
        except SparkError as error:
            return self._end(job, problem=str(error))
        except (OSError, RuntimeError, MemoryError):
            # A damaged model or too little memory must not end the desk for everybody else.
            traceback.print_exc()
            return self._end(job, problem="The model could not answer; the server's log says why.")
        return None

    def _end(self, job: Job, *, stopped: bool = False, problem: str = "") -> Ended:
        job.done.set()
        end = Ended(stopped, problem, time.perf_counter() - job.started)
        job.tell(end)
        return end

    def _chain(self, job: Job) -> Attempt:
        from spark_kernel.prompts.examples import META
        from spark_kernel.rollout.engine import Sampling
        from spark_kernel.test_time.loop import self_correct_live
        from spark_kernel.test_time.steps import LoopSettings

        question = job.question
        if job.choice.name not in self._loaded:
            job.tell(Loading())
        respondent = self._respondent(job.choice)
        if question.problem.images and not respondent.eyes:
            raise InputError(
                "This model has no eyes: it reads text only. Take the image away, or choose another model."
            )
        if respondent.threads is not None:
            import torch

            torch.set_num_threads(respondent.threads)
        problem = question.problem
        job.tell(Manner(respondent.examples))
        if respondent.examples:
            problem = replace(problem, meta={**problem.meta, META: True})
        longest = min(question.new_tokens or DEFAULT_NEW_TOKENS, respondent.context // 2)
        sampling = Sampling(longest, question.temperature, max_prompt_tokens=respondent.context - longest)
        settings = LoopSettings(
            sampling, sampling, sampling, reflections=question.reflections, judge_view=question.view
        ).by_rule(faithful=question.faithful)
        return self_correct_live(
            respondent.engine,
            problem,
            settings,
            job.tell,
            seed=question.seed,
            encode=respondent.encode,
            check_stop=lambda: self._check(job),
        )

    def _respondent(self, choice: ModelChoice) -> Respondent:
        found = self._loaded.pop(choice.name, None)
        if found is None:
            while len(self._loaded) >= self._keep:
                self._loaded.popitem(last=False)
            found = self._load(choice)
        self._loaded[choice.name] = found
        return found

    def _check(self, job: Job) -> None:
        if job.stop.is_set() or self._closing.is_set():
            raise Stopped


def load_respondent(choice: ModelChoice) -> Respondent:
    """A model by reference, or the policy of a run's checkpoint. Code that comes with a model is never run.

    Raises:
        ModelError: it cannot be loaded.
        RunFolderError: the checkpoint is damaged.
    """
    import torch

    from spark_kernel.config.sections import ModelSection
    from spark_kernel.models.load import BUILT_IN
    from spark_kernel.models.policy import load_policy
    from spark_kernel.rollout.transformers_engine import TransformersEngine
    from spark_kernel.runs.checkpoints import verify_checkpoint
    from spark_kernel.runs.configuration import read_config

    examples = False
    if choice.run is None:
        policy = load_policy(choice.settings or ModelSection(path=choice.path))
    else:
        folder = Path(choice.path)
        verify_checkpoint(folder)
        config = read_config(choice.run)
        examples = config.problems.worked_examples
        settings = config.model.model_copy(update={"trust_remote_code": False, "device": "auto"})
        if config.model.lora.enabled:
            policy = load_policy(settings, seed=config.seed)
            policy.load_adapter(folder)
        else:
            policy = load_policy(settings.model_copy(update={"path": str(folder), "revision": None}), seed=config.seed)
    encoder = policy.encoder
    size = sum(parameter.numel() for parameter in policy.network.parameters())
    return Respondent(
        engine=TransformersEngine(policy),
        encode=encoder.output_ids,
        context=policy.loaded.context_length,
        eyes=encoder.reads_images,
        examples=examples or (choice.run is None and choice.path not in BUILT_IN and size < NEEDS_EXAMPLES),
        threads=1 if size < SMALL_PARAMETERS else torch.get_num_threads(),
    )
