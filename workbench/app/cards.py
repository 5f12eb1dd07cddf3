"""A live comparison as HTML: three columns for each model. Every text in it is escaped or made safe."""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import lru_cache

from spark_kernel.records import Kind, Message, TextPart
from spark_kernel.test_time.steps import Step
from workbench.app.live import LiveChain, StepCard
from workbench.app.story import ACCEPTED, REJECTED, UNREADABLE, ending, turns
from workbench.model_text import markdown_html
from workbench.text_diff import diff_html

SELF_JUDGED = "self-judged, not verified"
STATES = {
    "waiting": "waiting for its turn",
    "loading": "loading the model",
    "running": "writing",
    "done": "done",
    "stopped": "stopped",
    "failed": "could not answer",
}
LIVE_LIMIT = 20_000
"""Characters of an unfinished step that are shown: its end."""
SHOWN_MESSAGES = 4
"""Messages of a prompt that are shown: the last ones."""
REMEMBERED = 64
"""Finished texts, and differences, that are kept as HTML."""


def chains_html(chains: Sequence[LiveChain]) -> str:
    """The sides of a comparison, side by side where there is room."""
    sides = "".join(_chain(chain, "AB"[i] if len(chains) > 1 else "") for i, chain in enumerate(chains))
    return one_block(f'<div class="sw-sides sw-two">{sides}</div>' if len(chains) > 1 else sides)


def status_line(chains: Sequence[LiveChain]) -> str:
    """How it stands, in one sentence; what a screen reader is told."""
    return ". ".join(f"{chain.model}: {_state(chain)}" for chain in chains)


def one_block(markup: str) -> str:
    """HTML that Markdown passes through as it is: one line, so that no blank line ends it."""
    return markup.replace("\r", "").replace("\n", "&#10;")


def notice(sentence: str, kind: str = "info") -> str:
    """A sentence set apart; `kind`: "info" or "warning"."""
    return f'<div class="sw-notice sw-{kind}">{html.escape(sentence)}</div>'


def _chain(chain: LiveChain, letter: str) -> str:
    name = f"{letter}: {chain.model}" if letter else chain.model
    columns = (
        ("First answer", [card for card in chain.steps if card.kind is Kind.SOLVE]),
        ("Self-judgement", [card for card in chain.steps if card.kind.judges]),
        ("Reflected answer", [card for card in chain.steps if card.kind is Kind.REFLECTION]),
    )
    body = "".join(
        f'<div class="sw-column"><h3>{title}</h3>{"".join(_card(chain, card) for card in cards) or _empty(chain)}</div>'
        for title, cards in columns
    )
    return (
        f'<div class="sw-chain"><div class="sw-head"><h2>{html.escape(name)}</h2>'
        f'<span class="sw-chip sw-state-{chain.state}">{html.escape(_state(chain))}</span>{_badge(chain)}</div>'
        f'{_story(chain)}<div class="sw-columns">{body}</div>{_outcome(chain)}</div>'
    )


def _story(chain: LiveChain) -> str:
    """The chain in one line: every answer, what was said of it, and the end."""
    parts = []
    for turn in turns(chain):
        answer = "..." if turn.writing else "no answer" if turn.answer is None else html.escape(turn.answer)
        said = f" {verdict_chip(turn.said)}" if turn.said else ""
        parts.append(f'<span class="sw-turn"><b>{answer}</b>{said}</span>')
    if not parts:
        return ""
    end = ending(chain)
    told = f'<span class="sw-end">: {html.escape(end)}</span>' if end else ""
    return f'<p class="sw-story">{" → ".join(parts)}{told}</p>'


def verdict_chip(said: str) -> str:
    """What the model said of an answer, in word, colour and shape."""
    mark, style = {ACCEPTED: ("\u2713", "yes"), REJECTED: ("\u2717", "no"), UNREADABLE: ("?", "unreadable")}[said]
    return f'<span class="sw-chip sw-said-{style}"><span aria-hidden="true">{mark}</span> {said}</span>'


def _badge(chain: LiveChain) -> str:
    examples = '<span class="sw-chip">asked with worked examples</span>' if chain.examples else ""
    if any(card.verified for card in chain.steps):
        compared = "a verifier compared the answers with the gold answer"
        return f'<span class="sw-chip sw-verified">{compared}</span>{examples}'
    return f'<span class="sw-chip sw-unverified">{SELF_JUDGED}</span>{examples}'


def _state(chain: LiveChain) -> str:
    state = STATES[chain.state]
    if chain.seconds is None:
        return state
    steps = f"{len(chain.steps)} step{'s' if len(chain.steps) != 1 else ''}"
    return f"{state}, {steps}, {chain.tokens} tokens, {chain.seconds:.1f} s"


def _empty(chain: LiveChain) -> str:
    return f'<p class="sw-none">{"none" if chain.over else "not yet"}</p>'


def _card(chain: LiveChain, card: StepCard) -> str:
    about = "" if card.about is None else f", about step {card.about + 1}"
    final = chain.attempt is not None and chain.attempt.final.index == card.index
    mark = '<span class="sw-chip sw-final">returned</span>' if final else ""
    step = card.step
    if step is None:
        body = f'<pre class="sw-text">{html.escape(card.text[-LIVE_LIMIT:])}</pre>'
        cost = f"{card.tokens} tokens"
    else:
        body = f'<div class="sw-text">{_finished(step.text)}</div>'
        cut = ", cut off at the limit" if step.completion.truncated else ""
        cost = f"{step.tokens} tokens, {step.completion.seconds:.1f} s{cut}"
    return (
        f'<div class="sw-card"><div class="sw-card-head"><span>Step {card.index + 1}{about}</span>{mark}</div>{body}'
        f'{_reading(card)}{_change(chain, card)}{_prompt(card)}<div class="sw-cost">{cost}</div></div>'
    )


def _prompt(card: StepCard) -> str:
    """The prompt of a finished step, folded away."""
    if card.step is None:
        return ""
    prompt = _messages(card.step.messages)
    return f'<details class="sw-prompt"><summary>what the model was asked</summary>{prompt}</details>'


@lru_cache(REMEMBERED)
def _messages(messages: tuple[Message, ...]) -> str:
    shown = [f"<h4>{html.escape(message.role)}</h4><pre>{html.escape(_text_of(message))}</pre>" for message in messages]
    hidden = len(shown) - SHOWN_MESSAGES
    before = f"<p>{hidden} earlier messages are worked examples.</p>" if hidden > 0 else ""
    return before + "".join(shown[-SHOWN_MESSAGES:])


def _text_of(message: Message) -> str:
    """A message's text, with a mark where an image stands."""
    return "".join(part.text if isinstance(part, TextPart) else "[image]" for part in message.parts)


@lru_cache(REMEMBERED)
def _finished(text: str) -> str:
    """A finished step's text: made once, not at every update of the steps after it."""
    return markdown_html(text)


@lru_cache(REMEMBERED)
def _difference(before: str, after: str) -> str:
    return diff_html(before, after)


def _reading(card: StepCard) -> str:
    """What was read out of a finished step, and what the verifier says of it."""
    step = card.step
    if step is None:
        return ""
    if not step.kind.judges:
        read = "no answer could be read" if step.answer is None else f"answer: <b>{html.escape(step.answer)}</b>"
        return f'<div class="sw-read">{read}{_finding(card)}</div>'
    if step.verdict is None:
        return f'<div class="sw-read">{verdict_chip(UNREADABLE)} ({html.escape(str(step.parse))})</div>'
    chip = verdict_chip({"Yes": ACCEPTED, "No": REJECTED}[step.verdict])
    sure = ""
    if card.yes is not None:
        percent = f"{card.yes:.0%}"
        sure = (
            f'<div class="sw-sure"><span>probability of "Yes": <b>{percent}</b></span>'
            f'<span class="sw-bar"><span style="width: {percent}"></span></span></div>'
        )
    return f'<div class="sw-read">{chip}{_meanings(step)}</div>{sure}'


def _meanings(step: Step) -> str:
    """What the words in the judge's box mean, where the prompt asked for others than Yes and No."""
    if not step.label_map or set(step.label_map) == {"Yes", "No"}:
        return ""
    meant = ", ".join(f"{word} means {meaning}" for word, meaning in step.label_map.items())
    return f'<div class="sw-cost">{html.escape(meant)} here</div>'


def _finding(card: StepCard) -> str:
    if not card.verified:
        return ""
    word, style = {True: ("right", "good"), False: ("wrong", "bad"), None: ("cannot tell", "unverified")}[card.correct]
    reason = f" ({html.escape(card.reason)})" if card.reason else ""
    return f' <span class="sw-chip sw-{style}">verifier: {word}</span>{reason}'


def _change(chain: LiveChain, card: StepCard) -> str:
    """What a reflection changed of the response it is about."""
    if card.step is None or card.kind is not Kind.REFLECTION or card.about is None:
        return ""
    before = chain.steps[card.about].text
    if before.strip() == card.text.strip():
        return '<div class="sw-same">the same text as before</div>'
    return (
        f'<details class="sw-diff" open><summary>changed against step {card.about + 1}</summary>'
        f"<pre>{_difference(before, card.text)}</pre></details>"
    )


def _outcome(chain: LiveChain) -> str:
    if chain.state == "failed":
        return notice(chain.problem, "warning")
    if chain.state == "stopped":
        return notice("Stopped: what was written so far stays on the page.")
    attempt = chain.attempt
    if attempt is None or not chain.over:
        return ""
    final = attempt.final
    answer = "none could be read" if final.answer is None else html.escape(final.answer)
    lines = [f"<p><b>Final answer: {answer}</b>, from step {final.index + 1}. {html.escape(attempt.detail)}</p>"]
    if not chain.final_judged:
        lines.append("<p>This answer was never judged.</p>")
    if final.first and len(attempt.steps) > 1 and str(attempt.stop) in ("rejected", "no_answer"):
        lines.append("<p>The loop fell back to the first answer.</p>")
    return f'<div class="sw-outcome">{"".join(lines)}</div>'
