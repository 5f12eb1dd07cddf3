"""A run whose problems and outputs try to take over the page that shows them, with a test-time loop as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from spark_kernel.records import Group, Problem
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_round
from workbench.recorded import recorded_run

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>![x](http://evil.example/a.png)\n\n"
    "[click](javascript:alert(3)) $\\href{javascript:alert(4)}{x}$ </div><iframe src=//evil.example></iframe>"
    " \\boxed{<b onclick=alert(5)>7</b>}"
)
"""A script, handlers, a frame, links and images from elsewhere, as HTML, Markdown and formula."""
TAKEN = "<script>window.taken = 1</script><img src=http://evil.example/b.png onerror='window.taken = 1'>"
"""Leaves a mark in the page where it is run."""
ACTIVE = "script, iframe, img:not([src^='data:']), [onerror], [onclick], [onload], a[href^='javascript']"
"""What must not come of it."""
Key = TypeVar("Key")


def write_hostile_run(folder: Path) -> Path:
    """One round, and the loop of the recorded run's evaluation over it, with every text replaced."""
    records, _, report = make_round(1)
    recorded = RunReader(recorded_run())
    evaluation = recorded.read_evaluation(recorded.evaluations[0])
    loop = {part: groups for part, groups in evaluation.groups.items() if part.startswith("loop/")}
    lines = recorded.evaluation(recorded.evaluations[0])["lines"]
    writer = RunWriter.create(folder, CONFIG, ENVIRONMENT)
    writer.write_evaluation(
        replace(evaluation, problems=_problems(evaluation.problems), groups=_groups(loop)), {"lines": lines}
    )
    writer.finish_round(replace(records, problems=_problems(records.problems), groups=_groups(records.groups)), report)
    writer.close("finished")
    return folder


def _problems(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    question = f"{HOSTILE} {TAKEN} {{{{constructor}}}} ${{alert(6)}}"
    return tuple(replace(problem, question=question) for problem in problems)


def _groups(groups: Mapping[Key, tuple[Group, ...]]) -> dict[Key, tuple[Group, ...]]:
    text = f"{HOSTILE} {TAKEN} ${{window.taken = 1}}"
    return {
        part: tuple(replace(g, rollouts=tuple(replace(r, text=text) for r in g.rollouts)) for g in found)
        for part, found in groups.items()
    }
