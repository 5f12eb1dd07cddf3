"""How far one gets without reading: the best rule that knows only where a task's candidates come from.

A judge that does no better than this may have learnt to tell first answers from reflections and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from spark_kernel.records import Kind, Origin, Task

SOURCE_KIND = re.compile(r"[0-9]+-(solve|reflection)-")
"""How the ids of rollouts that training makes begin (`prompts.build`): the round, then the kind of their task."""


def shortcut(tasks: Iterable[Task], kind: Kind) -> float | None:
    """The share of the tasks of a kind that the best rule gets right which only looks at origin; None without tasks.

    - pointwise: the commoner label among first answers, and among reflections.
    - pairwise: of a first answer against a reflection, the one that is right more often; 1/2 where both are alike.
    - reflection: keeping the earlier answer, which is right where that one was.
    - solve: None; there is nothing to look at.

    The rule is chosen on the very tasks that it is measured on, so of few tasks it promises too much.
    """
    chosen = [task for task in tasks if task.kind is kind]
    if not chosen or kind is Kind.SOLVE:
        return None
    if kind is Kind.REFLECTION:
        return sum(task.source_correct[:1] == (True,) for task in chosen) / len(chosen)
    seen = Counter[tuple[object, bool]]()
    for task in chosen:
        if kind is Kind.POINTWISE:
            seen[task.origin, task.label == "Yes"] += 1
        elif (later := later_is_right(task)) is not None:
            seen[task.origin, later] += 1
    told = sum(max(seen[origin, True], seen[origin, False]) for origin in Origin)
    alike = len(chosen) - seen.total()
    return (told + alike / 2) / len(chosen)


def shortcuts(tasks: Iterable[Task]) -> dict[str, float]:
    """`shortcut` of every kind that has one, by kind."""
    known = list(tasks)
    found = {str(kind): shortcut(known, kind) for kind in Kind}
    return {kind: value for kind, value in found.items() if value is not None}


def later_is_right(task: Task) -> bool | None:
    """Whether the reflection is right in a pair of a first answer and a reflection; None of another pair."""
    kinds = [match[1] if (match := SOURCE_KIND.match(source)) else "" for source in task.sources]
    if sorted(kinds) != [Kind.REFLECTION, Kind.SOLVE]:
        return None
    return task.source_correct[kinds.index(Kind.REFLECTION)]
