r"""From a formula's text to its tree, for the LaTeX and plain text in which answers are written.

Multiplication may be left out. `1/2x` is half of x; `\sin 2x y` takes all factors up to the next function or sign;
`\sin(x)^2` and `sin(x)^2` are the square of the sine; `2\frac13` is a mixed number; `x^10` and `\sqrt12` take the
whole number, `\frac12` single digits. Case counts, `e`, `i` and `\pi` are constants. What this does not read
(integrals, sums, limits, words) is left to the library (`verify.library`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from spark_kernel.verify.formula import Const, Formula, Num, Op, Sym
from spark_kernel.verify.formula_tokens import FUNCTIONS, Token, UnreadableError, tokenize
from spark_kernel.verify.word_lists import words

MAX_LENGTH = 2000
MAX_DEPTH = 60
CLOSING = {"(": ")", "{": "}", "[": "]"}
DECORATIONS = frozenset(words("hat vec bar overline overrightarrow tilde dot ddot"))
NAMED = frozenset(words("angle triangle odot"))
SYMBOLS = frozenset(
    words(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi "
        "psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega hbar ell"
    )
)
ONE = Num(Fraction(1))
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot"}


@lru_cache(maxsize=4096)
def read_formula(text: str) -> Formula | None:
    """The formula that this text is, or None. `text` has been through `dress.undress`."""
    if len(text) > MAX_LENGTH:
        return None
    try:
        return _Reader(tokenize(text)).whole()
    except UnreadableError:
        return None


def _multiplied(factors: list[Formula]) -> Formula:
    """One flat product, so that a long one is no deep tree; a single division stays a division."""
    if len(factors) == 1:
        return factors[0]
    if len(factors) == 2 and isinstance(factors[1], Op) and factors[1].name == "/" and factors[1].args[0] is ONE:
        return Op("/", (factors[0], factors[1].args[1]))
    return Op("*", tuple(factors))


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._bars = 0

    def whole(self) -> Formula:
        found = self._sum()
        if self._at != len(self._tokens):
            raise UnreadableError("something follows the formula")
        return found

    # Looking and moving

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _next(self) -> Token:
        token = self._peek()
        if token is None:
            raise UnreadableError("the formula ends too early")
        self._at += 1
        return token

    def _is(self, *texts: str, ahead: int = 0) -> bool:
        token = self._peek(ahead)
        return token is not None and token.kind in ("sign", "name") and token.text in texts

    def _take(self, *texts: str) -> bool:
        if self._is(*texts):
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise UnreadableError(f"{text} is missing")

    def _inside(self, read: Callable[[], Formula]) -> Formula:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deep")
        bars, self._bars = self._bars, 0
        found = read()
        self._bars = bars
        self._depth -= 1
        return found

    # Sums, products, powers

    def _sum(self) -> Formula:
        terms = [self._signed()]
        while self._is("+", "-", "pm", "mp"):
            sign = self._next().text
            term = self._product()
            terms.append(term if sign == "+" else Op("neg" if sign == "-" else sign, (term,)))
        found = terms[0] if len(terms) == 1 else Op("+", tuple(terms))
        if self._is("choose", "over"):
            name = {"choose": "binom", "over": "/"}[self._next().text]
            return Op(name, (found, self._sum()))
        return found

    def _signed(self) -> Formula:
        if self._is("+", "-", "pm", "mp"):
            sign = self._next().text
            inner = self._signed_product()
            return inner if sign == "+" else Op("neg" if sign == "-" else sign, (inner,))
        return self._product()

    def _signed_product(self) -> Formula:
        if self._is("+", "-"):
            return self._inside(self._signed)
        return self._product()

    def _product(self) -> Formula:
        factors = [self._factor()]
        while True:
            if self._take("*", "cdot", "times"):
                factors.append(self._factor_after_sign())
            elif self._take("/"):
                factors.append(Op("/", (ONE, self._factor_after_sign())))
            elif self._begins_factor():
                token = self._peek()
                if token is not None and token.kind == "number":
                    raise UnreadableError("a number stands behind another factor")
                factors.append(self._factor())
            else:
                return _multiplied(factors)

    def _factor_after_sign(self) -> Formula:
        if self._is("-", "+", "pm", "mp"):
            sign = self._next().text
            inner = self._inside(self._factor_after_sign)
            return inner if sign == "+" else Op("neg" if sign == "-" else sign, (inner,))
        return self._factor()

    def _begins_factor(self) -> bool:
        token = self._peek()
        if token is None:
            return False
        if token.kind in ("number", "letter"):
            return True
        if token.kind == "sign":
            return token.text in ("(", "{", "[") or (token.text == "|" and not self._bars)
        return token.kind == "name" and token.text not in (
            "cdot", "times", "pm", "mp", "choose", "over", "rfloor", "rceil", "rangle", "circ",
        )  # fmt: skip

    def _factor(self) -> Formula:
        found = self._postfixed(self._atom())
        for _ in range(MAX_DEPTH):
            if not self._take("^"):
                return found
            if self._take("circ"):
                found = Op("degree", (found,))
                continue
            exponent = self._script()
            found = self._postfixed(Op("^", (found, exponent)))
        raise UnreadableError("too many powers in a row")

    def _postfixed(self, found: Formula) -> Formula:
        for _ in range(MAX_DEPTH):
            if self._take("!"):
                found = Op("!!" if self._take("!") else "!", (found,))
            elif self._take("%", "\\%"):
                found = Op("/", (found, Num(Fraction(100))))
            elif self._take("circ"):
                found = Op("degree", (found,))
            else:
                return found
        raise UnreadableError("too many signs in a row")

    def _script(self) -> Formula:
        """What a `^` raises: a group, a bracket, or a single token with its sign; whole numbers stay whole."""
        if self._take("-"):
            return Op("neg", (self._script(),)) if not self._is("-") else self._fail()
        if self._take("+"):
            return self._script() if not self._is("+") else self._fail()
        if self._is("{", "("):
            return self._group()
        found = self._atom()
        return self._postfixed(found) if self._is("!") else found

    def _fail(self) -> Formula:
        raise UnreadableError("two signs in a row")

    # Atoms

    def _atom(self) -> Formula:
        token = self._next()
        if token.kind == "number":
            return self._number(token)
        if token.kind == "letter":
            return self._symbol(token.text)
        if token.kind == "sign" and token.text in CLOSING:
            self._at -= 1
            return self._group()
        if token.kind == "sign" and token.text == "|":
            return self._bar("|")
        if token.kind == "name":
            return self._named(token.text)
        raise UnreadableError(f"{token.text} is no formula")

    def _number(self, token: Token) -> Formula:
        found = Num(token.value, token.decimal)
        if token.decimal or token.value.denominator != 1:
            return found
        start = self._at
        if self._take("frac"):
            top, low = self._argument(), self._argument()
            if isinstance(top, Num) and isinstance(low, Num) and not (top.decimal or low.decimal):
                return Op("+", (found, Op("/", (top, low))))
            self._at = start
            return found
        one, slash, two = self._peek(), self._peek(1), self._peek(2)
        if one and slash and two and one.kind == two.kind == "number" and one.spaced and slash.text == "/":
            self._at += 3
            return Op("+", (found, Op("/", (Num(one.value, one.decimal), Num(two.value, two.decimal)))))
        return found

    def _symbol(self, name: str) -> Formula:
        plain = name
        if self._is("_"):
            self._at += 1
            name += "_" + self._raw_script()
        while self._take("'"):
            name += "'"
        if name == plain and name in ("e", "i"):
            return Const(name)
        return Sym(name)

    def _raw_script(self) -> str:
        if not self._take("{"):
            return self._next().text
        parts: list[str] = []
        while not self._take("}"):
            parts.append(self._next().text)
        return "".join(parts)

    def _group(self) -> Formula:
        opening = self._next().text
        found = self._inside(self._sum)
        self._expect(CLOSING[opening])
        return found

    def _bar(self, closing: str) -> Formula:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnreadableError("nested too deep")
        self._bars += 1
        found = self._sum()
        self._bars -= 1
        self._depth -= 1
        self._expect(closing)
        return Op("abs", (found,))

    def _argument(self) -> Formula:
        """A braced group, or the single token after a command, as LaTeX takes it: one digit, one letter."""
        if self._is("{"):
            return self._group()
        token = self._peek()
        if token is not None and token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            first, rest = token.text[0], token.text[1:]
            self._tokens[self._at] = replace(token, text=rest, value=Fraction(int(rest)), spaced=False)
            return Num(Fraction(int(first)))
        if token is not None and token.kind == "number":
            self._at += 1
            return Num(token.value, token.decimal)
        if token is not None and token.kind == "letter":
            self._at += 1
            return Const(token.text) if token.text in ("e", "i") else Sym(token.text)
        return self._inside(self._atom)

    def _named(self, name: str) -> Formula:
        if name in FUNCTIONS:
            return self._function(name)
        if name in SYMBOLS:
            return self._symbol("\\" + name)
        if name in ("pi", "infty"):
            return Const(name)
        if name == "frac":
            return Op("/", (self._argument(), self._argument()))
        if name == "binom":
            return Op("binom", self._pair())
        if name in ("sqrt", "cbrt"):
            return self._root(Fraction(3 if name == "cbrt" else 2))
        if name in ("abs", "floor", "ceil"):
            if not self._is("("):
                raise UnreadableError(f"{name} without brackets")
            return Op(name, (self._group(),))
        if name in ("lfloor", "lceil"):
            found = self._inside(self._sum)
            self._expect("r" + name[1:])
            return Op(name[1:], (found,)) if name == "lceil" else Op("floor", (found,))
        if name in DECORATIONS:
            return self._symbol(f"\\{name}{{{self._decorated()}}}")
        if name in NAMED:
            letters = ""
            while (token := self._peek()) is not None and token.kind == "letter":
                letters += self._next().text
            return Sym(f"\\{name} {letters}") if letters else self._symbol("\\" + name)
        raise UnreadableError(f"\\{name} is not read")

    def _decorated(self) -> str:
        written = self._raw_script()
        if not written.isalnum():
            raise UnreadableError("only letters are decorated")
        return written

    def _pair(self) -> tuple[Formula, Formula]:
        if not self._take("("):
            return self._argument(), self._argument()
        one = self._inside(self._sum)
        self._expect(",")
        other = self._inside(self._sum)
        self._expect(")")
        return one, other

    def _root(self, degree: Fraction) -> Formula:
        index: Formula = Num(degree)
        if self._take("["):
            index = self._inside(self._sum)
            self._expect("]")
        if self._is("{", "("):
            return Op("root", (self._group(), index))
        return Op("root", (self._inside(self._atom), index))

    def _function(self, name: str) -> Formula:
        base: Formula | None = None
        power: Formula | None = None
        while True:
            if name == "log" and base is None and self._take("_"):
                base = self._subscript()
            elif power is None and self._is("^") and not self._is("circ", ahead=1):
                self._at += 1
                power = self._script()
            else:
                break
        argument = self._function_argument()
        if power == Op("neg", (Num(Fraction(1)),)) and name in INVERSE:
            name, power = INVERSE[name], None
        if name == "lg":
            name, base = "log", Num(Fraction(10))
        found = Op(name, (argument,) if base is None else (argument, base))
        return found if power is None else Op("^", (found, power))

    def _subscript(self) -> Formula:
        return self._group() if self._is("{", "(") else self._argument()

    def _function_argument(self) -> Formula:
        if self._is("(", "{", "["):
            argument = self._group()
            if self._is("^") and self._is("circ", ahead=1):
                self._at += 2
                argument = Op("degree", (argument,))
            return argument
        if self._is("|"):
            return self._factor()
        if self._take("-"):
            return Op("neg", (self._inside(self._function_argument),))
        found = self._factor()
        while self._begins_factor() and not self._is("(", "[", "|"):
            token = self._peek()
            if token is not None and (token.text in FUNCTIONS or token.kind == "number"):
                break
            found = Op("*", (found, self._factor()))
        if self._is("/") and isinstance(found, Const | Num) and not isinstance(found, Num):
            self._at += 1  # `\sin \pi/4`: a constant angle takes its denominator along
            found = Op("/", (found, self._factor()))
        return found
