"""What the flag of a one-sided judge says, in one sentence with its numbers."""

from __future__ import annotations

from collections.abc import Mapping


def one_sided_sentence(figures: Mapping[str, float | int | bool | None]) -> str | None:
    """Which verdict, how often, of how many, and how often it is right; None where the judge is not one-sided.

    Args:
        figures: as `JudgeMetrics.to_dict` names them; of pairs there is no `yes_rate`, and A stands for the first.
    """
    if not figures.get("one_sided"):
        return None
    pointwise = figures.get("yes_rate") is not None
    said, other = ("Yes", "No") if pointwise else ("A", "B")
    rate, base, n = figures.get("yes_rate" if pointwise else "a_rate"), figures.get("base_rate"), figures.get("parsed")
    if rate is None or base is None or n is None:
        return "It gives nearly always the same verdict."
    if rate < 0.5:
        said, rate, base = other, 1 - rate, 1 - base
    return f'It says "{said}" in {rate:.0%} of {int(n)} readable verdicts, where "{said}" is right in {base:.0%}.'
