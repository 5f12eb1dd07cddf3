"""One sample with everything about it, as HTML: prompt, output, findings, verdicts, group."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from spark_kernel.errors import InputError
from spark_kernel.problems.images import open_image
from workbench.app.cards import one_block
from workbench.app.links import sample_link
from workbench.model_text import markdown_html, raw_html
from workbench.value_text import show
from workbench.views import ImageView, RolloutDetail

SHOWN_PIXELS = 480
"""Longest side of an image on the page."""
SHOWN_VERDICTS = 12


def sample_html(run: str, detail: RolloutDetail, *, held_out: bool, image_pixels: int) -> str:
    """Everything about an output, for a Markdown component; text of models and problems is made safe."""
    row = detail.row
    link = sample_link(run, int(row["round"]), str(row["id"]), held_out=held_out)
    right = {True: ("right", "good"), False: ("wrong", "bad"), None: ("no finding", "unverified")}[row["correct"]]
    facts = (
        ("round", row["round"]), ("part" if held_out else "period", row["period"]), ("kind", row["kind"]),
        ("made from", row["origin"]), ("label", row["label"]), ("gold", row["gold"]), ("read", row["answer"]),
        ("parse", row["parse"]), ("reward", row["reward"]), ("advantage", row["advantage"]), ("tokens", row["tokens"]),
        ("mean log-probability", row["mean_logprob"]), ("cut off", row["truncated"]),
        ("policy version", row["policy_version"]), ("template", detail.template_id),
        ("last time", row["before"]),
    )  # fmt: skip
    parts = [
        f'<div class="sw-card-head"><b>{_text(row["id"])}</b><span class="sw-chip sw-{right[1]}">{right[0]}</span>'
        f'<a class="sw-link" href="{html.escape(link)}">link to this sample</a></div>',
        _facts(facts),
        f'<p class="sw-muted">{_text(row["reason"])}</p>' if row["reason"] else "",
        _images(detail.images, image_pixels),
        "<h3>Output</h3>",
        f'<div class="sw-text">{markdown_html(row["text"])}</div>',
        f"<details><summary>as it was written</summary>{raw_html(row['text'])}</details>",
        _prompt(detail),
        _verdicts(detail),
        _group(detail),
    ]
    return one_block(f'<div class="sw-card sw-detail">{"".join(parts)}</div>')


def _facts(facts: Sequence[tuple[str, object]]) -> str:
    cells = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{_text(show(value))}</dd>" for name, value in facts if value is not None
    )
    return f'<dl class="sw-facts">{cells}</dl>'


def _text(value: object) -> str:
    """Plain text; a dollar sign is no formula here."""
    return html.escape(str(value)).replace("$", "<span>$</span>")


def _images(images: Sequence[ImageView], most: int) -> str:
    found = []
    for image in images:
        if image.file is None:
            found.append('<p class="sw-muted">The run folder lacks this image.</p>')
            continue
        try:
            picture = open_image(image.file, most)
        except InputError:
            found.append('<p class="sw-muted">This image cannot be shown.</p>')
            continue
        picture.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
        data = io.BytesIO()
        picture.save(data, "PNG")
        code = base64.b64encode(data.getvalue()).decode()
        found.append(f'<img class="sw-image" alt="image of the problem" src="data:image/png;base64,{code}">')
    return "".join(found)


def _prompt(detail: RolloutDetail) -> str:
    turns = "".join(f"<h4>{_text(role)}</h4>{raw_html(text)}" for role, text in detail.messages)
    letters = ""
    if detail.label_map:
        meaning = ", ".join(f"{letter} means {says}" for letter, says in detail.label_map.items())
        letters = f'<p class="sw-muted">{_text(meaning)}</p>'
    sources = ""
    if detail.source_ids:
        words = {True: "right", False: "wrong"}
        shown = ", ".join(
            f"{name} ({words[correct]})"
            for name, correct in zip(detail.source_ids, detail.source_correct, strict=False)
        )
        sources = f'<p class="sw-muted">The prompt shows: {_text(shown or ", ".join(detail.source_ids))}</p>'
    return f"<details><summary>the exact prompt</summary>{turns}</details>{letters}{sources}"


def _verdicts(detail: RolloutDetail) -> str:
    if not detail.verdicts:
        return ""
    rows = "".join(
        f"<tr><td>{v.round}</td><td>{_text(v.kind)}</td><td>{_text(v.position or '')}</td>"
        f"<td>{_text(show(v.verdict))}</td><td>{_text(show(v.says_right))}</td><td>{_text(show(v.is_right))}</td></tr>"
        for v in detail.verdicts[:SHOWN_VERDICTS]
    )
    more = len(detail.verdicts) - SHOWN_VERDICTS
    rest = f'<p class="sw-muted">{more} more verdicts.</p>' if more > 0 else ""
    return (
        '<h3>What judges said about it</h3><table class="sw-table sw-fit"><thead><tr><th>round</th>'
        "<th>kind</th><th>place</th><th>verdict</th><th>takes it for right</th><th>verdict is right</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>{rest}"
    )


def _group(detail: RolloutDetail) -> str:
    rows = "".join(
        f'<tr class="{"sw-selected" if s.id == detail.row["id"] else ""}"><td>{s.sample}</td>'
        f"<td>{_text(show(s.answer))}</td>"
        f"<td>{_text(show(s.correct))}</td><td>{show(s.reward)}</td><td>{show(s.advantage)}</td></tr>"
        for s in detail.siblings
    )
    return (
        '<h3>Its group</h3><table class="sw-table sw-fit"><thead><tr><th>sample</th><th>read</th>'
        f"<th>correct</th><th>reward</th><th>advantage</th></tr></thead><tbody>{rows}</tbody></table>"
    )
