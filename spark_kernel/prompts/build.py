"""From a problem, and the candidates it was answered with, to the messages of a task.

Text is put together from structured pieces and never recovered by splitting a chat. Gold never enters a prompt.
Candidates are model text and untrusted: the tags that delimit them are defused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from random import Random

from spark_kernel.keyed_random import content_hash, keyed_random
from spark_kernel.prompts.examples import example_turns
from spark_kernel.prompts.templates import Template, templates_of
from spark_kernel.prompts.thinking import final_part
from spark_kernel.prompts.verdicts import read_answer
from spark_kernel.records import (
    ImagePart,
    Kind,
    Message,
    Origin,
    Problem,
    Rollout,
    Task,
    TextPart,
    View,
)

IMAGE_MARK = "<image>"
PLACE = re.compile(r"(?<!\\boxed)\{(question|candidate|first|second|a|b)\}")
OWN_TAG = re.compile(
    r"<(\s*/?\s*(?:problem|answer|answer_a|answer_b|first_answer|second_answer|image)\b)", re.IGNORECASE
)
CONTROL_TOKEN = re.compile(r"<(?=\|)")
MEANING = {"Yes": "correct", "No": "not correct"}
VERDICTS = {Kind.POINTWISE: ("Yes", "No"), Kind.PAIRWISE: ("A", "B")}
VERDICT_LIKE = frozenset({"a", "b", "yes", "no"})
NO_LETTER = re.compile(r"\\[A-Za-z]+|[\W\d_]")
"""What may stand around a letter or word that is a gold: a command, brackets, marks."""


@dataclass(frozen=True, slots=True)
class WrittenPrompt:
    """A prompt that needs no label: what test time asks, and what a task is made from.

    `label_map`: where a judge is asked for other words than Yes and No, or A and B in pairs: what each word means.
    """

    template_id: str
    messages: tuple[Message, ...]
    label_map: Mapping[str, str] | None = None


def solve_task(problem: Problem, *, seed: int, round: int) -> Task:
    """The solve task of a problem in a round; its template is drawn by key."""
    rng = keyed_random(seed, "template", round, problem.id)
    written = solve_prompt(problem, rng)
    return Task(
        id=f"{round:06d}-solve-{content_hash(problem.id)}",
        kind=Kind.SOLVE,
        origin=Origin.PROBLEM,
        problem_id=problem.id,
        messages=written.messages,
        images=problem.images,
        label=problem.gold,
        verifier=problem.verifier,
        template_id=written.template_id,
        round=round,
    )


def pointwise_task(
    problem: Problem, candidate: Rollout, *, origin: Origin, view: View, mixed: bool, seed: int, round: int
) -> Task:
    """ "Is this answer correct?" for a scored rollout; label "Yes" or "No" from its verifier."""
    task, rng = _recycled(Kind.POINTWISE, problem, (candidate,), origin, view, mixed, seed, round)
    written = pointwise_prompt(problem, candidate.text, view, rng)
    return replace(
        task,
        template_id=written.template_id,
        label="Yes" if _is_correct(candidate) else "No",
        label_map=written.label_map,
        messages=written.messages,
        verifier="verdict",
    )


def pairwise_task(
    problem: Problem,
    correct: Rollout,
    wrong: Rollout,
    *,
    origin: Origin,
    view: View,
    mixed: bool,
    seed: int,
    round: int,
) -> Task:
    """ "Which of the two is correct?"; a fair coin says which stands first."""
    task, rng = _recycled(Kind.PAIRWISE, problem, (correct, wrong), origin, view, mixed, seed, round)
    template = rng.choice(templates_of(Kind.PAIRWISE, apart=answers_like_verdicts(problem)))
    gold_position = rng.choice(("A", "B"))
    first, second = (correct, wrong) if gold_position == "A" else (wrong, correct)
    written = pairwise_prompt(problem, template, first.text, second.text, view)
    return replace(
        task,
        template_id=template.id,
        label=gold_position,
        gold_position=gold_position,
        sources=(first.id, second.id),
        source_correct=(_is_correct(first), _is_correct(second)),
        messages=written.messages,
        label_map=written.label_map,
        verifier="verdict",
    )


def reflection_task(
    problem: Problem, candidate: Rollout, *, origin: Origin, view: View, mixed: bool, seed: int, round: int
) -> Task:
    """ "Check this earlier answer", in the same neutral words whether it was correct or not; label gold."""
    task, rng = _recycled(Kind.REFLECTION, problem, (candidate,), origin, view, mixed, seed, round)
    written = reflection_prompt(problem, candidate.text, view, rng)
    return replace(
        task,
        template_id=written.template_id,
        label=problem.gold,
        messages=written.messages,
        verifier=problem.verifier,
    )


def solve_prompt(problem: Problem, rng: Random) -> WrittenPrompt:
    """The problem itself; `rng` draws the template."""
    template = rng.choice(templates_of(Kind.SOLVE))
    return WrittenPrompt(template.id, fill(template, problem, {}))


def pointwise_prompt(problem: Problem, text: str, view: View, rng: Random) -> WrittenPrompt:
    """ "Is this answer correct?" about a response; `rng` draws the template, then its letters if it has any."""
    template = rng.choice(templates_of(Kind.POINTWISE, apart=answers_like_verdicts(problem)))
    letters = draw_letters(rng) if template.letters else None
    places = {"candidate": show(text, view)} | letter_places(letters)
    return WrittenPrompt(template.id, fill(template, problem, places), letters or word_map(template))


def pairwise_prompt(problem: Problem, template: Template, first: str, second: str, view: View) -> WrittenPrompt:
    """ "Which of the two is correct?" about two responses in the order given; draws nothing."""
    places = {"first": show(first, view), "second": show(second, view)}
    return WrittenPrompt(template.id, fill(template, problem, places), word_map(template))


def answers_like_verdicts(problem: Problem) -> bool:
    """Whether an answer to this problem could be taken for a verdict: options, or a gold such as Yes, No or (A)."""
    if problem.verifier == "choice" or problem.meta.get("choices"):
        return True
    return NO_LETTER.sub("", problem.gold).casefold() in VERDICT_LIKE


def word_map(template: Template) -> Mapping[str, str] | None:
    """What the words mean that a judge is asked for, where they are not the usual ones."""
    return dict(zip(template.words, VERDICTS[template.kind], strict=True)) if template.words else None


def reflection_prompt(problem: Problem, text: str, view: View, rng: Random) -> WrittenPrompt:
    """ "Check this earlier answer" about a response; `rng` draws the template."""
    template = rng.choice(templates_of(Kind.REFLECTION))
    return WrittenPrompt(template.id, fill(template, problem, {"candidate": show(text, view)}))


def show(text: str, view: View) -> str:
    """What a prompt shows of a response: its last box's content (answer view), or all that is outside thoughts.

    No view shows thinking. A response without an answer, or in full view of nothing but thoughts, is shown as
    "(no answer)".
    """
    shown = final_part(text).strip() if view is View.FULL else read_answer(text)
    return shown or "(no answer)"


def draw_letters(rng: Random) -> Mapping[str, str]:
    """Which letter means which verdict, by a fair coin."""
    yes = rng.choice("AB")
    return {"A": "Yes" if yes == "A" else "No", "B": "Yes" if yes == "B" else "No"}


def letter_places(letters: Mapping[str, str] | None) -> dict[str, str]:
    """The `{a}` and `{b}` of a template that asks for letters."""
    return {letter.lower(): MEANING[verdict] for letter, verdict in letters.items()} if letters else {}


def fill(template: Template, problem: Problem, places: Mapping[str, str]) -> tuple[Message, ...]:
    """A user message with the template's places filled; images stand where the question marks them, else first.

    Worked examples stand before it as earlier turns where the problem asks for them.

    Raises:
        KeyError: the template has a place that was not given.
    """
    parts: list[TextPart | ImagePart] = []
    position = 0
    for match in PLACE.finditer(template.text):
        parts.append(TextPart(template.text[position : match.start()]))
        name = match.group(1)
        parts += question_parts(problem) if name == "question" else [TextPart(_defuse(places[name]))]
        position = match.end()
    parts.append(TextPart(template.text[position:]))
    return (*example_turns(template, problem, places), Message("user", _joined(parts)))


def question_parts(problem: Problem) -> list[TextPart | ImagePart]:
    """The question with its images: at their marks if there is one mark per image, otherwise before the text."""
    if not problem.images:
        return [TextPart(problem.question)]
    pieces = problem.question.split(IMAGE_MARK)
    if len(pieces) - 1 != len(problem.images):
        return [*(ImagePart(i) for i in range(len(problem.images))), TextPart(problem.question)]
    parts: list[TextPart | ImagePart] = [TextPart(pieces[0])]
    for index, piece in enumerate(pieces[1:]):
        parts += [ImagePart(index), TextPart(piece)]
    return parts


def _recycled(
    kind: Kind,
    problem: Problem,
    sources: tuple[Rollout, ...],
    origin: Origin,
    view: View,
    mixed: bool,
    seed: int,
    round: int,
) -> tuple[Task, Random]:
    """A task with everything but its prompt and label, and the generator for its remaining draws."""
    ids = tuple(source.id for source in sources)
    task = Task(
        id=f"{round:06d}-{kind}-{content_hash(origin, *ids)}",
        kind=kind,
        origin=origin,
        problem_id=problem.id,
        messages=(),
        images=problem.images,
        label="",
        verifier="",
        template_id="",
        round=round,
        view=view,
        sources=ids,
        source_policy_version=sources[0].policy_version,
        source_correct=tuple(_is_correct(source) for source in sources),
        source_group_mixed=mixed,
    )
    return task, keyed_random(seed, "template", round, task.id)


def _is_correct(rollout: Rollout) -> bool:
    if rollout.score is None or rollout.score.correct is None:
        raise ValueError(f"rollout {rollout.id} has no verifier's finding and cannot be a source")
    return rollout.score.correct


def _defuse(text: str) -> str:
    """Model text that can no longer be taken for our tags, for an image, or for a chat's control token (`<|...|>`)."""
    return CONTROL_TOKEN.sub("< ", OWN_TAG.sub(r"&lt;\1", final_part(text)))


def _joined(parts: list[TextPart | ImagePart]) -> tuple[TextPart | ImagePart, ...]:
    """Neighbouring texts made one, empty ones dropped."""
    joined: list[TextPart | ImagePart] = []
    for part in parts:
        if isinstance(part, TextPart):
            if not part.text:
                continue
            if joined and isinstance(joined[-1], TextPart):
                joined[-1] = TextPart(joined[-1].text + part.text)
                continue
        joined.append(part)
    return tuple(joined)
