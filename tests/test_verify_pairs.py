"""The tables of tricky answers: every line is scored by the real verifier it names.

`answer_pairs.jsonl` is the first table, one line per curiosity; `answer_kinds.jsonl` holds kinds of answers that went
wrong in the field, each with neighbours, right ones that must be accepted and wrong ones that must be refused.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from spark_kernel.errors import ProblemError
from spark_kernel.records import Parse, Problem
from spark_kernel.verify import get_verifier, score_request
from tests.helpers.verify import request

DATA = Path(__file__).parent / "data"


def table(name: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


PAIRS = table("answer_pairs.jsonl")
KINDS = table("answer_kinds.jsonl")
VERIFIERS = {name: get_verifier(name) for name in ("math", "choice", "exact", "integer", "numeric")}


def test_the_table_is_large_and_has_no_line_twice() -> None:
    lines = [json.dumps({k: v for k, v in pair.items() if k != "note"}, sort_keys=True) for pair in PAIRS]
    assert len(lines) == len(set(lines)) >= 150
    assert min(Counter(pair["correct"] for pair in PAIRS).values()) >= 75
    assert set(VERIFIERS) == {pair["verifier"] for pair in PAIRS}


def test_every_kind_has_answers_of_both_sorts() -> None:
    sorts: dict[str, set[bool]] = {}
    for row in KINDS:
        sorts.setdefault(row["kind"], set()).add(row["correct"])
    assert len(sorts) >= 30
    assert all(found == {True, False} for found in sorts.values()), sorts


@pytest.mark.parametrize("pair", KINDS, ids=lambda p: f"{p['kind']}-{p['gold']}-{p['output']}"[:70])
def test_pair_of_a_kind(pair: dict) -> None:
    check(pair)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: f"{p['verifier']}-{p['note']}-{p['output']}"[:70])
def test_pair(pair: dict) -> None:
    check(pair)


def check(pair: dict) -> None:
    asked = request(
        pair["output"],
        pair["gold"],
        pair["verifier"],
        meta=pair.get("meta"),
        question=pair.get("question", "What?"),
    )
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
        ("math", "The answer is 42.", {}, '"The answer is" stands around its value'),
        ("math", "42 is the answer", {}, "stands around its value"),
        ("math", "9 (apples)", {}, r'"\(apples\)" stands around its value'),
        ("math", "(D) 25", {}, 'the verifier "choice" with the gold "D"'),
        ("math", "A. 5", {}, 'the verifier "choice" with the gold "A"'),
        ("math", "3 apples and 2 oranges", {}, "not readable as mathematics"),
        ("math", "It takes 3 days", {}, "not readable as mathematics"),
        ("math", "2+1=<<2+1=3>>3.\n#### 3", {}, 'options.format = "gsm8k"'),
        ("math", "#### 42", {}, 'options.format = "gsm8k"'),
        ("math", r"We get $\boxed{42}$.", {}, 'options.format = "math"'),
        ("math", "<answer>42</answer>", {}, "stands in tags"),
        ("math", '["4", "5"]', {}, 'meta\\["any_of"\\]'),
        ("math", "2+3=6", {}, "not readable as mathematics"),
        ("math", r"\frac{1}{0}", {}, "no value"),
        ("math", "(1,000)", {}, "a pair or thousands in brackets"),
        ("math", "proof", {}, "missing answer"),
        ("math", "notfound", {}, "missing answer"),
        ("math", "See solution.", {}, "missing answer"),
        ("math", "None", {}, "missing answer"),
        ("math", r"\text{N/A}", {}, "missing answer"),
        ("math", "5", {"form": "loose"}, "asked, value, free"),
        ("math", "<think>5", {}, "tag of thinking"),
        ("integer", "#### 42", {}, 'options.format = "gsm8k"'),
        ("integer", "The answer is 42", {}, "stands around its value"),
        ("numeric", "(D) 25", {}, 'the verifier "choice"'),
        ("choice", "(D) 25", {}, 'write the gold "D" alone'),
        ("choice", "A) 15", {"choices": ["12", "15"]}, "one of A, B"),
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
    """A label answers either way round; an equation that is none answers no plain gold, nor does its right side."""
    assert score_request(request(r"\boxed{\pi}", r"3.14159265", "math")).correct
    assert not score_request(request(r"\boxed{2x + z = 1}", "1", "math")).correct
    assert not score_request(request(r"\boxed{1}", "2x + z = 1", "math")).correct
    assert score_request(request(r"\boxed{x = 1}", "1", "math")).correct
    assert score_request(request(r"\boxed{1}", "x = 1", "math")).correct


USABLE = """3,250|-7|0.5|1\\frac{1}{4}|(3,4)|\\{1,2\\}|[2,5)|x^2-1|y=2x+3|\\text{Friday}|two|10\\%|\\$18.90|15^\\circ
2220_5|4:30|3 hours 30 minutes|AB|\\angle A|\\begin{pmatrix}1\\\\2\\end{pmatrix}|x<-1 \\text{ or } x>2
\\mathbb{R}|\\emptyset|100!|10^{10^{10}}|3 \\pm 2\\sqrt{2}|\\int_0^1 f(x)\\,dx|n \\in \\mathbb{Z}
(x-1)^2+y^2=9|A, B, D|5 \\text{ or } 7|\\frac{n!}{k!}|1:2|2020-01-02|12 noon|5\\text{ cm}^2|偶数
0.\\overline{1331}|-\\infty|E|e|i|yes|7 \\pmod{10}|4a-2"""


@pytest.mark.parametrize("gold", [gold for line in USABLE.splitlines() for gold in line.split("|")])
def test_a_gold_that_is_one_value_is_accepted_and_its_own_answer_is_right(gold: str) -> None:
    asked = request(rf"\boxed{{{gold}}}", gold, "math")
    VERIFIERS["math"].check_gold(asked.problem)
    assert score_request(asked, 1.0, VERIFIERS["math"]).correct
