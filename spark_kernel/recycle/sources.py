"""Which rollouts may stand in a judge or reflection prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from spark_kernel.prompts.verdicts import TEXT_COMMAND, read_answer
from spark_kernel.records import Exclusion, ExclusionReason, Group, Kind, Parse, Rollout
from spark_kernel.recycle.recycler import Context

PLAIN_NUMBER = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]*))?")


def unusable(rollout: Rollout) -> ExclusionReason | None:
    """Why a scored rollout is no source; None if it is one.

    A source was verified as correct or wrong, ended by itself, and has an answer: one that the verifier read and
    one that a prompt can show.
    """
    score = rollout.score
    if score is None or score.correct is None:
        timed_out = score is not None and score.parse is Parse.TIMEOUT
        return ExclusionReason.VERIFIER_TIMEOUT if timed_out else ExclusionReason.VERIFIER_CRASH
    if rollout.truncated:
        return ExclusionReason.TRUNCATED
    if score.parse is not Parse.OK or not score.answer or read_answer(rollout.text) is None:
        return ExclusionReason.NO_ANSWER
    return None


def usable(rollouts: Sequence[Rollout]) -> tuple[Rollout, ...]:
    """The rollouts that may be sources."""
    return tuple(rollout for rollout in rollouts if unusable(rollout) is None)


def is_mixed(group: Group) -> bool:
    """Whether the group has sources of both sorts.

    Recycling calls only such a group mixed: where the wrong outputs are all cut off, say, a judge task could have one
    label only, and nothing would be gained by preferring it.
    """
    return bool(usable(group.correct)) and bool(usable(group.wrong))


def no_source(group: Group, rollouts: Sequence[Rollout], kind: Kind, wanted: str, context: Context) -> Exclusion:
    """The exclusion of an opportunity for which none of the rollouts is a source; says what was the matter with them.

    Args:
        rollouts: the candidates, all of them unusable or none at all.
        wanted: what they had to be, in words, e.g. "wrong".
    """
    counts = Counter(reason for reason in map(unusable, rollouts) if reason is not None)
    detail = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "none"
    reason = next(iter(counts)) if len(counts) == 1 else ExclusionReason.NO_SOURCE
    return context.exclusion(reason, group.task.id, kind, f"{wanted} outputs: {detail}")


def normalise_answer(answer: str) -> str:
    """An answer without what spelling alone decides.

    Forgives white space, case, `$`, `\\text{}`, a full stop at the end, and the zeros and plus sign of a plain number
    ("07.50" is "7.5").
    """
    text = TEXT_COMMAND.sub(r"\1", answer).replace("$", "")
    text = "".join(text.split()).rstrip(".").casefold()
    if number := PLAIN_NUMBER.fullmatch(text):
        sign, whole, fraction = number.groups()
        whole, fraction = whole.lstrip("0") or "0", (fraction or "").rstrip("0")
        value = f"{whole}.{fraction}" if fraction else whole
        return f"-{value}" if sign == "-" and value != "0" else value
    return text


def answer_keys(rollout: Rollout) -> tuple[str, str]:
    """A source's answer, normalised: as the verifier read it, and as a prompt shows it."""
    return normalise_answer(rollout.answer or ""), normalise_answer(read_answer(rollout.text) or "")
