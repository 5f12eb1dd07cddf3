"""What kind of answer a gold is, by its look: for a person who wants to know what a file asks for."""

from __future__ import annotations

import re

from spark_kernel.records import Problem
from spark_kernel.verify.any_of import ANY_OF

TYPES = (
    ("whole number", re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)")),
    ("decimal", re.compile(r"[-+]?\d*\.\d+|[-+]?\d{1,3}(?:,\d{3})+\.\d+")),
    ("fraction", re.compile(r"[-+]?(?:\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\d+\s*/\s*\d+)")),
    ("number with unit or sign", re.compile(r"[\\$€£]*\s*[-+]?\d[\d.,]*\s*(?:\\?%|\\?[A-Za-z^°].{0,24})")),
    ("letter", re.compile(r"[A-Za-z]")),
    ("words", re.compile(r"\\text\s*\{[^{}]*\}|[A-Za-z][A-Za-z' ,-]{2,}")),
    ("equation or inequality", re.compile(r".*(?:=|<|>|\\leq?|\\geq?|\\neq?).*", re.DOTALL)),
    ("matrix", re.compile(r".*\\begin\{\w*matrix\}.*", re.DOTALL)),
    ("tuple, set or interval", re.compile(r"(?:\\left)?[(\[{\\].*,.*[)\]}]", re.DOTALL)),
)


def answer_type(problem: Problem) -> str:
    """The kind of the problem's gold; "option" for multiple choice, "several golds" for alternatives.

    "conditions" where the gold says what a right answer satisfies.
    """
    if problem.verifier == "choice" or "choices" in problem.meta:
        return "option"
    if ANY_OF in problem.meta:
        return "several golds"
    if problem.verifier == "property":
        return "conditions"
    gold = problem.gold.strip().strip("$").strip()
    return next((name for name, pattern in TYPES if pattern.fullmatch(gold)), "expression")
