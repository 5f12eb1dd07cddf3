"""Best of n by the judge's verdicts: the first sample that it accepts."""

from __future__ import annotations

from collections.abc import Sequence

from spark_kernel.test_time.vote import Choice

RANKS = {"Yes": 3, None: 2, "No": 1}
"""Accepted before unread before rejected. An output without an answer comes last, whatever was said about it."""


def best_of(labels: Sequence[int | None], verdicts: Sequence[str | None]) -> Choice:
    """The sample with the best verdict ("Yes", None where unread, "No"), the first sampled among equals.

    `labels` as in `vote`; `support` is the rank in RANKS, `tied` the number of different answers that reach it.
    """
    ranks = [0 if label is None else RANKS[verdict] for label, verdict in zip(labels, verdicts, strict=True)]
    best = max(ranks)
    if not best:
        return Choice(0, 0.0, 0.0)
    winners = [index for index, rank in enumerate(ranks) if rank == best]
    return Choice(winners[0], float(best), float(max(RANKS.values())), len({labels[index] for index in winners}))
