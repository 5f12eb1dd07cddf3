"""What the open tab shows, filled from the run folder; the other tabs are filled when they are opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from workbench.app.cards import notice, one_block
from workbench.app.context import AppContext
from workbench.app.markup import paragraph
from workbench.app.samples import SampleQuery
from workbench.app.tabs.about import about_html
from workbench.app.tabs.live import LiveTab
from workbench.app.tabs.live_form import NONE
from workbench.app.tabs.rewards import RewardsTab, fill_rewards
from workbench.app.tabs.rounds import RoundsTab, fill_rounds, fill_texts
from workbench.app.tabs.runs import RunsTab, runs_html
from workbench.app.tabs.samples import CHOOSE, SamplesTab, fill_table, make_query
from workbench.figures import Theme

LIVE, ROUNDS, SAMPLES, REWARDS, RUNS, ABOUT = "live", "rounds", "samples", "rewards", "runs", "about"
TABS = (LIVE, ROUNDS, SAMPLES, REWARDS, RUNS, ABOUT)
OF_A_RUN = (ROUNDS, SAMPLES, REWARDS)
FOLLOW_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Bar:
    """What is chosen for all tabs of a run, and what the page knows of itself."""

    row: gr.Row
    run: gr.Dropdown
    round: gr.Slider
    state: gr.HTML
    timer: gr.Timer
    theme: gr.Textbox
    active: gr.Textbox


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that is filled from outside its own tab."""

    bar: Bar
    tabs: gr.Tabs
    live: LiveTab
    rounds: RoundsTab
    samples: SamplesTab
    rewards: RewardsTab
    runs: RunsTab
    about: gr.HTML


def outputs_of(parts: Parts) -> list[Any]:
    """What filling any tab may change."""
    bar, samples = parts.bar, parts.samples
    return [
        bar.row, bar.active, bar.run, bar.round, bar.state, bar.timer, bar.theme, parts.tabs,
        parts.live.form.first, parts.live.form.second, parts.live.form.about,
        *parts.rounds.outputs, *samples.filters, *samples.outputs, samples.detail, samples.picked, samples.link,
        *parts.rewards.outputs, parts.runs.listed, parts.runs.chosen, parts.about,
    ]  # fmt: skip


def refiller(context: AppContext, parts: Parts) -> Any:
    """Fill the tab that is open with what the run folder holds now."""

    def refill(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        return fill(context, parts, active, run, round, theme, filters)

    return context.told(refill)


def switcher(context: AppContext, parts: Parts, *, keep: bool = False) -> Any:
    """Another run, or with `keep` the same one looked at anew: lists and slider, then the open tab."""

    def switch(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        names = context.catalog.run_names()
        run = run if run in names else (names[0] if names else None)
        out: dict[Any, Any] = {parts.bar.run: gr.update(choices=names, value=run), **model_menus(context, parts)}
        if run is None:
            return out | fill(context, parts, active, None, 0, theme, filters)
        round, bar = bar_of(context, parts, str(run), round if keep else None)
        if not keep:
            samples = parts.samples
            out |= {samples.detail: one_block(notice(CHOOSE)), samples.picked: "", samples.link: ""}
        return out | bar | fill(context, parts, active, run, round, theme, filters)

    return context.told(switch)


def follower(context: AppContext, parts: Parts) -> Any:
    """Follow a run that is being written: where the newest round was chosen, the newest one is chosen again."""

    def follow(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        view = context.catalog.open_run(str(run))
        rounds = view.rounds()
        newest = rounds[-1] if rounds else 0
        # A phase of the next round may be recorded since: the round before it was the newest then.
        at_newest = not isinstance(round, int | float) or round >= newest - 1
        chosen, bar = bar_of(context, parts, str(run), newest if at_newest else round)
        if active not in (ROUNDS, REWARDS) or chosen == round:
            # Figures change with a new round only; the phases of the one in flight may be recorded meanwhile.
            out = bar | {parts.bar.state: state_line(context, str(run), active in OF_A_RUN)}
            if active == ROUNDS and chosen in rounds:
                out |= fill_texts(parts.rounds, context, view, chosen)
            return out
        return bar | fill(context, parts, active, run, chosen, theme, filters)

    return context.told(follow)


def bar_of(context: AppContext, parts: Parts, run: str, round: Any) -> tuple[int, dict[Any, Any]]:
    """The round to show (the newest where none fits), and the bar's state with it."""
    view = context.catalog.open_run(run)
    rounds = view.rounds()
    low, high = (rounds[0], rounds[-1]) if rounds else (0, 0)
    # 0 is before the first round: its held-out evaluation has samples, too.
    first = 0 if 0 in view.evaluations() else low
    chosen = high if not isinstance(round, int | float) or not first <= round <= high else int(round)
    return chosen, {
        parts.bar.round: gr.update(minimum=first, maximum=max(high, first + 1), value=chosen),
        parts.bar.timer: gr.Timer(active=view.snapshot().state == "running"),
    }


def warning(sentence: str) -> Any:
    """The bar's line as a warning."""
    return gr.update(value=paragraph(sentence, "warning"), visible=True)


def state_line(context: AppContext, run: str, shown: bool) -> Any:
    """How a run stands, in a sentence."""
    if not shown:
        return gr.update(visible=False)
    snapshot = context.catalog.open_run(run).snapshot()
    line = f"{snapshot.state_line}. {snapshot.rounds_done} of {snapshot.rounds_configured or '?'} rounds are done."
    if snapshot.state == "running":
        line += f" The page follows it, every {FOLLOW_SECONDS:.0f} seconds."
    return gr.update(value=paragraph(context.without_roots(line), "muted"), visible=True)


def fill(
    context: AppContext, parts: Parts, active: Any, run: Any, round: Any, theme: Any, filters: Any
) -> dict[Any, Any]:
    """The open tab's contents; the other tabs are filled when they are opened."""
    active = active if active in TABS else LIVE
    shown = active in OF_A_RUN
    out: dict[Any, Any] = {parts.bar.active: active, parts.bar.row: gr.update(visible=shown)}
    out[parts.bar.state] = gr.update(visible=shown) if run is None else state_line(context, str(run), shown)
    if active == RUNS:
        return out | {
            parts.runs.listed: runs_html(context),
            parts.runs.chosen: gr.update(choices=context.catalog.run_names()),
        }
    view = context.catalog.open_run(str(run)) if run else None
    if active == ABOUT:
        return out | {parts.about: about_html(context, view)}
    if view is None or active not in OF_A_RUN:
        return out
    shade: Theme = "dark" if theme == "dark" else "light"
    rounds = view.rounds()
    chosen = int(round) if isinstance(round, int | float) and not isinstance(round, bool) else None
    if active == SAMPLES:
        *chosen_filters, picked = filters or ("",)
        query = make_query(chosen or 0, *chosen_filters) if chosen_filters else SampleQuery(chosen or 0)
        return out | fill_table(parts.samples, context, run, query, keep=str(picked or ""))
    if chosen not in rounds and not (active == REWARDS and chosen in view.evaluations()):
        chosen = rounds[0] if rounds else None
    fill = fill_rounds if active == ROUNDS else fill_rewards
    return out | fill(parts.rounds if active == ROUNDS else parts.rewards, context, view, chosen, shade)  # type: ignore[arg-type]


def model_menus(context: AppContext, parts: Parts) -> dict[Any, Any]:
    """The choices of models; what is chosen stays."""
    names = [choice.name for choice in context.catalog.model_choices()]
    form = parts.live.form
    return {
        form.first: gr.update(choices=names),
        form.second: gr.update(choices=[NONE, *names]),
    }
