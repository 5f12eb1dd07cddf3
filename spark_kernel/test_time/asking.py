"""Writing a test-time prompt, fitting it into the context, sampling it, and reading the output into a `Step`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spark_kernel.errors import StopCheck
from spark_kernel.keyed_random import derive_seed, keyed_random
from spark_kernel.prompts.build import WrittenPrompt, pointwise_prompt, reflection_prompt, solve_prompt
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.verdicts import VerdictReading, read_answer, read_verdict
from spark_kernel.records import Kind, Parse, Problem, View
from spark_kernel.rollout.engine import Completion, RolloutEngine, Sampling
from spark_kernel.rollout.streaming import stream_one
from spark_kernel.test_time.events import ChainEvent, StepFinished, StepStarted, TextDelta, VerdictProbability
from spark_kernel.test_time.steps import LoopSettings, Step
from spark_kernel.test_time.verdict_probability import Encode, Judged, yes_probabilities


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt about to be sampled; `index` is that of its (first) step, `source` the response it shows as `view`."""

    problem: Problem
    index: int
    kind: Kind
    source: Step | None
    view: View | None
    written: WrittenPrompt
    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Asker:
    """The engine with everything that stays the same from prompt to prompt.

    `purpose`: the name of its random draws. `solve_prompts`: how to ask a problem first, by its id; where absent a
    template is drawn. `on_event`: where given, outputs are streamed one by one, so a batch must be one output.
    """

    engine: RolloutEngine
    settings: LoopSettings
    seed: int
    purpose: str
    solve_prompts: Mapping[str, WrittenPrompt] = field(default_factory=dict)
    image_root: Path | None = None
    encode: Encode | None = None
    on_progress: Callable[[int], None] = lambda _: None
    on_event: Callable[[ChainEvent], None] | None = None
    check_stop: StopCheck = lambda: None

    def draft(
        self,
        problem: Problem,
        index: int,
        kind: Kind,
        source: Step | None = None,
        view: View | None = None,
        samples: int = 1,
    ) -> Draft:
        """A prompt with a seed for each sample; templates and seeds are keyed by problem and index."""
        rng = keyed_random(self.seed, f"{self.purpose}-template", problem.id, index)
        if source is None or view is None:
            written = self.solve_prompts.get(problem.id) or solve_prompt(problem, rng)
        elif kind is Kind.POINTWISE:
            written = pointwise_prompt(problem, source.text, view, rng)
        else:
            written = reflection_prompt(problem, source.text, view, rng)
        seeds = [derive_seed(self.seed, f"{self.purpose}-sample", problem.id, index + i) for i in range(samples)]
        prompt = Prompt(
            task_id=f"{self.purpose}-{problem.id}-{index}",
            messages=written.messages,
            seeds=tuple(seeds),
            images=image_paths(problem, self.image_root),
        )
        return Draft(problem, index, kind, source, view, written, prompt)

    def fitting(self, wanted: Sequence[tuple[Problem, int, Step]], kind: Kind) -> list[Draft | None]:
        """Drafts about responses, (problem, index of the new step, response); None where the prompt is too long.

        A response without an answer is shown in full; a full view that does not fit falls back to the answer alone.
        """
        usual = self.settings.judge_view if kind.judges else self.settings.reflection_view
        drafts: list[Draft | None] = [
            self.draft(problem, index, kind, source, View.FULL if source.answer is None else usual)
            for problem, index, source in wanted
        ]
        self._drop_too_long(drafts, kind)
        shorter: list[Draft | None] = [
            self.draft(problem, index, kind, source, View.ANSWER)
            if draft is None and usual is View.FULL and source.answer is not None
            else None
            for draft, (problem, index, source) in zip(drafts, wanted, strict=True)
        ]
        self._drop_too_long(shorter, kind)
        return [draft or other for draft, other in zip(drafts, shorter, strict=True)]

    def ask(self, drafts: Sequence[Draft], kind: Kind) -> list[list[Step]]:
        """Sample the drafts of one kind and read the outputs: [draft][sample]."""
        if not drafts:
            return []
        outputs = self._sample(drafts, kind)
        steps = [
            [_step(draft, sample, completion) for sample, completion in enumerate(completions)]
            for draft, completions in zip(drafts, outputs, strict=True)
        ]
        if self.on_event is not None:
            self.on_event(StepFinished(steps[0][0]))
        if kind.judges and self.encode is not None:
            steps = self._with_probabilities(self.encode, drafts, steps)
            if self.on_event is not None:
                self.on_event(VerdictProbability(steps[0][0].index, steps[0][0].yes_probability))
        return steps

    def sampling(self, kind: Kind) -> Sampling:
        """How outputs of a kind are sampled."""
        if kind is Kind.SOLVE:
            return self.settings.solve
        return self.settings.judge if kind.judges else self.settings.reflect

    def _drop_too_long(self, drafts: list[Draft | None], kind: Kind) -> None:
        limit = self.sampling(kind).max_prompt_tokens
        places = [place for place, draft in enumerate(drafts) if draft is not None]
        if limit is None or not places:
            return
        counts = self.engine.count_tokens([draft.prompt for draft in drafts if draft is not None])
        for place, count in zip(places, counts, strict=True):
            if count > limit:
                drafts[place] = None

    def _sample(self, drafts: Sequence[Draft], kind: Kind) -> list[list[Completion]]:
        if self.on_event is None:
            return self.engine.sample(
                [draft.prompt for draft in drafts],
                self.sampling(kind),
                on_progress=self.on_progress,
                check_stop=self.check_stop,
            )
        (draft,) = drafts
        on_event, written, index = self.on_event, draft.written, draft.index
        about = None if draft.source is None else draft.source.index
        on_event(StepStarted(index, kind, written.template_id, written.messages, written.label_map, about, draft.view))

        def on_text(text: str, tokens: int) -> None:
            on_event(TextDelta(index, text, tokens))

        return [[stream_one(self.engine, draft.prompt, self.sampling(kind), on_text, check_stop=self.check_stop)]]

    def _with_probabilities(
        self, encode: Encode, drafts: Sequence[Draft], steps: Sequence[Sequence[Step]]
    ) -> list[list[Step]]:
        self.check_stop()
        judged = [
            Judged(draft.prompt, draft.written.label_map, tuple(step.text for step in row))
            for draft, row in zip(drafts, steps, strict=True)
        ]
        found = yes_probabilities(self.engine, encode, judged)
        return [
            [replace(step, yes_probability=yes) for step, yes in zip(row, probabilities, strict=True)]
            for row, probabilities in zip(steps, found, strict=True)
        ]


def image_paths(problem: Problem, root: Path | None) -> tuple[Path, ...]:
    """The files of a problem's images; relative paths start from `root`."""
    return tuple((root or Path()) / image.path for image in problem.images)


def read_pointwise(text: str, label_map: Mapping[str, str] | None) -> VerdictReading:
    """A pointwise verdict as "Yes" or "No", the task's letters applied."""
    reading = read_verdict(text, label_map or ("Yes", "No"))
    if label_map and reading.verdict is not None:
        return VerdictReading(reading.parse, label_map[reading.verdict])
    return reading


def _step(draft: Draft, sample: int, completion: Completion) -> Step:
    written = draft.written
    if draft.kind.judges:
        reading = read_pointwise(completion.text, written.label_map)
        parse, verdict, answer = reading.parse, reading.verdict, None
    else:
        answer, verdict = read_answer(completion.text), None
        parse = Parse.NONE if answer is None else Parse.OK
    return Step(
        problem_id=draft.problem.id,
        index=draft.index + sample,
        kind=draft.kind,
        template_id=written.template_id,
        messages=written.messages,
        label_map=written.label_map,
        about=None if draft.source is None else draft.source.index,
        view=draft.view,
        completion=completion,
        parse=parse,
        answer=answer,
        verdict=verdict,
        first=draft.source is None,
    )
