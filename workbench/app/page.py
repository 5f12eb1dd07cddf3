"""The page: title, the bar with run and round, and the tabs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import gradio as gr

from spark_kernel.errors import InputError, SparkError
from workbench.app.context import AppContext
from workbench.app.markup import paragraph
from workbench.app.samples import ANY, HELD_OUT, THIS_ROUND, SampleQuery
from workbench.app.tabs.about import about_html
from workbench.app.tabs.live import NONE, LiveTab, build_live
from workbench.app.tabs.rewards import RewardsTab, build_rewards, fill_rewards
from workbench.app.tabs.rounds import RoundsTab, build_rounds, fill_rounds
from workbench.app.tabs.runs import RunsTab, build_runs, runs_html
from workbench.app.tabs.samples import SamplesTab, build_samples, fill_sample, fill_table, make_query
from workbench.figures import Theme
from workbench.views import Preset, RunView

TITLE = "SPARK workbench"
LIVE, ROUNDS, SAMPLES, REWARDS, RUNS, ABOUT = "live", "rounds", "samples", "rewards", "runs", "about"
OF_A_RUN = (ROUNDS, SAMPLES, REWARDS)
FOLLOW_SECONDS = 5.0
READ_THEME = "() => document.body.classList.contains('dark') ? 'dark' : 'light'"
SWITCH_THEME = "() => { document.body.classList.toggle('dark'); return document.body.classList.contains('dark') ? 'dark' : 'light'; }"


@dataclass(frozen=True, slots=True)
class Page:
    """The whole page with the parts that tests and the server look at."""

    blocks: gr.Blocks
    live: LiveTab


@dataclass(frozen=True, slots=True)
class Bar:
    """What is chosen for all tabs of a run, and what the page knows of itself."""

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
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True, delete_cache=(1800, 1800)) as blocks:
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
    theme, active = gr.Textbox("light", visible=False), gr.Textbox(LIVE, visible=False)
    with gr.Row(elem_id="sw-bar", visible=True):
        run = gr.Dropdown(names, value=names[0] if names else None, label="Run", min_width=220, scale=3, elem_id="sw-run")
        round = gr.Slider(0, 1, value=0, step=1, label="Round", min_width=240, scale=4, elem_id="sw-round")
        refresh = gr.Button("Refresh", size="sm", scale=0, min_width=90, elem_id="sw-refresh")
    state = gr.HTML("", js_on_load=None, elem_id="sw-state")
    timer = gr.Timer(FOLLOW_SECONDS, active=False)
    bar = Bar(run, round, state, timer, theme, active)
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
    inputs = [active, run, round, theme, *samples.filters]
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
        bar.active, bar.run, bar.round, bar.state, bar.timer, bar.theme, parts.tabs, parts.live.first, parts.live.second,
        *parts.rounds.outputs, *samples.filters, *samples.outputs, samples.detail, samples.picked, samples.link,
        *parts.rewards.outputs, parts.runs.listed, parts.runs.chosen, parts.about,
    ]  # fmt: skip
