"""The tab "Reward accuracy": how well the model judges, over rounds and at one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from workbench.app.context import AppContext
from workbench.app.markup import heading, paragraph, share, table
from workbench.app.plots import plot_data, stamp
from workbench.figures import Theme, calibration_figure, confusion_figure, make_figure, transitions_figure
from workbench.reporting.headline_html import headline_html
from workbench.views import JudgeDetail, JudgeLine, RunView

CONFUSIONS = 4
"""Confusion matrices that are drawn; more judges stand in the table."""
OVER_ROUNDS = ("overview", "judge", "verdicts")
"""The first is seen at once, the others stand in a fold that the page remembers (`page.js`)."""


@dataclass(frozen=True, slots=True)
class RewardsTab:
    """The components of the tab."""

    headline: gr.HTML
    over_rounds: tuple[gr.Plot, ...]
    place: gr.HTML
    judges: gr.HTML
    confusions: tuple[gr.Plot, ...]
    calibration: gr.Plot
    transitions: gr.Plot

    @property
    def outputs(self) -> list[Any]:
        """Everything that `fill_rewards` fills."""
        return [
            self.headline,
            *self.over_rounds,
            self.place,
            self.judges,
            *self.confusions,
            self.calibration,
            self.transitions,
        ]


@dataclass(frozen=True, slots=True)
class Judged:
    """What the tab shows of one round: texts, and figures as the page gets them."""

    place: str
    judges: str
    confusions: tuple[PlotData | None, ...]
    calibration: PlotData | None
    transitions: PlotData | None


def build_rewards() -> RewardsTab:
    """Make the tab's components; call it inside `gr.Tab`."""
    headline = gr.HTML("", js_on_load=None)
    over_rounds = [gr.Plot(show_label=False, elem_classes="sw-plot")]
    with gr.Accordion("Training rounds, base rates, and which way verdicts lean", open=False, elem_classes="sw-fold"):
        over_rounds += [gr.Plot(show_label=False, elem_classes="sw-plot") for _ in OVER_ROUNDS[1:]]
    place = gr.HTML("", js_on_load=None)
    confusions = []
    for _ in range(0, CONFUSIONS, 2):
        with gr.Row():
            for _ in range(2):
                confusions.append(gr.Plot(show_label=False, elem_classes="sw-plot", min_width=320, visible=False))
    with gr.Row():
        calibration = gr.Plot(show_label=False, elem_classes="sw-plot", min_width=340)
        transitions = gr.Plot(show_label=False, elem_classes="sw-plot", min_width=340)
    judges = gr.HTML("", js_on_load=None)
    return RewardsTab(headline, tuple(over_rounds), place, judges, tuple(confusions), calibration, transitions)


def fill_rewards(
    tab: RewardsTab, context: AppContext, view: RunView, round: int | None, theme: Theme
) -> dict[Any, Any]:
    """What the tab shows: curves over all rounds, and the judges of the held-out evaluation next to the round.

    Where the run has no evaluation up to the round, the judges of the training round stand there instead.
    """
    fresh = stamp(view)
    series = context.kept.get(("series", fresh), view.series)
    curves = context.kept.get(
        ("curves", fresh, theme), lambda: [plot_data(make_figure(name, series, theme)) for name in OVER_ROUNDS]
    )
    out: dict[Any, Any] = dict(zip(tab.over_rounds, curves, strict=True))
    out[tab.headline] = context.kept.get(("headline", fresh), lambda: headline_html(view.headline()))
    evaluated = tuple(number for number in view.evaluations() if round is None or number <= round)
    place = evaluated or round
    judged = context.kept.get(("judged", fresh, place, theme), lambda: _judged(view, round, evaluated, theme))
    for index, plot in enumerate(tab.confusions):
        figure = judged.confusions[index] if index < len(judged.confusions) else None
        out[plot] = gr.update(value=figure, visible=figure is not None)
    out[tab.place], out[tab.judges], out[tab.calibration] = judged.place, judged.judges, judged.calibration
    out[tab.transitions] = gr.update(value=judged.transitions, visible=judged.transitions is not None)
    return out


def _judged(view: RunView, round: int | None, evaluated: Sequence[int], theme: Theme) -> Judged:
    detail = _detail(view, round, evaluated)
    lines = detail.lines if detail is not None else ()
    loops = [loop for number in _some(evaluated) if (loop := view.self_correction(number)) is not None]
    return Judged(
        _place(detail), judges_html(lines),
        tuple(plot_data(confusion_figure(line, theme)) for line in [line for line in lines if line.n][:CONFUSIONS]),
        plot_data(calibration_figure(lines, theme)), plot_data(transitions_figure(loops, theme) if loops else None),
    )  # fmt: skip


def judges_html(lines: Sequence[JudgeLine]) -> str:
    """The judges' figures, and how often they stay with a choice when the pair is shown in the other order."""
    rows = [
        (
            line.name, line.n, _share(line, "accuracy"), _share(line, "balanced_accuracy"), _share(line, "base_rate"),
            _share(line, "chance"), _share(line, "yes_rate"), _share(line, "a_rate"), _share(line, "coverage"),
            line.calibration_error, line.brier,
        )
        for line in lines
    ]  # fmt: skip
    headers = (
        "judge", "verdicts", "accuracy", "balanced accuracy", "base rate", "chance line", "says Yes", "says A",
        "readable", "calibration error", "Brier score",
    )  # fmt: skip
    swapped = [
        (
            line.name,
            line.swapped.get("pairs"),
            *(share(line.swapped.get(name)) for name in ("agreement", "both_right", "first_rate")),
        )
        for line in lines
        if line.swapped
    ]
    return (
        table(headers, rows, caption="Judges (95 % intervals)", empty="No verdict was scored.")
        + table(
            ("judge", "pairs", "same choice in both orders", "right in both orders", "takes the first"), swapped,
            caption="Swapped order", empty="no pairs were asked in both orders.",
        )
        + "".join(paragraph(f"{line.name}: {line.flag}", "warning") for line in lines if line.flag)
    )  # fmt: skip


def _detail(view: RunView, round: int | None, evaluated: Sequence[int]) -> JudgeDetail | None:
    if evaluated:
        return view.judge(evaluated[-1], held_out=True)
    return None if round is None else view.judge(round, held_out=False)


def _place(detail: JudgeDetail | None) -> str:
    if detail is None:
        return paragraph("Nothing was judged yet.", "muted")
    if not detail.held_out:
        return heading(f"Judging in training, round {detail.round}", 2) + paragraph(
            "On-policy: the model judges what it was trained on. There is no held-out evaluation up to this round.",
            "muted",
        )
    where = "before training" if detail.round == 0 else f"after round {detail.round}"
    return heading(f"Judging held-out problems, {where}", 2)


def _some(rounds: Sequence[int]) -> list[int]:
    """The first and the last few of the evaluations."""
    return list(dict.fromkeys([*rounds[:1], *rounds[-3:]]))


def _share(line: JudgeLine, name: str) -> str:
    return share(line.figures.get(name), line.figures.get(f"{name}_low"), line.figures.get(f"{name}_high"))
