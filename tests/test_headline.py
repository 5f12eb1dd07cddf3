"""The headline: numbers of the evaluations, a paired change, and a sentence that claims no more than they show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spark_kernel.evaluate.compare import Difference
from spark_kernel.runs.reader import RunReader
from workbench.recorded import recorded_run
from workbench.reporting.headline_html import headline_html
from workbench.views import RunView
from workbench.views.headline import HeadlineFigure, _sentence


@pytest.fixture(scope="module")
def figures() -> dict[str, HeadlineFigure]:
    return {figure.name: figure for figure in RunView(recorded_run()).headline()}


def test_numbers_are_those_of_the_evaluations(figures: dict[str, HeadlineFigure]) -> None:
    assert list(figures) == ["solved", "judges", "loop"]
    reader = RunReader(recorded_run())
    first, last = (reader.evaluation(round)["lines"] for round in (reader.evaluations[0], reader.evaluations[-1]))
    judges = figures["judges"]
    own = last["own/pointwise/answer"]
    assert (judges.values[-1], judges.low[-1], judges.high[-1]) == (
        own["balanced_accuracy"],
        own["balanced_accuracy_low"],
        own["balanced_accuracy_high"],
    )
    for name, line, figure in (("solved", "greedy", "accuracy"), ("loop", "loop", "after")):
        change = figures[name].change
        assert change is not None
        # Read from the rollouts and chains, not from the summaries.
        assert change.first == pytest.approx(first[line][figure]["value"])
        assert change.second == pytest.approx(last[line][figure]["value"])
        assert figures[name].values[-1] == last[line][figure]["value"]


@pytest.mark.parametrize(
    ("low", "high", "second", "says"),
    [
        (0.05, 0.2, 0.86, "It judges better: 74% to 86%."),
        (-0.2, -0.05, 0.62, "It judges worse: 74% to 62%."),
        (-0.01, 0.2, 0.86, "No change shown: judges, 74% to 86% on 20 problems."),
    ],
)
def test_sentence_claims_what_the_interval_shows(low: float, high: float, second: float, says: str) -> None:
    change = Difference(0.74, second, second - 0.74, low, high, 20, 0, 2000)
    assert _sentence("judges", second, change) == says
    assert _sentence("judges", second, replace(change, problems=9)).startswith("No change shown")


def test_html_shows_ends_curve_and_chance(figures: dict[str, HeadlineFigure]) -> None:
    page = headline_html(tuple(figures.values()))
    for figure in figures.values():
        assert f'data-headline="{figure.name}"' in page
        assert figure.sentence in page
    assert page.count("<circle") == sum(len(figure.rounds) for figure in figures.values())
    assert page.count("stroke-dasharray") == 1
    assert "chance is 50%" in page
    assert not set("{}$`") & set(page)  # Gradio's HTML component would read them as a template
    assert "No held-out evaluation" in headline_html(())
