"""The panels that read a run, by their traits, on the recorded run that ships with the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ipywidgets", reason="ipywidgets is not installed: the extra `notebook` brings it")

import ipywidgets
import pyarrow.compute as pc

import workbench
from spark_kernel.runs.reader import RunReader
from tests.helpers.pages import page_text
from workbench.figures.names import shape_named
from workbench.figures.panel import ROUND_MARK
from workbench.notebook.rollouts import ALL_PROBLEMS, ALL_ROUNDS, HELD_OUT, RAW, TOKENS
from workbench.notebook.workbench import Workbench
from workbench.recorded import recorded_run
from workbench.views import COLUMNS, Preset, RunView

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(recorded_run(), tmp_path_factory.mktemp("panels") / "recorded"))


@pytest.fixture(scope="module")
def reader(run: Path) -> RunReader:
    return RunReader(run)


@pytest.fixture(scope="module")
def wb(run: Path) -> Iterator[Workbench]:
    with workbench.open(run) as wb:
        yield wb


def test_opening_a_run_twice_gives_the_same_panels_and_without_a_name_the_recorded_run(
    wb: Workbench, run: Path
) -> None:
    assert workbench.open(run) is wb
    assert workbench.open(str(run)) is wb
    with workbench.open() as recorded:
        assert recorded.run == recorded_run()


def test_a_click_on_a_round_selects_it_in_every_panel(wb: Workbench, reader: RunReader) -> None:
    first, last = reader.rounds[0], reader.rounds[-1]
    wb.dashboard.shared.follow.value = True
    figure = wb.dashboard.figures["accuracy"]
    trace = next(
        t for t in figure.data if t.visible is not False and t.customdata is not None and first in t.customdata
    )
    wb.dashboard._clicked(trace, _Points([list(trace.customdata).index(first)]), None)
    assert (wb.dashboard.shared.selected, wb.dashboard.shared.follow.value) == (first, False)
    marks = [shape_named(figure, ROUND_MARK) for figure in wb.dashboard.figures.values()]
    assert {mark.x0 for mark in marks} == {first}
    made = reader.table("recycled", [first]).num_rows
    assert f"{made} of {made} tasks made in round {first}" in wb.recycled.count.value
    sampled = reader.table("rollouts", [first]).num_rows
    assert f"{sampled} of {sampled} outputs" in wb.rollouts.count.value
    wb.dashboard.shared.follow.value = True
    assert wb.dashboard.shared.selected == last


class _Points:
    """What plotly hands to a click's callback."""

    def __init__(self, point_inds: list[int]) -> None:
        self.point_inds = point_inds


def test_held_out_and_on_policy_are_separate_lines_of_the_figures(wb: Workbench) -> None:
    assert list(wb.dashboard.figures) == ["overview", "accuracy", "judge", "verdicts", "groups", "optimizer", "cost"]
    names = [trace.name for trace in wb.dashboard.figures["accuracy"].data if trace.visible is not False]
    assert any("training" in name for name in names)
    assert any("held-out" in name for name in names)


def test_rollouts_filter_and_search_look_at_every_row(wb: Workbench, reader: RunReader) -> None:
    panel = wb.rollouts
    last = reader.rounds[-1]
    table = reader.table("rollouts", [last])
    panel.preset.value = str(Preset.WRONG)
    wrong = pc.sum(pc.equal(table["correct"], False)).as_py()
    assert panel.count.value.split(">")[1].startswith(f"{wrong} of {table.num_rows} outputs")
    panel.preset.value = str(Preset.ALL)
    panel.kind.value = "pointwise"
    assert panel.table.ids == table.filter(pc.equal(table["kind"], "pointwise"))["id"].to_pylist()[:500]
    panel.kind.value = "all"
    chosen = panel.problem.options[1][1]
    panel.problem.value = chosen
    assert panel.table.ids == table.filter(pc.equal(table["problem_id"], chosen))["id"].to_pylist()[:500]
    panel.problem.value = ALL_PROBLEMS
    text = table["text"].to_pylist()[7]
    panel.search.value = text[:12]
    assert (
        panel.table.ids
        == [
            row["id"]
            for row, found in zip(table.to_pylist(), RunView(reader).rollouts([last]).rows(), strict=True)
            if any(
                text[:12].lower() in (found[c] or "").lower() for c in ("question", "text", "answer", "reason", "id")
            )
        ][:500]
    )
    panel.search.value = "no such words anywhere"
    assert panel.table.ids == []
    assert panel.detail.value == ""
    panel.search.value = ""


def test_what_the_filters_leave_is_a_frame_in_the_next_cell(wb: Workbench, reader: RunReader) -> None:
    panel = wb.rollouts
    panel.preset.value = str(Preset.WRONG)
    panel.kind.value = "solve"
    frame = wb.selection
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == len(panel.table.ids) > 0
    assert set(frame["kind"]) == {"solve"}
    assert not frame["correct"].any()
    panel.preset.value, panel.kind.value = str(Preset.ALL), "all"
    assert len(wb.selection) == reader.table("rollouts", [reader.rounds[-1]]).num_rows


def test_the_funnel_of_the_whole_run_stands_beside_the_rounds(wb: Workbench, reader: RunReader) -> None:
    rounds = reader.rounds
    whole = RunView(reader).funnel(rounds)
    shown = page_text(wb.recycled.whole.value)
    assert f"rounds {rounds[0]} to {rounds[-1]}" in shown
    assert str(whole.steps[0].entered) in shown
    assert whole.steps[0].entered > RunView(reader).funnel([rounds[-1]]).steps[0].entered


def test_an_output_is_shown_with_answer_gold_reason_reward_and_advantage(wb: Workbench, reader: RunReader) -> None:
    panel = wb.rollouts
    last = reader.rounds[-1]
    row = next(r for r in RunView(reader).rollouts([last]).rows() if r["kind"] == "solve" and r["correct"] is False)
    panel.search.value = row["id"]
    panel.table.select(row["id"])
    shown = page_text(panel.detail.value)
    assert f"wanted {row['gold']}" in shown
    assert "✗ wrong" in shown
    assert f"reward, advantage {row['reward']:.3g}, {row['advantage']:.3g}" in shown
    assert f"{row['tokens']} tokens" in shown
    panel.style.value = RAW
    assert row["text"].splitlines()[0] in panel.detail.value.replace("&#x27;", "'")
    panel.style.value = TOKENS
    probabilities = panel.detail.value.count('<span class="spark-p')
    assert probabilities == row["tokens"] + 5  # five of them explain the shades
    panel.style.value = "rendered"
    panel.search.value = ""


def test_verdicts_of_all_rounds_with_a_persons_own_beside_them(
    wb: Workbench, reader: RunReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the notes of the recorded run are in the current folder
    panel = wb.rollouts
    panel.where.value, panel.kind.value, panel.preset.value = ALL_ROUNDS, "pointwise", str(Preset.JUDGED_WRONG)
    frame = wb.selection
    everywhere = reader.query(
        "SELECT count(*) AS n, count(DISTINCT round) AS rounds FROM rollouts "
        "WHERE kind = 'pointwise' AND NOT correct AND parse = 'ok'"
    ).to_pylist()[0]
    assert (len(frame), frame["round"].nunique()) == (everywhere["n"], everywhere["rounds"])
    assert everywhere["rounds"] > 1
    assert (frame["made_round"] <= frame["round"]).all()
    shown = panel.table.widget.df
    assert set(shown["sources"]) <= {"✓", "✗"}
    assert set(shown["made in"]) <= set(reader.rounds)

    chosen = panel.table.ids[3]
    panel.table.select(chosen)
    panel.yours.value = "right"  # against the verifier, who says that this verdict is wrong
    panel.mark.value = True
    panel.words.value = "odd one"
    assert "agree on 0 of 1 outputs" in panel.agreed.value
    for mine, count in (("bookmarked", 1), ("judged by me", 1), ("where I and the verifier disagree", 1)):
        panel.mine.value = mine
        assert panel.table.ids == [chosen], mine
        assert len(wb.selection) == count
    panel.mine.value = "any"
    panel.table.select(panel.table.ids[0])
    assert (panel.yours.value, panel.mark.value, panel.words.value) == ("no verdict", False, "")
    panel.table.select(chosen)
    assert (panel.yours.value, panel.mark.value, panel.words.value) == ("right", True, "odd one")
    panel.yours.value, panel.mark.value, panel.words.value = "no verdict", False, ""
    assert "measured by you" in panel.agreed.value
    panel.where.value, panel.kind.value, panel.preset.value = "training round", "all", str(Preset.ALL)


def test_held_out_outputs_are_those_of_the_evaluation_before_the_selected_round(
    wb: Workbench, reader: RunReader
) -> None:
    panel = wb.rollouts
    panel.where.value = HELD_OUT
    newest = reader.evaluations[-1]
    assert f"the evaluation after round {newest}" in panel.count.value
    panel.where.value = "training round"


def test_a_recycled_task_from_sources_to_update_with_the_exact_prompt(wb: Workbench, reader: RunReader) -> None:
    panel = wb.recycled
    last = reader.rounds[-1]
    row = next(r for r in reader.table("recycled", [last]).to_pylist() if r["kind"] == "pairwise")
    panel.kind.value = "pairwise"
    panel.table.select(row["id"])
    shown = page_text(panel.detail.value)
    assert f"template {row['template_id']} → pairwise task of round {last}" in shown
    assert f"the correct candidate stands at {row['gold_position']}" in shown
    prompt = "".join(part["text"] or "" for message in row["messages"] for part in message["parts"])
    assert " ".join(prompt.split())[:200] in " ".join(shown.split())
    panel.kind.value = "all"
    assert "opportunities made into tasks" in panel.funnel.value
    assert "left out to balance" in panel.funnel.value or "not_selected" in panel.funnel.value


def test_self_correction_shows_what_was_lost_and_three_columns(wb: Workbench, reader: RunReader) -> None:
    panel = wb.correction
    found = RunView(reader).self_correction(reader.evaluations[-1])
    assert found is not None
    shown = page_text(panel.summary.value)
    assert f"first answer right {found.transitions['right_right']}" in shown
    assert "evidence" in shown or "The loop" in shown
    chain = next(c for c in found.chains if len(c.steps) >= 3)
    panel.table.select(chain.problem_id)
    text = page_text(panel.detail.value)
    assert f"first answer: {chain.first.answer}" in text
    assert "verdict: " in text
    assert "reflection 1: " in text
    assert "what reflection 1 changed" in text
    panel.change.value = "right_wrong"
    assert panel.table.ids == [c.problem_id for c in found.with_transition("right_wrong")]
    panel.change.value = "all"


def test_the_figures_send_plotlys_script_once(wb: Workbench) -> None:
    figures = list(wb.dashboard.figures.values())
    assert {id(figure._script) for figure in figures} == {id(figures[0]._script)}
    assert len(figures[0]._script.text) > 1_000_000
    assert all(len(figure._esm) < 10_000 for figure in figures)


def test_settings_changed_for_a_fork_are_copied_as_a_fork(wb: Workbench, run: Path) -> None:
    form = wb.configuration
    assert form.fields["model.path"].disabled
    form.fields["rollout.temperature"].value = "0.8"
    assert form.overrides() == {"rollout": {"temperature": 0.8}}
    assert form.as_text("Python") == 'wb.fork(\n    "new-name",\n    rollout__temperature=0.8,\n)'
    assert form.as_text("command line").split() == [
        "workbench", "fork", str(run), "\\", "--rollout.temperature", "0.8",
    ]  # fmt: skip
    assert "with 1 changed setting" in wb.controls.fork_settings.value
    form.fields["rollout.temperature"].value = "1.0"
    assert form.overrides() == {}


@pytest.mark.slow
def test_500_updates_leave_as_many_widgets_and_traces_as_the_first(wb: Workbench, run: Path, reader: RunReader) -> None:
    panels = [wb.controls, wb.dashboard, wb.rollouts, wb.recycled, wb.correction, wb.compare, wb.preflight, wb.export]
    wb.preflight.wait()
    wb.refresh()
    widgets = len(ipywidgets.widgets.widget._instances)
    traces = [len(figure.data) for figure in wb.dashboard.figures.values()]
    shapes = [len(figure.layout.shapes) for figure in wb.dashboard.figures.values()]
    series = RunView(reader).series()
    from workbench.figures import mark_round, update_dashboard

    for number in range(500):
        update_dashboard(wb.dashboard.figures, series)
        for figure in wb.dashboard.figures.values():
            mark_round(figure, number % 5)
        for panel in (wb.controls, wb.export):
            panel.refresh(wb.driver.state, wb._refresher.look(wb.driver.state))
        if number % 50 == 0:  # these read a round each time
            for panel in panels:
                panel.refresh(wb.driver.state, wb._refresher.look(wb.driver.state))
            wb.rollouts.reload()
            wb.recycled.reload()
            wb.correction.reload()
    assert len(ipywidgets.widgets.widget._instances) == widgets
    assert [len(figure.data) for figure in wb.dashboard.figures.values()] == traces
    assert [len(figure.layout.shapes) for figure in wb.dashboard.figures.values()] == shapes


def test_a_page_that_is_loaded_again_gets_the_points_that_are_drawn_now(wb: Workbench) -> None:
    wb.refresh()
    points = 0
    for figure in wb.dashboard.figures.values():
        state = figure.get_state()
        assert [len(trace.get("y", ())) for trace in state["_widget_data"]] == [
            0 if trace.y is None else len(trace.y) for trace in figure.data
        ]
        points += sum(len(trace.get("y", ())) for trace in state["_widget_data"])
        assert state["_widget_layout"].get("title") == figure.layout.to_plotly_json().get("title")
    assert points > 0


def test_a_panel_behind_another_tab_is_brought_up_to_date_when_it_comes_to_the_front(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    with workbench.open(copy) as wb:
        assert "Nothing is recorded yet" not in wb.rollouts.message.value
        tabs = wb.widget
        before = wb.rollouts.count.value
        wb.rollouts.shared.select(1)
        assert wb.rollouts.count.value == before
        tabs.selected_index = list(tabs.titles).index("Rollouts")
        assert wb.rollouts.table.ids[0].startswith("000001-")


def test_comparison_lists_differing_settings_only_and_says_what_is_no_evidence(run: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(run, tmp_path / "first"))
    second = Path(shutil.copytree(run, tmp_path / "second"))
    config = (second / "config.yaml").read_text(encoding="utf-8")
    (second / "config.yaml").write_text(config.replace("seed: 0", "seed: 5"), encoding="utf-8")
    with workbench.open(first) as wb:
        wb.compare.button.click()
        wb.compare.wait(60)
        assert "Choose at least one other run." in wb.compare.said.value
        assert wb.compare.runs.options == ("second",)
        wb.compare.runs.value = ["second"]
        wb.compare.button.click()
        wb.compare.wait(60)
        assert "on the held-out problems that they share" in wb.compare.said.value
        shown = page_text(wb.compare.result.value)
        assert "seed 0 5" in shown
        assert "rollout.samples" not in shown
        assert "yes" not in shown.partition("Settings")[0].split()  # equal runs: nothing is evidence
        widgets = len(ipywidgets.widgets.widget._instances)
        wb.compare.button.click()
        wb.compare.wait(60)
        assert len(ipywidgets.widgets.widget._instances) == widgets


def test_export_writes_a_page_and_tables_and_says_what_it_cannot(
    wb: Workbench, reader: RunReader, tmp_path: Path
) -> None:
    panel = wb.export
    panel.page.value = str(tmp_path / "deep" / "run.html")
    panel.page_button.click()
    panel.report.wait(120)
    assert "opens in any browser" in panel.page_said.value
    assert "<script src=" not in (tmp_path / "deep" / "run.html").read_text(encoding="utf-8")
    panel.tables.value, panel.format.value = str(tmp_path / "tables"), "csv"
    panel.tables_button.click()
    panel.files.wait(120)
    assert "tables as csv" in panel.tables_said.value
    assert (tmp_path / "tables").is_dir()
    panel.folder.value = str(tmp_path / "model")
    panel.model_button.click()
    panel.model.wait(120)
    assert "no checkpoint" in panel.model_said.value  # the recorded run ships without weights
    assert not panel.model_button.disabled


def test_every_panel_has_a_form_without_widgets(wb: Workbench, reader: RunReader) -> None:
    """What GitHub shows, and nbconvert where the state of widgets is not saved."""
    bundle = wb.dashboard._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    shown = page_text(bundle["text/html"])
    for figure in RunView(reader).headline():
        assert figure.sentence in shown
    line = reader.evaluation(reader.evaluations[-1])["lines"]["greedy"]["accuracy"]["value"]
    assert f"solved, greedy 0 {reader.evaluation(0)['lines']['greedy']['accuracy']['value']:.4g}" in shown
    assert f"{reader.evaluations[-1]} {line:.4g}" in shown
    rollouts = page_text(wb.rollouts._repr_mimebundle_()["text/html"])
    assert wb.rollouts.table.widget.df.iloc[0]["answer"] in rollouts
    assert page_text(wb.rollouts.detail.value) in rollouts
    everything = wb._repr_mimebundle_()["text/html"]
    assert "<summary>Recycled</summary>" in everything
    assert "<script" not in everything
    assert len(everything) < 500_000
