"""Our reader and comparison of formulas against sympy, and sets of numbers against their members."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_kernel.verify.answer_reader import read_answer_value, read_value
from spark_kernel.verify.answer_types import Region
from spark_kernel.verify.dress import undress
from spark_kernel.verify.formula import Const, Formula, Num, rational
from spark_kernel.verify.formula_equal import equal
from spark_kernel.verify.formula_reader import read_formula
from spark_kernel.verify.regions import complement, intersected, interval, order, united

Pair = tuple[str, sympy.Expr]
"""A formula as text, and the same one built in sympy."""
X, Y, CAPITAL, X1 = (sympy.Symbol(name, real=True) for name in ("x", "y", "X", "x_1"))
LEAVES: st.SearchStrategy[Pair] = st.sampled_from(
    [("x", X), ("y", Y), ("X", CAPITAL), ("x_1", X1), ("2", sympy.Integer(2)), ("3", sympy.Integer(3)),
     (r"\frac{1}{3}", sympy.Rational(1, 3)), (r"\pi", sympy.pi), ("e", sympy.E)]
)  # fmt: skip


def _two(text: str, build: Callable) -> Callable[[Pair, Pair], Pair]:
    return lambda one, other: (text.format(one[0], other[0]), build(one[1], other[1]))


def _one(text: str, build: Callable) -> Callable[[Pair], Pair]:
    return lambda inner: (text.format(inner[0]), build(inner[1]))


def grown(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(_two(r"\left({}+{}\right)", lambda a, b: a + b), inner, inner),
        st.builds(_two("({}-{})", lambda a, b: a - b), inner, inner),
        st.builds(_two(r"{}\cdot ({})", lambda a, b: a * b), inner, inner),
        st.builds(_two(r"\frac{{{}}}{{{}}}", lambda a, b: a / b), inner, inner),
        st.builds(_one("({})^2", lambda a: a**2), inner),
        st.builds(_one(r"\sqrt{{{}}}", sympy.sqrt), inner),
        st.builds(_one(r"\sin({})", sympy.sin), inner),
        st.builds(_one(r"\left|{}\right|", sympy.Abs), inner),
    )


TREES = st.recursive(LEAVES, grown, max_leaves=4)


def formula(text: str) -> Formula:
    found = read_formula(undress(text))
    assert found is not None, text
    return found


@given(TREES, TREES)
@settings(max_examples=60)
def test_equal_means_what_sympy_finds_by_value(one: Pair, other: Pair) -> None:
    plus_nothing = (f"({one[0]})+({other[0]})-({other[0]})", one[1])
    plus_one = (f"({one[0]})+1", one[1] + 1)
    for left, right in ((one, other), (one, plus_nothing), (one, plus_one)):
        found = equal(formula(left[0]), formula(right[0]))
        difference = left[1] - right[1]
        names = sorted(difference.free_symbols, key=str)
        positive = [{s: sympy.Rational(3 + 2 * k + 5 * n, 7 + k) for n, s in enumerate(names)} for k in range(2)]
        turned = [positive[0] | {s: -positive[0][s]} for s in names]
        values = [sympy.N(difference.subs(point), 30) for point in (*positive, *turned)]
        if found is None or any(not v.is_number or v.has(sympy.zoo, sympy.nan, sympy.oo) for v in values):
            continue
        differs = [abs(v) > sympy.Float("1e-20") for v in values]
        # Where a coordinate is negative, sympy may find complex values, which ours leaves out.
        assert not any(differs[:2]) if found else any(differs), (left, right)


def exact_pairs(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    return st.one_of(
        st.builds(_two("({}+{})", lambda a, b: a + b), inner, inner),
        st.builds(_two("({}-{})", lambda a, b: a - b), inner, inner),
        st.builds(_two(r"{}\cdot ({})", lambda a, b: a * b), inner, inner),
        st.builds(_two(r"\frac{{{}}}{{({})^2+1}}", lambda a, b: a / (b**2 + 1)), inner, inner),
    )


@given(st.recursive(st.integers(0, 30).map(lambda n: (str(n), sympy.Integer(n))), exact_pairs, max_leaves=8))
@settings(max_examples=60)
def test_exact_values_are_sympys(pair: Pair) -> None:
    text, theirs = pair
    assert rational(formula(text)) == Fraction(int(theirs.p), int(theirs.q))


def test_what_is_divided_by_zero_has_no_exact_value() -> None:
    assert rational(formula(r"\frac{1}{2-2}")) is None
    assert rational(formula(r"\frac{1}{\frac{1}{0}}")) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}", False),
        (r"\sqrt2+10^{-300}", r"\sqrt2", False),
        (r"\sqrt2+10^{-300}", r"10^{-300}+2^{1/2}", True),
        (r"\frac{2^{2005}+1}{3\cdot 2^{2006}}\pi", r"\frac{\pi}{6}", False),
        (r"e^{-2000}", "0", False),
        (r"\sin\pi", "0", True),
        (r"\sqrt{ab}", r"\sqrt a\sqrt b", True),
        (r"\sqrt{\frac ab}", r"\frac{\sqrt{ab}}{b}", True),
        (r"\sqrt{x^2}", "x", False),
        (r"\sqrt{x^2}", "|x|", True),
        (r"|xy|", "xy", False),
        (r"\ln x^2", r"2\ln x", True),
        (r"\sqrt[3]{-8}", "-2", True),
        (r"(1+x)^{500}(1-x)^{500}", r"(1-x^2)^{500}", True),
        (r"(1+x)^{500}(1-x)^{500}", "1", False),
        (r"\lfloor \log_2 8\rfloor", "3", True),
        (r"\log 1000", "3", True),
        (r"\log 1000", r"3\ln 10", True),
        (r"\log 1000", "4", False),
        (r"\binom{n}{2}", r"\frac{n(n-1)}{2}", True),
        (r"n!", r"n\cdot(n-1)!", True),
        ("0.5x", r"\frac{x}{2}", True),
        ("0.33333333x", r"\frac{x}{3}", True),
        ("0.33x", r"\frac{x}{3}", False),
        (r"e^{i\pi}+1", "0", True),
        (r"9^{9^{9^{9}}}", r"9^{9^{9^{9}}}", True),
        (r"9^{9^{9^{9}}}", r"9^{9^{9^{9}}}+1", False),
    ],
)
def test_equality(one: str, other: str, same: bool) -> None:
    assert equal(formula(one), formula(other)) is same
    assert equal(formula(other), formula(one)) is same


@pytest.mark.parametrize("text", ["", "2 3", "x+", "(x", "x)", r"\frac{1}", "abcd", "x=1", "1,2", "--" * 100,
     "(" * 200 + "1" + ")" * 200, "2" + "^2" * 200, "!" * 50, r"\int x", "x__2", "|x", r"\sqrt"])  # fmt: skip
def test_what_is_no_formula(text: str) -> None:
    assert read_formula(undress(text)) is None


ENDS = st.integers(-5, 5)
PARTS = st.lists(st.tuples(ENDS, ENDS, st.booleans(), st.booleans()), min_size=1, max_size=4)
SAMPLES = [Fraction(k, 4) for k in range(-26, 27)]


def number(value: Fraction | int) -> Num:
    return Num(Fraction(value))


def region(parts: list[tuple[int, int, bool, bool]]) -> Region:
    return united([interval(number(low), number(high), one, other) for low, high, one, other in parts])


def member(value: Fraction, found: Region) -> bool:
    for part in found.parts:
        above, below = order(part.low, number(value)), order(number(value), part.high)
        if (above < 0 or (above == 0 and part.low_closed)) and (below < 0 or (below == 0 and part.high_closed)):
            return True
    return False


def inside(value: Fraction, parts: list[tuple[int, int, bool, bool]]) -> bool:
    return any(low < value < high or (value == low <= high and one and (low < high or other)) or
               (value == high >= low and other and (low < high or one)) for low, high, one, other in parts)  # fmt: skip


@given(PARTS, PARTS)
@settings(max_examples=60)
def test_sets_of_numbers_have_the_right_members(one: list, other: list) -> None:
    a, b = region(one), region(other)
    for value in SAMPLES:
        ours, theirs = inside(value, one), inside(value, other)
        assert member(value, a) is ours
        assert member(value, united([a, b])) is (ours or theirs)
        assert member(value, intersected([a, b])) is (ours and theirs)
        assert member(value, complement(a)) is not ours


@given(PARTS)
@settings(max_examples=60)
def test_a_set_written_in_either_way_is_read_back(parts: list) -> None:
    found = region(parts)
    if not found.parts or any(part.low == part.high for part in found.parts):
        return
    ends = [(rational(p.low), rational(p.high), p.low_closed, p.high_closed) for p in found.parts]
    below = {True: r"\le", False: "<"}
    conditions = r" \text{ or } ".join(f"{low}{below[one]} x{below[other]} {high}" for low, high, one, other in ends)
    brackets = [("[" if one else "(") + f"{low},{high}" + ("]" if other else ")") for low, high, one, other in ends]
    if len(brackets) > 1:
        union = read_value(undress(r"\cup".join(brackets)))
        assert isinstance(union, Region)
        assert union.parts == found.parts
    for text in (conditions, rf"\{{x \mid {conditions}\}}"):
        reading = read_answer_value(text)
        assert reading is not None
        assert isinstance(reading.value, Region)
        assert reading.value.parts == found.parts, text


def test_infinity_is_ordered() -> None:
    infinite = Const("infty")
    assert order(number(10**9), infinite) == -1
    assert order(infinite, infinite) == 0
