"""`make test` runs every test once, in whatever stage."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from _pytest.mark.expression import Expression

from tests.conftest import FAST, pytest_ignore_collect

ROOT = Path(__file__).parent.parent
MARKS = ("slow", "browser", "model", "vllm", "gpu")


def stages() -> list[str]:
    """What each call of pytest in the Makefile's `test` asks for."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    values = dict(re.findall(r"^(FAST|ALONE) := (.*)$", makefile, re.MULTILINE))
    recipe = makefile[makefile.index("\ntest: ") : makefile.index("\ntest-fast: ")]
    return [re.sub(r"\$\((FAST|ALONE)\)", lambda m: values[m[1]], e) for e in re.findall(r'-m "([^"]+)"', recipe)]


def mark_sets() -> list[tuple[str, ...]]:
    """Every set of marks that a test may have: one that needs a browser is slow as well."""
    sets = [found for size in range(len(MARKS) + 1) for found in itertools.combinations(MARKS, size)]
    return [found for found in sets if "slow" in found or "browser" not in found]


@pytest.mark.parametrize("marks", mark_sets())
def test_every_test_has_exactly_one_stage(marks: tuple[str, ...]) -> None:
    asked = [Expression.compile(stage).evaluate(lambda name, **_: name in marks) for stage in stages()]
    assert sum(asked) == 1, stages()


def test_a_slow_file_is_left_unread_by_the_quick_stage_alone(tmp_path: Path) -> None:
    slow, mixed = tmp_path / "test_slow.py", tmp_path / "test_mixed.py"
    slow.write_text("import pytest\npytestmark = [pytest.mark.slow, pytest.mark.browser]\n")
    mixed.write_text("import pytest\n\n@pytest.mark.slow\ndef test_x(): ...\n")

    def unread(path: Path, expression: str) -> bool:
        config = SimpleNamespace(option=SimpleNamespace(markexpr=expression))
        return bool(pytest_ignore_collect(path, config))  # type: ignore[arg-type]

    assert stages()[0] == FAST
    assert unread(slow, FAST)
    assert not unread(mixed, FAST)
    assert not any(unread(slow, expression) for expression in [*stages()[1:], "", "not slow"])
