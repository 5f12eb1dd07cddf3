"""How far origin alone gets a judge: the measure, the balance of pairs that keeps it near one half, and the reports."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from spark_kernel.config import Quotas
from spark_kernel.config.sections import RecycleSection
from spark_kernel.evaluate.shortcut import later_is_right, shortcut, shortcuts
from spark_kernel.records import ExclusionReason, Kind, Message, Origin, Recycled, Task
from spark_kernel.recycle.recycle import re_evaluate
from spark_kernel.runs.reader import RunReader
from spark_kernel.training.lifecycle import start_run
from tests.helpers.recycling import changed, everything_fits, make_reflections, problems_of, settings_of
from tests.helpers.runs import tiny_config

DEFAULT = settings_of()
UNBALANCED = changed(DEFAULT, balance_pairs=False)


def task(kind: Kind, origin: Origin, label: str, correct: tuple[bool, ...], sources: tuple[str, ...] = ()) -> Task:
    return Task(
        id=f"{kind}-{origin}-{label}-{correct}",
        kind=kind,
        origin=origin,
        problem_id="p",
        messages=(Message.of("user", "?"),),
        label=label,
        verifier="verdict",
        template_id="t",
        round=1,
        sources=sources,
        source_correct=correct,
    )


def judgement(origin: Origin, label: str) -> Task:
    return task(Kind.POINTWISE, origin, label, (label == "Yes",))


def pair(first: str, second: str, right: int) -> Task:
    correct = (right == 0, right == 1)
    sources = (f"000001-{first}-aa#0", f"000001-{second}-bb#1")
    return task(Kind.PAIRWISE, Origin.REFLECTION, "AB"[right], correct, sources)


def test_of_judgements_the_rule_knows_first_answers_from_reflections() -> None:
    tasks = [judgement(Origin.SOLVE, "No")] * 3 + [judgement(Origin.SOLVE, "Yes")]
    tasks += [judgement(Origin.REFLECTION, "Yes")] * 4 + [judgement(Origin.REFLECTION, "No")] * 2
    assert shortcut(tasks, Kind.POINTWISE) == (3 + 4) / 10


def test_of_pairs_the_rule_knows_the_reflection_whatever_its_place() -> None:
    one_sided = [pair("solve", "reflection", 1), pair("reflection", "solve", 0), pair("solve", "reflection", 1)]
    assert [later_is_right(item) for item in one_sided] == [True] * 3
    assert shortcut(one_sided, Kind.PAIRWISE) == 1
    balanced = [pair("solve", "reflection", 1), pair("solve", "reflection", 0)]
    assert shortcut(balanced, Kind.PAIRWISE) == 0.5
    alike = replace(pair("solve", "solve", 0), origin=Origin.SOLVE)
    assert later_is_right(alike) is None
    assert shortcut([*one_sided, alike], Kind.PAIRWISE) == 3.5 / 4


def test_of_reflections_the_rule_keeps_the_earlier_answer() -> None:
    tasks = [task(Kind.REFLECTION, Origin.SOLVE, "7", (correct,)) for correct in (True, False, False, False)]
    assert shortcut(tasks, Kind.REFLECTION) == 0.25
    assert shortcuts(tasks) == {"reflection": 0.25}
    assert shortcut([], Kind.POINTWISE) is None


def recycled(codes: list[str], settings: RecycleSection, seed: int = 0, judges: int = 10**6) -> Recycled:
    groups, sources = make_reflections(codes)
    return re_evaluate(
        groups,
        problems_of(groups),
        sources,
        settings,
        Quotas(judges, 10**6),
        seed=seed,
        round=4,
        fits=everything_fits,
    )


def sides(found: Recycled) -> Counter[tuple[bool | None, bool]]:
    """Pairs by (mixed group, whether the reflected answer is right)."""
    count = Counter[tuple[bool | None, bool]]()
    for made in found.tasks:
        if made.kind is Kind.PAIRWISE:
            reflected = next(i for i, name in enumerate(made.sources) if name.startswith("reflection"))
            count[made.source_group_mixed, made.source_correct[reflected]] += 1
    return count


@pytest.mark.parametrize("seed", range(4))
def test_the_earlier_and_the_later_answer_are_right_equally_often(seed: int) -> None:
    rng = random.Random(seed)
    codes = rng.choices(["wcc", "wcw", "wwc", "cww", "ccw", "www", "ccc"], weights=[6, 5, 5, 1, 3, 2, 4], k=120)
    before, found = sides(recycled(codes, UNBALANCED, seed)), recycled(codes, DEFAULT, seed)
    after = sides(found)
    assert before[True, True] != before[True, False]
    for mixed in (True, False):
        assert after[mixed, True] == after[mixed, False] == min(before[mixed, True], before[mixed, False])
    left_out = [e for e in found.exclusions if e.reason is ExclusionReason.BALANCE and e.kind is Kind.PAIRWISE]
    assert len(left_out) == before.total() - after.total()
    assert after.total() > 20
    groups, sources = make_reflections(codes)
    rng.shuffle(groups)
    again = re_evaluate(
        groups, problems_of(groups), sources, DEFAULT, Quotas(10**6, 10**6), seed=seed, round=4, fits=everything_fits
    )
    assert {t.id for t in again.tasks} == {t.id for t in found.tasks}  # the order of groups decides nothing


def test_judgements_of_reflections_are_balanced_among_themselves() -> None:
    found = recycled(["wcc"] * 20 + ["www"] * 5 + ["wcw"] * 6, DEFAULT)
    labels = Counter(made.label for made in found.tasks if made.kind is Kind.POINTWISE)
    assert abs(labels["Yes"] - labels["No"]) <= 1


@pytest.mark.slow
def test_a_round_and_an_evaluation_report_it(tmp_path: Path) -> None:
    config = tiny_config(tmp_path, rounds=3, evaluation__every=3, evaluation__problems=6)
    with start_run(config, tmp_path / "run") as trainer:
        trainer.train()
    reader = RunReader(tmp_path / "run")
    tasks = reader.table("tasks").to_pylist()
    seen = 0
    for report in reader.reports():
        rows = [row for row in tasks if row["round"] == report.round and row["kind"] == "pointwise"]
        by_origin = Counter((row["origin"], row["label"]) for row in rows)
        expected = sum(max(by_origin[o, "Yes"], by_origin[o, "No"]) for o in ("solve", "reflection"))
        assert report.shortcut["pointwise"] == pytest.approx(expected / len(rows))
        assert "solve" not in report.shortcut
        seen += "pairwise" in report.shortcut
    assert seen
    stored = reader.query("SELECT round, shortcut FROM reports ORDER BY round").to_pylist()
    assert [dict(row["shortcut"]) for row in stored] == [dict(report.shortcut) for report in reader.reports()]
    lines = reader.evaluation(3)["lines"]
    for name, line in lines.items():
        if name.startswith(("own/pointwise", "frozen/pointwise")):
            assert line["shortcut"] == line["chance"]
        if name.startswith(("own/pairwise", "frozen/pairwise")):
            assert line["shortcut"] == 0.5
    assert lines["loop"]["shortcut"] is None or 0.5 <= lines["loop"]["shortcut"] <= 1
