"""Parts of the panels as HTML: prompts, answers, tokens, differences. Everything a model wrote is made safe here."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.model_text import markdown_html, raw_html
from workbench.text_diff import diff_html
from workbench.value_text import show
from workbench.views import ImageView, Sibling, Token, Verdict

MOST_TOKENS = 4_000
MOST_IMAGE_BYTES = 4_000_000
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif"}
SHADES = (0.9, 0.5, 0.1, 0.01)
"""Token probabilities at which the shade changes, from pale to strong."""


def text_html(text: str, *, raw: bool) -> str:
    """A model's text: rendered, or as it is."""
    return f'<div class="spark-model-text">{raw_html(text) if raw else markdown_html(text)}</div>'


def prompt_html(messages: Sequence[tuple[str, str]]) -> str:
    """A prompt exactly as it was given, message by message."""
    parts = [f'<div class="spark-role">{html.escape(role)}</div>{raw_html(text)}' for role, text in messages]
    return "".join(parts)


def details(summary: str, content: str, *, is_open: bool = False) -> str:
    """Something to fold out; `content` is HTML, `summary` text."""
    return f"<details{' open' * is_open}><summary>{html.escape(summary)}</summary>{content}</details>"


def grid(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table of values; everything is escaped, None is a dash."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(show(value))}</td>" for value in values) + "</tr>" for values in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<table class="spark-table">{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def finding(correct: bool | None) -> str:
    """What the verifier found, in a word with a sign that needs no colour."""
    return {True: "✓ right", False: "✗ wrong", None: "– no finding"}[correct]


def images_html(images: Sequence[ImageView]) -> str:
    """The images of a prompt, from the run folder."""
    parts = []
    for number, image in enumerate(images, start=1):
        name = f"image {number} of the problem"
        kind = TYPES.get(image.file.suffix.lower()) if image.file is not None else None
        if image.file is None or not image.file.is_file():
            parts.append(f"<p>[{name} is not in the run folder: {html.escape(image.sha256[:12])}]</p>")
        elif kind is None or image.file.stat().st_size > MOST_IMAGE_BYTES:
            parts.append(
                f"<p>[{name} is not shown: {html.escape(image.file.name)} is too large or of another type]</p>"
            )
        else:
            data = base64.b64encode(image.file.read_bytes()).decode("ascii")
            parts.append(f'<img class="spark-image" alt="{name}" src="data:{kind};base64,{data}">')
    return "".join(parts)


def tokens_html(tokens: Sequence[Token]) -> str:
    """Tokens shaded by their log-probability: the stronger, the less likely. Each says its figures when pointed at."""
    parts = []
    for token in tokens[:MOST_TOKENS]:
        probability = math.exp(min(0.0, token.logprob))
        level = sum(probability < bound for bound in SHADES)
        text = html.escape(token.text or f"⟨{token.id}⟩").replace("\n", "⏎\n")
        title = f"{token.logprob:.3f} nats, probability {probability:.1%}, id {token.id}"
        parts.append(f'<span class="spark-p{level}" title="{title}">{text}</span>')
    rest = f"<p>{len(tokens) - MOST_TOKENS} more tokens are not shown.</p>" if len(tokens) > MOST_TOKENS else ""
    names = ("at least 90 %", "50 to 90 %", "10 to 50 %", "1 to 10 %", "below 1 %")
    legend = " ".join(f'<span class="spark-p{level}">{name}</span>' for level, name in enumerate(names))
    body = f'<pre class="spark-text">{"".join(parts)}</pre>{rest}'
    return f'<p class="spark-muted">Probability of each token: {legend}</p>{body}'


def facts_html(row: Mapping[str, Any]) -> str:
    """What was read from an output, what it should be, and what it was worth."""
    wanted = row["gold"] if row["kind"] in ("solve", "reflection") else row["label"]
    reward, advantage = row["reward"], row["advantage"]
    rows = [
        ("read from it", row["answer"] if row["answer"] is not None else f"nothing ({row['parse'] or 'not verified'})"),
        ("wanted", wanted),
        ("verifier", f"{finding(row['correct'])}. {row['reason'] or ''}"),
        ("reward, advantage", f"{show(reward)}, {show(advantage)}"),
        ("judged by the model", f"{row['judged_right']} times right, {row['judged_wrong']} times wrong"),
        ("length", f"{row['tokens']} tokens{', cut off' if row['truncated'] else ''}"),
        ("policy version", row["policy_version"]),
    ]
    body = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th><td>{html.escape(show(value))}</td></tr>' for name, value in rows
    )
    return f'<table class="spark-table"><tbody>{body}</tbody></table>'


def siblings_html(siblings: Sequence[Sibling]) -> str:
    """All outputs of the same task."""
    rows = [(s.sample, s.answer, finding(s.correct), s.reward, s.advantage) for s in siblings]
    return grid(("sample", "answer", "verifier", "reward", "advantage"), rows)


def verdicts_html(verdicts: Sequence[Verdict]) -> str:
    """What judges said about an output."""
    rows = [
        (
            v.round,
            f"{v.kind}{f' (as {v.position})' if v.position else ''}",
            v.view,
            v.verdict,
            {True: "right", False: "wrong", None: None}[v.says_right],
            {True: "yes", False: "no", None: None}[v.is_right],
        )
        for v in verdicts
    ]
    return grid(("round", "judge", "sees", "verdict", "takes it for", "verdict correct"), rows)


def difference_html(before: str, after: str) -> str:
    """Two texts as one, word by word: what went away is struck out, what came is underlined."""
    return f'<pre class="spark-text spark-diff">{diff_html(before, after)}</pre>'
