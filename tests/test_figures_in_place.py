"""Figures are changed in place without growing, and what somebody adds to one shifts nothing in it."""

from __future__ import annotations

import dataclasses
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.helpers.series import EMPTY, named, prefix, shown
from workbench.figures import (
    PANELS,
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
from workbench.figures.panel import Row, Slot, make_panel
from workbench.recorded import recorded_run
from workbench.views import RoundSeries, RunView, compare


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
