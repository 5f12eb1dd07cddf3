"""Figures show the snapshots' numbers, say what they leave out, and are changed in place without growing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.helpers.documented import ask
from workbench.figures import (
    PANELS,
    apply_theme,
    calibration_figure,
    comparison_figure,
    confusion_figure,
    difference_figure,
    funnel_figure,
    make_dashboard,
    make_figure,
    mark_round,
    transitions_figure,
    update_dashboard,
    update_figure,
)
from workbench.figures.accuracy_panels import judge_panel
from workbench.figures.combined import combined
from workbench.figures.names import named_traces
from workbench.figures.panel import Row, Slot, make_panel
from workbench.figures.style import GREY, KIND_COLOURS
from workbench.recorded import recorded_run
from workbench.views import Line, RoundSeries, RunView, compare
from workbench.views.judge import UNREADABLE

EMPTY = RoundSeries("new", (), 0, "", (), (), (), (), (), Line(("round",), (), {}), ())


@pytest.fixture(scope="module")
def view() -> RunView:
    return RunView(recorded_run())


@pytest.fixture(scope="module")
def series(view: RunView) -> RoundSeries:
    return view.series()


@pytest.fixture(scope="module")
def drawn(series: RoundSeries) -> dict[str, go.Figure]:
    """The dashboard, for tests that only read it: drawing it takes most of a second."""
    return make_dashboard(series)


def shown(figure: go.Figure) -> list[Any]:
    """The traces that a person can see."""
    return [trace for trace in figure.data if trace.visible is not False and trace.name]


def named(figure: go.Figure, name: str, row: int = 1) -> Any:
    """The trace of a legend entry that can be hovered, in a row."""
    axis = "y" if row == 1 else f"y{row}"
    found = [t for t in figure.data if t.name == name and t.yaxis in (axis, None) and t.hoverinfo != "skip"]
    assert len(found) == 1, (name, [t.name for t in figure.data])
    return found[0]


def prefix(series: RoundSeries, last: int) -> RoundSeries:
    """The series as it stood after a round."""

    def cut(lines: Sequence[Line]) -> tuple[Line, ...]:
        made = []
        for line in lines:
            n = sum(round <= last for round in line.rounds)
            if n:
                made.append(Line(line.name, line.rounds[:n], {k: v[:n] for k, v in line.figures.items()}))
        return tuple(made)

    return dataclasses.replace(
        series,
        rounds=tuple(round for round in series.rounds if round <= last),
        **{
            name: cut(getattr(series, name))
            for name in ("on_policy", "held_out", "updates", "updates_by_kind", "seconds")
        },
        memory=next(iter(cut([series.memory])), EMPTY.memory),
    )


def test_points_are_the_numbers_of_the_rows(view: RunView, drawn: dict[str, go.Figure]) -> None:
    figures = drawn
    assert tuple(figures) == PANELS
    solve = [row for row in ask(view.reader, "accuracy") if row["kind"] == "solve"]
    line = named(figures["accuracy"], "training problems")
    assert list(line.x) == list(line.customdata) == [row["round"] for row in solve]
    assert list(line.y) == pytest.approx([row["accuracy"] for row in solve])
    held_out = [row for row in ask(view.reader, "held_out_lines") if row["line"] == "greedy"]
    markers = named(figures["accuracy"], "held-out, greedy")
    assert list(markers.y) == [row["accuracy"] for row in held_out]
    assert list(markers.customdata) == [0, 6, 12]
    assert list(markers.error_y.array) == pytest.approx([row["high"] - row["accuracy"] for row in held_out])
    assert list(markers.error_y.arrayminus) == pytest.approx([row["accuracy"] - row["low"] for row in held_out])
    judged = [r for r in ask(view.reader, "judge") if (r["kind"], r["origin"]) == ("pairwise", "solve")]
    for name, column in (("training, of answers", "accuracy"), ("chance (training)", "chance")):
        assert list(named(figures["judge"], name, 2).y) == pytest.approx([row[column] for row in judged])
    rates = [r for r in ask(view.reader, "judge") if (r["kind"], r["origin"]) == ("pointwise", "reflection")]
    assert list(named(figures["verdicts"], "training, of reflections", 2).y) == pytest.approx(
        [row["yes_rate"] for row in rates]
    )
    updates = [row for row in ask(view.reader, "updates") if row["period"] == "reward"]
    assert list(named(figures["optimizer"], "reward period", 4).y) == [row["grad_norm"] for row in updates]
    phases = {row["round"]: row["seconds"] for row in ask(view.reader, "seconds") if row["phase"] == "reward/roll_out"}
    assert dict(zip(*[named(figures["cost"], "reward: roll out", 2)[k] for k in "xy"], strict=True)) == phases
    memory = named(figures["cost"], "process", 3)
    assert list(memory.y) == [view.reader.round_meta(r)["peak_memory"]["process"] / 2**30 for r in memory.x]
    assert named(figures["cost"], "GPU", 3).visible is False


def test_kinds_over_all_origins_follow_from_the_rows(view: RunView, series: RoundSeries) -> None:
    for row in ask(view.reader, "kinds"):
        line = combined(series, row["kind"])
        assert line is not None
        place = line.rounds.index(row["round"])
        for figure in ("length_mean", "truncated", "unparseable", "all_correct", "mixed", "all_wrong"):
            assert line.get(figure)[place] == pytest.approx(row[figure], abs=1e-12), (figure, row)
    figure = make_figure("groups", series)
    for row in range(1, 5):
        shares = [named(figure, name, row).y for name in ("all wrong", "mixed", "all right")]
        total = [sum(values) for values in zip(*shares, strict=True)]
        assert total == pytest.approx([1.0] * len(total))


def test_a_band_closes_around_the_interval_and_breaks_where_there_is_none(series: RoundSeries) -> None:
    line = Line(
        ("reward", "pointwise", "solve"),
        (1, 2, 3, 4),
        {
            "accuracy": (0.5, 0.6, 0.7, 0.8),
            "accuracy_low": (0.4, 0.5, None, 0.7),
            "accuracy_high": (0.6, 0.7, None, 0.9),
            "n": (8.0, 8.0, 8.0, 8.0),
        },
    )
    figure = make_figure("judge", dataclasses.replace(EMPTY, rounds=(1, 2, 3, 4), on_policy=(line,)))
    band = next(trace for trace in shown(figure) if trace.fill == "toself")
    assert list(band.x) == [1, 2, 2, 1, None, 4, 4]
    assert list(band.y) == [0.6, 0.7, 0.5, 0.4, None, 0.9, 0.7]


def test_hover_tells_interval_and_n(series: RoundSeries, drawn: dict[str, go.Figure]) -> None:
    figures = drawn
    line = series.kind_line("solve", "problem")
    assert line is not None
    text = named(figures["accuracy"], "training problems").text[0]
    assert text == "32.8 %<br>95 % interval 18.9 to 50.5 %<br>n = 64"
    assert "n = 20" in named(figures["accuracy"], "held-out, greedy").text[0]
    assert "chance" in named(figures["judge"], "training, of answers").text[0]
    assert "nearly always the same verdict" in named(figures["judge"], "training, of answers", 2).text[-1]


def test_held_out_and_training_differ_by_more_than_colour(drawn: dict[str, go.Figure]) -> None:
    for figure in drawn.values():
        for trace in shown(figure):
            if trace.name.startswith("held-out"):
                assert trace.line.dash == "dash"
                assert trace.error_y.array is not None
            elif trace.name.startswith("training") and trace.fill is None:
                assert trace.line.dash in ("solid", "dot")
                assert trace.error_y.array is None
            elif trace.name.startswith(("chance", "base rate")):
                assert GREY in (trace.line.color, trace.marker.color)


def test_axes_have_titles_units_and_shares_as_percent(drawn: dict[str, go.Figure]) -> None:
    for name, figure in drawn.items():
        axes = [figure.layout[key] for key in figure.layout.to_plotly_json() if key.startswith("yaxis")]
        assert all(axis.title.text for axis in axes), name
        titles = [figure.layout[key].title.text for key in figure.layout.to_plotly_json() if key.startswith("xaxis")]
        assert titles[-1] == "round"
        assert figure.layout.title.text
    units = " ".join(str(a.title.text) for n in ("optimizer", "cost") for a in _y_axes(drawn[n]))
    assert all(unit in units for unit in ("nats", "seconds", "tokens", "GiB"))
    assert all(axis.tickformat == ".0%" for n in ("accuracy", "judge", "groups") for axis in _y_axes(drawn[n]))


def _y_axes(figure: go.Figure) -> list[Any]:
    return [figure.layout[key] for key in figure.layout.to_plotly_json() if key.startswith("yaxis")]


@pytest.mark.slow
def test_five_hundred_updates_change_points_and_never_traces(series: RoundSeries) -> None:
    widgets = {name: go.FigureWidget(figure) for name, figure in make_dashboard(EMPTY).items()}
    before = {name: [trace.uid for trace in widget.data] for name, widget in widgets.items()}
    assert not any(shown(widget) for widget in widgets.values())
    stages = [prefix(series, last) for last in range(13)]
    for step in range(500):
        update_figure("accuracy", widgets["accuracy"], stages[step % 13])
    for stage in stages:
        update_dashboard(widgets, stage)
    update_dashboard(widgets, series)
    assert {name: [trace.uid for trace in widget.data] for name, widget in widgets.items()} == before
    for name, figure in make_dashboard(series).items():
        for mine, fresh in zip(widgets[name].data, figure.data, strict=True):
            assert (mine.x, mine.y, mine.text, mine.visible) == (fresh.x, fresh.y, fresh.text, fresh.visible)
        assert len(widgets[name].layout.shapes) == 1
        assert widgets[name].layout.uirevision == name


def test_lines_that_are_gone_are_hidden(series: RoundSeries) -> None:
    """After going back to an earlier round, what came later is not left on the figure."""
    figure = make_figure("judge", series)
    update_figure("judge", figure, prefix(series, 1))
    assert list(named(figure, "training, of answers").x) == [1]
    assert named(figure, "training, of reflections").visible is False
    update_figure("judge", figure, EMPTY)
    assert not shown(figure)
    assert figure.layout.title.subtitle.text == "No round is finished yet."
    with pytest.raises(ValueError, match="traces"):
        update_figure("accuracy", figure, series)


def test_a_figure_says_what_it_leaves_out_and_names_one_sided_judges(series: RoundSeries) -> None:
    told = dataclasses.replace(series, thinned="400 of 9000 rounds are shown.", flags=("One-sided <b>judge</b>.", "x."))
    figures = make_dashboard(told)
    assert figures["accuracy"].layout.title.subtitle.text == "400 of 9000 rounds are shown."
    assert "(and 1 more)" in figures["judge"].layout.title.subtitle.text
    only = dataclasses.replace(told, flags=told.flags[:1])
    assert "One-sided &lt;b&gt;judge" in make_figure("verdicts", only).layout.title.subtitle.text


def test_a_selected_round_is_marked(series: RoundSeries) -> None:
    figure = make_figure("accuracy", series)
    mark_round(figure, 7)
    (mark,) = figure.layout.shapes
    assert (mark.x0, mark.x1, mark.visible) == (7, 7, True)
    mark_round(figure, None)
    (mark,) = figure.layout.shapes
    assert mark.visible is False


def luminance(colour: str) -> float:
    def linear(value: int) -> float:
        share = value / 255
        return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[i : i + 2], 16)) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, two: str) -> float:
    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", "#111111", "#16181d"])
def test_lines_stand_out_on_light_and_dark_pages(page: str) -> None:
    """WCAG 1.4.11: graphical objects at least 3:1."""
    for name, colour in (*KIND_COLOURS.items(), ("grey", GREY)):
        assert contrast(colour, page) >= 3.0, (name, page)


def test_themes_change_text_and_leave_the_background_to_the_page(series: RoundSeries) -> None:
    figure = make_figure("accuracy", series, "light")
    traces = figure.to_plotly_json()["data"]
    inks = []
    for theme in ("light", "dark"):
        apply_theme(figure, theme)  # type: ignore[arg-type]
        look = figure.layout.template.layout
        assert look.paper_bgcolor == look.plot_bgcolor == "rgba(0,0,0,0)"
        inks.append(look.font.color)
        assert contrast(look.font.color, "#ffffff" if theme == "light" else "#16181d") > 7
    assert inks[0] != inks[1]
    assert repr(figure.to_plotly_json()["data"]) == repr(traces)


def test_the_compact_form_puts_legends_above_their_rows(series: RoundSeries) -> None:
    wide, narrow = make_figure("judge", series), make_figure("judge", series, compact=True)
    assert narrow.layout.height > wide.layout.height
    assert {narrow.layout[f"legend{n}"].orientation for n in ("", "2", "3")} == {"h"}
    assert [t.name for t in narrow.data] == [t.name for t in wide.data]


# Positions: by name, so that what is added to a figure shifts nothing ------------------------------------------------


def put_first(figure: go.Figure) -> None:
    """Add a trace and a shape of somebody else's in front of all others."""
    figure.add_trace(go.Scatter(x=[0], y=[0.5], name="mine", customdata=[0]))
    figure.data = (figure.data[-1], *figure.data[:-1])
    figure.layout.shapes = ({"type": "line", "x0": 3, "x1": 3, "y0": 0, "y1": 1}, *figure.layout.shapes)


def points_by_name(figure: go.Figure) -> dict[str, Any]:
    return {trace.meta: (trace.x, trace.y, trace.text, trace.visible) for trace in figure.data if trace.meta}


@pytest.mark.parametrize("widget", [go.Figure, pytest.param(go.FigureWidget, marks=pytest.mark.slow)])
def test_an_added_trace_shifts_nothing_on_the_dashboard(
    series: RoundSeries, drawn: dict[str, go.Figure], widget: Any
) -> None:
    for name in PANELS:
        figure = widget(make_figure(name, EMPTY))
        put_first(figure)
        update_figure(name, figure, series)
        mark_round(figure, 7)
        assert points_by_name(figure) == points_by_name(drawn[name])
        mine, mark = figure.data[0], figure.layout.shapes
        assert (mine.name, mine.x, mine.y, mine.customdata) == ("mine", (0,), (0.5,), (0,))
        assert [shape.x0 for shape in mark] == [3, 7]


def test_an_added_trace_shifts_nothing_in_the_figures_of_one_moment(view: RunView) -> None:
    first, last = view.rounds()[0], view.rounds()[-1]
    lines = [line for line in view.judge(12, held_out=True).lines if line.calibration]
    loops = [loop for round in view.evaluations() if (loop := view.self_correction(round))]
    runs = compare([view.reader, RunView(recorded_run()).reader])
    none_enough = dataclasses.replace(runs, points=runs.points[:1], rows=runs.rows[:1])
    for make, old, new in (
        (funnel_figure, view.funnel([first]), view.funnel([last])),
        (confusion_figure, lines[0], view.judge(12, held_out=True).lines[-1]),
        (calibration_figure, [], lines),
        (transitions_figure, loops[:1], loops),
        (comparison_figure, none_enough, runs),
        (difference_figure, none_enough, runs),
    ):
        figure = make(old)
        put_first(figure)
        assert make(new, figure=figure) is figure
        assert points_by_name(figure) == points_by_name(make(new))
        assert len(points_by_name(figure)) == len(figure.data) - 1
        assert (figure.data[0].name, figure.data[0].x) == ("mine", (0,))


def test_an_added_row_leaves_every_trace_in_its_own(series: RoundSeries) -> None:
    panel = judge_panel()
    extra = (Row("new", "something new"), *panel.rows)
    slot = Slot("new", "line", {"name": "line", "mode": "lines"}, lambda _: {"x": [1], "y": [1], "visible": True})
    figure = make_panel(dataclasses.replace(panel, rows=extra, slots=(slot, *panel.slots)), series, "light")
    before = make_panel(panel, series, "light")
    assert points_by_name(before).items() <= points_by_name(figure).items()

    def titles(of: go.Figure) -> dict[str, str]:
        return {t.meta: of.layout[f"yaxis{(t.yaxis or 'y')[1:]}"].title.text for t in of.data}

    assert titles(before).items() <= titles(figure).items()
    assert titles(figure)["new: line"] == "something new"


def test_traces_of_a_figure_have_names_of_their_own(drawn: dict[str, go.Figure]) -> None:
    for figure in drawn.values():
        names = [trace.meta for trace in figure.data]
        assert all(names)
        assert len(set(names)) == len(names)


def test_a_run_compared_with_itself_is_two_points_and_other_runs_need_another_figure(view: RunView) -> None:
    runs = compare([view.reader, RunView(recorded_run()).reader])
    assert len(set(runs.names)) == 2
    figure = comparison_figure(runs)
    assert sum(len(trace.x) for trace in figure.data) == len(runs.points)
    with pytest.raises(ValueError, match="has no traces other"):
        comparison_figure(dataclasses.replace(runs, names=(runs.names[0], "other")), figure=figure)


def test_few_rounds_have_a_tick_each_and_many_do_not(series: RoundSeries) -> None:
    figure = make_figure("judge", prefix(series, 3))
    x_axes = [key for key in figure.layout.to_plotly_json() if key.startswith("xaxis")]
    assert {figure.layout[key].dtick for key in x_axes} == {1}
    update_figure("judge", figure, dataclasses.replace(series, rounds=tuple(range(1, 100))))
    assert {figure.layout[key].dtick for key in x_axes} == {None}


# Details --------------------------------------------------------------------------------------------------------------


def test_funnel_bars_fill_each_step(view: RunView) -> None:
    funnel = view.funnel(view.reader.rounds)
    figure = funnel_figure(funnel)
    for place, step in enumerate(funnel.steps):
        assert sum(bar.x[place] for bar in figure.data) == pytest.approx(1.0)
        assert sum(int(bar.text[place] or 0) for bar in figure.data) == step.entered
    refilled = funnel_figure(view.funnel([3]), kind="pairwise", figure=figure)
    assert refilled is figure
    expected = funnel_figure(view.funnel([3]), kind="pairwise")
    assert [bar.text for bar in figure.data] == [bar.text for bar in expected.data]
    assert [bar.visible for bar in figure.data] == [bar.visible for bar in expected.data]


def test_confusion_cells_are_the_counts(view: RunView) -> None:
    for line in view.judge(12, held_out=True).lines:
        figure = confusion_figure(line)
        (heat,) = figure.data
        for row, label in enumerate(line.labels):
            assert sum(heat.z[row]) == pytest.approx(1.0)
            for column, verdict in enumerate((*line.labels, UNREADABLE)):
                assert heat.text[row][column].startswith(f"<b>{line.confusion[label, verdict]}</b>")


def test_calibration_shows_bins_with_judgements_only(view: RunView) -> None:
    lines = [line for line in view.judge(12, held_out=True).lines if line.calibration]
    figure = calibration_figure(lines)
    first = named_traces(figure, ["circle"], "calibration")["circle"]
    bins = [bin for bin in lines[0].calibration if bin.n]
    assert (list(first.x), list(first.y)) == ([b.probability for b in bins], [b.correct for b in bins])
    assert f"error {lines[0].calibration_error:.3f}" in first.name
    assert len(calibration_figure([]).data) == len(figure.data)
    calibration_figure([], figure=figure)
    assert [trace.name for trace in shown(figure)] == ["calibrated"]
    assert figure.layout.title.text == "No probabilities were recorded"


def test_transitions_are_in_sight_with_their_p(view: RunView) -> None:
    loops = [loop for round in view.evaluations() if (loop := view.self_correction(round))]
    figure = transitions_figure(loops)
    written = {bar.name: [int(text or 0) for text in bar.text] for bar in figure.data}
    assert written["right, becomes wrong"] == [loop.transitions["right_wrong"] for loop in loops]
    assert [sum(column) for column in zip(*written.values(), strict=True)] == [loop.n for loop in loops]
    notes = [note.text for note in figure.layout.annotations]
    assert all(f"p = {loop.mcnemar_p:.3g}" in note for loop, note in zip(loops, notes, strict=True))
    transitions_figure(loops[:1], figure=figure)
    assert len(figure.layout.annotations) == 1
    assert len(figure.data) == 4


def test_comparison_marks_what_is_not_enough_evidence_and_shows_names_literally(view: RunView) -> None:
    found = compare([view.reader, RunView(recorded_run()).reader])
    hostile = '<a href="https://example.org">x</a>'
    found = dataclasses.replace(
        found,
        names=(hostile, "b"),
        points=tuple(dataclasses.replace(p, run=hostile if i % 2 else "b") for i, p in enumerate(found.points)),
    )
    points = comparison_figure(found)
    assert [trace.name for trace in points.data] == ['&lt;a href="https://example.org"&gt;x&lt;/a&gt;', "b"]
    assert sum(len(trace.x) for trace in points.data) == len(found.points)
    difference = difference_figure(found)
    assert all(symbol.endswith("-open") for trace in difference.data for symbol in trace.marker.symbol)
    assert all("Not enough evidence" in text for trace in difference.data for text in trace.text)
    assert "<a" not in difference.layout.title.text
    surely = dataclasses.replace(found, rows=tuple(dataclasses.replace(row, enough=True) for row in found.rows))
    assert not any(s.endswith("-open") for trace in difference_figure(surely).data for s in trace.marker.symbol)
