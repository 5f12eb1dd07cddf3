"""The tab "Live compare": a question, and what one or two models answer, judge and answer again."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr

from spark_kernel.errors import InputError, SparkError
from workbench.app.cards import chains_html, status_line
from workbench.app.catalog import TRAINED, ModelChoice
from workbench.app.context import AppContext, client_of
from workbench.app.examples import EXAMPLES, FIRST
from workbench.app.live import LiveChain, tell_all
from workbench.app.markup import paragraph
from workbench.app.model_lines import model_line
from workbench.app.problem_draw import drawn_problem
from workbench.app.question import make_question
from workbench.app.tabs.live_form import NONE, LiveForm, build_form, status_html, welcome

CONCURRENCY_ID = "model"
AT_THE_DESK = 4
"""Questions that have left the queue: at the desk, waiting there, or with the verifier."""
PAUSE_SECONDS = 0.06
"""Shortest time between two updates of the page."""
BREATH_SECONDS = 0.5
"""How often a waiting question looks whether its client is still there."""
ASKED = f"(...values) => window.swAsked(values, {FIRST})"
FILLED = "(gold, question) => { window.swFilled(gold, question); }"
OWN_QUESTION = "gold => window.swGoldOf(gold)"
"""A gold answer that came with an example goes when the question is written anew."""
COPY = "() => { window.swCopyLink(); }"


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
    """The form, whose choices and fields others fill, and the questions under way."""

    form: LiveForm
    waiting: Waiting


def build_live(context: AppContext) -> LiveTab:
    """Make the tab's components and wire them; call it inside `gr.Tab`."""
    form = build_form(context)
    waiting = Waiting(context.limits.per_client)
    clicked = form.ask.click(
        _replier(context, waiting),
        inputs=form.sent,
        outputs=[form.answers, form.status],
        api_name="ask",
        show_progress="hidden",
        concurrency_id=CONCURRENCY_ID,
        # The desk answers one after the other; beside it another question's gold answer may be read.
        concurrency_limit=AT_THE_DESK,
        trigger_mode="once",
        js=ASKED,
        # The image is read under our own bounds, the rest is checked by make_question.
        preprocess=False,
    )
    quiet: dict[str, Any] = {
        "queue": False, "show_progress": "hidden", "api_visibility": "private", "preprocess": False,
    }  # fmt: skip
    stopped = form.stop.click(
        _stopper(waiting), outputs=[form.status], queue=False, show_progress="hidden", api_visibility="private"
    )
    stopped.then(None, cancels=[clicked])
    fresh = [form.question, form.gold, form.verifier, form.answers, form.status]
    chosen = form.examples.pick(_chooser(context, waiting), None, [*fresh, form.first, form.second], **quiet)
    drawn = form.draw.click(_drawer(context, waiting), [form.first], fresh, **quiet)
    for filled in (chosen, drawn):
        filled.then(None, [form.gold, form.question], js=FILLED, api_visibility="private")
    form.question.input(None, [form.gold], [form.gold], js=OWN_QUESTION, api_visibility="private")
    form.link.click(None, js=COPY, api_visibility="private")
    for menu in (form.first, form.second):
        menu.change(context.told(partial(model_lines, context)), [form.first, form.second], [form.about], **quiet)
    return LiveTab(form, waiting)


def model_lines(context: AppContext, *models: Any) -> str:
    """The sentences about the models that are chosen, as HTML."""
    names = [str(name) for name in models if name not in (None, "", NONE)]
    choices = [context.catalog.model(name) for name in names]
    # Of a checkpoint it is read from an evaluation, which does not change.
    lines = [
        context.kept.get(("model line", choice.name), partial(model_line, context.catalog, choice))
        for choice in choices
    ]
    marked = [f"{letter}: {line}" for letter, line in zip("AB", lines, strict=False)] if len(lines) > 1 else lines
    return "".join(paragraph(line, "muted") for line in marked)


def _chooser(context: AppContext, waiting: Waiting) -> Callable[..., Any]:
    def choose(request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        """An example; what stands there about another question goes."""
        chosen = str(event.id)
        if not (chosen.isascii() and chosen.isdigit() and int(chosen[:9]) < len(EXAMPLES)):
            raise InputError("There is no such example.")
        waiting.stop(str(request.session_hash))
        example = EXAMPLES[int(chosen[:9])]
        models = example.model, TRAINED.get(example.model, NONE)
        return example.question, example.gold, example.verifier, welcome(), status_html(""), *models

    return context.told(choose)


def _drawer(context: AppContext, waiting: Waiting) -> Callable[..., Any]:
    def draw(first: Any, request: gr.Request) -> tuple[Any, ...]:
        """A problem such as model A was trained on."""
        waiting.stop(str(request.session_hash))
        problem = drawn_problem(context.catalog, context.catalog.model(str(first)), secrets.randbelow(2**31))
        return problem.question, problem.gold, problem.verifier, welcome(), status_html("")

    return context.told(draw)


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
    return await context.live.run(client, chains_html, tuple(chains)), status_html(status_line(chains))


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
            return status_html("Stopped.")
        waiting.stop(page)
        for _ in range(40):
            if not waiting.running(page):
                break
            await asyncio.sleep(0.05)
        return gr.skip()

    return stop


def _choices(context: AppContext, first: Any, second: Any) -> list[ModelChoice]:
    names = [first] if second in (None, "", NONE) else [first, second]
    if len(set(names)) < len(names):
        raise InputError("Model B is model A: choose another one, or none.")
    return [context.catalog.model(str(name)) for name in names]
