"""The page: title, the bar with run and round, and the tabs."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import gradio as gr

from spark_kernel.errors import InputError, SparkError
from workbench.app.cards import notice, one_block
from workbench.app.context import AppContext
from workbench.app.markup import paragraph
from workbench.app.payload import Door, door_of
from workbench.app.samples import ANY, HELD_OUT, THIS_ROUND, SampleQuery
from workbench.app.tabs.about import about_html
from workbench.app.tabs.live import NONE, LiveTab, build_live
from workbench.app.tabs.rewards import RewardsTab, build_rewards, fill_rewards
from workbench.app.tabs.rounds import RoundsTab, build_rounds, fill_rounds, fill_texts
from workbench.app.tabs.runs import RunsTab, build_runs, runs_html
from workbench.app.tabs.samples import CHOOSE, SamplesTab, build_samples, fill_sample, fill_table, make_query
from workbench.figures import Theme
from workbench.views import Preset

TITLE = "SPARK workbench"
LIVE, ROUNDS, SAMPLES, REWARDS, RUNS, ABOUT = "live", "rounds", "samples", "rewards", "runs", "about"
TABS = (LIVE, ROUNDS, SAMPLES, REWARDS, RUNS, ABOUT)
OF_A_RUN = (ROUNDS, SAMPLES, REWARDS)
FOLLOW_SECONDS = 5.0
LOG_OUT = '<form method="post" action="logout"><button type="submit">Log out</button></form>'
READ_THEME = "() => document.body.classList.contains('dark') ? 'dark' : 'light'"
SWITCH_THEME = "() => document.body.classList.toggle('dark') ? 'dark' : 'light'"


class PageBlocks(gr.Blocks):
    """Blocks whose inputs are read by `payload.py` and by nothing else.

    Gradio would open a file that an input names by its path, and fetch one that it names by its address.
    """

    @cached_property
    def door(self) -> Door:
        """What may be sent to the functions of this page; asked for once all of them are there."""
        return door_of(self)

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *_args: Any, **_kwargs: Any) -> list[Any]:
        """The inputs, checked; the guard has done so before for whatever came over HTTP.

        Raises:
            gr.Error: the page would not send them.
        """
        try:
            values = self.door.values(block_fn._id, inputs)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from None
        if not block_fn.preprocess:
            return values
        return [block.preprocess(value) for block, value in zip(block_fn.inputs, values, strict=True)]

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: Any) -> list[Any]:
        """The outputs that a function names, as Gradio writes them; the others stay.

        Gradio would make each of those anew to say so: 50 ms of the event loop for the tables of a page.
        """
        if not isinstance(predictions, dict) or "__type__" in predictions:
            return await super().postprocess_data(block_fn, predictions, state)
        named = [block for block in block_fn.outputs if block in predictions]
        fewer = copy(block_fn)
        fewer.outputs = named
        values = [predictions[block] for block in named]
        written = await super().postprocess_data(fewer, values[0] if len(values) == 1 else values, state)
        by_block = dict(zip(named, written, strict=True))
        return [by_block.get(block, gr.skip()) for block in block_fn.outputs]


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page with the parts that tests and the server look at."""

    blocks: PageBlocks
    live: LiveTab


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


def build_page(context: AppContext) -> Page:
    """Put the page together. Nothing is read from a run before a browser asks for it."""
    with PageBlocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(1800, 1800)) as blocks:
        parts = _lay_out(context)
        _wire(blocks, context, parts)
    # Room for every question that may wait; whoever comes later is told that the queue is full.
    blocks.queue(max_size=context.limits.waiting, api_open=False, default_concurrency_limit=4)
    return Page(blocks, parts.live)


def _lay_out(context: AppContext) -> Parts:
    names = context.catalog.run_names()
    with gr.Row():
        gr.HTML(
            f"<h1>{TITLE}</h1><p>One model as policy and as its own judge: ask it, or look through a training run.</p>",
            js_on_load=None, elem_id="sw-title", scale=5, min_width=240,
        )  # fmt: skip
        shade = gr.Button("Light / dark", size="sm", scale=0, min_width=110, elem_id="sw-shade")
        if context.password:
            gr.HTML(LOG_OUT, js_on_load=None, elem_id="sw-logout", min_width=90)
    theme, active = gr.Textbox("light", visible=False), gr.Textbox(LIVE, visible=False)
    with gr.Row(elem_id="sw-bar", visible=False) as row:
        run = gr.Dropdown(
            names, value=names[0] if names else None, label="Run", min_width=220, scale=3, elem_id="sw-run"
        )
        round = gr.Slider(0, 1, value=0, step=1, label="Round", min_width=240, scale=4, elem_id="sw-round")
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=90, elem_id="sw-refresh")
    state = gr.HTML("", js_on_load=None, elem_id="sw-state", visible=False)
    timer = gr.Timer(FOLLOW_SECONDS, active=False)
    bar = Bar(row, run, round, state, timer, theme, active)
    with gr.Tabs(elem_id="sw-tabs") as tabs:
        with gr.Tab("Live compare", id=LIVE) as live_tab:
            live = build_live(context)
        with gr.Tab("Rounds", id=ROUNDS) as rounds_tab:
            rounds = build_rounds()
        with gr.Tab("Samples", id=SAMPLES) as samples_tab:
            samples = build_samples(context, run, round)
        with gr.Tab("Reward accuracy", id=REWARDS) as rewards_tab:
            rewards = build_rewards()
        with gr.Tab("Runs", id=RUNS) as runs_tab:
            runs = build_runs(context, theme)
        with gr.Tab("About", id=ABOUT) as about_tab:
            about = gr.HTML("", js_on_load=None)
    parts = Parts(bar, tabs, live, rounds, samples, rewards, runs, about)
    refill = _refiller(context, parts)
    inputs = [active, run, round, theme, *samples.filters, samples.picked]
    outputs = _outputs(parts)
    quiet: dict[str, Any] = {
        "queue": False, "show_progress": "hidden", "api_visibility": "private", "preprocess": False,
    }  # fmt: skip
    for tab, name in (
        (live_tab, LIVE), (rounds_tab, ROUNDS), (samples_tab, SAMPLES), (rewards_tab, REWARDS), (runs_tab, RUNS),
        (about_tab, ABOUT),
    ):  # fmt: skip
        tab.select(refill, inputs, outputs, js=f"(_, ...rest) => ['{name}', ...rest]", **quiet)
    run.input(_switcher(context, parts), inputs, outputs, **quiet)
    round.release(refill, inputs, outputs, **quiet)
    refresh.click(_switcher(context, parts, keep=True), inputs, outputs, **quiet)
    timer.tick(_follower(context, parts), inputs, outputs, **quiet)
    shade.click(None, outputs=[theme], js=SWITCH_THEME, api_visibility="private")
    theme.change(refill, inputs, outputs, **quiet)
    return parts


def _wire(blocks: gr.Blocks, context: AppContext, parts: Parts) -> None:
    opened = _opener(context, parts)
    bar = parts.bar
    blocks.load(
        opened, [bar.theme], _outputs(parts), js=READ_THEME, queue=False, show_progress="hidden",
        api_visibility="private", preprocess=False,
    )  # fmt: skip


def _outputs(parts: Parts) -> list[Any]:
    bar, samples = parts.bar, parts.samples
    return [
        bar.row, bar.active, bar.run, bar.round, bar.state, bar.timer, bar.theme, parts.tabs, parts.live.first,
        parts.live.second,
        *parts.rounds.outputs, *samples.filters, *samples.outputs, samples.detail, samples.picked, samples.link,
        *parts.rewards.outputs, parts.runs.listed, parts.runs.chosen, parts.about,
    ]  # fmt: skip


def _refiller(context: AppContext, parts: Parts) -> Any:
    """Fill the tab that is open with what the run folder holds now."""

    def refill(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        return _fill(context, parts, active, run, round, theme, filters)

    return context.told(refill)


def _switcher(context: AppContext, parts: Parts, *, keep: bool = False) -> Any:
    """Another run, or with `keep` the same one looked at anew: lists and slider, then the open tab."""

    def switch(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        names = context.catalog.run_names()
        run = run if run in names else (names[0] if names else None)
        out: dict[Any, Any] = {parts.bar.run: gr.update(choices=names, value=run), **_models(context, parts)}
        if run is None:
            return out | _fill(context, parts, active, None, 0, theme, filters)
        round, bar = _bar(context, parts, str(run), round if keep else None)
        if not keep:
            samples = parts.samples
            out |= {samples.detail: one_block(notice(CHOOSE)), samples.picked: "", samples.link: ""}
        return out | bar | _fill(context, parts, active, run, round, theme, filters)

    return context.told(switch)


def _follower(context: AppContext, parts: Parts) -> Any:
    """Follow a run that is being written: where the newest round was chosen, the newest one is chosen again."""

    def follow(active: Any, run: Any, round: Any, theme: Any, *filters: Any) -> dict[Any, Any]:
        view = context.catalog.open_run(str(run))
        rounds = view.rounds()
        newest = rounds[-1] if rounds else 0
        # A phase of the next round may be recorded since: the round before it was the newest then.
        at_newest = not isinstance(round, int | float) or round >= newest - 1
        chosen, bar = _bar(context, parts, str(run), newest if at_newest else round)
        if active not in (ROUNDS, REWARDS) or chosen == round:
            # Figures change with a new round only; the phases of the one in flight may be recorded meanwhile.
            out = bar | {parts.bar.state: _state(context, str(run), active in OF_A_RUN)}
            if active == ROUNDS and chosen in rounds:
                out |= fill_texts(parts.rounds, context, view, chosen)
            return out
        return bar | _fill(context, parts, active, run, chosen, theme, filters)

    return context.told(follow)


def _opener(context: AppContext, parts: Parts) -> Any:
    """A page that opens: the run, round and sample of its link, or the newest run."""

    def opened(theme: Any, request: gr.Request) -> dict[Any, Any]:
        asked = {name: values[0] for name, values in parse_qs(str(request.query_params)).items()}
        names = context.catalog.run_names()
        run = asked.get("run", names[0] if names else None)
        out: dict[Any, Any] = {parts.bar.theme: "dark" if theme == "dark" else "light", **_models(context, parts)}
        out[parts.runs.chosen] = gr.update(choices=names)
        if run is None:
            return out | {
                parts.bar.run: gr.update(choices=[], value=None),
                parts.bar.state: gr.update(value=_no_run(), visible=True),
            }
        if run not in names:
            # Not a toast: Gradio has those for events of its queue only.
            out[parts.bar.state] = _warning("The link names a run that is not here.")
            run, asked = (names[0] if names else None), {"tab": asked.get("tab", LIVE)}
        if run is None:
            return out
        out[parts.bar.run] = gr.update(choices=names, value=run)
        round, bar = _bar(context, parts, run, _whole(asked.get("round")))
        out |= bar
        active = SAMPLES if "sample" in asked else ROUNDS if "run" in asked else LIVE
        if asked.get("tab") in TABS:
            active = asked["tab"]
        out |= {parts.bar.active: active, parts.tabs: gr.update(selected=active)}
        if "sample" not in asked:
            # The tab that is selected here asks for its contents itself; a round's texts need not wait for figures.
            shown: dict[Any, Any] = {parts.bar.row: gr.update(visible=active in OF_A_RUN)}
            shown[parts.bar.state] = _state(context, run, active in OF_A_RUN)
            view = context.catalog.open_run(run)
            if active == ROUNDS and round in view.rounds():
                shown |= fill_texts(parts.rounds, context, view, round)
            return shown | out
        query = SampleQuery(round, HELD_OUT if asked.get("held_out") == "1" else THIS_ROUND)
        values = (query.scope, str(Preset.ALL), ANY, ANY, "")
        out |= dict(zip(parts.samples.filters, values, strict=True))
        out |= {parts.bar.row: gr.update(visible=True), parts.bar.state: _state(context, run, True)}
        try:
            return out | fill_sample(parts.samples, context, run, query, asked["sample"])
        except SparkError as error:
            filled = _fill(context, parts, active, run, round, out[parts.bar.theme], None)
            return out | filled | {parts.bar.state: _warning(context.sentence(error))}

    return context.told(opened)


def _bar(context: AppContext, parts: Parts, run: str, round: Any) -> tuple[int, dict[Any, Any]]:
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


def _warning(sentence: str) -> Any:
    return gr.update(value=paragraph(sentence, "warning"), visible=True)


def _state(context: AppContext, run: str, shown: bool) -> Any:
    """How a run stands, in a sentence."""
    if not shown:
        return gr.update(visible=False)
    snapshot = context.catalog.open_run(run).snapshot()
    line = f"{snapshot.state_line}. {snapshot.rounds_done} of {snapshot.rounds_configured or '?'} rounds are done."
    if snapshot.state == "running":
        line += f" The page follows it, every {FOLLOW_SECONDS:.0f} seconds."
    return gr.update(value=paragraph(context.without_roots(line), "muted"), visible=True)


def _fill(
    context: AppContext, parts: Parts, active: Any, run: Any, round: Any, theme: Any, filters: Any
) -> dict[Any, Any]:
    """The open tab's contents; the other tabs are filled when they are opened."""
    active = active if active in TABS else LIVE
    shown = active in OF_A_RUN
    out: dict[Any, Any] = {parts.bar.active: active, parts.bar.row: gr.update(visible=shown)}
    out[parts.bar.state] = gr.update(visible=shown) if run is None else _state(context, str(run), shown)
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


def _models(context: AppContext, parts: Parts) -> dict[Any, Any]:
    """The choices of models; what is chosen stays."""
    names = [choice.name for choice in context.catalog.model_choices()]
    return {parts.live.first: gr.update(choices=names), parts.live.second: gr.update(choices=[NONE, *names])}


def _no_run() -> str:
    return paragraph("There is no run here yet. Start one with: workbench run quickstart", "muted")


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
