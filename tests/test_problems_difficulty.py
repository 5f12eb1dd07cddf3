"""Problems chosen by how often their grade is solved: the chances, the walk, and runs that resume with them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.config import RunConfig
from spark_kernel.errors import InputError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.difficulty import LEAST_CHANCE, chance, grade_of, pass_rate, with_answers
from spark_kernel.problems.stream import ProblemStream
from spark_kernel.records import ExclusionReason, Problem
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import fork_run, resume_run, start_run
from tests.helpers.kill_target import killed
from tests.helpers.records import make_group
from tests.helpers.runs import fingerprint, tiny_config


def problem(name: str, **meta: Any) -> Problem:
    return Problem(name, f"question {name}", "1", "integer", meta=meta)


@pytest.mark.parametrize(
    ("meta", "grade"),
    [
        ({"family": "countdown", "level": 2}, "countdown 2"),
        ({"level": "hard"}, "level hard"),
        ({"operations": 3}, "operations 3"),
        ({"level": True}, None),
        ({}, None),
    ],
)
def test_what_a_problem_s_grade_is(meta: dict[str, Any], grade: str | None) -> None:
    assert grade_of(problem("p", **meta)) == grade


def test_a_grade_that_is_solved_half_of_the_time_is_taken_most() -> None:
    grades = {"level 1": (98.0, 98.0), "level 2": (49.0, 98.0), "level 3": (0.0, 98.0)}
    chances = {level: chance(grades, problem("p", level=level)) for level in (1, 2, 3, 4)}
    assert chances[2] == 1.0
    assert chances[4] == 1.0  # nothing is known of it
    assert chances[1] == chances[3] == LEAST_CHANCE
    assert chance(grades, problem("p")) == 1.0
    rate = pass_rate({"level 2": (19.0, 98.0)}, "level 2")
    assert rate == pytest.approx(0.2)
    both = {"level 2": (19.0, 98.0), "level 5": (49.0, 98.0)}
    assert chance(both, problem("p", level=2)) == pytest.approx(4 * 0.2 * 0.8)


def test_answers_of_earlier_rounds_count_less_and_less() -> None:
    problems = {name: problem(name, level=level) for name, level in (("a", 1), ("b", 1), ("c", 2))}
    first = [make_group("a", "q", [[1]] * 4, [1.0, 1.0, 0.0, 0.0]), make_group("b", "q", [[1]] * 4, [1.0] * 4)]
    renamed = {group.task.problem_id: problems[name] for group, name in zip(first, "ab", strict=True)}
    grades = with_answers({}, first, renamed)
    assert grades == {"level 1": (6.0, 8.0)}
    again = with_answers(grades, first[:1], renamed)
    assert again == {"level 1": (0.5 * 6 + 2, 0.5 * 8 + 4)}
    other = {first[0].task.problem_id: problems["c"]}
    assert with_answers(grades, first[:1], other) == {"level 1": (6.0, 8.0), "level 2": (2.0, 4.0)}


def stream_of(seed: int = 0) -> ProblemStream:
    source = ArithmeticSource(seed=seed, min_operations=2, max_operations=4)
    return ProblemStream(source, seed=seed, held_out_fraction=0.2)


def test_the_walk_takes_what_the_chances_say_and_names_what_it_passed_over() -> None:
    grades = {"operations 2": (500.0, 500.0), "operations 3": (250.0, 500.0), "operations 4": (0.0, 500.0)}
    taken = stream_of().take(0, 800, round=1, grades=grades)
    count = Counter(grade_of(p) for p in taken.problems)
    passed = [e for e in taken.exclusions if e.reason is ExclusionReason.DIFFICULTY]
    assert len(taken.problems) == 800
    assert count["operations 3"] > 0.7 * 800
    for hard in ("operations 2", "operations 4"):
        share = count[hard] / (count[hard] + sum(e.detail == hard for e in passed))
        assert abs(share - LEAST_CHANCE) < 0.05  # four standard errors of 600
    assert not [e for e in passed if e.detail == "operations 3"]
    # Every position of the walk is a problem that was taken or an exclusion.
    assert taken.cursor == len(taken.problems) + len(taken.exclusions)


def test_the_choice_follows_from_the_position_whatever_was_asked_before() -> None:
    grades = {"operations 2": (90.0, 100.0), "operations 3": (50.0, 100.0), "operations 4": (10.0, 100.0)}
    whole = stream_of().take(0, 60, round=1, grades=grades)
    first = stream_of().take(0, 25, round=1, grades=grades)
    rest = stream_of().take(first.cursor, 35, round=1, grades=grades, besides=first.problems)
    assert (*first.problems, *rest.problems) == whole.problems
    assert rest.cursor == whole.cursor
    assert stream_of().take(0, 60, round=1).problems != whole.problems


def test_problems_the_round_has_already_are_not_taken_again() -> None:
    first = stream_of().take(0, 5, round=1)
    again = stream_of().take(0, 5, round=1, besides=first.problems)
    assert not {p.id for p in first.problems} & {p.id for p in again.problems}
    repeated = [e.subject_id for e in again.exclusions if e.reason is ExclusionReason.REPEATED]
    assert repeated == [p.id for p in first.problems]


# Runs -----------------------------------------------------------------------------------------------------------------


def test_problems_of_one_grade_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to choose by"):
        start_run(tiny_config(tmp_path, problems__difficulty="adaptive"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def chains(base: Path, **overrides: Any) -> RunConfig:
    options = {"min_operations": 1, "max_operations": 3, "max_value": 20}
    problems = {"source": "arithmetic", "options": options, "per_round": 6, "held_out_fraction": 0.2}
    settings = {"problems": {**problems, "difficulty": "adaptive"}, "evaluation__every": 0, "rollout__refill": 0.5}
    return tiny_config(base, **(settings | overrides))


@pytest.mark.slow
def test_killed_anywhere_a_run_resumes_with_the_problems_it_would_have_taken(tmp_path: Path) -> None:
    config = chains(tmp_path)
    with start_run(config, tmp_path / "whole") as trainer:
        trainer.train()
    changes = _changes(config)
    for where, count in (("policy/verify@2", 2), ("policy/recycle@3", 1), ("fsync", 30)):
        assert killed(tmp_path, tmp_path / "run", where, count, changes)
    with resume_run(tmp_path / "run") as trainer:
        trainer.train()
    assert fingerprint(tmp_path / "run") == fingerprint(tmp_path / "whole")
    reader = RunReader(tmp_path / "run")
    state = json.loads((reader.checkpoints[-1].path / "state" / "trainer.json").read_text())
    assert state["grades"] == {name: list(counts) for name, counts in reader.round_meta(4)["grades"].items()}
    assert {name.split()[0] for name in state["grades"]} == {"operations"}
    # By hand, from the rows: what is known after round 1 is that round's own answers.
    problems = {row["id"]: json.loads(row["meta"])["operations"] for row in reader.table("problems", [1]).to_pylist()}
    rows = [row for row in reader.table("rollouts", [1]).to_pylist() if row["kind"] == "solve"]
    own = Counter(f"operations {problems[row['problem_id']]}" for row in rows if row["correct"] is not None)
    right = Counter(f"operations {problems[row['problem_id']]}" for row in rows if row["correct"])
    assert reader.round_meta(1)["grades"] == {grade: [right[grade], own[grade]] for grade in sorted(own)}


@pytest.mark.slow
def test_a_fork_goes_on_with_what_is_known_and_forgets_it_with_other_problems(tmp_path: Path) -> None:
    with start_run(chains(tmp_path, rounds=2), tmp_path / "run") as trainer:
        trainer.train()
        known = dict(trainer.state.grades)
    assert known
    with fork_run(tmp_path / "run", None, tmp_path / "same", {"rounds": 3}) as trainer:
        assert dict(trainer.state.grades) == known
    other = {"rounds": 3, "problems": {"options": {"min_operations": 1, "max_operations": 2, "max_value": 30}}}
    with fork_run(tmp_path / "run", None, tmp_path / "other", other) as trainer:
        assert not trainer.state.grades


def _changes(config: RunConfig) -> dict[str, Any]:
    """What `chains` changes, as JSON for another process."""
    return {
        "problems": config.problems.model_dump(mode="json"),
        "evaluation__every": 0,
        "rollout__refill": config.rollout.refill,
    }
