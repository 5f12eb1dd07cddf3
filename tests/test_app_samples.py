"""The pages of a run without a browser: which rows a table holds, how one is found again, and what the tabs say."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from spark_kernel.errors import InputError, RunFolderError
from spark_kernel.runs.reader import RunReader
from spark_kernel.runs.writer import RunWriter
from tests.helpers.recorded_runs import CONFIG, ENVIRONMENT, make_evaluation, make_round, write_round
from workbench.app.detail import sample_html
from workbench.app.links import sample_link
from workbench.app.markup import escape, table
from workbench.app.samples import (
    ALL_ROUNDS,
    HELD_OUT,
    LAST_TEN,
    PAGE,
    RIGHT,
    WRONG,
    SampleQuery,
    SampleTables,
)  # fmt: skip
from workbench.app.tabs.rewards import judges_html
from workbench.app.tabs.rounds import PHASES, round_texts
from workbench.app.tabs.samples import make_query, table_html
from workbench.views import Preset, RunView


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "mine"
    writer = RunWriter.create(path, CONFIG, ENVIRONMENT)
    for round in range(1, 5):
        write_round(writer, round)
    writer.write_evaluation(*make_evaluation(2))
    _, phases, _ = make_round(5)
    for index, (period, phase, made) in enumerate(phases[:1]):
        writer.record_phase(5, index, period, phase, made)
    writer.close("stopped")
    return path


@pytest.fixture
def view(run: Path) -> RunView:
    return RunView(run)


@pytest.fixture
def tables() -> SampleTables:
    return SampleTables(20_000)


def ids(run: Path, *rounds: int) -> list[str]:
    return RunReader(run).table("rollouts", list(rounds))["id"].to_pylist()


def all_pages(tables: SampleTables, view: RunView, query: SampleQuery) -> list[dict]:
    first = tables.page(view, query)
    return [row for number in range(first.pages) for row in tables.page(view, query, number).rows]


def test_pages_hold_every_row_once_in_order(run: Path, view: RunView, tables: SampleTables) -> None:
    rows = all_pages(tables, view, SampleQuery(4, LAST_TEN))
    assert [row["id"] for row in rows] == ids(run, 4, 3, 2, 1)
    page = tables.page(view, SampleQuery(4, LAST_TEN), 999)
    assert page.number == page.pages - 1
    assert len(tables.page(view, SampleQuery(4, LAST_TEN)).rows) == PAGE


def test_scopes_are_one_round_all_of_them_or_an_evaluation(run: Path, view: RunView, tables: SampleTables) -> None:
    assert [r["id"] for r in all_pages(tables, view, SampleQuery(3))] == ids(run, 3)
    flying = all_pages(tables, view, SampleQuery(5))
    assert flying
    assert {row["round"] for row in flying} == {5}
    assert {r["round"] for r in all_pages(tables, view, SampleQuery(1, ALL_ROUNDS))} == {1, 2, 3, 4, 5}
    held_out = all_pages(tables, view, SampleQuery(2, HELD_OUT))
    assert len(held_out) == RunReader(run).table("eval_rollouts", [2]).num_rows
    with pytest.raises(RunFolderError):
        tables.page(view, SampleQuery(1, HELD_OUT))
    with pytest.raises(RunFolderError):
        tables.page(view, SampleQuery(77))
    with pytest.raises(InputError, match="scope"):
        tables.page(view, SampleQuery(1, "everything"))


def test_more_rows_than_allowed_leave_out_the_earliest_rounds_and_say_so(run: Path, view: RunView) -> None:
    page = SampleTables(len(ids(run, 4)) + 30).page(view, SampleQuery(4, LAST_TEN))
    assert page.scanned == len(ids(run, 4))
    assert "3 earliest rounds are left out" in page.note


def test_filters_agree_with_the_recorded_rows(run: Path, view: RunView, tables: SampleTables) -> None:
    recorded = RunReader(run).table("rollouts", [2]).to_pylist()
    wrong = all_pages(tables, view, SampleQuery(2, finding=WRONG, kind="solve"))
    assert [r["id"] for r in wrong] == [r["id"] for r in recorded if r["correct"] is False and r["kind"] == "solve"]
    right = all_pages(tables, view, SampleQuery(2, finding=RIGHT))
    assert [r["id"] for r in right] == [r["id"] for r in recorded if r["correct"] is True]
    found = all_pages(tables, view, SampleQuery(2, text="CANNOT say"))
    assert {r["id"] for r in found} >= {r["id"] for r in recorded if "cannot say" in r["text"].lower()}
    for bad in (SampleQuery(2, finding="maybe"), SampleQuery(2, preset="best")):
        with pytest.raises(InputError):
            tables.page(view, bad)


def test_a_sample_is_found_by_its_id_whatever_is_filtered(run: Path, view: RunView, tables: SampleTables) -> None:
    wanted = ids(run, 1)[-1]
    page = tables.page_of(view, SampleQuery(4, LAST_TEN), wanted)
    assert page is not None
    assert wanted in [row["id"] for row in page.rows]
    assert page.number > 0
    assert tables.page_of(view, SampleQuery(2), wanted) is None


def test_next_disagreement_goes_round_all_of_them(view: RunView, tables: SampleTables) -> None:
    query = SampleQuery(2)
    expected = [row["id"] for row in all_pages(tables, view, replace(query, preset=str(Preset.DISAGREES)))]
    assert len(expected) > 2
    seen, at = [], ""
    for _ in range(len(expected) + 1):
        at = tables.next_disagreement(view, query, at) or ""
        seen.append(at)
    assert seen == [*expected, expected[0]]
    assert tables.next_disagreement(view, replace(query, text="no row has this"), "") is None


def test_export_holds_the_rows_that_match_and_no_cell_is_a_formula(
    run: Path, tmp_path: Path, tables: SampleTables
) -> None:
    records, _, report = make_round(1)
    problems = tuple(replace(p, question='=HYPERLINK("http://evil.example")') for p in records.problems)
    writer = RunWriter.create(tmp_path / "sheet", CONFIG, ENVIRONMENT)
    writer.finish_round(replace(records, problems=problems), report)
    writer.close("finished")
    rows = list(csv.DictReader(io.StringIO(tables.csv(RunView(tmp_path / "sheet"), SampleQuery(1, kind="solve")))))
    assert [row["id"] for row in rows] == [
        r["id"] for r in RunReader(tmp_path / "sheet").table("rollouts").to_pylist() if r["kind"] == "solve"
    ]
    assert {row["question"][:2] for row in rows} == {"'="}


def test_a_finished_round_is_seen_without_opening_the_run_again(tmp_path: Path, tables: SampleTables) -> None:
    writer = RunWriter.create(tmp_path / "growing", CONFIG, ENVIRONMENT)
    write_round(writer, 1)
    view = RunView(tmp_path / "growing")
    before = tables.page(view, SampleQuery(1, ALL_ROUNDS)).total
    write_round(writer, 2)
    assert tables.page(view, SampleQuery(1, ALL_ROUNDS)).total > before
    writer.close("finished")


def test_the_table_names_each_row_by_its_id_and_escapes_everything(view: RunView, tables: SampleTables) -> None:
    page = tables.page(view, SampleQuery(2))
    html = table_html(page, page.rows[3]["id"])
    assert html.count("data-id=") == len(page.rows)
    assert html.count("sw-selected") == 1
    hostile = replace(page, rows=({**page.rows[0], "question": "<script>${alert(1)}{{x}}`", "id": '"><img src=x>'},))
    text = table_html(hostile, "")
    for sign in ("<script", "<img", "${", "{{", "`"):
        assert sign not in text


def test_a_samples_detail_has_prompt_output_verdicts_group_and_a_link_to_itself(run: Path, view: RunView) -> None:
    row = RunReader(run).table("rollouts", [2]).to_pylist()[0]
    text = sample_html("my run", view.rollout(2, row["id"]), held_out=False, image_pixels=10_000)
    assert "\n" not in text
    for part in ("the exact prompt", "Its group", "as it was written", str(row["reason"])):
        assert part in text
    link = sample_link("my run", 2, row["id"], held_out=False)
    assert link.startswith("?run=my+run&round=2&sample=")
    assert link.replace("&", "&amp;") in text


def test_every_phase_of_a_round_has_a_text_also_in_flight(run: Path, view: RunView) -> None:
    done, flying = round_texts(view, 2), round_texts(view, 5)
    assert set(done) == set(flying) == set(PHASES)
    assert "not finished" in flying["Summary"]
    assert "Groups in the order of the update" in flying["Roll out"]
    solve = [r for r in RunReader(run).table("rollouts", [2]).to_pylist() if r["kind"] == "solve"]
    crashed = sum(r["parse"] == "timeout" for r in solve)
    assert f'<td>solve</td><td class="sw-number">{len(solve)}</td>' in done["Verify"]
    assert f'<td class="sw-number">{crashed}</td>' in done["Verify"]
    with pytest.raises(RunFolderError):
        round_texts(view, 9)


def test_judges_are_listed_with_their_figures(view: RunView) -> None:
    detail = view.judge(2, held_out=True)
    text = judges_html(detail.lines)
    for line in detail.lines:
        assert escape(line.name) in text
    assert "no pairs" in text


def test_a_table_without_rows_is_a_sentence_and_a_round_must_be_a_number() -> None:
    assert table(("a",), [], caption="Runs", empty="none yet.") == '<p class="sw-none">Runs: none yet.</p>'
    assert make_query(2.0, "this round", "all", "any", "any", None).round == 2
    for bad in ("2", None, True, [2]):
        with pytest.raises(InputError):
            make_query(bad, "this round", "all", "any", "any", "")
