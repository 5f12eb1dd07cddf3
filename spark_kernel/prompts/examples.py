r"""Worked examples before a prompt, as earlier turns of the chat, for models too small to keep to `\boxed{}` unaided.

They are asked for by a problem (`meta["worked_examples"]`, set by `problems.worked_examples`), so every prompt about
it carries them: solving, judging, reflecting, in training, evaluation and at test time. Small sums on purpose: they
show the form of an answer, not how to solve a problem.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from spark_kernel.prompts.templates import Template
from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Kind, Message, Problem

META = "worked_examples"
"""The key of a problem's meta that asks for examples."""
PLACE = re.compile(r"(?<!\\boxed)\{(question|candidate|first|second|a|b)\}")


@dataclass(frozen=True, slots=True)
class Example:
    """A small problem, candidates for the prompt's places, the working shown, and what stands in the box."""

    question: str
    places: Mapping[str, str]
    working: str
    box: str


EXAMPLES: Mapping[Kind, tuple[Example, ...]] = {
    Kind.SOLVE: (
        Example("What is 1 + 1?", {}, "1 + 1 = 2. The final answer is", "2"),
        Example("What is 10 - 3?", {}, "10 - 3 = 7. The final answer is", "7"),
        Example("What is 4 + 8?", {}, "4 + 8 = 12. The final answer is", "12"),
    ),
    Kind.POINTWISE: (
        Example("What is 1 + 1?", {"candidate": "3"}, "1 + 1 = 2, and 3 is not 2. The verdict is", "No"),
        Example("What is 10 - 3?", {"candidate": "7"}, "10 - 3 = 7, and 7 is 7. The verdict is", "Yes"),
        Example("What is 4 + 8?", {"candidate": "12"}, "4 + 8 = 12, and 12 is 12. The verdict is", "Yes"),
        Example("What is 9 - 2?", {"candidate": "6"}, "9 - 2 = 7, and 6 is not 7. The verdict is", "No"),
    ),
    Kind.PAIRWISE: (
        Example("What is 1 + 1?", {"first": "3", "second": "2"}, "1 + 1 = 2, which is answer B. It is", "B"),
        Example("What is 10 - 3?", {"first": "7", "second": "8"}, "10 - 3 = 7, which is answer A. It is", "A"),
        Example("What is 4 + 8?", {"first": "12", "second": "11"}, "4 + 8 = 12, which is answer A. It is", "A"),
        Example("What is 9 - 2?", {"first": "6", "second": "7"}, "9 - 2 = 7, which is answer B. It is", "B"),
    ),
    Kind.REFLECTION: (
        Example("What is 1 + 1?", {"candidate": "3"}, "1 + 1 = 2, not 3. The final answer is", "2"),
        Example("What is 10 - 3?", {"candidate": "7"}, "10 - 3 = 7, as it says. The final answer is", "7"),
        Example("What is 4 + 8?", {"candidate": "11"}, "4 + 8 = 12, not 11. The final answer is", "12"),
    ),
}


def example_turns(template: Template, problem: Problem, places: Mapping[str, str]) -> tuple[Message, ...]:
    """The example turns that stand before a prompt: question and answer in alternation; none if not asked for.

    Args:
        places: of the prompt itself; a template that asks for letters takes their meanings from there.
    """
    if not problem.meta.get(META):
        return ()
    turns: list[Message] = []
    for example in EXAMPLES[template.kind]:
        filled = {**places, **example.places, "question": example.question}
        text = PLACE.sub(lambda match, filled=filled: filled[match.group(1)], template.text)  # type: ignore[misc]
        box = _letter(example.box, places) if template.letters else example.box
        working = example.working
        if template.words:
            box = template.words[example.box in ("No", "B")]
            working = working.replace("answer A", "the first answer").replace("answer B", "the second answer")
        turns += [Message.of("user", text), Message.of("assistant", f"{working} {write_box(box)}.")]
    return tuple(turns)


def _letter(verdict: str, places: Mapping[str, str]) -> str:
    """The letter that means a verdict in this prompt."""
    return "A" if (places["a"] == "correct") == (verdict == "Yes") else "B"
