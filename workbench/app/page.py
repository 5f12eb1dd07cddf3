"""The page: title, the bar with run and round, and the tabs."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gradio as gr

from spark_kernel.errors import InputError
from workbench.app.context import AppContext
from workbench.app.examples import FIRST
from workbench.app.filling import (
    ABOUT,
    FOLLOW_SECONDS,
    LIVE,
    REWARDS,
    ROUNDS,
    RUNS,
    SAMPLES,
    Bar,
    Parts,
    follower,
    outputs_of,
    refiller,
    switcher,
)
from workbench.app.opening import opened, opener
from workbench.app.payload import Door, door_of
from workbench.app.tabs.live import LiveTab, build_live
from workbench.app.tabs.rewards import build_rewards
from workbench.app.tabs.rounds import build_rounds
from workbench.app.tabs.runs import build_runs
from workbench.app.tabs.samples import build_samples

TITLE = "SPARK workbench"
LOG_OUT = '<form method="post" action="logout"><button type="submit">Log out</button></form>'
PLACE = "(...values) => window.swPlace(values)"
"""The address follows what is shown (page.js); links.py reads it again."""
OPENED = f"(gold, question) => {{ window.swOpened(gold, question, {FIRST}); }}"
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
    refill = refiller(context, parts)
    inputs = [active, run, round, theme, *samples.filters, samples.picked]
    outputs = outputs_of(parts)
    quiet: dict[str, Any] = {
        "queue": False, "show_progress": "hidden", "api_visibility": "private", "preprocess": False,
    }  # fmt: skip
    for tab, name in (
        (live_tab, LIVE), (rounds_tab, ROUNDS), (samples_tab, SAMPLES), (rewards_tab, REWARDS), (runs_tab, RUNS),
        (about_tab, ABOUT),
    ):  # fmt: skip
        tab.select(refill, inputs, outputs, js=f"(_, ...rest) => window.swPlace(['{name}', ...rest])", **quiet)
    run.input(switcher(context, parts), inputs, outputs, js=PLACE, **quiet)
    round.release(refill, inputs, outputs, js=PLACE, **quiet)
    refresh.click(switcher(context, parts, keep=True), inputs, outputs, **quiet)
    timer.tick(follower(context, parts), inputs, outputs, **quiet)
    shade.click(None, outputs=[theme], js=SWITCH_THEME, api_visibility="private")
    theme.change(refill, inputs, outputs, **quiet)
    return parts


def _wire(blocks: gr.Blocks, context: AppContext, parts: Parts) -> None:
    form = parts.live.form
    loaded = blocks.load(
        opener(context, parts), [parts.bar.theme], opened(parts), js=READ_THEME, queue=False, show_progress="hidden",
        api_visibility="private", preprocess=False,
    )  # fmt: skip
    loaded.then(None, [form.gold, form.question], js=OPENED, api_visibility="private")
