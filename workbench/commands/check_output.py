"""What `workbench check` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.problems.inspection import Inspection
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.records import ExclusionReason, Parse, Problem, Score
from workbench.reporting.console import plain_table

MOST_REFUSED = 10
LONGEST_CELL = 240
SHARES = ((0.5, "median"), (0.9, "90 %"), (0.99, "99 %"), (1.0, "longest"))


def print_rows(console: Console, file: str, recognised: str, found: Inspection) -> None:
    """How many rows there are, what became of them, and why some are refused."""
    repeated, blank = (found.skipped.get(reason, 0) for reason in (ExclusionReason.REPEATED, ExclusionReason.BLANK))
    _say(console, f"{file}: {recognised}")
    _say(
        console,
        f"{found.rows} rows: {len(found.usable)} problems, {len(found.refused)} refused, {repeated} repeated and "
        f"{blank} empty (left out)",
    )
    if len(found.refused) <= MOST_REFUSED:
        for sentence in found.refused:
            _say(console, f"  {sentence}")
        return
    reasons = found.reasons()
    for count, example in reasons[:MOST_REFUSED]:
        _say(console, f"  {count} like this: {example}")
    if len(reasons) > MOST_REFUSED:
        rest = sum(count for count, _ in reasons[MOST_REFUSED:])
        _say(console, f"  and {rest} for {len(reasons) - MOST_REFUSED} other reasons")


def print_types(console: Console, found: Inspection) -> None:
    """What kinds of answers there are."""
    table = plain_table("Answers")
    for name in ("verifier", "kind", "problems", "example"):
        table.add_column(name, justify="right" if name == "problems" else "left")
    for (verifier, kind), (count, example) in found.types.items():
        table.add_row(Text(verifier), kind, str(count), Text(_short(example, 60)))
    console.print(table)


def print_lengths(
    console: Console, found: Inspection, encoder: PromptEncoder, limits: Sequence[tuple[str, int]]
) -> None:
    """How long the prompts are, and how many are longer than what is allowed."""
    figures = ", ".join(f"{name} {found.percentile(share)}" for share, name in SHARES)
    _say(console, f"Tokens of a prompt under the chat template of {encoder.name}: {figures}")
    for name, limit in limits:
        _say(console, f"  longer than {name} = {limit}: {found.longer_than(limit)}")
    if (shown := sum(bool(problem.images) for problem in found.usable)) and not encoder.reads_images:
        _say(console, f"  {shown} problems have images, and this model reads none: use a vision-language model")


def print_problems(console: Console, found: Inspection, count: int) -> None:
    """The first problems as the model is asked."""
    if not count:
        return
    table = plain_table(f"The first {min(count, len(found.usable))} problems, as the model will see them")
    for name in ("record", "prompt", "gold", "verifier", "tokens"):
        table.add_column(name, justify="right" if name == "tokens" else "left", overflow="fold")
    for problem, length in zip(found.usable[:count], found.lengths, strict=False):
        place = str(problem.meta.get("record", problem.id)).rpartition("/")[2]
        text = _short(solve_task(problem, seed=0, round=1).messages[-1].text, LONGEST_CELL)
        images = f" [{len(problem.images)} images]" if problem.images else ""
        table.add_row(
            Text(place), Text(text + images), Text(_short(problem.gold, 40)), Text(problem.verifier), str(length)
        )
    console.print(table)


def print_first(console: Console, problem: Problem, encoder: PromptEncoder) -> None:
    """The first prompt, whole, as the chat template writes it."""
    (prompt,) = task_prompts([solve_task(problem, seed=0, round=1)], Path())
    _say(console, "The first one under the chat template, whole:")
    _say(console, encoder.chat_text(prompt.messages))


def print_verdict(console: Console, problem: Problem, score: Score, read: str) -> None:
    """What the verifier says of an output, and how it was read."""
    words = {True: "right", False: "wrong", None: "not known"}
    word = "no answer" if score.parse in (Parse.NONE, Parse.AMBIGUOUS) else words[score.correct]
    _say(console, "")
    _say(console, f"The output against {problem.id} (gold {_short(problem.gold, 60)}), by {problem.verifier}: {word}")
    _say(console, f"  reward {score.reward}, parse {score.parse.value}")
    _say(console, f"  looked at: {read}")
    _say(console, f"  answer read: {score.answer if score.answer is not None else 'none'}")
    if score.reason:
        _say(console, f"  reason: {score.reason}")


def _say(console: Console, line: str) -> None:
    console.print(Text(line), soft_wrap=True)


def _short(text: str, limit: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
