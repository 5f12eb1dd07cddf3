"""`workbench check`: what a person sees of a problem file before training."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ProblemError
from spark_kernel.models.load import load_encoder
from spark_kernel.problems.answer_types import answer_type
from spark_kernel.problems.files import FilesSource
from spark_kernel.problems.inspection import Inspection, inspect_source
from spark_kernel.prompts.build import solve_task
from spark_kernel.prompts.prompt import task_prompts
from spark_kernel.records import ExclusionReason, Problem
from spark_kernel.verify.pool import VerifierPool
from tests.helpers.cli import workbench
from workbench.cli import main
from workbench.reporting.waiting import Waiting

ROWS = [
    {"question": "What is 2 + 2?", "answer": "4", "id": "two"},
    {"question": "What is half of 1?", "answer": "\\frac{1}{2}", "id": "half"},
    {"question": "Which?", "choices": ["x", "y"], "answer": "B", "id": "which"},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main(["check", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_a_good_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, file)
    assert code == 0
    assert f"{file}: read by columns (question and answer)" in text
    assert "3 rows: 3 problems, 0 refused, 0 repeated and 0 empty (left out)" in text
    for line in ("math whole number 1 4", "math fraction 1 \\frac{1}{2}", "choice option 1 B"):
        assert line in text
    assert "a.jsonl:1" in text
    assert "Which? A. x B. y" in text
    encoder, _ = load_encoder(ModelSection())
    source = FilesSource(path=str(file))
    prompts = task_prompts([solve_task(source.problem(n), seed=0, round=1) for n in range(3)], Path())
    lengths = sorted(encoder.count_tokens(prompt) for prompt in prompts)
    assert f"median {lengths[1]}, 90 % {lengths[2]}, 99 % {lengths[2]}, longest {lengths[2]}" in text
    assert " ".join(encoder.chat_text(prompts[0].messages).split()) in text


def test_what_is_refused_is_named_and_the_exit_code_says_so(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{"question": "x"}, ROWS[0], {"question": "y", "answer": "\\frac{1", "id": "open"}]
    file.write_text(file.read_text() + "".join(json.dumps(row) + "\n" for row in lines) + "\n")
    code, text = said(capsys, file, "--show", 0)
    assert code == 2
    assert "7 rows: 3 problems, 2 refused, 1 repeated and 1 empty (left out)" in text
    assert "a.jsonl:4: the gold is missing" in text
    assert "a.jsonl:6: Problem open: the gold" in text
    assert "as the model will see them" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--output", "So \\boxed{5}, no: \\boxed{4}"], ["two (gold 4), by math: right", "the last of 2 boxes"]),
        (["--output", "\\boxed{5}"], ["two (gold 4), by math: wrong", "answer read: 5", "the only box"]),
        (["--output", "4"], ["no answer", "no closed box", "answer read: none", "reason: "]),
        (["--output", "<think>\\boxed{4}</think> 4"], ["no answer", "no closed box with anything in it outside the"]),
        (["--output", "\\boxed{0.5}", "--problem", "half"], ["half (gold \\frac{1}{2}), by math: right"]),
        (["--output", "\\boxed{y}", "--problem", "3"], ["which (gold B), by choice: right", "answer read: B"]),
        (["--output", "\\boxed{04}", "--verifier", "exact"], ["by exact: wrong"]),
    ],
)
def test_a_verdict_says_how_the_output_was_read(
    file: Path, capsys: pytest.CaptureFixture[str], flags: list[str], expected: list[str]
) -> None:
    code, text = said(capsys, file, "--show", 0, *flags)
    assert code == 0
    for part in expected:
        assert part in text


def test_options_of_the_file_are_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.csv"
    path.write_text('task,one,two,meta\nWhich?,x,y,"{""key"": ""It is: 1""}"\n')
    mapped = ["question=task", "choices=one,two", "gold=meta.key"]
    code, text = said(capsys, path, "--columns", *mapped, "--gold_pattern", ": (.)$", "--output", "\\boxed{A}")
    assert (code, "columns as mapped" in text) == (2, True)
    path.write_text("task,one,two,key\nWhich?,x,y,1\n")
    mapped[-1] = "gold=key"
    code, text = said(capsys, path, "--columns", *mapped, "--gold_index", 1, "--output", "\\boxed{x}")
    assert (code, "(gold A), by choice: right" in text) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.jsonl"], "There is no problem file nowhere.jsonl"),
        (["FILE", "--verifier", "maths"], 'did you mean "math"?'),
        (["FILE", "--format", "gsm8"], 'did you mean "gsm8k"?'),
        (["FILE", "--columns", "gold"], "--columns gold is refused: give OURS=FIELD"),
        (["FILE", "--columns", "golds=answer"], 'names "golds", which is refused'),
        (["FILE", "--model", "nowhere"], 'There is no model "nowhere"'),
        (["FILE", "--problem", "1"], "--problem goes with --output"),
        (
            ["FILE", "--output", "x", "--problem", "nine"],
            "--problem nine is no id in the file and no number from 1 to 3",
        ),
        (["FILE", "--show", "-1"], "--show -1 is refused"),
        (["FILE", "--max_prompt_tokens", "0"], "--max_prompt_tokens 0 is refused"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    file: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["check", *(str(file) if part == "FILE" else part for part in arguments)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert captured.out == ""


@pytest.mark.slow
def test_the_command_in_a_process_of_its_own(file: Path) -> None:
    done = workbench("check", file, "--output", "\\boxed{4}")
    assert (done.returncode, "by math: right" in done.stdout) == (0, True), done.stderr
    assert workbench("check", "--help").returncode == 0


def test_limits_count_the_prompts_beyond_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text = said(capsys, file, "--max_prompt_tokens", 1, "--max_new_tokens", 1023)
    assert "longer than max_prompt_tokens = 1: 3" in text
    assert "longer than the context less max_new_tokens = 1: 3" in text


# The pieces.


@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(0, 500))
def test_percentiles_are_by_nearest_rank(lengths: list[int], limit: int) -> None:
    found = Inspection((), (), {}, {}, tuple(lengths))
    for share in (0.5, 0.9, 0.99, 1.0):
        value = found.percentile(share)
        assert sum(length <= value for length in lengths) >= share * len(lengths)
        assert sum(length < value for length in lengths) < share * len(lengths)
    assert found.longer_than(limit) + sum(length <= limit for length in lengths) == len(lengths)


def test_progress_reaches_the_end_of_both_parts(file: Path) -> None:
    encoder, _ = load_encoder(ModelSection())
    heard: list[tuple[str, int, int]] = []
    with VerifierPool(1, 10.0) as pool:
        found = inspect_source(FilesSource(path=str(file)), pool, encoder, lambda *part: heard.append(part))
    assert {("checking golds", 3, 3), ("measuring prompts", 3, 3)} <= set(heard)
    assert found.rows == 3
    assert found.skipped.get(ExclusionReason.BLANK, 0) == 0


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("1,234", "whole number"),
        ("-0.5", "decimal"),
        ("\\frac{1}{2}", "fraction"),
        ("3/4", "fraction"),
        ("50\\%", "number with unit or sign"),
        ("5 cm", "number with unit or sign"),
        ("B", "letter"),
        ("no solution", "words"),
        ("x \\geq 4", "equation or inequality"),
        ("(1, 2]", "tuple, set or interval"),
        ("\\sqrt{2} + 1", "expression"),
    ],
)
def test_answers_are_told_apart_by_their_look(gold: str, kind: str) -> None:
    assert answer_type(Problem("p", "q", gold, "math")) == kind


def test_a_gold_that_states_a_property_is_told_by_its_verifier() -> None:
    assert answer_type(Problem("p", "q", "x: x >= 4; x < 9", "property")) == "conditions"
    assert answer_type(Problem("p", "q", "x: x >= 4; x < 9", "math")) == "equation or inequality"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_appears_by_itself_and_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    monkeypatch.setattr("workbench.reporting.waiting.PATIENCE", 0.05)
    console = Console(force_terminal=terminal, width=80, record=True)
    with console.capture() as captured, Waiting(console) as waiting:
        waiting("reading", 0, 0)
        limit = time.monotonic() + 20
        while terminal and not waiting.shown and time.monotonic() < limit:
            time.sleep(0.02)
        waiting("checking golds", 2, 8)
    assert ("checking golds" in captured.get()) == terminal


def test_a_file_without_a_readable_problem_has_no_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "x"}\n')
    code, text = said(capsys, path, "--output", "\\boxed{1}")
    assert (code, "No problem of the file can be read" in text) == (2, True)
    assert "a.jsonl:1:" in text, "the reason is said too"
    with pytest.raises(ProblemError):
        FilesSource(path=str(path)).problem(0)


def test_many_refused_rows_are_told_by_their_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.jsonl"
    golds = [f"The answer is {number}." for number in range(9)] + ["proof"] * 4
    rows = [{"question": f"What is {place}?", "answer": gold} for place, gold in enumerate(golds)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, text = said(capsys, path, "--output", "\\boxed{1}")
    assert code == 2
    assert re.findall(r"(\d+) like this: \S+a.jsonl:(\d+): the gold", text) == [("9", "1"), ("4", "10")]
