"""Which problems are kept for evaluation: a hash bucket of the canonical problem, the same for ever.

The bucket depends on what is asked and on nothing else: not on id, gold, seed, source, position or file format. So a
problem that is held out in one run is held out in every run, preset and starter corpus that uses the same fraction
and form, and a larger fraction holds out a superset of a smaller one.

The canonical text has a version, the *form*, which a run keeps for life (`problems.canonical_form`). Form 1 takes the
question as it is written. Form 2 takes the same problem however it is read: without image marks, without the data
set's answer-format sentence, and with one text for all phrasings of an arithmetic chain. Where there is nothing of the
kind the two are equal, and so is the bucket.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator

from spark_kernel.errors import InputError
from spark_kernel.problems.answer_format import set_apart
from spark_kernel.problems.arithmetic import read_chain
from spark_kernel.problems.puzzles.catalogue import read_puzzle
from spark_kernel.prompts.build import IMAGE_MARK
from spark_kernel.records import Problem

CANONICAL_FORM = 2
"""The form of new runs."""
FIRST_FORM = 1
"""The form of runs that say nothing of it: they were written before there was a second one."""
GIVEN_IMAGES = "given_images"
"""The key of a problem's meta with the SHA-256 of its images as published, where reading them made them smaller."""


def canonical_text(problem: Problem, form: int) -> str:
    """What makes two problems the same: the normalised question, then one line per image with its SHA-256, in order.

    `form` has no default on purpose, here and below: what a run trained on is told by the run's own form.
    Normalised: Unicode NFKC and full case folding, every run of white space one space, none at
    the ends. A normalised question has no line break, so the lines cannot be confused.
    """
    if form == FIRST_FORM:
        return _with_images(normalise_question(problem.question), problem)
    bare = _bare_question(problem)
    return _with_images(_chain_text(bare) or _puzzle_text(bare) or bare, problem)


def normalise_question(question: str) -> str:
    """NFKC, case folded, white space collapsed. Folding may undo NFKC, which is therefore applied again."""
    folded = unicodedata.normalize("NFKC", question).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def held_out_position(problem: Problem, form: int) -> float:
    """Where the canonical problem falls in [0, 1): the first 8 bytes of its BLAKE2b digest, as a share."""
    return _position(canonical_text(problem, form))


def is_held_out(problem: Problem, fraction: float, form: int) -> bool:
    """Whether the problem is kept out of training when this share of all problems is kept for evaluation.

    An arithmetic chain under form 2 is kept out of training where its chain falls into the bucket and where its
    phrasing does.

    Raises:
        InputError: the fraction is not within [0, 1].
    """
    return any(position < fraction for position in _positions(problem, fraction, form))


def may_be_evaluated(problem: Problem, fraction: float, form: int) -> bool:
    """Whether the problem is one of those that evaluations ask about; such a problem is always held out.

    An arithmetic chain under form 2 is asked about only where chain and phrasing both fall into the bucket: the
    built-in starter model has seen phrasings that are in no bucket of form 1, of any chain.

    Raises:
        InputError: the fraction is not within [0, 1].
    """
    return all(position < fraction for position in _positions(problem, fraction, form))


def _positions(problem: Problem, fraction: float, form: int) -> Iterator[float]:
    """Where the problem's texts fall: one for most, phrasing and then chain for an arithmetic chain under form 2.

    A puzzle has one text, what it asks for: no model has been made without some of its phrasings only.
    """
    if not 0.0 <= fraction <= 1.0:
        raise InputError(f"A held-out fraction of {fraction} is refused: 0 to 1.")
    if form == FIRST_FORM:
        yield held_out_position(problem, form)
        return
    bare = _bare_question(problem)
    yield _position(_with_images(_puzzle_text(bare) or bare, problem))
    if (chain := _chain_text(bare)) is not None:
        yield _position(_with_images(chain, problem))


def _chain_text(question: str) -> str | None:
    """One text for all phrasings of an arithmetic chain; None for any other question."""
    chain = read_chain(question)
    if chain is None:
        return None
    return " ".join(["arithmetic chain", str(chain.start), *(f"{s.operator}{s.operand}" for s in chain.steps)])


def _puzzle_text(question: str) -> str | None:
    """One text for all phrasings of a puzzle of the source `puzzles`; None for any other question."""
    asked = read_puzzle(question)
    return None if asked is None else f"puzzle {asked}"


def _bare_question(problem: Problem) -> str:
    """The normalised question without image marks and answer-format sentences."""
    question = problem.question.replace(IMAGE_MARK, " ") if problem.images else problem.question
    return normalise_question(set_apart(question).question)


def _with_images(text: str, problem: Problem) -> str:
    shas = problem.meta.get(GIVEN_IMAGES) or [image.sha256 for image in problem.images]
    return "\n".join([text, *(f"image {sha}" for sha in shas)])


def _position(text: str) -> float:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"spark held-out").digest()
    # 53 bits, so that the share is exact in a float and can never round up to 1.
    return (int.from_bytes(digest, "big") >> 11) / (1 << 53)
