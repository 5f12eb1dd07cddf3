from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from spark_kernel.errors import InputError
from spark_kernel.problems.arithmetic import ArithmeticSource
from spark_kernel.problems.registry import make_source, source_names
from spark_kernel.records import Problem


class Squares:
    """A source of the kind a user writes."""

    size = 5

    def __init__(self, *, start: int, seed: int = 0) -> None:
        self.start, self.seed = start, seed

    def problem(self, index: int) -> Problem:
        number = self.start + index
        return Problem(f"square-{number}", f"{number} squared?", str(number**2), "integer")


def no_source(**options: object) -> object:
    return object()


def test_built_in_sources_take_their_options_and_the_seed() -> None:
    made = make_source("arithmetic", {"max_operations": "3", "min_operations": 3, "operators": "+"}, 9)
    expected = ArithmeticSource(seed=9, min_operations=3, max_operations=3, operators="+")
    assert [made.problem(i) for i in range(5)] == [expected.problem(i) for i in range(5)]
    assert make_source("arithmetic", {"seed": 3}, 9).problem(0) == ArithmeticSource(seed=3).problem(0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "arithmetics",
            {},
            r'no problem source "arithmetics" \(did you mean "arithmetic"\?\)\. Sources: arithmetic, files',
        ),
        (
            "arithmetic",
            {"max_valu": 9},
            r'max_valu is no option .*"arithmetic" \(did you mean "max_value"\?\)\. Options: min_',
        ),
        ("arithmetic", {"max_value": "lots"}, r"max_value = 'lots' is refused: input should be a valid integer"),
        ("arithmetic", {"max_value": 5}, r"max_value = 5 is refused: 10 to 999"),
        ("files", {"columns": 3}, r"problems\.options\.columns = 3 is refused"),
        ("files", {}, r"needs either problems\.options\.path"),
        ("reasoning_gym", {}, r'"reasoning_gym" needs problems\.options\.dataset\. Options: dataset, config'),
        ("nowhere_at_all:Source", {}, r'"nowhere_at_all:Source" cannot be imported from "nowhere_at_all"'),
        (f"{__name__}:Absent", {}, "names nothing that can be called"),
        (f"{__name__}:Squares", {}, r"needs problems\.options\.start"),
        (f"{__name__}:no_source", {"anything": 1}, "made object, which lacks size or problem"),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_source(name, options, 0)


def test_a_source_of_ones_own_by_module_and_attribute() -> None:
    made = make_source(f"{__name__}:Squares", {"start": 4}, 7)
    assert made.problem(1).gold == "25"
    assert made.seed == 7


def test_a_source_that_a_package_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "squares-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: squares\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        f"[spark_kernel.problem_sources]\nsquares = {__name__}:Squares\narithmetic = {__name__}:Squares\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    assert "squares" in source_names()
    assert make_source("squares", {"start": 2}, 0).problem(0).gold == "4"
    assert isinstance(make_source("arithmetic", {}, 0), ArithmeticSource)
