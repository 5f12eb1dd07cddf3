"""Data sets in the exact fields in which they are published: rows of our own making in each schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.errors import InputError, ProblemError
from spark_kernel.problems.choices import choices_in
from spark_kernel.problems.fields import find_field
from spark_kernel.problems.files import FilesSource
from spark_kernel.problems.formats.choose import LAYOUTS
from spark_kernel.records import Problem
from spark_kernel.verify.pool import VerifierPool
from tests.helpers.problem_files import SPARK_END, chat, is_right, read, written

DAPO_PROMPT = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\nWhat is 30 + 4?\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
PUBLISHED: dict[str, tuple[dict[str, Any], str, str, str, str]] = {
    # format -> (row, question, gold, verifier, recognised as)
    "gsm8k": (
        {"question": "How many bolts?", "answer": "2/2=<<2/2=1>>1.\nIn all 1,233+1=<<1233+1=1234>>1,234.\n#### 1,234"},
        "How many bolts?",
        "1234",
        "math",
        "gsm8k",
    ),
    "math": (
        {
            "problem": "What is half of 1?",
            "level": "Level 1",
            "type": "Prealgebra",
            "solution": r"First $\boxed{2}$ is wrong; it is $\boxed{\frac{1}{2}}$.",
        },
        "What is half of 1?",
        r"\frac{1}{2}",
        "math",
        "math",
    ),
    "math-500": (
        {
            "problem": "What is 6*7?",
            "solution": r"$\boxed{42}$",
            "answer": "42",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/algebra/1.json",
        },
        "What is 6*7?",
        "42",
        "math",
        "columns",
    ),
    "olympiadbench": (
        {
            "id": 1606,
            "subfield": "Algebra",
            "context": None,
            "question": "Find n.",
            "solution": ["n is 2."],
            "final_answer": ["2"],
            "is_multiple_answer": False,
            "unit": None,
            "answer_type": "Numerical",
            "error": None,
        },
        "Find n.",
        "2",
        "math",
        "olympiadbench",
    ),
    "dapo": (
        {
            "data_source": "math_dapo",
            "prompt": chat(DAPO_PROMPT),
            "ability": "MATH",
            "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b6eb4-a1cb-49d1-8c1e-62eaf2f74079"},
        },
        "What is 30 + 4?",
        "34",
        "math",
        "verl",
    ),
    "verl": (
        {
            "data_source": "openai/gsm8k",
            "prompt": chat('What is 3 + 4? Let\'s think step by step and output the final answer after "####".'),
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "7"},
            "extra_info": {"split": "train", "index": 0, "answer": "#### 7", "question": "What is 3 + 4?"},
        },
        "What is 3 + 4?",
        "7",
        "math",
        "verl",
    ),
    "slime": ({"prompt": chat(DAPO_PROMPT), "label": "34"}, "What is 30 + 4?", "34", "math", "slime"),
    "spark": (
        {"message": json.dumps(chat("What is 5 + 4?" + SPARK_END)), "answer": "9", "images": []},
        "What is 5 + 4?",
        "9",
        "math",
        "spark",
    ),
    "mmlu": (
        {"question": "Which?", "subject": "algebra", "choices": ["w", "x", "y", "z"], "answer": 2},
        "Which?\nA. w\nB. x\nC. y\nD. z",
        "C",
        "choice",
        "mmlu",
    ),
    "mmlu-pro": (
        {
            "question_id": 70,
            "question": "Which?",
            "options": ["w", "x", "y"],
            "answer": "B",
            "answer_index": 1,
            "cot_content": "",
            "category": "business",
            "src": "ori",
        },
        "Which?\nA. w\nB. x\nC. y",
        "B",
        "choice",
        "mmlu-pro",
    ),
    "arc": (
        {
            "id": "Mercury_7",
            "question": "Which?",
            "choices": {"text": ["dry", "wet", "hot", "cold"], "label": ["1", "2", "3", "4"]},
            "answerKey": "3",
        },
        "Which?\nA. dry\nB. wet\nC. hot\nD. cold",
        "C",
        "choice",
        "arc",
    ),
    "aqua": (
        {"question": "How much?", "options": ["A)21", "B)21.5", "C)22"], "rationale": "So.", "correct": "B"},
        "How much?\nA. 21\nB. 21.5\nC. 22",
        "B",
        "choice",
        "aqua",
    ),
    "lettered": (
        {"id": 3, "question": "Which?", "A": "w", "B": "x", "C": "y", "D": "z", "answer": "D", "explanation": ""},
        "Which?\nA. w\nB. x\nC. y\nD. z",
        "D",
        "choice",
        "lettered",
    ),
}


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_row_is_read_by_name_and_recognised(tmp_path: Path, name: str, suffix: str) -> None:
    row, question, gold, verifier, recognised = PUBLISHED[name]
    path = written(tmp_path, f"a.{suffix}", row)
    by_name, by_itself = read(path, format=name), read(path)
    for (found,) in (by_name, by_itself):
        assert (found.question, found.gold, found.verifier) == (question, gold, verifier)
        assert is_right(found, gold)
        assert not is_right(found, "17")
    said = FilesSource(path=str(path)).recognised
    assert f"as {recognised} (" in said or f"by {recognised} (" in said


def test_every_format_has_a_row_here() -> None:
    tested_below = {"columns", "columns-1", "virl39k", "geometry3k"}
    assert set(LAYOUTS) - tested_below == set(PUBLISHED)


def test_all_golds_of_these_rows_pass_the_check(tmp_path: Path) -> None:
    problems = [read(written(tmp_path, "a.jsonl", row))[0] for row, *_ in PUBLISHED.values()]
    with VerifierPool(1, 10.0) as pool:
        assert pool.check_golds(problems) == [None] * len(problems)


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("gsm8k", {"question": "q", "answer": "42"}, "does not end in a line"),
        ("math", {"problem": "q", "solution": "It is 42."}, "has no .boxed"),
        (
            "verl",
            {"prompt": chat("q"), "reward_model": {"style": "rule"}},
            'the gold is missing .field "reward_model.gr',
        ),
        ("arc", {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "A"}, "2 to 26 texts"),
        ("mmlu", {"question": "q", "choices": ["a", "b"], "answer": 2}, "no index of 2 choices: 0 to 1"),
        ("slime", {"prompt": chat("q"), "answer": "1"}, 'the gold is missing .field "label"; present: "prompt", "ans'),
    ],
)
def test_a_row_that_lacks_what_its_format_has_is_named(
    tmp_path: Path, name: str, row: dict[str, Any], reason: str
) -> None:
    path = written(tmp_path, "a.jsonl", row)
    with pytest.raises(ProblemError, match=rf"a\.jsonl:1: .*{reason}"):
        FilesSource(path=str(path), format=name).problem(0)


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"question": "q", "answer": "1"}, {"format": "gsm8"}, 'did you mean "gsm8k"'),
        ({"question": "q", "label": "1", "target": "2"}, {}, "The gold may be in target or label: say which by"),
        ({"query": "q", "prompt": "p", "answer": "2"}, {}, "The question may be in query or prompt: say which by"),
        (
            {"question": "q", "options": ["a", "b"], "answer": "A", "answer_index": 0, "correct": "A"},
            {},
            r"fit the formats mmlu-pro .* and aqua .*: say which by problems\.options\.format",
        ),
        ({"question": "q", "answer": "1"}, {"gold_pattern": "("}, "is no regular expression"),
        ({"question": "q", "answer": "1"}, {"gold_pattern": "(a)(b)"}, "has 2 groups"),
        ({"question": "q", "answer": "1"}, {"columns": {"gold": ["a"]}}, "only choices may name several"),
    ],
)
def test_what_cannot_be_decided_is_one_sentence(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        FilesSource(path=str(written(tmp_path, "a.jsonl", row)), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("gold", ["final_answer", "expected_answer", "ground_truth", "label", "Answer"])
def test_a_less_usual_gold_is_taken_where_it_is_the_only_one(tmp_path: Path, gold: str) -> None:
    (found,) = read(written(tmp_path, "a.jsonl", {"Question": "2 + 2?", gold: "4", "source": "x"}))
    assert (found.question, found.gold) == ("2 + 2?", "4")


def test_nested_columns_by_dotted_path(tmp_path: Path) -> None:
    row = {"task": {"text": "2 + 2?", "keys": ["no", {"gold": "4"}]}, "a.b": "named"}
    columns = {"question": "task.text", "gold": "task.keys.1.gold", "id": "a.b"}
    assert [(p.question, p.gold, p.id) for p in read(written(tmp_path, "a.jsonl", row), columns=columns)] == [
        ("2 + 2?", "4", "named")
    ]
    path = tmp_path / "a.csv"
    path.write_text('question,meta\n2 + 2?,"{""gold"": 4}"\n')
    assert [p.gold for p in read(path, columns={"gold": "meta.gold"})] == ["4"]


@given(
    st.recursive(
        st.integers(),
        lambda inner: st.dictionaries(st.text("ab.", min_size=1, max_size=4), inner, min_size=1, max_size=4),
        max_leaves=12,
    )
)
def test_every_path_of_an_object_finds_a_value(tree: Any) -> None:
    if not isinstance(tree, dict):
        return
    paths: list[str] = []

    def walk(node: dict[str, Any], prefix: str) -> None:
        for name, value in node.items():
            paths.append(prefix + name)
            if isinstance(value, dict):
                walk(value, f"{prefix}{name}.")

    walk(tree, "")
    assert all(find_field(tree, path) is not None for path in paths)


# Golds.


def test_any_of_several_acceptable_golds_is_right(tmp_path: Path) -> None:
    (found,) = read(written(tmp_path, "a.jsonl", {"question": "Solve x^2 = 4.", "answer": ["2", "-2"]}))
    assert (found.gold, found.verifier) == ("2", "any_of")
    assert [is_right(found, answer) for answer in ("2", "-2", "\\frac{4}{2}", "3")] == [True, True, True, False]
    broken = {"verifier": "integer", "golds": ["2", "two"]}
    with VerifierPool(1, 10.0) as pool:
        (fine, fault) = pool.check_golds([found, Problem("p", "q", "2", "any_of", meta={"any_of": broken})])
    assert fine is None
    assert '"two" is no use' in str(fault)


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        ("The answer is 42.", "it is a sentence: problems.options.gold_pattern"),
        ("Answer: 42", "it is a sentence"),
        ("(D) 25", "letter and its text: give the options"),
        ("D. 25", "letter and its text"),
        ("9 (apples)", "a word in brackets"),
        ("proof", "only says that there is none"),
        ("N/A", "only says that there is none"),
    ],
)
def test_a_gold_that_no_answer_would_match_is_refused(tmp_path: Path, gold: str, reason: str) -> None:
    path = written(tmp_path, "a.jsonl", {"question": "q", "answer": gold})
    with pytest.raises(ProblemError, match=reason):
        FilesSource(path=str(path)).problem(0)
    assert read(path, verifier="exact")[0].gold == gold


@pytest.mark.parametrize("gold", ["(A)", "(2, 3)", "5 (mod 7)", "3 (x + 1)", "x = 5", "no solution", "A", "[1, 2]"])
def test_a_gold_that_only_looks_like_it_is_kept(tmp_path: Path, gold: str) -> None:
    assert read(written(tmp_path, "a.jsonl", {"question": "q", "answer": gold}))[0].gold == gold


@pytest.mark.parametrize("mapped", [{}, {"gold": "answer"}])
def test_a_marked_gold_is_read_among_plain_ones(tmp_path: Path, mapped: dict[str, str]) -> None:
    rows = [
        {"question": f"q{n}", "answer": gold} for n, gold in enumerate(["1", "2", "So 1+2=3.\n#### 3", "#### 1,234"])
    ]
    found = read(written(tmp_path, "a.jsonl", *rows[:3], {"question": "x", "answer": "7"}, rows[3]), columns=mapped)
    assert [problem.gold for problem in found] == ["1", "2", "3", "7", "1234"]


def test_a_pattern_says_where_the_gold_is(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "answer": f"I think 7. The answer is {n}."} for n in (41, 42)]
    path = written(tmp_path, "a.jsonl", *rows, {"question": "q", "answer": "Who knows?"})
    source = FilesSource(path=str(path), gold_pattern=r"answer is (.+?)\.$")
    assert [source.problem(index).gold for index in (0, 1)] == ["41", "42"]
    with pytest.raises(ProblemError, match=r"a\.jsonl:3: the gold .* does not match problems\.options\.gold_pattern"):
        source.problem(2)


def test_the_verifier_may_be_chosen_per_record(tmp_path: Path) -> None:
    rows = [
        {"question": "a", "answer": "4"},
        {"question": "b", "answer": "4", "verifier": "integer"},
        {"question": "c", "answer": "A", "choices": ["x", "y"]},
        {"question": "d", "answer": "4", "verifier": "intger"},
        {"question": "e", "answer": "4", "verifier": "os:path"},
    ]
    source = FilesSource(path=str(written(tmp_path, "a.jsonl", *rows)))
    assert [source.problem(index).verifier for index in range(3)] == ["math", "integer", "choice"]
    for index in (3, 4):
        with pytest.raises(ProblemError, match=r"there is no verifier .*: any_of, choice, exact, integer"):
            source.problem(index)
    assert {p.verifier for p in read(tmp_path / "a.jsonl", verifier="numeric")} == {"numeric"}


# Choices.


@pytest.mark.parametrize(
    "choices",
    [
        ["x", "y"],
        {"A": "x", "B": "y"},
        {"b": "y", "a": "x", "c": None},
        {"text": ["x", "y"], "label": ["A", "B"]},
        [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
        ["A. x", "B. y"],
        ["(A) x", "(B) y"],
        '["x", "y"]',
        '{"A": "x", "B": "y"}',
    ],
)
def test_choices_in_any_form_are_the_same(tmp_path: Path, choices: Any) -> None:
    (found,) = read(written(tmp_path, "a.jsonl", {"question": "Which?", "choices": choices, "answer": "B"}))
    assert (found.question, found.gold, found.verifier) == ("Which?\nA. x\nB. y", "B", "choice")
    assert [is_right(found, answer) for answer in ("B", "(B)", "y", "A", "x")] == [True, True, True, False, False]


def test_indices_written_as_text_count_from_where_the_setting_says(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("question,one,two,label\nWhich?,x,y,1\n")
    columns = {"choices": ["one", "two"], "gold": "label"}
    assert [read(path, columns=columns, gold_index=first)[0].gold for first in (0, 1)] == ["B", "A"]
    path.write_text("question,one,two,label\nWhich?,x,y,3\n")
    source = FilesSource(path=str(path), columns=columns, gold_index=1)
    with pytest.raises(ProblemError, match="no index of 2 choices: 1 to 2"):
        source.problem(0)


def test_options_that_the_question_lists_itself(tmp_path: Path) -> None:
    asked = "Look.\nChoices:\n(A) 12\n(B) 15\n(C) 18"
    rows = [{"question": asked, "answer": "\\boxed{B}"}, {"question": "Take (A) first. What is B?", "answer": "B"}]
    listed, other = read(written(tmp_path, "a.jsonl", *rows))
    assert (listed.question, listed.gold, listed.verifier) == (asked, "B", "choice")
    assert listed.meta["choices"] == ["12", "15", "18"]
    assert [is_right(listed, answer) for answer in ("15", "12")] == [True, False]
    assert (other.verifier, other.meta.get("choices")) == ("math", None)


@given(st.lists(st.from_regex(r"[a-z0-9]{1,5}", fullmatch=True), min_size=2, max_size=6), st.sampled_from("().:"))
def test_options_written_under_a_question_are_read_back(texts: list[str], mark: str) -> None:
    dress = {"(": "({}) ", ")": "{}) ", ".": "{}. ", ":": "{}: "}[mark]
    question = "Which?" + "".join(f"\n{dress.format('ABCDEF'[n])}{text}" for n, text in enumerate(texts))
    assert choices_in(question, "A") == texts
    assert choices_in(question, "Z") is None
