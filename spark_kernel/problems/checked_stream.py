"""A run's problems, checked against its verifiers and its model as far as they can be before training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.load import load_encoder
from spark_kernel.problems.difficulty import grade_of
from spark_kernel.problems.registry import make_source
from spark_kernel.problems.stream import ProblemStream, Progress
from spark_kernel.problems.worked_examples import WithWorkedExamples
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.records import Problem
from spark_kernel.verify.pool import VerifierPool

PROMPTS_CHECKED = 200
"""Problems whose prompts are measured before training starts; later ones that do not fit become exclusions."""


def make_stream(
    config: RunConfig, pool: VerifierPool, on_progress: Progress = lambda _done, _total: None
) -> ProblemStream:
    """The problems of a run, checked as far as they can be before training; golds by the pool, under its deadline.

    Raises:
        InputError: an unknown source or option, a bad record, a gold that its verifier cannot read, a prompt that
            does not fit, or fewer problems than a round asks for.
    """
    source = make_source(config.problems.source, config.problems.options, config.seed)
    if config.problems.worked_examples:
        source = WithWorkedExamples(source)
    encoder, context_length = load_encoder(config.model)
    if config.rollout.max_new_tokens >= context_length:
        raise InputError(
            f"rollout.max_new_tokens = {config.rollout.max_new_tokens} leaves no room for a prompt: the context of "
            f"{config.model.path} is {context_length} tokens. Lower it."
        )
    checker = _ProblemChecker(config, encoder, context_length, pool)
    stream = ProblemStream(
        source,
        seed=config.seed,
        held_out_fraction=config.problems.held_out_fraction,
        on_bad_problem=config.problems.on_bad_problem,
        check_problems=checker.check,
        canonical_form=config.problems.canonical_form,
        on_progress=on_progress,
    )
    if stream.trainable_count is None:
        stream.take(0, config.problems.per_round, round=1)  # a first look: taking is repeatable
    elif stream.trainable_count < config.problems.per_round:
        raise InputError(
            f"problems.per_round = {config.problems.per_round} asks for more problems than there are: "
            f"{stream.trainable_count} can be trained on (the rest is held out or bad). Lower problems.per_round."
        )
    if config.problems.difficulty == "adaptive":
        _check_graded(stream, config)
    return stream


def _check_graded(stream: ProblemStream, config: RunConfig) -> None:
    looked = stream.take(0, config.problems.per_round, round=1).problems
    if len({grade_of(problem) for problem in looked}) < 2:
        raise InputError(
            "problems.difficulty = adaptive has nothing to choose by: the first problems are of one grade, or their "
            "source gives none (arithmetic does, and sources that write meta.level). Widen problems.options, or use "
            "as_drawn."
        )


def _with_hint(fault: str | None, config: RunConfig) -> str | None:
    """A gold's fault with where to read on, for problems of files."""
    if fault is None or config.problems.source != "files":
        return fault
    return f"{fault} Which settings read a gold otherwise: `workbench check`, docs/problems.md."


class _ProblemChecker:
    """Checks gold answers of all problems, and the length of the first prompts."""

    def __init__(self, config: RunConfig, encoder: PromptEncoder, context_length: int, pool: VerifierPool) -> None:
        self._config = config
        self._context_length = context_length
        self._encoder = encoder
        self._pool = pool
        self._measured = 0

    def check(self, problems: Sequence[Problem]) -> list[str | None]:
        """For each problem, what is wrong with it; None where it can be used."""
        golds = [_with_hint(fault, self._config) for fault in self._pool.check_golds(problems)]
        return [fault or self._against_model(problem) for problem, fault in zip(problems, golds, strict=True)]

    def _against_model(self, problem: Problem) -> str | None:
        if problem.images and not self._encoder.reads_images:
            return (
                f"Problem {problem.id} has images, but the model {self._encoder.name} reads none: use a "
                "vision-language model."
            )
        if self._measured < PROMPTS_CHECKED:
            self._measured += 1
            task = solve_task(problem, seed=self._config.seed, round=1)
            length = self._encoder.count_tokens(task_prompts([task], Path())[0])
            limit = self._config.rollout.max_prompt_tokens
            if length > limit:
                return (
                    f"The prompt of problem {problem.id} has {length} tokens, more than rollout.max_prompt_tokens = "
                    f"{limit}: raise it, or leave the problem out."
                )
            longest = self._config.rollout.max_new_tokens
            if length + longest > self._context_length:
                return (
                    f"The prompt of problem {problem.id} has {length} tokens; with rollout.max_new_tokens = {longest} "
                    f"it does not fit the model's context of {self._context_length}: lower that, or leave it out."
                )
        return None
