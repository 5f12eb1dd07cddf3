"""The tab "Runs": what there is, and two or more runs beside each other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components.plot import PlotData

from spark_kernel.errors import InputError
from workbench.app.context import AppContext
from workbench.app.markup import escape, paragraph, table
from workbench.app.plots import plot_data, stamp
from workbench.figures import Theme, arms_figure, comparison_figure, difference_figure
from workbench.reporting.problem_pairs_html import problem_pairs_html
from workbench.reporting.seed_rows import ARM_HEADERS, arm_cells
from workbench.value_text import show
from workbench.views import RunView, compare

MOST_COMPARED = 12
"""Two arms of six seeds."""
LISTED = 200


@dataclass(frozen=True, slots=True)
class RunsTab:
    """The components of the tab."""

    listed: gr.HTML
    chosen: gr.Dropdown
    sentences: gr.HTML
    arms: gr.Plot
    points: gr.Plot
    differences: gr.Plot

    @property
    def outputs(self) -> list[Any]:
        """Everything that a comparison fills."""
        return [self.sentences, self.arms, self.points, self.differences]


def build_runs(context: AppContext, theme: gr.Textbox) -> RunsTab:
    """Make the tab's components and wire them; call it inside `gr.Tab`."""
    listed = gr.HTML("", js_on_load=None)
    with gr.Row(equal_height=False):
        chosen = gr.Dropdown(
            context.catalog.run_names(), value=[], multiselect=True, max_choices=MOST_COMPARED, label="Compare",
            info="The first one is what the others are compared with.", elem_id="sw-compare", scale=4,
        )  # fmt: skip
        button = gr.Button("Compare", variant="primary", scale=1, min_width=140, elem_id="sw-compare-go")
    sentences = gr.HTML("", js_on_load=None, elem_id="sw-compared")
    arms = gr.Plot(show_label=False, elem_classes="sw-plot", visible=False)
    points = gr.Plot(show_label=False, elem_classes="sw-plot", visible=False)
    differences = gr.Plot(show_label=False, elem_classes="sw-plot", visible=False)
    compared = gr.Textbox("[]", visible=False)
    tab = RunsTab(listed, chosen, sentences, arms, points, differences)
    common: dict[str, Any] = {"queue": False, "preprocess": False, "api_visibility": "private"}
    button.click(
        context.told(
            lambda names, shade: fill_comparison(tab, context, names, shade) | {compared: json.dumps(list(names))}
        ),
        [chosen, theme], [*tab.outputs, compared], **common,
    )  # fmt: skip
    theme.change(
        context.told(lambda names, shade: _shaded(tab, context, names, shade)), [compared, theme], tab.outputs,
        show_progress="hidden", **common,
    )  # fmt: skip
    return tab


def _shaded(tab: RunsTab, context: AppContext, compared: Any, theme: Theme) -> dict[Any, Any]:
    """The comparison that is shown, if there is one, in the page's new colours."""
    try:
        names = json.loads(compared)
    except (TypeError, ValueError, RecursionError):
        names = []
    shown = isinstance(names, list) and bool(names)
    return fill_comparison(tab, context, names, theme) if shown else {tab.points: gr.skip()}


def fill_comparison(tab: RunsTab, context: AppContext, names: Any, theme: Theme) -> dict[Any, Any]:
    """Runs side by side: what may be said, the figures, and only the settings that differ.

    Raises:
        InputError: fewer than two runs, too many, or an unknown one.
    """
    wanted = list(dict.fromkeys(map(str, names or ())))
    if not 2 <= len(wanted) <= MOST_COMPARED:
        raise InputError(f"Choose 2 to {MOST_COMPARED} runs to compare.")
    theme = "dark" if theme == "dark" else "light"
    views = [context.catalog.open_run(name) for name in wanted]
    text, arms, points, differences = context.kept.get(
        ("comparison", tuple(map(stamp, views)), theme), lambda: _compared(context, views, theme)
    )
    return {
        tab.sentences: text,
        tab.arms: gr.update(value=arms, visible=arms is not None),
        tab.points: gr.update(value=points, visible=True),
        tab.differences: gr.update(value=differences, visible=differences is not None),
    }


def _compared(
    context: AppContext, views: Sequence[RunView], theme: Theme
) -> tuple[str, PlotData | None, PlotData | None, PlotData | None]:
    """What may be said, the arms over rounds, the measures, and their differences where there are any."""
    result = compare([view.reader for view in views])
    rows = [
        (
            row.label,
            context.without_roots(row.comparison.second_run),
            row.matched_by,
            row.sentence,
        )
        for row in result.rows
    ]
    text = "".join(paragraph(note, "muted") for note in result.notes)
    text += table(
        ("measure", f"against {context.without_roots(result.names[0])}", "matched by", "what may be said"), rows,
        caption="Comparison (paired, 95 % intervals)", empty="nothing that all runs measured: not enough evidence.",
    )  # fmt: skip
    names = [context.without_roots(name) for name in result.names]
    if result.arm_rows:
        text += table(ARM_HEADERS, arm_cells(result), caption=f"Over seeds, against {names[0]}")
    for name, pairs in result.problems.items():
        text += problem_pairs_html(pairs, names[0], context.without_roots(name), table, escape)
    settings = [(row.setting, *(context.without_roots(show(value)) for value in row.values)) for row in result.settings]
    text += table(
        ("setting", *map(context.without_roots, result.names)), settings,
        caption="Settings that differ", empty="none.",
    )  # fmt: skip
    differences = plot_data(difference_figure(result, theme)) if result.rows else None
    arms = plot_data(arms_figure(result, theme)) if result.curves else None
    return text, arms, plot_data(comparison_figure(result, theme)), differences


def runs_html(context: AppContext) -> str:
    """The runs that there are, newest first, and why others cannot be read."""
    catalog = context.catalog
    runs = catalog.runs()
    rows: list[tuple[Any, ...]] = [
        (
            run.name, str(run.state), run.rounds, run.created[:16].replace("T", " "),
            f"{run.parent.run} after round {run.parent.round}" if run.parent else "",
        )
        for run in runs[:LISTED]
    ]  # fmt: skip
    rows += [(name, "recorded, comes with the package", None, "", "") for name in catalog.recorded]
    text = table(("run", "state", "rounds", "started (UTC)", "forked from"), rows, caption="Runs", empty="none yet.")
    if len(runs) > LISTED:
        text += paragraph(f"{len(runs) - LISTED} older runs are not listed.", "muted")
    return text + "".join(paragraph(context.without_roots(sentence), "warning") for sentence in catalog.unreadable())
