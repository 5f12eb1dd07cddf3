"""Reading numbers: whatever a number is written as, the same value is read; arithmetic by Fraction is the oracle."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spark_kernel.prompts.verdicts import write_box
from spark_kernel.verify import score_request
from spark_kernel.verify.numbers import Number, read_number, same_number
from tests.helpers.verify import request

INTEGERS = st.integers(-(10**15), 10**15)
DRESSES = [
    "{}",
    " {} ",
    "${}$",
    r"\({}\)",
    "{}.",
    r"\text{{{}}}",
    r"\mathbf{{{}}}",
    "({})",
    "x = {}",
    r"{}\text{{ apples}}",
    "{} apples",
    r"{} \text{{ cm}}^2",
    r"\displaystyle {}",
    r"{}\\",
]


@given(INTEGERS, st.sampled_from(DRESSES), st.sampled_from(["", ",", "{,}", r"\,", r"\ "]))
def test_an_integer_in_any_dress(value: int, dress: str, separator: str) -> None:
    text = dress.format(f"{value:,}".replace(",", separator))
    number = read_number(text)
    if dress == "({})" and separator == "," and abs(value) >= 1000:
        assert number is None, "a comma within brackets separates: a pair, not a thousand"
        return
    assert number is not None
    assert number.value == value
    assert score_request(request(write_box(text), str(value), "integer")).correct
    assert not score_request(request(write_box(text), str(value + 1), "integer")).correct


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from([r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{{}}}"]))
def test_a_fraction(top: int, low: int, form: str) -> None:
    assert read_number(form.format(top, low)).value == Fraction(top, low)
    if top >= 0:
        assert read_number(f"{top}/{low}").value == Fraction(top, low)
        assert read_number(rf"7\frac{{{top}}}{{{low}}}").value == 7 + Fraction(top, low)
        assert read_number(f"-7 {top}/{low}").value == -(7 + Fraction(top, low))


@given(st.decimals(-1000, 1000, places=3), st.integers(-30, 30))
def test_scientific_notation(mantissa: object, exponent: int) -> None:
    expected = Fraction(str(mantissa)) * Fraction(10) ** exponent
    for text in (
        f"{mantissa}e{exponent}",
        rf"{mantissa} \times 10^{{{exponent}}}",
        rf"{mantissa}\cdot 10^{{{exponent}}}",
        f"{mantissa}*10^{exponent}",
    ):
        assert read_number(text).value == expected


@given(st.integers(0, 99), st.text("0123456789", max_size=3), st.text("0123456789", min_size=1, max_size=4))
def test_a_repeating_decimal_is_the_limit_of_its_prefixes(whole: int, head: str, repeat: str) -> None:
    value = read_number(rf"{whole}.{head}\overline{{{repeat}}}").value
    prefix = Fraction(f"{whole}.{head}{repeat * 8}")
    assert 0 <= value - prefix <= Fraction(1, 10 ** (len(head) + 8 * len(repeat)))


@pytest.mark.parametrize(
    "text",
    ["", "x", "5x", "5+2", "5!", "5^2", "2^{10}", "1/0", r"\frac{1}{0}", "5 or 6", "1,2", "1e99999", "1" * 2000,
     "5 minus 2", "3 mod 7", r"3\pi", r"2\sqrt{3}", "1.2.3", "--", "e5", "5 and 6", "2 halves", "9 out of 10", "1:2"],
)  # fmt: skip
def test_not_one_number(text: str) -> None:
    assert read_number(text) is None


@given(st.text(max_size=80))
@example("9" * 900 + "e" + "9" * 50)
@example("1," * 400)
@example(r"\frac" * 200)
def test_any_text_is_read_or_not_but_never_raises(text: str) -> None:
    number = read_number(text)
    assert number is None or isinstance(number.value, Fraction)
    score = score_request(request(write_box(text), "5", "numeric"))
    assert score.reward in (0.0, 1.0)


def test_percent_signs() -> None:
    half, fifty, fifty_percent = Number(Fraction(1, 2)), Number(Fraction(50)), Number(Fraction(50), percent=True)
    for asked in (False, True):
        assert same_number(half, fifty_percent, percent=asked)
        assert same_number(fifty_percent, half, percent=asked)
        assert same_number(fifty, fifty_percent, percent=asked) is asked
        assert same_number(fifty_percent, fifty, percent=asked) is asked
        assert same_number(fifty_percent, fifty_percent, percent=asked)
        assert not same_number(half, fifty, percent=asked)
