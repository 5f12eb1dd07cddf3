"""Recyclers of other packages: found through real package metadata, bound by the rules of the built-in ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from spark_kernel.config import Quotas, load_config
from spark_kernel.errors import InputError
from spark_kernel.records import ExclusionReason, Group, Recycled
from spark_kernel.recycle.recycle import recycle
from tests.helpers.recycling import everything_fits, make_groups, problems_of, quotas_of, settings_of

MODULE = '''
from dataclasses import replace

from spark_kernel.records import ExclusionReason, Kind, Origin, View
from spark_kernel.recycle.recycler import Draft, Recycler


def every_correct(group, problem, context):
    """A pointwise task on every correct output, whatever it is worth as a source."""
    return tuple(
        Draft(Kind.POINTWISE, problem, (rollout,), Origin.SOLVE, View.ANSWER, group.is_mixed, group.task.id)
        for rollout in group.correct
    )


def nothing(group, problem, context):
    return (context.exclusion(ExclusionReason.NO_SOURCE, group.task.id, Kind.REFLECTION, "never"),)


EVERY_CORRECT = Recycler("every-correct", Origin.SOLVE, every_correct)
NOTHING = Recycler("nothing", Origin.SOLVE, nothing)
BROKEN = every_correct
'''
ENTRY_POINTS = """
[spark_kernel.recyclers]
every-correct = foreign_recyclers:EVERY_CORRECT
nothing = foreign_recyclers:NOTHING
broken = foreign_recyclers:BROKEN
"""


@pytest.fixture(autouse=True)
def _foreign_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed distribution, as the import system sees one."""
    info = tmp_path / "foreign_recyclers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign-recyclers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "foreign_recyclers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("foreign_recyclers", None)


def run(groups: list[Group], *extra: str) -> Recycled:
    settings = settings_of(extra=extra, pairwise=False, reflection=False, balance_pointwise=False)
    return recycle(groups, problems_of(groups), settings, quotas_of(settings), seed=0, round=1, fits=everything_fits)


def test_a_registered_recycler_adds_its_tasks() -> None:
    plain, extended = run(make_groups(["cccw"])), run(make_groups(["cccw"]), "every-correct")
    assert {task.sources for task in extended.tasks} == {(f"solve-0-{i}",) for i in range(3)} | {
        task.sources for task in plain.tasks
    }
    assert all(task.label == "Yes" for task in extended.tasks if task.source_correct == (True,))


def test_offers_of_further_recyclers_are_accounted_for() -> None:
    recycled = run(make_groups(["ccc", "cc"]), "every-correct", "nothing")
    by_reason = [e.reason for e in recycled.exclusions]
    assert len(recycled.tasks) + len(recycled.exclusions) == 2 + 2 + (3 + 2) + 2
    assert by_reason.count(ExclusionReason.NO_SOURCE) == 2
    assert by_reason.count(ExclusionReason.NOT_SELECTED) == 2
    assert all("already made" in e.detail for e in recycled.exclusions if e.reason is ExclusionReason.NOT_SELECTED)


def test_a_recycler_cannot_bring_in_what_is_no_source() -> None:
    with pytest.raises(InputError, match='"every-correct" proposes rollout solve-0-1, which is no source: truncated'):
        run(make_groups(["cT"]), "every-correct")


def test_an_unknown_or_broken_name_is_refused() -> None:
    with pytest.raises(InputError, match='no recycler "evry-correct"; registered: broken, every-correct, nothing'):
        run(make_groups(["c"]), "evry-correct")
    with pytest.raises(InputError, match="foreign_recyclers:BROKEN, which is not a"):
        run(make_groups(["c"]), "broken")


def test_the_configuration_names_further_recyclers() -> None:
    config = load_config("quickstart", recycle__extra=["nothing"], recycle__reflection=False)
    groups = make_groups(["ccw"])
    found = recycle(groups, problems_of(groups), config.recycle, config.quotas, seed=0, round=1, fits=everything_fits)
    assert "never" in {exclusion.detail for exclusion in found.exclusions}
    only_extra = {"pointwise": False, "pairwise": False, "reflection": False, "extra": ["nothing"]}
    assert load_config({"recycle": only_extra}).recycle.recycles


def test_quotas_are_half_the_problems_unless_stated() -> None:
    assert load_config({"problems": {"per_round": 64}}).quotas == Quotas(judge=32, reflection=32)
    assert load_config({"problems": {"per_round": 1}}).quotas == Quotas(judge=1, reflection=1)
    stated = load_config({"problems": {"per_round": 64}, "recycle": {"judge_quota": 5, "reflection_quota": 0}})
    assert stated.quotas == Quotas(judge=5, reflection=0)
