r"""The prompts: plain, neutral, several per kind. Ours; every one asks for exactly one `\boxed{}`.

Tags delimit the problem and the candidate. `{question}`, `{candidate}`, `{first}`, `{second}`, `{a}` and `{b}` are
filled by `prompts.build`, which keeps images apart from text and defuses tags inside model text; what is in a box is
no place.
"""

from __future__ import annotations

from dataclasses import dataclass

from spark_kernel.records import Kind


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with named places. `letters`: asks for A/B with meanings drawn per task instead of Yes/No.

    `words`: asks for these two words instead of Yes/No, or of A/B in pairs, in this order; for problems whose answers
    could be taken for those.
    """

    id: str
    kind: Kind
    text: str
    letters: bool = False
    words: tuple[str, str] | None = None


PROBLEM = "<problem>\n{question}\n</problem>\n"
ANSWER = "<answer>\n{candidate}\n</answer>\n"
PAIR = "<answer_a>\n{first}\n</answer_a>\n<answer_b>\n{second}\n</answer_b>\n"
ORDERED_PAIR = "<first_answer>\n{first}\n</first_answer>\n<second_answer>\n{second}\n</second_answer>\n"
JUDGED, CHOSEN = ("correct", "incorrect"), ("first", "second")

TEMPLATES: tuple[Template, ...] = (
    Template("solve-1", Kind.SOLVE, r"{question}" + "\n" + r"Work it out, then give the final answer in \boxed{}."),
    Template("solve-2", Kind.SOLVE, r"{question}" + "\n" + r"Show your steps and end with the answer in \boxed{}."),
    Template(
        "solve-3",
        Kind.SOLVE,
        r"Solve this problem and put the final answer in \boxed{}." + "\n" + r"{question}",
    ),
    Template(
        "pointwise-1",
        Kind.POINTWISE,
        PROBLEM + ANSWER + r"Is this answer correct? Work it out yourself, then write \boxed{Yes} or \boxed{No}.",
    ),
    Template(
        "pointwise-2",
        Kind.POINTWISE,
        "Judge the answer to this problem.\n"
        + PROBLEM
        + ANSWER
        + r"Check it step by step. End with \boxed{Yes} if it is correct and \boxed{No} if it is not.",
    ),
    Template(
        "pointwise-3",
        Kind.POINTWISE,
        PROBLEM + ANSWER + r"Work it out yourself, then judge the answer: \boxed{A} means {a}, \boxed{B} means {b}.",
        letters=True,
    ),
    Template(
        "pointwise-4",
        Kind.POINTWISE,
        PROBLEM
        + ANSWER
        + r"Is this answer correct? Work it out yourself, then write \boxed{correct} or \boxed{incorrect}.",
        words=JUDGED,
    ),
    Template(
        "pointwise-5",
        Kind.POINTWISE,
        "Judge the answer to this problem.\n"
        + PROBLEM
        + ANSWER
        + r"Check it step by step and end with your judgement, \boxed{correct} or \boxed{incorrect}.",
        words=JUDGED,
    ),
    Template(
        "pairwise-1",
        Kind.PAIRWISE,
        PROBLEM + PAIR + r"One answer is correct. Work it out yourself, then write \boxed{A} or \boxed{B}.",
    ),
    Template(
        "pairwise-2",
        Kind.PAIRWISE,
        "Compare two answers to this problem.\n"
        + PROBLEM
        + PAIR
        + r"Which is correct? Check step by step and end with \boxed{A} or \boxed{B}.",
    ),
    Template(
        "pairwise-3",
        Kind.PAIRWISE,
        PROBLEM
        + ORDERED_PAIR
        + r"One answer is correct. Work it out yourself, then write \boxed{first} or \boxed{second}.",
        words=CHOSEN,
    ),
    Template(
        "pairwise-4",
        Kind.PAIRWISE,
        "Compare two answers to this problem.\n"
        + PROBLEM
        + ORDERED_PAIR
        + r"Which is correct? Check step by step and end with \boxed{first} or \boxed{second}.",
        words=CHOSEN,
    ),
    Template(
        "reflection-1",
        Kind.REFLECTION,
        PROBLEM
        + ANSWER
        + "Check this earlier answer: keep it if it is right, correct it if it is wrong. "
        + r"Give the final answer in \boxed{}.",
    ),
    Template(
        "reflection-2",
        Kind.REFLECTION,
        PROBLEM
        + ANSWER
        + r"Look at this answer again, step by step, and end with the answer you now hold to be right in \boxed{}.",
    ),
)


def templates_of(kind: Kind, *, apart: bool = False) -> tuple[Template, ...]:
    """The templates of a kind; for judging with `apart` those whose verdicts are words that no answer is."""
    wanted = apart and kind.judges
    return tuple(template for template in TEMPLATES if template.kind is kind and (template.words is not None) is wanted)


def template_by_id(template_id: str) -> Template:
    """The template with this id.

    Raises:
        KeyError: no such template.
    """
    for template in TEMPLATES:
        if template.id == template_id:
            return template
    raise KeyError(template_id)
