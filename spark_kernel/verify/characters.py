r"""Unicode as people and models write mathematics with it, turned into the LaTeX and ASCII that the readers know."""

from __future__ import annotations

import re
import unicodedata

from spark_kernel.verify.word_lists import words

GREEK = words(
    "α alpha β beta γ gamma δ delta ε epsilon ϵ epsilon ζ zeta η eta θ theta ϑ theta ι iota κ kappa λ lambda µ mu μ mu "
    "ν nu ξ xi ο omicron π pi ρ rho σ sigma ς sigma τ tau υ upsilon φ phi ϕ phi χ chi ψ psi ω omega Γ Gamma Δ Delta "
    "Θ Theta Λ Lambda Ξ Xi Π Pi Σ Sigma Φ Phi Ψ Psi Ω Omega Ω Omega"
)
GREEK_LETTERS = frozenset(GREEK[1::2])
COMMANDS = words(
    "× times ✕ times ✖ times · cdot ⋅ cdot ∙ cdot • cdot ∘ circ ∞ infty ± pm ∓ mp ≤ leq ≦ leq ⩽ leq ≥ geq ≧ geq ⩾ geq "
    "≠ neq ≈ approx ≅ approx ≃ approx ≒ approx ∼ sim ≡ equiv ∈ in ∉ notin ⊂ subset ⊆ subseteq ∪ cup ∩ cap ∖ setminus "
    "∅ emptyset ⌀ emptyset ∠ angle △ triangle ∥ parallel ⊥ perp → to ⇒ Rightarrow ⇔ Leftrightarrow ∑ sum ∏ prod "
    "∫ int ∂ partial ⟨ langle ⟩ rangle ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil … ldots ⋯ ldots ∧ wedge ∨ vee ¬ neg"
)
PLAIN = {
    **dict.fromkeys("−–—‐‑‒﹣－～〜ー", "-"),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("’‘′ʹ`´", "'"),
    **dict.fromkeys("“”″„", '"'),
    **dict.fromkeys("【〔「『〚", "["),
    **dict.fromkeys("】〕」』〛", "]"),
    **dict.fromkeys("《〈", "<"),
    **dict.fromkeys("》〉", ">"),
    **dict.fromkeys("、﹐", ", "),
    **dict.fromkeys("。．", "."),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a\u202c\ufe0e\ufe0f", ""),
    **dict.fromkeys("∣❘", "|"),
    **dict.fromkeys("∶：", ":"),
    **dict.fromkeys("°º˚", r"^\circ "),
    "℃": r"^\circ C",
    "℉": r"^\circ F",
    "，": ", ",
    "；": "; ",
    "＊": "*",
    "∗": "*",
    "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}",
    "￥": "¥",
    "￡": "£",
    "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]",
    "ℓ": "l",
    "ı": "i",
}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱˣʸᵃᵇᵏᵐᵗ", "0123456789+-=()nixyabkmt", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙₘₖᵢⱼ", "0123456789+-=()aeoxnmkij", strict=True))
TABLE = str.maketrans(
    {character: f"\\{name} " for character, name in zip(GREEK[::2], GREEK[1::2], strict=True)}
    | {character: f"\\{name} " for character, name in zip(COMMANDS[::2], COMMANDS[1::2], strict=True)}
    | PLAIN
)
RAISED = re.compile(f"[{re.escape(''.join(SUPERSCRIPTS))}]+")
LOWERED = re.compile(f"[{re.escape(''.join(SUBSCRIPTS))}]+")
# A vulgar fraction behind digits is a mixed number, and behind anything else a factor or the whole.
VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")
# One root sign covers a number, a letter or what stands in brackets.
ROOT = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-z])?")
COMPATIBILITY = re.compile(
    "[\uff01-\uff5e\u2160-\u217f\U0001d400-\U0001d7ff\u2100-\u214f\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
)


def to_latex(text: str) -> str:
    """The text with every character of these tables written in ASCII; other characters stay as they are."""
    if text.isascii():
        return text
    text = VULGAR.sub(_vulgar, text)
    text = RAISED.sub(lambda match: f"^{{{''.join(SUPERSCRIPTS[c] for c in match[0])}}}", text)
    text = LOWERED.sub(lambda match: f"_{{{''.join(SUBSCRIPTS[c] for c in match[0])}}}", text)
    text = text.translate(TABLE)
    text = COMPATIBILITY.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return ROOT.sub(lambda match: rf"\sqrt{{{match[1]}}}" if match[1] else r"\sqrt", text)


def _vulgar(match: re.Match[str]) -> str:
    top, _, low = unicodedata.normalize("NFKC", match[0]).partition("\u2044")
    return rf"\frac{{{top}}}{{{low}}}"
