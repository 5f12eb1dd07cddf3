r"""The LaTeX and Unicode dress that an answer may wear without meaning anything else."""

from __future__ import annotations

import re

from spark_kernel.prompts.verdicts import TEXT_COMMAND

CHARACTERS = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "‐": "-",
        "‑": "-",
        "﹣": "-",
        "+": "+",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\u2007": " ",
        "％": "%",
        "°": "^\\circ ",
        "²": "^2",
        "³": "^3",
        "×": "\\times ",
        "·": "\\cdot ",
        "⋅": "\\cdot ",
        "÷": "/",
        "∞": "\\infty ",
        "π": "\\pi ",
        "≤": "\\leq ",
        "≥": "\\geq ",
        "≠": "\\neq ",
        "∪": "\\cup ",
        "∅": "\\emptyset ",
        "½": "\\frac{1}{2}",
        "⅓": "\\frac{1}{3}",
        "⅔": "\\frac{2}{3}",
        "¼": "\\frac{1}{4}",
        "¾": "\\frac{3}{4}",
        "⅕": "\\frac{1}{5}",
        "⅛": "\\frac{1}{8}",
    }
)
DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"))
SIZING = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg)(?![A-Za-z])\.?|\\(?:displaystyle|textstyle)(?![A-Za-z])")
FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
TAIL_COMMANDS = ("\\\\", "\\,", "\\;", "\\:", "\\!", "\\quad", "\\qquad", "~", ".", ",", ";")
BRACED_COMMA = re.compile(r"(?<=\d)\{,\}(?=\d{3}(?!\d))")
WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox)\s*\{([^{}]*)\}[\s.]*")


def unwrap_text(content: str) -> str:
    r"""The content of `\text{...}` (or a relative) where that is all there is, else the text itself, stripped."""
    match = WRAPPED.fullmatch(content.strip())
    return (match.group(1) if match else content).strip()


def unwrap_all_text(content: str) -> str:
    r"""Every `\text{...}` replaced by its content."""
    return TEXT_COMMAND.sub(r" \1 ", content)


def tidy(content: str) -> str:
    r"""The same mathematics without delimiters, sizing commands, Unicode variants and trailing punctuation."""
    text = _without_tail(content.translate(CHARACTERS))
    for opening, closing in DELIMITERS:
        inner = text[len(opening) : len(text) - len(closing)]
        if text.startswith(opening) and text.endswith(closing) and inner and opening not in inner:
            text = _without_tail(inner)
    text = BRACED_COMMA.sub("", SIZING.sub("", text))
    return FRACTION.sub(r"\\frac", text).strip()


def _without_tail(text: str) -> str:
    """Without closing punctuation and spacing; an ellipsis stays, because it means something."""
    text = text.strip()
    while text.endswith(TAIL_COMMANDS) and not text.endswith("..."):
        tail = next(command for command in TAIL_COMMANDS if text.endswith(command))
        text = text[: -len(tail)].rstrip()
    return text
