"""The form of the tab "Live compare": a question, whom to ask, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from workbench.app.cards import notice, one_block
from workbench.app.catalog import TRAINED, Catalog
from workbench.app.context import AppContext
from workbench.app.examples import EXAMPLES, RATES
from workbench.app.markup import escape, paragraph
from workbench.app.question import VERIFIERS

NONE = "no second model"
LATEX: list[dict[str, str | bool]] = [
    {"left": "$$", "right": "$$", "display": True},
    {"left": "$", "right": "$", "display": False},
]
WELCOME = (
    "The model answers, judges its own answer, and where it rejects it reflects and answers again. "
    "The three columns fill while it writes."
)

PICK_EXAMPLE = """
const pick = event => {
  const row = event.target.closest('tr[data-id]');
  if (row) trigger('pick', {id: row.dataset.id, round: '0'});
};
element.addEventListener('click', pick);
element.addEventListener('keydown', event => {
  if (event.key === 'Enter' || event.key === ' ') { event.preventDefault(); pick(event); }
});
"""


@dataclass(frozen=True, slots=True)
class LiveForm:
    """The components of the form, in the order in which a question is sent (`question` to `faithful`), and the rest."""

    question: gr.Textbox
    first: gr.Dropdown
    second: gr.Dropdown
    image: gr.Image
    gold: gr.Textbox
    verifier: gr.Dropdown
    temperature: gr.Slider
    new_tokens: gr.Slider
    reflections: gr.Slider
    view: gr.Radio
    seed: gr.Number
    faithful: gr.Checkbox
    ask: gr.Button
    stop: gr.Button
    draw: gr.Button
    link: gr.Button
    examples: gr.HTML
    about: gr.HTML
    status: gr.HTML
    answers: gr.Markdown

    @property
    def sent(self) -> list[Any]:
        """What a question is made of."""
        return [
            self.question, self.first, self.second, self.image, self.gold, self.verifier, self.temperature,
            self.new_tokens, self.reflections, self.view, self.seed, self.faithful,
        ]  # fmt: skip


def build_form(context: AppContext) -> LiveForm:
    """Make the components; call it inside `gr.Tab`."""
    limits = context.limits
    names = [choice.name for choice in context.catalog.model_choices()]
    before, after = first_pair(context.catalog)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=300):
            question = gr.Textbox(
                label="Question", info="Enter asks, Shift+Enter begins a new line.", lines=3, max_lines=8,
                max_length=limits.prompt_chars, value=EXAMPLES[0].question, elem_id="sw-question", autofocus=True,
            )  # fmt: skip
            with gr.Row():
                ask = gr.Button("Ask", variant="primary", elem_id="sw-ask", min_width=110)
                stop = gr.Button("Stop", variant="stop", elem_id="sw-stop", min_width=110)
                draw = gr.Button("Give me a problem", elem_id="sw-draw", min_width=150)
                link = gr.Button("Copy link", elem_id="sw-copy-link", min_width=110)
            examples = gr.HTML(examples_html(), js_on_load=PICK_EXAMPLE, elem_id="sw-examples")
            gr.HTML(paragraph(RATES, "muted"), js_on_load=None, elem_id="sw-rates")
        with gr.Column(scale=2, min_width=280):
            first = gr.Dropdown(names, value=before, label="Model A", elem_id="sw-model-a")
            second = gr.Dropdown(
                [NONE, *names], value=after, label="Model B", info="The same question and seed, beside A.",
                elem_id="sw-model-b",
            )  # fmt: skip
            about = gr.HTML("", js_on_load=None, elem_id="sw-about-models")
            with gr.Accordion("Right answer, if you know it", open=False):
                gold = gr.Textbox(
                    value=EXAMPLES[0].gold,
                    label="Gold answer", max_length=limits.gold_chars, elem_id="sw-gold",
                    info="Without it nobody but the model itself says whether an answer is right.",
                )  # fmt: skip
                verifier = gr.Dropdown(
                    list(VERIFIERS), value=EXAMPLES[0].verifier, label="Compared by",
                    elem_id="sw-verifier",
                )  # fmt: skip
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
    status = gr.HTML(status_html(""), elem_id="sw-status", elem_classes="sw-live-status", js_on_load=None)
    answers = gr.Markdown(welcome(), elem_id="sw-answers", latex_delimiters=LATEX, sanitize_html=True, container=False)
    return LiveForm(
        question, first, second, image, gold, verifier, temperature, new_tokens, reflections, view, seed, faithful,
        ask, stop, draw, link, examples, about, status, answers,
    )  # fmt: skip


def first_pair(catalog: Catalog) -> tuple[str, str]:
    """The models that a page begins with: the preferred one, beside it what training made of it where both ship."""
    first = catalog.model_choices()[0].name
    return first, TRAINED.get(first, NONE)


def examples_html() -> str:
    """The questions to try, each with what its model makes of it."""
    rows = "".join(
        f'<tr data-id="{index}" tabindex="0" role="button"><td>{escape(example.question)}</td>'
        f"<td>{escape(example.outcome)}</td><td>{escape(example.trained)}</td></tr>"
        for index, example in enumerate(EXAMPLES)
    )
    return (
        '<table class="sw-table sw-pick"><caption>Or try one of these</caption><thead><tr><th scope="col">question</th>'
        f'<th scope="col">how it ends</th><th scope="col">after SPARK</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def welcome() -> str:
    """What stands where the answers will be."""
    return one_block(notice(WELCOME))


def status_html(sentence: str) -> str:
    """A line that is read out when it changes."""
    return f'<div class="sw-live" role="status">{escape(sentence)}</div>'
