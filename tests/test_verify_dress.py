"""Writing a value in any dress and reading it back is the identity; two different values never meet in any dress."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spark_kernel.prompts.verdicts import write_box
from spark_kernel.records import Parse
from spark_kernel.verify import VerifierPool, get_verifier, score_request
from spark_kernel.verify.dress import undress
from spark_kernel.verify.numbers import read_number
from tests.helpers.verify import request

MATH, INTEGER, NUMERIC = (get_verifier(name) for name in ("math", "integer", "numeric"))
WARM = score_request(request(r"\boxed{\sqrt{2}=x}", r"\sqrt{2}", "math"), 1.0, MATH)

OUTSIDE = [
    "{}", " {} ", "{}.", "${}$", "$${}$$", r"\({}\)", r"\[{}\]", "**{}**", "`{}`", r"\boxed{{{}}}", r"\fbox{{{}}}",
    r"\textcolor{{red}}{{{}}}", r"{{\color{{blue}} {}}}", r"\colorbox{{yellow}}{{{}}}", r"\large {}", r"{{\Huge {}}}",
    r"{{\bf {}}}", r"\displaystyle {}", r"\,{}\,", r"{}\quad", "{{{}}}", "{}\\\\", r"\underline{{{}}}", "<b>{}</b>",
]  # fmt: skip
"""What the whole of an answer may wear, whatever it is."""
ABOUT_NUMBERS = [
    r"\text{{{}}}", r"\mathbf{{{}}}", r"\mathrm{{{}}}", r"\bm{{{}}}", "({})", "x = {}", "n={}", r"\text{{Answer: }} {}",
    r"\text{{The answer is }} {}",
    "The answer is {}", r"\text{{Area}} = {}", r"\approx {}", "{} apples", r"{} \text{{ cm}}",
    "{}人", r"f(2) = {}", "答案：{}", r"{}\text{{ (apples)}}", "Answer: {}", "AB = {}",
]  # fmt: skip
"""What only says which number it is."""


def in_layers(text: str, dresses: list[str]) -> str:
    for dress in dresses:
        text = dress.format(text)
    return text


def full_width(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if c in "0123456789()[],+" else c for c in text)


def grouped(value: int) -> list[str]:
    return [
        f"{value:,}",
        f"{value:,}".replace(",", "{,}"),
        f"{value:,}".replace(",", r"\,"),
        f"{value:,}".replace(",", ",\\!"),
    ]


RATIONALS = st.builds(Fraction, st.integers(-(10**9), 10**9), st.integers(1, 999))


def spellings(value: Fraction) -> list[str]:
    """Ways to write one rational number, none of them rounded."""
    top, low, sign = abs(value.numerator), value.denominator, "-" if value < 0 else ""
    found = [rf"{sign}\frac{{{top}}}{{{low}}}", rf"\dfrac{{{sign}{top}}}{{{low}}}", f"{sign}{top}/{low}"]
    whole, rest = divmod(top, low)
    if rest and whole:
        found += [rf"{sign}{whole}\frac{{{rest}}}{{{low}}}", f"{sign}{whole} {rest}/{low}"]
    if low == 1:
        found += [f"{sign}{top}", f"{sign}{top}.0", full_width(f"{sign}{top}"), *(sign + text for text in grouped(top))]
    if 10**6 % low == 0:
        digits = f"{top * (10**6 // low):07d}"
        found.append(f"{sign}{digits[:-6]}.{digits[-6:]}")
    return found


@given(RATIONALS, st.data())
@settings(max_examples=100)
def test_a_number_in_any_dress_is_itself_and_no_other(value: Fraction, data: st.DataObject) -> None:
    other = data.draw(
        st.sampled_from([value + 1, -value, value * 10, value + Fraction(1, 7), 1 / value if value else 1])
    )
    gold = f"{value.numerator}/{value.denominator}" if value.denominator != 1 else str(value.numerator)
    text = data.draw(st.sampled_from(spellings(value)))
    inner = data.draw(st.sampled_from(ABOUT_NUMBERS)).format(text) if data.draw(st.booleans()) else text
    assume(not (inner.startswith("(") and "," in inner))  # a comma in brackets separates
    shown = in_layers(inner, data.draw(st.lists(st.sampled_from(OUTSIDE), max_size=3, unique=True)))
    for verifier, name in ((MATH, "math"), (NUMERIC, "numeric")):
        meta = {"rel_tol": 0}
        assert score_request(request(write_box(shown), gold, name, meta=meta), 1.0, verifier).correct, shown
        if other != value:
            wrong = f"{other.numerator}/{other.denominator}" if isinstance(other, Fraction) else str(other)
            assert not score_request(request(write_box(shown), wrong, name, meta=meta), 1.0, verifier).correct, shown


VALUES = [
    ["1234", "1,234", r"1\,234", "１２３４", r"\text{1234}", r"1.234\times 10^3", "1234.0"],
    ["(1,234)", "(1, 234)", r"\left(1,234\right)", "（1，234）", r"\langle 1, 234\rangle"],
    [r"\{1,234\}", r"\left\{1, 234\right\}", "1, 234", "x=1 or x=234", r"x=1 \text{ or } x=234", r"\{234,1\}"],
    ["[1,234]", r"\left[1, 234\right]", r"1\le x\le 234", r"\{x \mid 1 \leqslant x \leqslant 234\}", "[1;234]"],
    [r"1<x<235", r"\{x : 1<x<235\}", r"x>1 \text{ and } x<235", "]1,235["],
    [r"x<1 \text{ or } x>234", r"(-\infty,1)\cup(234,\infty)", "(−∞,1)∪(234,∞)", "x<1, x>234"],
    [r"x\neq 1", r"\mathbb{R}\setminus\{1\}", r"(-\infty,1)\cup(1,\infty)", r"\{x | x \ne 1\}"],
    ["2x+1", "1+2x", r"2\left(x+\frac12\right)", "2*x+1", "f(x)=2x+1", r"1+2\cdot x"],
    ["2X+1", "1+2X"],
    ["2x+1=0", "2x=-1", "-2x=1"],
    [r"\sqrt{2}", r"\sqrt2", "√2", "sqrt(2)", r"2^{1/2}", r"\frac{2}{\sqrt2}"],
    [r"-\sqrt{2}", "-√2"],
    [r"\pm\sqrt2", r"\sqrt2, -\sqrt2", r"-\sqrt2 \text{ or } \sqrt2"],
    [r"\frac{\pi}{4}", r"\frac\pi4", "pi/4", "π/4", r"0.25\pi", r"45^\circ"],
    [r"\frac{1}{2^{99}}", "2^{-99}", r"\left(\frac12\right)^{99}"],
    [r"\frac{1}{2^{98}}", "2^{-98}"],
    ["ABC", r"\text{ABC}", "A B C"],
    ["BCA", r"\mathrm{BCA}"],
    [r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix}1&2\\[4pt]3&4\end{bmatrix}", "[[1,2],[3,4]]"],
    [r"\begin{pmatrix}1&3\\2&4\end{pmatrix}", r"\left[\begin{array}{cc}1&3\\2&4\end{array}\right]"],
    ["10:30 AM", r"10:30 \text{ a.m.}", "10：30 AM"],
    ["10:30 PM", "22:30", r"10:30\text{ pm}"],
    ["2020-01-02", "January 2, 2020", r"\text{2 January 2020}", "2020年1月2日"],
    ["2020-02-01", "1 February 2020"],
    [r"\$10", "10 dollars", "USD 10", r"\$10.00"],
    ["€10", "10 euros", "10 EUR"],
    [r"10 \text{ cents}", r"\$0.10"],
    ["5 m", "500 cm", r"5\text{ meters}", "5米"],
    ["5 kg", "5000 g", "5千克"],
    ["7%", r"7\%", "7 percent", "0.07"],
    ["7"],
    ["3:4", r"3 : 4", "6:8", r"\frac34"],
    ["1101_2", "1101_{2}", r"1101_{\text{two}}"],
    ["1101_3"],
    ["no solution", r"\text{No solution.}", r"\textbf{no solution}"],
    ["even", r"\text{Even}"],
    ["odd"],
    [r"\infty", "infinity", "∞"],
    [r"-\infty", "-infinity"],
    ["1+i", r"1+\mathrm{i}", r"\sqrt2 e^{i\pi/4}"],
    ["1-i", r"\sqrt2 e^{-i\pi/4}"],
    ["10-20", r"10 \text{ to } 20", "10–20"],
    ["-10"],
    [r"\sin^2 x", "sin(x)^2", r"(\sin x)^2", r"1-\cos^2 x"],
    [r"\sin(x^2)"],
    ["(1,2,3)", r"\begin{pmatrix}1\\2\\3\end{pmatrix}", r"\langle1,2,3\rangle", r"\mathbf{i}+2\mathbf{j}+3\mathbf{k}"],
    ["(3,2,1)"],
    [r"\{1,2,3\}", "1, 2, 3", r"\{3,1,2\}"],
]  # fmt: skip
"""Each list is one value in several spellings; no two lists are the same value."""


def test_a_value_equals_its_own_spellings_and_no_other_value() -> None:
    for place, ours in enumerate(VALUES):
        for other, theirs in enumerate(VALUES):
            for gold in ours[:2]:
                for text in theirs:
                    score = score_request(request(write_box(text), gold, "math"), 1.0, MATH)
                    assert score.correct is (place == other), (gold, text)


@given(st.sampled_from(range(len(VALUES))), st.sampled_from(range(len(VALUES))), st.data())
@settings(max_examples=100)
def test_any_value_in_any_dress(place: int, other: int, data: st.DataObject) -> None:
    gold, text = (data.draw(st.sampled_from(VALUES[index])) for index in (place, other))
    dresses = data.draw(st.lists(st.sampled_from(OUTSIDE), max_size=3, unique=True))
    assume("{{{}}}" not in dresses or not set(text) & set(",;|"))  # bare braces around a list are a set's
    assume("{}\\\\" not in dresses or "\\$" not in text)  # "\\\\$" ends in a dollar of its own
    shown = in_layers(text, dresses)
    assert score_request(request(write_box(shown), gold, "math"), 1.0, MATH).correct is (place == other), (gold, shown)


@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from([*"{}[]()$\\|_^,12ax", r"\text{", r"\frac", r"\boxed{", "**", "½", "（"]), max_size=20
    ).map("".join)
)
@settings(max_examples=100)
def test_undressing_ends_and_what_it_leaves_is_undressed(text: str) -> None:
    once = undress(text)
    assert undress(once) == once or len(text) > 16, "a dress of more layers than are looked for"
    score = score_request(request(write_box(text), "5", "math"), 1.0, MATH)
    assert score.reward in (0.0, 1.0)


@given(st.sampled_from(["integer", "numeric", "math"]), st.integers(-(10**12), 10**12), st.data())
@settings(max_examples=80)
def test_the_short_way_says_what_the_long_way_says(name: str, value: int, data: st.DataObject) -> None:
    """Bare digits are compared as text; with a sign, a space and a plus the same number goes through the reader."""
    other = data.draw(st.sampled_from([value, value + 1, -value]))
    verifier = {"integer": INTEGER, "numeric": NUMERIC, "math": MATH}[name]
    meta = {"rel_tol": 0}
    short = score_request(request(write_box(str(other)), str(value), name, meta=meta), 1.0, verifier)
    long = score_request(request(write_box(rf"\left({other}+0\right)"), f"{value}+0", "math"), 1.0, MATH)
    assert short.correct is long.correct is (value == other)


@pytest.mark.parametrize(
    "text", [spelling for value in (Fraction(7), Fraction(-5, 4)) for spelling in spellings(value)]
)
def test_the_spellings_are_what_they_should_be(text: str) -> None:
    """Control: the table above writes the numbers that it says it writes."""
    number = read_number(text)
    assert number is not None
    assert number.value in (7, Fraction(-5, 4))


CHECKS: list[Callable[[str], bool]] = [
    lambda text: score_request(request(write_box(text), "1234", "math"), 1.0, MATH).correct is True,
    lambda text: read_number(text) is not None,
]


def test_the_property_would_notice_a_pair_read_as_a_thousand() -> None:
    """Negative control: the reading that was wrong before fails both checks."""
    assert [check("1,234") for check in CHECKS] == [True, True]
    assert [check("(1,234)") for check in CHECKS] == [False, False]


LONG = [
    r"\text{a}" * 40 + "1=5", "abcd " * 40 + "1 = 5",
    "f" + "'" * 60 + "(x=5", "a" * 50 + " " * 100_000 + "x", "1" + " " * 60_000 + "x",
    r"\\ " * 20_000 + "x", "<sup>" * 20_000, "~" * 50_000 + "1x", "Aa " * 2000, r"\int_0^1 " * 13 + "x",
    "area of the " * 100 + "= 5", "(" * 3000 + "1" + ")" * 3000, r"\frac{1}{" * 30 + "2" + "}" * 30,
]  # fmt: skip
"""Texts for which a pattern that may match in several ways would try them all."""


def test_no_text_takes_until_the_deadline() -> None:
    asked = [request(write_box(text), "5", name) for text in LONG for name in ("math", "numeric")]
    with VerifierPool(workers=1, deadline_seconds=5.0) as pool:
        found = {text[:20]: score.parse for text, score in zip(LONG, pool.score(asked)[::2], strict=True)}
    assert set(found.values()) <= {Parse.OK, Parse.NONE}, found
