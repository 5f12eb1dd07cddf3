"""The tab "Live compare": a question, and what one or two models answer, judge and answer again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from spark_kernel.errors import InputError, SparkError
from workbench.app.cards import chains_html, notice, one_block, status_line
from workbench.app.catalog import ModelChoice
from workbench.app.context import AppContext, client_of
from workbench.app.live import LiveChain, tell_all
from workbench.app.markup import escape
from workbench.app.question import VERIFIERS, make_question

NONE = "no second model"
CONCURRENCY_ID = "model"
AT_THE_DESK = 4
"""Questions that have left the queue: at the desk, waiting there, or with the verifier."""
PAUSE_SECONDS = 0.06
"""Shortest time between two updates of the page."""
BREATH_SECONDS = 0.5
"""How often a waiting question looks whether its client is still there."""
EXAMPLES = (
    "Begin at 38, add 9, then take away 16. Where do you end?",
    "Start with 60, take away 37, then take away 11. What do you get?",
    "Start with 17, add 25, then subtract 8. What do you get?",
)
LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
WAITING = "(...values) => { window.swWaiting(); return values; }"
WELCOME = (
    "The model answers, judges its own answer, and where it rejects it reflects and answers again. "
    "The three columns fill while it writes."
)


class Waiting:
    """How many questions of each client wait or run, and the stop signs of each page. Safe between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._clients: dict[str, int] = {}
        self._stops: dict[str, set[threading.Event]] = {}

    def enter(self, client: str, page: str) -> threading.Event:
        """A stop sign for a new question.

        Raises:
            InputError: the client has too many questions under way.
        """
        with self._lock:
            if self._clients.get(client, 0) >= self._most:
                raise InputError("You have as many questions under way as one client may have: come back in a moment.")
            self._clients[client] = self._clients.get(client, 0) + 1
            stop = threading.Event()
            self._stops.setdefault(page, set()).add(stop)
            return stop

    def leave(self, client: str, page: str, stop: threading.Event) -> None:
        """The question is over; whatever of it still runs is told to stop."""
        stop.set()
        with self._lock:
            self._clients[client] -= 1
            if not self._clients[client]:
                del self._clients[client]
            self._stops[page].discard(stop)
            if not self._stops[page]:
                del self._stops[page]

    def stop(self, page: str) -> None:
        """Set the stop signs of a page's questions."""
        with self._lock:
            for sign in self._stops.get(page, ()):
                sign.set()

    def running(self, page: str) -> bool:
        """Whether a question of this page runs."""
        with self._lock:
            return bool(self._stops.get(page))

    @property
    def count(self) -> int:
        """Questions that wait or run."""
        with self._lock:
            return sum(self._clients.values())


@dataclass(frozen=True, slots=True)
class LiveTab:
    """The components that others fill: the choices of models and the answers."""

    first: gr.Dropdown
    second: gr.Dropdown
    answers: gr.Markdown
    waiting: Waiting


def build_live(context: AppContext) -> LiveTab:
    """Make the tab's components and wire them; call it inside `gr.Tab`."""
    limits = context.limits
    names = [choice.name for choice in context.catalog.model_choices()]
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            question = gr.Textbox(
                label="Question", lines=3, max_lines=8, max_length=limits.prompt_chars, value=EXAMPLES[0],
                elem_id="sw-question", autofocus=True,
            )  # fmt: skip
            with gr.Row():
                ask = gr.Button("Ask", variant="primary", elem_id="sw-ask", min_width=120)
                stop = gr.Button("Stop", variant="stop", elem_id="sw-stop", min_width=120)
            gr.Examples(
                [[text] for text in EXAMPLES],
                [question],
                label="Try one of these; with the starter model the last one shows a mistake that it does not notice",
                cache_examples=False,
                api_visibility="private",
            )
        with gr.Column(scale=2, min_width=280):
            first = gr.Dropdown(names, value=names[0], label="Model A", elem_id="sw-model-a")
            second = gr.Dropdown(
                [NONE, *names], value=NONE, label="Model B", info="The same question and seed, beside A.",
                elem_id="sw-model-b",
            )  # fmt: skip
            with gr.Accordion("Right answer, if you know it", open=False):
                gold = gr.Textbox(
                    value="",
                    label="Gold answer", max_length=limits.gold_chars, elem_id="sw-gold",
                    info="Without it nobody but the model itself says whether an answer is right.",
                )  # fmt: skip
                verifier = gr.Dropdown(list(VERIFIERS), value="math", label="Compared by")
            with gr.Accordion("Image", open=False):
                image = gr.Image(
                    label="Image", type="filepath", sources=["upload", "clipboard"], height=220, elem_id="sw-image",
                    buttons=[],
                )  # fmt: skip
            with gr.Accordion("Sampling", open=False):
                temperature = gr.Slider(
                    0.0, 2.0, value=0.0, step=0.05, label="Temperature", info="0: the likeliest token"
                )
                new_tokens = gr.Slider(
                    16, limits.new_tokens, value=min(512, limits.new_tokens), step=16, label="Longest output (tokens)",
                )  # fmt: skip
                reflections = gr.Slider(
                    1, limits.reflections, value=min(2, limits.reflections), step=1, label="Most reflections"
                )
                view = gr.Radio(
                    [("the final answer", "answer"), ("the whole response", "full")],
                    value="answer",
                    label="The judge sees",
                )  # fmt: skip
                faithful = gr.Checkbox(
                    False,
                    label="The loop as the authors' code has it",
                    info="An unreadable verdict is a no; the last reflection is returned unjudged.",
                )
                seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
    status = gr.HTML(_status(""), elem_id="sw-status", elem_classes="sw-live-status", js_on_load=None)
    answers = gr.Markdown(
        one_block(notice(WELCOME)), elem_id="sw-answers", latex_delimiters=LATEX, sanitize_html=True, container=False
    )
    waiting = Waiting(limits.per_client)
    inputs = [
        question,
        first,
        second,
        image,
        gold,
        verifier,
        temperature,
        new_tokens,
        reflections,
        view,
        seed,
        faithful,
    ]
    reply = _replier(context, waiting)
    common: dict[str, Any] = {
        "inputs": inputs,
        "outputs": [answers, status],
        "show_progress": "hidden",
        "concurrency_id": CONCURRENCY_ID,
        # The desk answers one after the other; beside it another question's gold answer may be read.
        "concurrency_limit": AT_THE_DESK,
        "trigger_mode": "once",
        "js": WAITING,
        # The image is read under our own bounds, the rest is checked by make_question.
        "preprocess": False,
    }
    clicked = ask.click(reply, api_name="ask", **common)
    entered = question.submit(reply, api_visibility="private", **common)
    stopped = stop.click(
        _stopper(waiting), outputs=[status], queue=False, show_progress="hidden", api_visibility="private"
    )
    stopped.then(None, cancels=[clicked, entered])
    return LiveTab(first, second, answers, waiting)


def _replier(context: AppContext, waiting: Waiting) -> Callable[..., AsyncIterator[tuple[str, str]]]:
    async def reply(
        question: Any,
        first: Any,
        second: Any = NONE,
        image: Any = None,
        gold: Any = "",
        verifier: Any = "math",
        temperature: Any = 0.0,
        new_tokens: Any = None,
        reflections: Any = 2,
        view: Any = "answer",
        seed: Any = 0,
        faithful: Any = False,
        request: gr.Request = None,  # type: ignore[assignment]
    ) -> AsyncIterator[tuple[str, str]]:
        """Answer, judge, reflect; the columns as HTML and a sentence about how it stands, again and again."""
        try:
            client, page = client_of(request), str(request.session_hash)
            asked = make_question(
                question, context.limits, image=None if image is None else context.uploads.image(image), gold=gold,
                verifier=verifier, temperature=temperature, new_tokens=new_tokens, reflections=reflections, view=view,
                seed=seed, faithful=faithful,
            )  # fmt: skip
            choices = await context.live.run(client, _choices, context, first, second)
            stop = waiting.enter(client, page)
        except SparkError as error:
            raise gr.Error(context.sentence(error), title="Not asked", print_exception=False) from None
        chains = [LiveChain(choice.name, asked.has_gold) for choice in choices]
        loop = asyncio.get_running_loop()
        try:
            for index, choice in enumerate(choices):
                inbox: asyncio.Queue[Any] = asyncio.Queue()

                def put(event: Any, inbox: asyncio.Queue[Any] = inbox) -> None:
                    loop.call_soon_threadsafe(inbox.put_nowait, event)

                context.desk.ask(choice, asked, put, stop)
                while not chains[index].over:
                    events = await _events(inbox)
                    if stop.is_set() and not events and chains[index].state == "waiting":
                        break  # its turn has not come: there is nothing to wait for
                    chains[index] = tell_all(chains[index], events)
                    if chains[index].problem:
                        told = context.sentence(SparkError(chains[index].problem))
                        chains[index] = replace(chains[index], problem=told)
                    yield await _shown(context, client, chains)
                    if not chains[index].over:
                        await asyncio.sleep(PAUSE_SECONDS)
                if stop.is_set():
                    chains = [chain if chain.over else replace(chain, state="stopped") for chain in chains]
                    yield await _shown(context, client, chains)
                    break
        finally:
            # Also when the client has gone: Gradio then closes this generator.
            waiting.leave(client, page, stop)

    return reply


async def _shown(context: AppContext, client: str, chains: Sequence[LiveChain]) -> tuple[str, str]:
    """The columns and the line about them; made beside the event loop, for a long text takes a while."""
    return await context.live.run(client, chains_html, tuple(chains)), _status(status_line(chains))


async def _events(inbox: asyncio.Queue[Any]) -> list[Any]:
    """What has come in; nothing after a while of silence, so that a client that has gone is noticed."""
    events = []
    try:
        events.append(await asyncio.wait_for(inbox.get(), BREATH_SECONDS))
    except TimeoutError:
        return events
    while not inbox.empty():
        events.append(inbox.get_nowait())
    return events


def _stopper(waiting: Waiting) -> Callable[..., Any]:
    async def stop(request: gr.Request) -> Any:
        """Stop this page's questions; the running one shows itself that it stopped."""
        page = str(request.session_hash)
        if not waiting.running(page):
            return _status("Stopped.")
        waiting.stop(page)
        for _ in range(40):
            if not waiting.running(page):
                break
            await asyncio.sleep(0.05)
        return gr.skip()

    return stop


def _status(sentence: str) -> str:
    """A line that is read out when it changes."""
    return f'<div class="sw-live" role="status">{escape(sentence)}</div>'


def _choices(context: AppContext, first: Any, second: Any) -> list[ModelChoice]:
    names = [first] if second in (None, "", NONE) else [first, second]
    if len(set(names)) < len(names):
        raise InputError("Model B is model A: choose another one, or none.")
    return [context.catalog.model(str(name)) for name in names]
