"""Model text as HTML: what it may contain, and which formulas reach a typesetter. Checked with an HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

pytest.importorskip("markdown_it", reason="markdown-it-py is not installed: the extras `notebook` and `app` bring it")

from hypothesis import given
from hypothesis import strategies as st

from workbench.model_text import FORMULA_LIMIT, TAGS, markdown_html, raw_html


class Page(HTMLParser):
    """Tags with their attributes, all text, and the text of elements of class `math`."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.formulas: list[str] = []
        self.other = ""
        self._open: list[bool] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("br", "hr"):
            return
        formula = "math" in (dict(attrs).get("class") or "").split()
        self._open.append(formula)
        if formula:
            self.formulas.append("")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._open and self._open[-1]:
            self.formulas[-1] += data
        else:
            self.other += data


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<style>*{display:none}</style>",
        '<a href="javascript:alert(1)">x</a>',
        "[x](javascript:alert(1)) [x](JaVaScRiPt:alert(1)) [x](data:text/html,<script>1</script>) [x](vbscript:1)",
        "[x](https://a.example/\"onmouseover='alert(1)')",
        "![x](https://a.example/pixel.png) ![x][1]\n\n[1]: https://a.example/pixel.png",
        "![x](data:image/svg+xml;base64,PHN2Zy8+)",
        "<https://a.example/><script>",
        r"$\href{javascript:alert(1)}{x}$ \(\url{javascript:alert(1)}\)",
        "$</span><script>alert(1)</script>$ $$<img src=x onerror=alert(1)>$$",
        "```<script>\nx\n```\n\n`<script>`",
        "| <script> |\n| - |\n| <img src=x onerror=alert(1)> |",
        "</div></span></pre><script>alert(1)</script>",
        "&lt;script&gt;alert(1)&lt;/script&gt; &#60;script&#62;",
    ],
)
def test_nothing_in_model_text_acts_or_is_fetched(text: str) -> None:
    for page in (Page(markdown_html(text)), Page(raw_html(text))):
        for tag, attributes in page.tags:
            assert tag in TAGS
            assert not {name for name in attributes if name.startswith("on")}
            assert set(attributes) <= {"class", "href", "title", "rel", "start"}
            assert (attributes.get("href") or "https:").startswith(("https:", "http:"))
        assert not any("href{" in formula or "url{" in formula for formula in page.formulas)


@given(st.text(alphabet=st.sampled_from("ab1 \n\\$()[]{}<>*_`|-#!&;:/\"'"), max_size=80))
def test_any_text_gives_allowed_tags_that_close_and_no_loose_formula_marks(text: str) -> None:
    page = Page(markdown_html(text))
    assert {tag for tag, _ in page.tags} <= TAGS
    assert not page._open
    for formula in page.formulas:
        marks = "$$" if formula.startswith("$$") else "$"
        inner = formula.removeprefix(marks).removesuffix(marks)
        assert "$" not in inner.replace(r"\$", "")


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        (r"so \( x_1 * y_2 * z \) holds", ["$x_1 * y_2 * z$"]),
        (r"so \[ a*b*c \] holds", ["$$a*b*c$$"]),
        ("so $a_1$ and $$b_1$$", ["$a_1$", "$$b_1$$"]),
        ("\\[\n a = b\n - c\n= d\n\\]", ["$$a = b - c = d$$"]),
        ("$$\n a = b\n- c\n$$", ["$$a = b - c$$"]),
        ("> \\[ x < y \\]\n> then", ["$$x < y$$"]),
        ("\\begin{align}\na &= b\n\\end{align}", ["$$\\begin{align} a &= b \\end{align}$$"]),
        ("| a | b |\n|---|---|\n| 1 | $x$ |", ["$x$"]),
        ("it costs $5 and $6, or $7-$8", []),
        (r"`\(x\)` and `$x$`", []),
        ("    $x$", []),
        (r"open \( only and $ only and \[", []),
        (r"\def\x{\x\x} $\def\x{\x\x}\x$ \(\newcommand{\frac}{1}\)", []),
        (r"$\text{left}\le\default$", [r"$\text{left}\le\default$"]),
        ("$a % b$", ["$a$"]),
        ("5 + 3 = 8\n\\boxed{8 - \\frac{1}{2}}.", ["$\\boxed{8 - \\frac{1}{2}}$"]),
        (r"so \boxed{Yes}", [r"$\boxed{\text{Yes}}$"]),
        (r"\boxed{ } \boxed{\href{x}{y}} \boxed{a$b} \boxed{", []),
        (r"so \begin{align} a &= b \\ c &= d \end{align} holds", [r"$$\begin{align} a &= b \\ c &= d \end{align}$$"]),
        (r"so \begin{align} a &= b \end{gather} holds", []),
        ("$" + "x" * (FORMULA_LIMIT + 1) + "$", []),
    ],
)
def test_formulas_have_one_kind_of_delimiter(text: str, formulas: list[str]) -> None:
    assert Page(markdown_html(text)).formulas == formulas


def test_a_dollar_or_backslash_outside_a_formula_stands_alone_in_its_element() -> None:
    shown = markdown_html("$5 to $6 and \\alpha and \\begin{x}")
    assert Page(shown).text.strip() == "$5 to $6 and \\alpha and \\begin{x}"
    assert "<span>$</span>5 to <span>$</span>6 and <span>\\</span>alpha" in shown


def test_markdown_is_rendered_and_links_do_not_tell_where_they_come_from() -> None:
    shown = markdown_html("# A\n\n**b** and [c](https://a.example)\n\n2. d\n\n| e |\n|---|\n| f |")
    for part in ("<h1>A</h1>", "<strong>b</strong>", '<ol start="2">', "<td>f</td>"):
        assert part in shown
    assert 'href="https://a.example" rel="noopener noreferrer nofollow"' in shown


def test_a_picture_is_named_and_not_fetched() -> None:
    shown = markdown_html("![a cat & $x$](https://a.example/cat.png)")
    assert "[picture not shown: a cat &amp; x]" in shown
    assert "cat.png" not in shown


def test_what_turns_the_direction_of_a_text_is_shown() -> None:
    for shown in (markdown_html("a\u202eb\u2066c"), raw_html("a\u202eb\u2066c")):
        assert Page(shown).text.strip() == "a⟨U+202E⟩b⟨U+2066⟩c"
    assert "שלום" in markdown_html("שלום")


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "\\boxed{a", "\\[\n", "\\(", "[", "![", "$a ", "**a ", "> ", "`", "- ", "|a", "\\begin{align}\n"],
)
def test_huge_input_is_cut_and_said(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    for shown in (markdown_html(text), raw_html(text)):
        assert f"{len(text) - 20_000} more characters are not shown." in shown
        assert len(shown) < 1_000_000


def test_raw_text_keeps_every_character_and_broken_ones_do_not_break_the_page() -> None:
    text = "a < b & **c** $x$ \\(y\\)\n  d"
    assert Page(raw_html(text)).text == text
    assert "<strong>" not in raw_html(text)
    for broken in ("\ud800", "a\0b"):
        markdown_html(broken).encode("utf-8")
        raw_html(broken).encode("utf-8")
