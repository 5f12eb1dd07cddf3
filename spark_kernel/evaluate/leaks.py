"""Held-out problems must not have been trained on: what a run, and the runs before it, trained on, and the check.

The bucket of held-out problems is a matter of content, so a run never trains on its own. But a larger fraction, or a
problem that counts as another one in another file, can reach into what was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spark_kernel.errors import InputError
from spark_kernel.problems.held_out import CANONICAL_FORM, canonical_text
from spark_kernel.records import Problem
from spark_kernel.runs.configuration import read_config
from spark_kernel.runs.layout import INHERITED, ROUNDS, list_numbers, numbered, read_run_info
from spark_kernel.runs.storage import read_table, write_table
from spark_kernel.runs.tables import problems_table, read_problems

TRAINED = "trained"
"""Folder inside a fork's `inherited/` with the problems that the runs before it trained on."""
NAMED = 20
"""Most problems that a refusal names."""
SHOWN = 60
"""Most characters of a question that a refusal shows."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What weights were trained on. `problems`: by canonical text of the run's own `form`. `of`: the run, in words.

    `complete`: False of a fork that does not say what the runs before it trained on (made by an older version).
    """

    problems: Mapping[str, Problem] = field(default_factory=dict)
    of: str = ""
    form: int = CANONICAL_FORM
    complete: bool = True


def trained_problems(run: Path, last_round: int) -> Trained:
    """The problems of a run's rounds up to `last_round`, and of the runs that it goes on from.

    Raises:
        RunFolderError: a table is damaged.
    """
    inherited = run / INHERITED / TRAINED
    tables = [read_table(inherited, "problems")] if inherited.is_dir() else []
    rounds = [number for number in list_numbers(run / ROUNDS) if number <= last_round]
    tables += [read_table(run / ROUNDS / numbered(number), "problems") for number in rounds]
    form = read_config(run).problems.canonical_form
    found = {canonical_text(problem, form): problem for table in tables for problem in read_problems(table)}
    complete = inherited.is_dir() or read_run_info(run).parent is None
    return Trained(found, f"{run} up to round {last_round}", form, complete)


def check_known(trained: Trained, *, other_problems: bool) -> None:
    """Refuse other problems where nobody knows what was trained on.

    Raises:
        InputError: settings of problems differ, and the run does not say what the runs before it trained on.
    """
    if other_problems and not trained.complete:
        raise InputError(
            f"{trained.of} goes on from a run whose problems are not on record (an older version made the fork), "
            "so nobody can say whether other held-out problems were trained on: leave problems.* as they are."
        )


def write_trained(trained: Trained, run: Path) -> None:
    """Put down in a fork's folder what the runs before it trained on, where that is known.

    Raises:
        RunFolderError: disk full or not writable.
    """
    if not trained.complete:
        return
    folder = run / INHERITED / TRAINED
    folder.mkdir(parents=True)
    write_table(folder, "problems", problems_table(0, trained.problems.values()))


def check_not_trained(held_out: Sequence[Problem], trained: Trained, fraction: float) -> None:
    """Refuse held-out problems that were trained on.

    Raises:
        InputError: some were; says how many, which, and what to do.
    """
    leaked = [problem for problem in held_out if canonical_text(problem, trained.form) in trained.problems]
    if not leaked:
        return
    named = "; ".join(f"{problem.id} ({_short(problem.question)})" for problem in leaked[:NAMED])
    others = f"; and {len(leaked) - NAMED} more" if len(leaked) > NAMED else ""
    raise InputError(
        f"{len(leaked)} of {len(held_out)} held-out problems were trained on by {trained.of}, so they would measure "
        f"memory: {named}{others}. problems.held_out_fraction is {fraction:g}: keep the run's own, or give problems "
        "that it has not seen."
    )


def _short(question: str) -> str:
    line = " ".join(question.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 1]}…"
