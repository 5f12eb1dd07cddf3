r"""What an answer wears without meaning anything else: boxes, fonts, colours, sizes, spacing, delimiters, Unicode.

`undress` gives the same mathematics in a small LaTeX: letters, digits, operators, `\frac`, `\sqrt` and the like, and
`\text{...}` for words. Every verifier reads what it gives, so that a dress is learnt in one place.
"""

from __future__ import annotations

import html
import re
from functools import lru_cache

from spark_kernel.verify.characters import to_latex
from spark_kernel.verify.word_lists import words

MAX_LAYERS = 16
MAX_LENGTH = 5000
"""Longer texts are no answers: nothing is taken off them but white space."""
NAMED_FUNCTIONS = frozenset(
    words(
        "sin cos tan cot sec csc arcsin arccos arctan arccot sinh cosh tanh coth log ln lg exp max min gcd lcm lim "
        "arg det sgn mod deg"
    )
)
SWITCHES = frozenset(
    words(
        "displaystyle textstyle scriptstyle scriptscriptstyle tiny scriptsize footnotesize small normalsize large "
        "Large LARGE huge Huge bf rm it sf tt em sl sc bfseries mdseries itshape upshape rmfamily sffamily ttfamily "
        "boldmath centering"
    )
)
DROPPED = SWITCHES | frozenset(
    words(
        "left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr limits nolimits noindent "
        "strut mathstrut ensuremath protect allowbreak nobreak relax mathop mathbin mathrel mathord mathopen mathclose "
        "smash nonumber notag par"
    )
)
SPACES = frozenset(words("quad qquad thinspace enspace hfill space enskip thickspace medspace negthinspace newline"))
DROPPED_WITH_ARGUMENT = frozenset(words("color hspace vspace hskip label tag phantom hphantom vphantom kern mspace"))
FONTS = frozenset(
    words(
        "mathbf bm boldsymbol pmb mathit mathsf mathtt mathnormal mathcal mathscr mathfrak underline boxed fbox "
        "framebox emph mathbin mathrel ensuremath underbrace"
    )
)
UPRIGHT = frozenset(
    words(
        "text textbf textit textrm textsf texttt textnormal textup textmd textsc textsl mathrm mathup symup "
        "operatorname mbox hbox"
    )
)
COLOURS = {"textcolor": 1, "colorbox": 1, "fcolorbox": 2}
"""Commands whose content follows so many arguments."""
RENAMED = {
    "dfrac": "frac",
    "tfrac": "frac",
    "cfrac": "frac",
    "nicefrac": "frac",
    "dbinom": "binom",
    "tbinom": "binom",
    "le": "leq",
    "leqslant": "leq",
    "leqq": "leq",
    "ge": "geq",
    "geqslant": "geq",
    "geqq": "geq",
    "ne": "neq",
    "infin": "infty",
    "R": "mathbb{R}",
    "reals": "mathbb{R}",
    "varnothing": "emptyset",
    "dots": "ldots",
    "cdots": "ldots",
    "dotsc": "ldots",
    "dotsb": "ldots",
    "lbrace": "{",
    "rbrace": "}",
    "thicksim": "sim",
    "simeq": "approx",
    "approxeq": "approx",
    "cong": "approx",
    "doteq": "approx",
    "backslash": "setminus",
    "smallsetminus": "setminus",
    "varphi": "phi",
    "varepsilon": "epsilon",
    "vartheta": "theta",
    "imath": "i",
    "jmath": "j",
    "uppi": "pi",
}
PLAIN = {
    "lvert": "|",
    "rvert": "|",
    "vert": "|",
    "lbrack": "[",
    "rbrack": "]",
    "lparen": "(",
    "rparen": ")",
    "colon": ":",
    "lt": "<",
    "gt": ">",
    "ast": "*",
    "div": "/",
    "prime": "'",
    "degree": r"^\circ ",
    "textdegree": r"^\circ ",
    "textdollar": "$",
    "pounds": "£",
    "euro": "€",
    "yen": "¥",
    "textpercent": "%",
    "percent": "%",
    "slash": "/",
    "land": r"\text{ and }",
    "lor": r"\text{ or }",
    "wedge": r"\text{ and }",
    "vee": r"\text{ or }",
}
UNIT_VECTOR = re.compile(r"\\?[ij]|\\?[ij]math|k")
# A star belongs to few names: behind others it is Markdown or a product.
COMMAND = re.compile(r"\\\\|\\([A-Za-z]+)(?:(?<=operatorname)\*|(?<=[hv]space)\*)?|\\(.)", re.DOTALL)
SWITCHED = re.compile(rf"\{{\s*\\(?:color\s*\{{[^{{}}]*\}}|(?:{'|'.join(sorted(SWITCHES))})(?![A-Za-z]))\s*")
GROUP = re.compile(r"\\.|[{}]", re.DOTALL)
ROW_SPACE = re.compile(r"(\\\\)\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in|mu|sp|bp)\s*\]")
ENVIRONMENT = re.compile(
    r"\\(?:begin|end)\s*\{(?:align|aligned|equation|gather|gathered|displaymath|math|center|split|flalign|multline)\*?\}"
)
GROUPED = re.compile(
    r"(?<![\d.,])\d{1,3}(?:(?P<sep>,\\!|\{,\}|\\,|\\!|\\;|\\:|\\ |\\thinspace ?|~)\d{3})(?:(?P=sep)\d{3})*(?!\d)"
)
DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))\s*")
PRIME = re.compile(r"\^\s*\{\s*('+)\s*\}|\^\s*('+)")
TAGS = re.compile(r"</?(?:b|i|em|strong|span|u|p|br|font|code|mark|center)(?:\s[^<>]*)?/?>", re.IGNORECASE)
RAISED_TAG = re.compile(r"<(su[pb])>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("**", "**"),
    ("__", "__"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
    ("''", "''"),
    ("'", "'"),
    ("*", "*"),
)
THOUSANDS = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
NUMERAL = re.compile(r"\d[\d,.]*")
TAIL = re.compile(r"(?:\\\\|[\s.,;:~])+\Z")
HEAD = re.compile(r"\A[\s,;]+")


@lru_cache(maxsize=8192)
def undress(content: str) -> str:
    """The same answer without its dress; see the module. Layers up to a fixed depth, texts up to a fixed length."""
    if len(content) > MAX_LENGTH:
        return content.strip()
    text = to_latex(content)
    if "&" in text:
        text = _without_entities(text)
    if "<" in text:
        bare = TAGS.sub("", text)
        text = bare if bare.strip() else text  # "<B>" alone is an option's letter
        text = RAISED_TAG.sub(lambda m: ("^" if m[1].lower() == "sup" else "_") + f"{{{m[2]}}}", text)
    for _ in range(MAX_LAYERS):
        before = text
        text = _without_layer(text)
        if text == before:
            break
    return text


WRAPPED = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|texttt|textsf)\s*\{([^{}]*)\}[\s.]*")


def unwrap_text(content: str) -> str:
    r"""The content of `\text{...}` (or a relative) where that is all there is, else the text itself, stripped."""
    match = WRAPPED.fullmatch(content.strip())
    return (match.group(1) if match else content).strip()


def without_text_commands(text: str) -> str:
    r"""Every `\text{...}` that `undress` left, replaced by its content."""
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).strip() if "\\text" in text else text


def group_end(text: str, start: int) -> int:
    """The place of the brace that closes the one at `start`; -1 where there is none."""
    depth = 0
    for match in GROUP.finditer(text, start):
        if match[0] == "{":
            depth += 1
        elif match[0] == "}":
            depth -= 1
            if depth == 0:
                return match.start()
    return -1


def _without_layer(text: str) -> str:
    text = _without_tail(text)
    inner = _without_delimiters(text)
    if inner != text:
        return inner  # from the outside, one at a time: braces that a command leaves would look like a set's
    if "{,}" in text or "\\" in text or "~" in text:
        text = GROUPED.sub(lambda match: re.sub(r"\D", "", match[0]), text).replace("~", " ")
    if "\\" in text:
        inner = _without_wrapper(text)
        if inner != text:
            return inner
        text = _rewrite(text)
        text = DEGREES.sub(r"^\\circ ", text)
    if "'" in text and "^" in text:
        text = PRIME.sub(lambda m: m[1] or m[2], text)
    text = _without_delimiters(_without_tail(text))
    if text.startswith("{") and group_end(text, 0) == len(text) - 1 and not _is_set(text[1:-1]):
        text = text[1:-1].strip()
    if text.startswith("\\text{") and group_end(text, 5) == len(text) - 1:
        text = text[6:-1].strip()
    return _without_dollars(text) if "$" in text else text


def _without_delimiters(text: str) -> str:
    """Without the outermost pair of marks."""
    for opening, closing in DELIMITERS:
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : len(text) - len(closing)]
            again = inner.strip().startswith(opening) and inner.strip().endswith(closing)  # one layer of several
            if len(text) >= len(opening) + len(closing) and inner.strip() and (again or opening not in inner):
                return inner.strip()
    return text


def _without_wrapper(text: str) -> str:
    """The content of a command that encloses everything, or of a group that begins in a switch: no set's braces."""
    if (switch := SWITCHED.match(text)) and group_end(text, 0) == len(text) - 1:
        return text[switch.end() : -1].strip()
    match = COMMAND.match(text)
    if match is None or (match[1] not in FONTS | UPRIGHT and match[1] not in COLOURS):
        return text
    start = match.end()
    for _ in range(COLOURS.get(match[1], 0)):
        start = _argument(text, start)[1]
    inner, end = _argument(text, start)
    return inner.strip() if end == len(text) else text


def _rewrite(text: str) -> str:
    """One pass over the commands; groups are rewritten from the inside by the passes that follow."""
    text = ENVIRONMENT.sub(" ", ROW_SPACE.sub(r"\1", text))
    out: list[str] = []
    position = 0
    while match := COMMAND.search(text, position):
        out.append(text[position : match.start()])
        position = match.end()
        name, character = match[1], match[2]
        if name is None:
            if character is None:
                out.append("\\\\")
            else:
                out.append(_character(character))
            continue
        written, position = _command(name, text, position)
        out.append(written)
    out.append(text[position:])
    return "".join(out)


def _character(character: str) -> str:
    if character in ",;:> \n\t":
        return " "
    if character in "!()[]/":
        return ""
    return character if character in "#&_" else "\\" + character


def _command(name: str, text: str, position: int) -> tuple[str, int]:
    """What a command becomes, and where reading goes on."""
    if name in DROPPED:
        if name in ("left", "right") and text[position : position + 1] == ".":
            position += 1
        return (" " if text[position : position + 1].isalnum() else ""), position
    if name in SPACES:
        return " ", position
    if name in PLAIN:
        return PLAIN[name], _after_space(text, position)
    if name in DROPPED_WITH_ARGUMENT:
        return "", _argument(text, position)[1]
    if name in COLOURS:
        for _ in range(COLOURS[name]):
            position = _argument(text, position)[1]
        inner, position = _argument(text, position)
        return _grouped(inner), position
    if name in FONTS or (name in ("hat", "vec") and _is_unit_vector(text, position)):
        inner, position = _argument(text, position)
        if name in ("mathbf", "bm", "boldsymbol", "pmb", "hat", "vec") and UNIT_VECTOR.fullmatch(inner.strip()):
            return rf"\hat{{{inner.strip().lstrip(chr(92))[0]}}}", position
        return _grouped(inner), position
    if name in UPRIGHT:
        inner, end = _argument(text, position)
        return _upright(inner), end
    if name in RENAMED:
        renamed = "\\" + RENAMED[name]
        return renamed if renamed[-1] in "{}" else renamed + " ", _after_space(text, position)
    return "\\" + name, position


def _argument(text: str, position: int) -> tuple[str, int]:
    """The group or, failing that, the token that follows, without braces; and where reading goes on."""
    start = _after_space(text, position)
    if text[start : start + 1] == "[":  # an optional argument
        closing = text.find("]", start)
        if closing > 0 and text[closing + 1 : closing + 2] == "{":
            start = closing + 1
    if text[start : start + 1] == "{":
        end = group_end(text, start)
        if end > 0:
            return text[start + 1 : end], end + 1
        return "", start + 1
    token = re.compile(r"\\[A-Za-z]+|\\?.", re.DOTALL).match(text, start)
    return (token[0], token.end()) if token else ("", start)


def _grouped(inner: str) -> str:
    inner = inner.strip()
    return inner if len(inner) == 1 or NUMERAL.fullmatch(inner) else f"{{{inner}}}"


def _upright(inner: str) -> str:
    plain = inner.strip()
    if plain in NAMED_FUNCTIONS:
        return f"\\{plain} "
    if plain in ("e", "i"):
        return plain
    if not any(character.isalpha() for character in plain):
        return inner
    if "{" in plain or "\\" in plain:
        inner = without_text_commands(_rewrite(inner))
        if "\\" in inner:
            return f" {inner} "
        inner = re.sub(r"[{}]", "", inner)
    return rf"\text{{{inner}}}"


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position].isspace():
        position += 1
    return position


def _is_unit_vector(text: str, position: int) -> bool:
    return UNIT_VECTOR.fullmatch(_argument(text, position)[0].strip()) is not None


def _is_set(inner: str) -> bool:
    r"""Whether braces around this mean a set: it has a separator that stands in no inner bracket."""
    if THOUSANDS.fullmatch(_without_delimiters(_without_tail(inner.strip()))):
        return False  # what a font command leaves around a number
    inner = inner.replace("\\langle", "(").replace("\\rangle", ")")
    depth = 0
    for place, character in enumerate(inner):
        if character in "{([":
            depth += 1
        elif character in "})]":
            depth -= 1
        elif depth == 0 and character in ",;|" and inner[place - 1 : place] != "\\":
            return True
    return not inner.strip()


def _without_tail(text: str) -> str:
    """Without white space and closing punctuation; an ellipsis stays, because it means something."""
    text = HEAD.sub("", text)
    tail = TAIL.search(text)
    if tail is None:
        return text
    kept = text[: tail.start()]
    if "..." in tail[0] or kept.endswith("\\"):
        return text.rstrip()
    return kept


def _without_dollars(text: str) -> str:
    """Without the dollar signs that enclose mathematics; those of money stay."""
    places = [m.start() for m in re.finditer(r"(?<!\\)\$", text)]
    if len(places) % 2 or any(text[place + 1 : place + 2].isalnum() for place in places[1::2]):
        return text
    return re.sub(r"(?<!\\)\$+", " ", text).strip()


def _without_entities(text: str) -> str:
    return re.sub(r"&(?:[a-z]+|#\d+);", lambda match: to_latex(html.unescape(match[0])), text)
