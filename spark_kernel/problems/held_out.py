"""Which problems are kept for evaluation: a hash bucket of the canonical problem, the same for ever.

The bucket depends on what is asked and on nothing else: not on id, gold, seed, source, position or file format. So a
problem that is held out in one run is held out in every run, preset and starter corpus that uses the same fraction,
and a larger fraction holds out a superset of a smaller one.
"""

from __future__ import annotations

import hashlib
import unicodedata

from spark_kernel.errors import InputError
from spark_kernel.records import Problem


def canonical_text(problem: Problem) -> str:
    """What makes two problems the same: the normalised question, then one line per image with its SHA-256, in order.

    Normalised: Unicode NFKC and full case folding, every run of white space one space, none at
    the ends. A normalised question has no line break, so the lines cannot be confused.
    """
    lines = [normalise_question(problem.question)]
    lines += [f"image {image.sha256}" for image in problem.images]
    return "\n".join(lines)


def normalise_question(question: str) -> str:
    """NFKC, case folded, white space collapsed. Folding may undo NFKC, which is therefore applied again."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def held_out_position(problem: Problem) -> float:
    """Where the canonical problem falls in [0, 1): the first 8 bytes of its BLAKE2b digest, as a share."""
    text = canonical_text(problem).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(text, digest_size=8, person=b"spark held-out").digest()
    # 53 bits, so that the share is exact in a float and can never round up to 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)


def is_held_out(problem: Problem, fraction: float) -> bool:
    """Whether the problem is kept for evaluation when this share of all problems is.

    Raises:
        InputError: the fraction is not within [0, 1].
    """
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"A held-out fraction of {fraction} is refused: 0 to 1.")
    return held_out_position(problem) < fraction
