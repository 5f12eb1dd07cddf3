"""A page that opens: what its address names, or the newest run; for what is not there a sentence, nothing else."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import gradio as gr

from spark_kernel.errors import InputError, SparkError
from workbench.app.context import AppContext
from workbench.app.filling import (
    LIVE,
    OF_A_RUN,
    ROUNDS,
    SAMPLES,
    TABS,
    Parts,
    bar_of,
    model_menus,
    outputs_of,
    state_line,
    warning,
)
from workbench.app.links import FILTERS, PageLink, read_link
from workbench.app.markup import paragraph
from workbench.app.question import make_question
from workbench.app.samples import SampleQuery
from workbench.app.tabs.live import model_lines
from workbench.app.tabs.live_form import NONE, first_pair
from workbench.app.tabs.rounds import fill_texts
from workbench.app.tabs.samples import fill_sample

USUAL = SampleQuery(0)
"""The filters as a page has them when it opens."""


def opener(context: AppContext, parts: Parts) -> Any:
    """The function that fills a page when it opens; its outputs are `opened(parts)`."""

    def opened(theme: Any, request: gr.Request) -> dict[Any, Any]:
        out: dict[Any, Any] = {parts.bar.theme: "dark" if theme == "dark" else "light", **model_menus(context, parts)}
        out[parts.live.form.about] = model_lines(context, *first_pair(context.catalog))
        out[parts.runs.chosen] = gr.update(choices=context.catalog.run_names())
        try:
            link = read_link({name: values[0] for name, values in parse_qs(str(request.query_params)).items()})
            return out | _at(context, parts, link)
        except SparkError as error:
            # A sentence on the page: Gradio has toasts for events of its queue only.
            return out | _nothing(context, parts, context.sentence(error))

    return context.told(opened)


def opened(parts: Parts) -> list[Any]:
    """What an opening page fills."""
    form = parts.live.form
    return [*outputs_of(parts), *(field for field in form.sent if field not in (form.first, form.second, form.image))]


def _at(context: AppContext, parts: Parts, link: PageLink) -> dict[Any, Any]:
    out = _asked(context, parts, link)
    names = context.catalog.run_names()
    run = link.run or (names[0] if names else None)
    active = SAMPLES if link.sample else ROUNDS if link.run else LIVE
    if link.tab in TABS:
        active = str(link.tab)
    out |= {parts.bar.active: active, parts.tabs: gr.update(selected=active)}
    if run is None:
        return out | {
            parts.bar.run: gr.update(choices=[], value=None),
            parts.bar.state: gr.update(value=_no_run(), visible=True),
        }
    if run not in names:
        raise InputError("The link names a run that is not here.")
    out[parts.bar.run] = gr.update(choices=names, value=run)
    view = context.catalog.open_run(run)
    there = {*view.rounds(), *view.evaluations()}
    if link.round is not None and link.round not in there:
        spoken = f"rounds {min(there)} to {max(there)}" if there else "no round yet"
        raise InputError(f"The link names round {link.round}; the run has {spoken}.")
    round, bar = bar_of(context, parts, run, link.round)
    out |= bar
    # Those that stay as the page has them are not set: that would ask for a table before the round is known.
    fields = zip(parts.samples.filters, FILTERS, strict=True)
    out |= {
        field: getattr(link.query, name) for field, name in fields if getattr(link.query, name) != getattr(USUAL, name)
    }
    out |= {parts.bar.row: gr.update(visible=active in OF_A_RUN)}
    out[parts.bar.state] = state_line(context, run, active in OF_A_RUN)
    if link.sample:
        return out | fill_sample(parts.samples, context, run, link.query, link.sample)
    # The tab that is selected here asks for its contents itself; a round's texts need not wait for figures.
    if active == ROUNDS and round in view.rounds():
        out |= fill_texts(parts.rounds, context, view, round)
    return out


def _asked(context: AppContext, parts: Parts, link: PageLink) -> dict[Any, Any]:
    """The question's fields.

    Raises:
        InputError: it could not be asked here: a model that is not offered, a setting out of range.
    """
    form, asked = parts.live.form, link.asked
    if not asked:
        return {}
    rest = {"temperature": "temperature", "tokens": "new_tokens", "reflections": "reflections", "seed": "seed"}
    given = {name: asked[key] for key, name in rest.items() if key in asked}
    given |= {name: asked[name] for name in ("gold", "verifier", "view", "faithful") if name in asked}
    make_question(asked["question"], context.limits, **given)
    models = [asked[name] for name in ("a", "b") if asked.get(name)]
    for name in models:
        context.catalog.model(name)
    out: dict[Any, Any] = {form.question: asked["question"], form.gold: "", form.second: NONE}
    out |= {getattr(form, name): value for name, value in given.items()}
    out |= dict(zip((form.first, form.second), map(_chosen, models), strict=False))
    out[form.about] = model_lines(context, *models)
    return out


def _chosen(name: str) -> Any:
    return gr.update(value=name)


def _nothing(context: AppContext, parts: Parts, sentence: str) -> dict[Any, Any]:
    """A link that leads nowhere: no run is chosen, so that nothing else is taken for what it names."""
    names = context.catalog.run_names()
    return {
        parts.bar.run: gr.update(choices=names, value=None),
        parts.bar.row: gr.update(visible=True),
        parts.bar.state: warning(f"{sentence} Choose a run, or ask a question."),
        parts.bar.timer: gr.Timer(active=False),
    }


def _no_run() -> str:
    return paragraph("There is no run here yet. Start one with: workbench run quickstart", "muted")
