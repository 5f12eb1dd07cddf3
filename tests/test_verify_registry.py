"""Names of verifiers, built-in, installed and by class; and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spark_kernel.errors import InputError
from spark_kernel.records import Kind, Parse
from spark_kernel.verify import get_verifier, score_request, verifier_names
from tests.helpers.verify import HERE, Scripted, judgement, request

BUILT_IN = ["choice", "exact", "integer", "math", "numeric", "property", "reasoning_gym", "verdict"]


def test_the_built_in_names_can_all_be_made() -> None:
    assert set(BUILT_IN) <= set(verifier_names())
    for name in BUILT_IN:
        assert callable(get_verifier(name).score)


def test_an_unknown_name_says_which_there_are_and_the_nearest() -> None:
    with pytest.raises(InputError, match='did you mean "numeric"') as raised:
        get_verifier("numerik")
    assert all(name in str(raised.value) for name in BUILT_IN)


def test_a_class_of_ones_own() -> None:
    assert isinstance(get_verifier(f"{HERE}:Scripted"), Scripted)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_package_at_all.module:V", "cannot be imported"),
        (f"{HERE}:Missing", "missing"),
        (f"{HERE}:not_a_class", "names no class"),
        (f"{HERE}:request", "names no class"),
        ("os:abort", "names no class"),
        ("fractions:Fraction", "names no class"),
        (f"{HERE}:Unmakeable", "licence server"),
        (":V", "cannot be imported"),
    ],
)
def test_what_is_no_verifier_is_refused_without_being_called(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        get_verifier(name)


def test_an_installed_package_registers_through_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[spark_kernel.verifiers]\nscripted = {HERE}:Scripted\nmath = {HERE}:Scripted\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "scripted" in verifier_names()
    assert isinstance(get_verifier("scripted"), Scripted)
    assert not isinstance(get_verifier("math"), Scripted), "a built-in name cannot be taken over"


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = (
        "import sys, spark_kernel.verify, spark_kernel.verify.worker;"
        "print([m for m in ('torch', 'transformers', 'math_verify', 'sympy', 'reasoning_gym', 'numpy', 'pydantic')"
        " if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


YES = {"A": "No", "B": "Yes"}


@pytest.mark.parametrize(
    ("output", "label", "kind", "letters", "correct", "parse", "answer"),
    [
        (r"\boxed{Yes}", "Yes", Kind.POINTWISE, None, True, "ok", "Yes"),
        (r"\boxed{yes.}", "Yes", Kind.POINTWISE, None, True, "ok", "Yes"),
        (r"\boxed{\text{No}}", "Yes", Kind.POINTWISE, None, False, "ok", "No"),
        (r"It says \boxed{42}. \boxed{Yes}", "Yes", Kind.POINTWISE, None, True, "ok", "Yes"),
        (r"\boxed{Yes} ... \boxed{Yes}", "Yes", Kind.POINTWISE, None, True, "ok", "Yes"),
        (r"\boxed{Yes} ... \boxed{No} ... so", "Yes", Kind.POINTWISE, None, False, "ambiguous", None),
        (r"Is it \boxed{Yes}? No: \boxed{No}.", "No", Kind.POINTWISE, None, True, "ok", "No"),
        ("Yes", "Yes", Kind.POINTWISE, None, False, "none", None),
        (r"\boxed{A}", "Yes", Kind.POINTWISE, None, False, "none", None),
        (r"<think>\boxed{No}</think>\boxed{Yes}", "Yes", Kind.POINTWISE, None, True, "ok", "Yes"),
        (r"\boxed{B}", "Yes", Kind.POINTWISE, YES, True, "ok", "Yes"),
        (r"\boxed{a}", "No", Kind.POINTWISE, YES, True, "ok", "No"),
        (r"\boxed{A}", "Yes", Kind.POINTWISE, YES, False, "ok", "No"),
        (r"\boxed{Yes}", "Yes", Kind.POINTWISE, YES, False, "none", None),
        (r"\boxed{A}", "A", Kind.PAIRWISE, None, True, "ok", "A"),
        (r"\boxed{B}", "A", Kind.PAIRWISE, None, False, "ok", "B"),
        (r"\boxed{Yes}", "A", Kind.PAIRWISE, None, False, "none", None),
    ],
)
def test_verdicts(
    output: str, label: str, kind: Kind, letters: dict | None, correct: bool, parse: str, answer: str | None
) -> None:
    score = score_request(judgement(output, label, kind, letters))
    assert (score.correct, score.reward, score.parse, score.answer) == (correct, float(correct), Parse(parse), answer)


def test_a_verdict_is_asked_of_judge_tasks_only() -> None:
    with pytest.raises(ValueError, match="no verdict"):
        score_request(request(r"\boxed{Yes}", "Yes", "verdict"))
    with pytest.raises(ValueError, match="none of its verdicts"):
        score_request(judgement(r"\boxed{Yes}", "A"))


@pytest.mark.parametrize(
    ("reward", "threshold", "correct"), [("1", 1.0, True), ("0.5", 1.0, False), ("0.5", 0.5, True), ("0.4", 0.5, False)]
)
def test_correct_goes_by_the_threshold(reward: str, threshold: float, correct: bool) -> None:
    score = score_request(request(f"reward {reward}", verifier=f"{HERE}:Scripted"), threshold)
    assert (score.reward, score.correct) == (float(reward), correct)


def test_an_output_without_an_answer_is_never_correct() -> None:
    assert score_request(request("no box"), 0.0).correct is False
