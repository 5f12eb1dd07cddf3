"""reasoning-gym's scorers through JSON: the library itself, given the entry it made, is the oracle."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.errors import ProblemError
from spark_kernel.prompts.verdicts import read_answer, write_box
from spark_kernel.records import Kind, Origin, Parse, Problem, Score, Task
from spark_kernel.verify import VerifyRequest, get_verifier, score_request
from spark_kernel.verify.reasoning_gym import EVALUATE_FORMULAS, EVALUATE_LITERALS

rg = pytest.importorskip("reasoning_gym")
from reasoning_gym.factory import DATASETS  # noqa: E402

NAMES = sorted(set(DATASETS) - {"composite"})
QUICK = ["chain_sum", "countdown", "n_queens", "rearc", "spiral_matrix", "graph_color", "prime_factorization"]
VERIFIER = get_verifier("reasoning_gym")


def problem_of(name: str, entry: dict[str, Any], **config: Any) -> Problem:
    """The problem as it comes back from a run folder or a worker: through JSON."""
    meta = json.loads(json.dumps({"reasoning_gym": {"dataset": name, "config": config, "entry": entry}}))
    return Problem(f"{name}-0", entry["question"], entry["answer"] or "", "reasoning_gym", meta=meta)


def score(problem: Problem, answer: str, threshold: float = 1.0) -> Score:
    task = Task("t", Kind.SOLVE, Origin.PROBLEM, problem.id, (), problem.gold, "reasoning_gym", "solve-1", 1)
    return score_request(VerifyRequest(f"So {write_box(answer)}", problem, task), threshold, VERIFIER)


def agrees_with_the_library(name: str) -> None:
    dataset = rg.create_dataset(name, size=3, seed=7)
    entries = [dataset[i] for i in range(3)]
    for entry in entries:
        problem = problem_of(name, entry, size=3, seed=7)
        own = entry["answer"]
        if isinstance(own, str) and read_answer(write_box(own)) != own.strip():
            with pytest.raises(ProblemError, match="braces do not balance"):
                VERIFIER.check_gold(problem)
            continue
        VERIFIER.check_gold(problem)
        if isinstance(own, str):
            assert score(problem, own).correct
        for answer in {str(other["answer"]) for other in entries} | {"0", "abc", "[[1]]", "1 2 3"}:
            if read_answer(write_box(answer)) != answer:
                continue
            found = score(problem, answer)
            try:
                expected = dataset.score_answer(answer, entry)
            except Exception:
                assert found.parse is Parse.NONE
                assert found.reward == 0.0
            else:
                if "run it as Python" not in found.reason:
                    assert found.reward == pytest.approx(expected, abs=0), (answer, found)
                else:
                    assert expected <= 0.05, f"a refused answer was worth {expected}"


@pytest.mark.parametrize("name", QUICK)
def test_a_few_data_sets_score_as_the_library_does(name: str) -> None:
    agrees_with_the_library(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in QUICK])
def test_every_data_set_scores_as_the_library_does(name: str) -> None:
    agrees_with_the_library(name)


def test_every_scorer_that_evaluates_answers_is_known() -> None:
    """A new version of the library with another such scorer must fail here, not run model text as Python."""
    evaluates = re.compile(r"\b(?:eval|exec|parse_expr|sympify|literal_eval)\((?!entry|metadata)")
    found = {name for name in NAMES if evaluates.search(inspect.getsource(DATASETS[name][0].score_answer))}
    assert found == EVALUATE_LITERALS | EVALUATE_FORMULAS


@pytest.mark.parametrize("name", sorted(EVALUATE_LITERALS | EVALUATE_FORMULAS))
def test_model_text_is_never_run_as_python(name: str, tmp_path: Path) -> None:
    dataset = rg.create_dataset(name, size=1, seed=7)
    problem = problem_of(name, dataset[0])
    mark = tmp_path / "mark"
    attack = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    dataset.score_answer(attack, dataset[0])
    assert mark.exists(), "the library runs it, so the guard is needed"
    mark.unlink()
    for answer in (attack, f"[{attack}]", "().__class__", "lambda: 0", "exit()", "N.x", "open(x)"):
        found = score(problem, answer)
        assert (found.reward, found.correct, found.parse) == (0.0, False, Parse.OK)
        assert "run it as Python" in found.reason
    assert not mark.exists()


def test_formulas_and_literals_still_get_their_graded_reward() -> None:
    entry = {"question": "", "answer": "1 2", "metadata": {}}
    assert score(problem_of("spiral_matrix", entry), "[1, 2]").reward == 0.1
    countdown = {"question": "", "answer": "2*(3+4)", "metadata": {"numbers": [2, 3, 4], "target": 14}}
    assert score(problem_of("countdown", countdown), "(4+3) * 2").correct
    assert score(problem_of("countdown", countdown), "2+3+4").reward == 0.05
    integral = {"question": "", "answer": "x**2", "metadata": {"variable": "x", "integrand": "2*x + exp(x)"}}
    assert score(problem_of("simple_integration", integral), "x**2 + exp(x) + C").correct


def test_the_threshold_decides_over_a_graded_reward() -> None:
    entry = {"question": "", "answer": "1 2", "metadata": {}}
    problem = problem_of("spiral_matrix", entry)
    assert score(problem, "[1, 2]", 0.1).correct is True
    assert score(problem, "[1, 2]", 0.2).correct is False


def test_the_scorer_uses_the_configuration_of_the_problem() -> None:
    """puzzle24 refuses numbers above its own max_value."""
    entry = {"question": "", "answer": None, "metadata": {}}
    wide, narrow = (problem_of("puzzle24", entry, min_value=1, max_value=top) for top in (10, 6))
    assert score(wide, "10+9+4+1").correct
    assert not score(narrow, "10+9+4+1").correct


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({}, "must hold"),
        ({"reasoning_gym": {"dataset": "chain_sum", "entry": {}}}, "must hold"),
        ({"reasoning_gym": {"dataset": "no_such", "entry": {"answer": "1", "metadata": {}}}}, "no single data set"),
        ({"reasoning_gym": {"dataset": "composite", "entry": {"answer": "1", "metadata": {}}}}, "no single data set"),
        (
            {
                "reasoning_gym": {
                    "dataset": "chain_sum",
                    "config": {"sise": 3},
                    "entry": {"answer": "1", "metadata": {}},
                }
            },
            "refuses its configuration",
        ),
        ({"reasoning_gym": {"dataset": "sudoku", "entry": {"answer": "1", "metadata": {}}}}, "own answer"),
    ],
)
def test_a_malformed_entry_is_refused_before_training(meta: dict, says: str) -> None:
    with pytest.raises(ProblemError, match=says):
        VERIFIER.check_gold(Problem("p", "?", "1", "reasoning_gym", meta=meta))
