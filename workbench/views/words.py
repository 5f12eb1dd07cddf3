"""What recorded names mean, in the words of somebody who reads the paper (docs/glossary.md)."""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    "capped": "over the number of recycled tasks a round takes",
    "balance": "left out to balance Yes and No",
    "not_selected": "the rule's coin fell on another kind or source",
    "no_source": "no output that the rule could use",
    "no_answer": "no source with an answer that can be read",
    "equal_answers": "both candidates verify as equal",
    "too_old": "waited longer than recycle.max_age rounds",
    "prompt_too_long": "the prompt does not fit",
    "truncated": "cut off at the length limit",
    "zero_variance": "all rewards of the group are equal",
    "kind_off": "this kind is switched off",
    "verifier_timeout": "the verifier ran past its deadline",
    "verifier_crash": "the verifier died",
    "waiting": "still in the queue",
    "update not done": "its update comes later",
}
ORIGINS: Mapping[str, str] = {"solve": "first answer", "reflection": "reflected answer", "problem": "problem"}
VIEWS: Mapping[str, str] = {"answer": "final answer", "full": "whole response"}


def reason_words(reason: str | None) -> str:
    """Why something was left out; a name that is not known as it is recorded."""
    return REASONS.get(reason or "", (reason or "").replace("_", " "))


def origin_words(origin: str) -> str:
    """What a task was made from."""
    return ORIGINS.get(origin, origin)


def view_words(view: str | None) -> str:
    """What a prompt shows of a candidate; empty where it shows none."""
    return VIEWS.get(view or "", view or "")
