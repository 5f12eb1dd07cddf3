"""Figures show the snapshots' numbers, say what they leave out, and can be read on light and dark pages."""

from __future__ import annotations

import dataclasses
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.helpers.documented import ask
from tests.helpers.series import EMPTY, named, shown
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
)
from workbench.figures.combined import combined
from workbench.figures.names import named_traces
from workbench.figures.style import GREY, KIND_COLOURS
from workbench.recorded import recorded_run
from workbench.views import Line, RoundSeries, RunView, compare
from workbench.views.judge import UNREADABLE


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
    low, high = (100 * line.get(f"accuracy_{end}")[0] for end in ("low", "high"))
    share = f"{100 * line.get('accuracy')[0]:.1f} %"
    assert text == f"{share}<br>95 % interval {low:.1f} to {high:.1f} %<br>n = 384"
    assert "n = 300" in named(figures["accuracy"], "held-out, greedy").text[0]
    assert "chance" in named(figures["judge"], "training, of answers").text[0]
    pairs = series.kind_line("pairwise", "solve")
    assert pairs is not None
    assert "one-sided" not in named(figures["judge"], "training, of answers", 2).text[-1]
    leaning = tuple(1.0 for _ in pairs.rounds)
    leaning = dataclasses.replace(pairs, figures={**pairs.figures, "one_sided": leaning})
    others = tuple(line for line in series.on_policy if line is not pairs)
    told = make_dashboard(dataclasses.replace(series, on_policy=(*others, leaning)))
    assert "one-sided" in named(told["judge"], "training, of answers", 2).text[-1]


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
