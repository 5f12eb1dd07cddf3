from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spark_kernel.errors import InputError
from spark_kernel.problems.reasoning_gym import CHUNK, HASH_ORDERED, ReasoningGymSource, family_names
from spark_kernel.problems.stream import ProblemStream

gym = pytest.importorskip("reasoning_gym")

FAMILIES = ["chain_sum", "leg_counting", "letter_counting", "gcd", "basic_arithmetic", "list_functions", "maze"]


@pytest.mark.parametrize("family", FAMILIES)
def test_problems_depend_on_seed_and_index_only(family: str) -> None:
    forward = [ReasoningGymSource(dataset=family, seed=3).problem(index) for index in range(12)]
    source = ReasoningGymSource(dataset=family, seed=3)
    random.seed(99)
    assert [source.problem(index) for index in reversed(range(12))] == forward[::-1]
    other = ReasoningGymSource(dataset=family, seed=4)
    assert [other.problem(index).question for index in range(12)] != [p.question for p in forward]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stored_entry_scores_its_own_gold_fully(family: str) -> None:
    """The entry goes through a run folder's JSON before the scorer sees it."""
    for index in (0, 5, CHUNK + 1):
        problem = ReasoningGymSource(dataset=family, seed=1).problem(index)
        meta = json.loads(json.dumps(problem.meta))
        assert meta == problem.meta
        assert problem.verifier == "reasoning_gym"
        stored = meta["reasoning_gym"]
        assert (stored["dataset"], stored["entry"]["question"]) == (family, problem.question)
        scorer = gym.create_dataset(family, **stored["config"])
        assert scorer.score_answer(problem.gold, entry=stored["entry"]) == 1.0
        assert scorer.score_answer("no answer at all", entry=stored["entry"]) < 1.0


def test_chunks_and_neighbouring_seeds_do_not_repeat_each_other() -> None:
    settings = {"dataset": "chain_sum", "config": {"min_terms": 6, "max_terms": 6, "min_digits": 4, "max_digits": 4}}
    source, next_seed = ReasoningGymSource(**settings, seed=0), ReasoningGymSource(**settings, seed=1)
    questions = [source.problem(index).question for index in range(2 * CHUNK)]
    assert len(set(questions)) == len(questions)
    assert set(questions).isdisjoint(next_seed.problem(index).question for index in range(200))


def test_the_global_generators_are_left_alone() -> None:
    random.seed(5)
    state = random.getstate()
    ReasoningGymSource(dataset="list_functions", seed=1).problem(3)
    ReasoningGymSource(dataset="pool_matrix", seed=1).problem(3)
    assert random.getstate() == state


def test_a_mixture_follows_its_weights() -> None:
    source = ReasoningGymSource(
        dataset=[{"name": "chain_sum", "weight": 3, "config": {"max_terms": 3}}, {"name": "leg_counting"}], seed=0
    )
    problems = [source.problem(index) for index in range(400)]
    sums = [p for p in problems if p.meta["reasoning_gym"]["dataset"] == "chain_sum"]
    assert 300 - 5 * 75**0.5 < len(sums) < 300 + 5 * 75**0.5
    assert all(p.meta["reasoning_gym"]["config"] == {"max_terms": 3} for p in sums)
    assert max(p.meta["reasoning_gym"]["entry"]["metadata"]["num_terms"] for p in sums) == 3


def test_a_value_that_is_no_json_is_stored_as_text() -> None:
    """gsm_symbolic keeps fractions.Fraction objects in some entries."""
    source = ReasoningGymSource(dataset="gsm_symbolic", seed=11)
    scorer = gym.create_dataset("gsm_symbolic", seed=1)
    for index in range(60):
        entry = json.loads(json.dumps(source.problem(index).meta))["reasoning_gym"]["entry"]
        assert scorer.score_answer(entry["answer"], entry) == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "chain_sums"}, r'no family "chain_sums"; nearest: .*chain_sum'),
        ({"dataset": "composite"}, r'no family "composite"'),
        (
            {"dataset": "chain_sum", "config": {"max_term": 3}},
            r'no setting "max_term": min_terms, max_terms,.*can be set here',
        ),
        ({"dataset": "chain_sum", "config": {"seed": 3}}, r'no setting "seed"'),
        ({"dataset": "chain_sum", "config": {"min_terms": 0}}, r"refuses the settings .*min_terms must be positive"),
        ({"dataset": "chain_sum", "config": {"min_terms": "x"}}, r"refuses the settings"),
        ({"dataset": "boxnet"}, r"boxnet cannot be used: .*no reference answer"),
        ({"dataset": []}, "must list one or more different families"),
        ({"dataset": [{"name": "gcd"}, {"name": "gcd"}]}, "must list one or more different families"),
        ({"dataset": [{"weight": 2}]}, r'dataset\[0\] needs a "name"'),
        ({"dataset": [{"name": "gcd", "weight": 0}]}, r"dataset\[0\]\.weight = 0 is refused"),
        ({"dataset": [{"name": "gcd", "wieght": 1}]}, r'the field "wieght", which is refused: name, weight, config'),
        ({"dataset": [{"name": "gcd", "config": 3}]}, r"dataset\[0\]\.config = 3 is refused"),
        ({"dataset": [{"name": "gcd"}], "config": {}}, "each entry has its own config"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ReasoningGymSource(**options)


def run_python(code: str, hash_seed: str) -> str:
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": hash_seed}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_problems_are_the_same_in_every_process() -> None:
    code = (
        "from spark_kernel.problems.reasoning_gym import ReasoningGymSource\n"
        f"for family in {FAMILIES}:\n"
        "    source = ReasoningGymSource(dataset=family, seed=2)\n"
        "    print([source.problem(index) for index in range(20)])\n"
    )
    assert run_python(code, "1") == run_python(code, "2")


@pytest.mark.slow
def test_families_that_differ_per_process_need_a_fixed_hash_seed() -> None:
    code = (
        "from spark_kernel.errors import InputError\n"
        "from spark_kernel.problems.reasoning_gym import ReasoningGymSource\n"
        "try: print(ReasoningGymSource(dataset='isomorphic_strings').problem(0).question)\n"
        "except InputError as error: print(error)\n"
    )
    assert "set the environment variable PYTHONHASHSEED=0" in run_python(code, "1")
    fixed = run_python(code, "0")
    assert "PYTHONHASHSEED" not in fixed
    assert fixed == run_python(code, "0")


def test_the_exceptions_are_families() -> None:
    assert set(family_names()) > HASH_ORDERED


def test_an_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(InputError, match=r'pip install "spark-workbench\[reasoning-gym\]"'):
        ReasoningGymSource(dataset="chain_sum")


def test_a_stream_over_a_family() -> None:
    stream = ProblemStream(ReasoningGymSource(dataset="chain_sum", seed=0), seed=0, held_out_fraction=0.1)
    taken = stream.take(0, 100, round=1)
    assert stream.trainable_count is None
    held_out = {p.question for p in stream.held_out(30, seed=0)}
    assert len(held_out) == 30
    assert held_out.isdisjoint(p.question for p in taken.problems)
