"""Text that a model wrote, or a problem's author, as HTML that is safe to put on a page.

Markdown is read with HTML switched off, then only an allow-list of tags and attributes is kept. Images are replaced by
their description, so that a page never fetches what a text names. Formulas are left for the page's own typesetter
(MathJax in JupyterLab, KaTeX in the app), always as `$...$` or `$$...$$`, whatever delimiters the model used; a dollar
or backslash that is no formula is kept away from it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.amsmath import amsmath_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

LIMIT = 20_000
"""Characters of one text that are shown; the rest is counted."""
FORMULA_LIMIT = 4_000
"""Characters of one formula that a typesetter gets; a longer one is shown as it was written."""
FORMULAS = 150
"""Formulas of one text that a typesetter gets."""
NESTING = 20
"""How deep a formula may be nested: a typesetter calls itself for each level, and takes longer than in proportion."""
CELLS = 300
"""Cells and lines of one formula; each is typeset on its own."""
BUSIEST = {"\n": 1_000, "[": 1_000, "\\begin": 150, "|": 3_000, "$": 2_000, "\\[": 300, "\\(": 1_000}
"""How often a sign may stand in a text that is read as Markdown: the reader looks ahead from each of them. No text that
is meant to be read comes near; one that does is shown as it was written."""
BLOCK_LINES = 80
BREAK = re.compile(r"\\\\|&|\\(?:cr|newline|hline)(?![A-Za-z])")
ESCAPED = re.compile(r"\\[^A-Za-z]")
LEVEL = re.compile(r"\\[^A-Za-z]|(}|\\(?:right|end|endgroup)(?![A-Za-z]))|{|\\(?:left|begin|begingroup)(?![A-Za-z])")
"""What opens a level of a formula, and, as a group, what closes one; an escaped sign is neither."""
BARE = re.compile(r"\\[dtc]?frac(?!\s*{)|(?:\\[A-Za-z]+\s*){20}")
"""A fraction without braces, or commands in a row: each may be the argument of the one before, and so a level."""
BOXED = "\\boxed{"
WORDS = re.compile(r"[^\\{}$^_&#%~]*[A-Za-z]{2}[^\\{}$^_&#%~]*")
"""A box of words, which a formula would set as a product of letters."""
BOX_LIMIT = 400
"""Characters of a box outside of a formula that is typeset."""
ENVIRONMENT = re.compile(
    r"\\begin\{((?:align|alignat|aligned|equation|gather|gathered|multline|split|cases|array|[pbvBV]?matrix)\*?)\}"
)
OVERRIDES = {code: f"⟨U+{code:04X}⟩" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}
"""Signs that turn the direction of what follows, and could make it read as something else."""
COMMENT = re.compile(r"(?<!\\)%.*")

TAGS = frozenset(
    (
        *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "em", "strong", "s", "blockquote", "ul", "ol", "li"),
        *("code", "pre", "table", "thead", "tbody", "tr", "th", "td", "a", "span", "div"),
    )
)
ATTRIBUTES = {"a": {"href", "title"}, "ol": {"start"}}
CLASSES = {"span": {"math", "inline", "picture"}, "div": {"math", "block"}}
ACTIVE = re.compile(
    r"\\(?:href|url|html\w*|style|class|cssId|data|require|includegraphics|unicode|tag|label|eqref|ref"
    r"|[gex]?def|let|futurelet|(?:re|provide)?newcommand|renewcommand|newenvironment|renewenvironment|global|toggle"
    r"|mmlToken|texttip|bbox|special|csname|catcode)(?![A-Za-z])"
)
"""Commands by which a formula could link, style, load, or change how other formulas of the page are read."""


def markdown_html(text: str, limit: int = LIMIT) -> str:
    """Markdown with formulas as safe HTML. A line break stays one: models write a step a line.

    Costs a fraction of a second whatever the text is; one that would cost more is shown as `raw_html` does.

    Args:
        text: untrusted.
        limit: characters read; a last line says how many were left out.
    """
    shown, rest = _cut(text, limit)
    if any(shown.count(sign) > most for sign, most in BUSIEST.items()):
        return raw_html(text, limit)
    rendered = _reader().render(shown)
    clean = nh3.clean(
        rendered,
        tags=set(TAGS),
        attributes={tag: set(names) for tag, names in ATTRIBUTES.items()},
        allowed_classes={tag: set(names) for tag, names in CLASSES.items()},
        url_schemes={"http", "https"},
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return clean + rest


def raw_html(text: str, limit: int = LIMIT) -> str:
    """A text as it is, in `<pre>`: nothing in it is read as Markdown, HTML or a formula."""
    shown, rest = _cut(text, limit)
    return f"<pre>{html.escape(shown)}</pre>{rest}"


def _cut(text: str, limit: int) -> tuple[str, str]:
    shown = text[:limit].encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd").translate(OVERRIDES)
    rest = f"<p><em>{len(text) - limit} more characters are not shown.</em></p>" if len(text) > limit else ""
    return shown, rest


@cache
def _reader() -> MarkdownIt:
    reader = (
        MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
        .enable("table")
        .enable("strikethrough")
    )
    dollarmath_plugin(reader, allow_labels=False, allow_space=False, allow_digits=False, double_inline=True)
    amsmath_plugin(reader)
    reader.inline.ruler.before("escape", "bracket_formula", _bracket_inline)
    reader.inline.ruler.before("escape", "bare_box", _bare_box)
    reader.inline.ruler.before("escape", "bare_environment", _bare_environment)
    reader.block.ruler.before("fence", "bracket_block", _bracket_block, {"alt": ["paragraph", "blockquote", "list"]})
    for name in ("math_inline", "math_inline_double", "math_block", "amsmath"):
        reader.add_render_rule(name, _formula)
    reader.add_render_rule("text", _text)
    reader.add_render_rule("image", _picture)
    return reader


def _bracket_inline(state: StateInline, silent: bool) -> bool:
    r"""`\( ... \)` and `\[ ... \]` within a paragraph."""
    opening = state.src[state.pos : state.pos + 2]
    if opening not in (r"\(", r"\["):
        return False
    closing = r"\)" if opening == r"\(" else r"\]"
    end = state.src.find(closing, state.pos + 2)
    if end < 0 or not state.src[state.pos + 2 : end].strip():
        return False
    if not silent:
        token = state.push("math_inline" if opening == r"\(" else "math_inline_double", "math", 0)
        token.content = state.src[state.pos + 2 : end]
    state.pos = end + 2
    return True


def _bare_box(state: StateInline, silent: bool) -> bool:
    r"""A `\boxed{...}` that stands outside of any formula, as models write their answers."""
    if not state.src.startswith(BOXED, state.pos):
        return False
    begin, depth = state.pos + len(BOXED), 1
    for place in range(begin, min(len(state.src), begin + BOX_LIMIT)):
        sign = state.src[place]
        if sign == "\n":
            return False
        if sign in "{}" and state.src[place - 1] != "\\":
            depth += 1 if sign == "{" else -1
        if depth == 0:
            inside = state.src[begin:place]
            if not inside.strip():
                return False
            if not silent:
                token = state.push("math_inline", "math", 0)
                token.content = BOXED + (rf"\text{{{inside}}}" if WORDS.fullmatch(inside) else inside) + "}"
            state.pos = place + 1
            return True
    return False


def _bare_environment(state: StateInline, silent: bool) -> bool:
    r"""A `\begin{align} ... \end{align}` in the middle of a paragraph."""
    found = ENVIRONMENT.match(state.src, state.pos)
    if found is None:
        return False
    closing = rf"\end{{{found[1]}}}"
    end = state.src.find(closing, found.end(), found.end() + FORMULA_LIMIT)
    if end < 0:
        return False
    if not silent:
        token = state.push("math_inline_double", "math", 0)
        token.content = state.src[state.pos : end + len(closing)]
    state.pos = end + len(closing)
    return True


def _bracket_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""Lines from one that begins with `\[` to one that ends with `\]`; what is between is not read as Markdown."""
    begin = state.bMarks[first] + state.tShift[first]
    if not state.src.startswith(r"\[", begin) or state.src.find(r"\]", begin) < 0:
        return False
    for line in range(first, min(last, first + BLOCK_LINES)):
        text = state.src[state.bMarks[line] : state.eMarks[line]]
        if state.sCount[line] < state.blkIndent:
            return False
        place = text.find(r"\]", begin + 2 - state.bMarks[line] if line == first else 0)
        if place < 0:
            continue
        if text[place + 2 :].strip(" .,;:"):
            return False
        if not silent:
            token = state.push("math_block", "math", 0)
            token.block = True
            token.content = state.src[begin + 2 : state.bMarks[line] + place]
            token.map = [first, line + 1]
        state.line = line + 1
        return True
    return False


def _formula(_self: Any, tokens: Sequence[Token], index: int, _options: Any, env: Any) -> str:
    token = tokens[index]
    source = " ".join(COMMENT.sub("", token.content).split())
    display = token.type != "math_inline"
    env["formulas"] = env.get("formulas", 0) + 1
    unwanted = not source or ACTIVE.search(source) or "$" in source.replace(r"\$", "")
    if unwanted or env["formulas"] > FORMULAS or len(source) > FORMULA_LIMIT or _is_heavy(source):
        code = f"<code>{html.escape(source)}</code>"
        return f"<div>{code}</div>\n" if token.block else code
    escaped = html.escape(source)
    if token.block:
        return f'<div class="math block">$${escaped}$$</div>\n'
    return f'<span class="math">$${escaped}$$</span>' if display else f'<span class="math inline">${escaped}$</span>'


def _is_heavy(source: str) -> bool:
    """Whether typesetting it could take seconds."""
    bare = sum(found[0].count("\\") for found in BARE.finditer(source))
    if bare >= NESTING or len(BREAK.findall(source)) > CELLS:
        return True
    depth = 0
    for sign in LEVEL.finditer(source):
        if not ESCAPED.fullmatch(sign[0]):
            depth += -1 if sign[1] else 1
        if depth > NESTING:
            return True
    return False


def _text(_self: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    # A typesetter reads runs of text: one that stands in an element of its own is never part of a formula.
    escaped = html.escape(tokens[index].content, quote=False)
    return escaped.replace("\\", "<span>\\</span>").replace("$", "<span>$</span>")


def _picture(_self: Any, tokens: Sequence[Token], index: int, _options: Any, _env: Any) -> str:
    alt = "".join(child.content for child in tokens[index].children or ()).replace("$", "").replace("\\", "")
    return f'<span class="picture">[picture not shown: {html.escape(alt or "without description")}]</span>'
