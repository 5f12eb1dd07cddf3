"""The table of tricky answers: every line is scored by the real verifier it names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from spark_kernel.errors import ProblemError
from spark_kernel.records import Parse, Problem
from spark_kernel.verify import get_verifier, score_request
from tests.helpers.verify import request

PAIRS = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "answer_pairs.jsonl").read_text("utf-8").splitlines()
]
VERIFIERS = {name: get_verifier(name) for name in ("math", "choice", "exact", "integer", "numeric")}


def test_the_table_is_large_and_has_no_line_twice() -> None:
    lines = [json.dumps({k: v for k, v in pair.items() if k != "note"}, sort_keys=True) for pair in PAIRS]
    assert len(lines) == len(set(lines)) >= 150
    assert min(Counter(pair["correct"] for pair in PAIRS).values()) >= 75
    assert set(VERIFIERS) == {pair["verifier"] for pair in PAIRS}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p['verifier']}-{p['note']}-{p['output']}"[:70])
def test_pair(pair: dict) -> None:
    asked = request(pair["output"], pair["gold"], pair["verifier"], meta=pair.get("meta"))
    verifier = VERIFIERS[pair["verifier"]]
    verifier.check_gold(asked.problem)
    score = score_request(asked, 1.0, verifier)
    assert (score.correct, score.parse) == (pair["correct"], Parse(pair["parse"])), score.reason
    assert score.reward == float(pair["correct"])
    assert (score.answer is None) == (score.parse is not Parse.OK)


@pytest.mark.parametrize(
    ("verifier", "gold", "meta", "says"),
    [
        ("math", "", {}, "empty"),
        ("math", r"\frac{1}", {}, "not readable as mathematics"),
        ("math", "}{", {}, "braces"),
        ("integer", "2.5", {}, "whole number"),
        ("integer", "many", {}, "whole number"),
        ("numeric", "many", {}, "not a number"),
        ("numeric", "5", {"rel_tol": -1}, "rel_tol"),
        ("numeric", "5", {"abs_tol": "wide"}, "abs_tol"),
        ("choice", "AB", {}, "a letter"),
        ("choice", "E", {"choices": ["1", "2"]}, "one of A, B"),
        ("choice", "A", {"choices": "12"}, "choices"),
        ("exact", " ", {}, "empty"),
        ("exact", "a", {"ignore_case": "yes"}, "ignore_case"),
        ("verdict", "Yes", {}, "judge tasks"),
    ],
)
def test_a_gold_its_verifier_cannot_use_is_refused_in_a_sentence(
    verifier: str, gold: str, meta: dict, says: str
) -> None:
    with pytest.raises(ProblemError, match=says) as raised:
        get_verifier(verifier).check_gold(Problem("p-17", "What?", gold, verifier, meta=meta))
    message = str(raised.value)
    assert "p-17" in message
    assert message.endswith(".")
    assert "\n" not in message


def test_gold_and_prediction_are_not_swapped() -> None:
    """An equation answers a plain gold, and an assignment is stripped from the gold only if it is one."""
    assert score_request(request(r"\boxed{2x + z = 1}", "1", "math")).correct
    assert not score_request(request(r"\boxed{1}", "2x + z = 1", "math")).correct
