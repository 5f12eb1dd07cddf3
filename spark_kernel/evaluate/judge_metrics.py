"""How good a judge is: figures over the verdicts of pointwise or pairwise groups (definitions: docs/measures.md).

A verdict that cannot be read is wrong in every accuracy, and counted as unparseable beside it. A rollout without a
reward (the verifier timed out or crashed) is in no figure but `missing`. What has no observations is None, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from spark_kernel.evaluate.intervals import Estimate, balanced_proportion, clustered_proportion
from spark_kernel.records import Group, Kind, Parse, Rollout, Task

ONE_SIDED_SHARE = 0.95
ONE_SIDED_FEWEST = 10
"""Readable verdicts below which nobody can be called one-sided: even a fair coin may fall alike a few times."""
LABELS_ALIKE_SHARE = 0.8
"""Where one label is right more often, a judge that nearly always gives it may be a good one."""
CALIBRATION_BINS = 10
STRATA = {Kind.POINTWISE: ("Yes", "No"), Kind.PAIRWISE: ("A", "B")}


@dataclass(frozen=True, slots=True)
class JudgeMetrics:
    """The figures of one judge over groups of one kind; shares lie in [0, 1], None where undefined.

    `accuracy` and `balanced_accuracy` count an unreadable verdict as wrong; `accuracy_parsed` leaves it out;
    `coverage` is the share that can be read. `base_rate`: share of tasks labelled "Yes" (pointwise) or "A" (pairwise).
    `chance`: accuracy of always giving the commoner label (balanced accuracy: always 1/2). `precision`, `recall`,
    `f1`: of "Yes", so pointwise only; `specificity`: recall of "No". `yes_rate`: share of "Yes" among readable
    verdicts. `a_rate`: share of the letter A among readable verdicts given by letter. `accuracy_mixed`: accuracy on
    tasks from mixed groups. `one_sided`: at least 95 % of the readable verdicts are the same, though that verdict is
    right in at most 80 % of them.
    """

    kind: Kind
    n: int
    missing: int
    parsed: int
    accuracy: Estimate
    balanced_accuracy: Estimate
    accuracy_parsed: float | None
    coverage: float | None
    base_rate: float | None
    chance: float | None
    precision: float | None
    recall: float | None
    specificity: float | None
    f1: float | None
    yes_rate: float | None
    a_rate: float | None
    accuracy_mixed: Estimate
    one_sided: bool | None

    def to_dict(self) -> dict[str, float | int | bool | None]:
        """Flat: an estimate gives `name`, `name_low` and `name_high`; undefined figures are None."""
        flat: dict[str, float | int | bool | None] = {}
        for name in ("n", "missing", "parsed"):
            flat[name] = getattr(self, name)
        for name in ("accuracy", "balanced_accuracy", "accuracy_mixed"):
            estimate: Estimate = getattr(self, name)
            flat |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        flat |= {"problems": self.accuracy.clusters, "n_mixed": self.accuracy_mixed.n}
        for name in ("accuracy_parsed", "coverage", "base_rate", "chance", "precision", "recall", "specificity"):
            flat[name] = getattr(self, name)
        return flat | {"f1": self.f1, "yes_rate": self.yes_rate, "a_rate": self.a_rate, "one_sided": self.one_sided}

    def defined(self) -> dict[str, float]:
        """`to_dict` without what is undefined; True is 1.0."""
        return {name: float(value) for name, value in self.to_dict().items() if value is not None}


def judge_metrics(groups: Sequence[Group], kind: Kind) -> JudgeMetrics:
    """The figures of the groups of one judging kind; groups of other kinds are ignored.

    Raises:
        ValueError: the kind does not judge.
    """
    if kind not in STRATA:
        raise ValueError(f"{kind} gives no verdicts")
    rows = [(group.task, rollout) for group in groups if group.task.kind is kind for rollout in group.rollouts]
    scored = [(task, rollout) for task, rollout in rows if _is_scored(rollout)]
    n, right = len(scored), sum(_is_right(rollout) for _, rollout in scored)
    positive, negative = STRATA[kind]
    labels = [task.label for task, _ in scored]
    verdicts = [verdict for _, rollout in scored if (verdict := verdict_of(rollout)) is not None]
    positives = labels.count(positive)
    hits = {
        label: sum(_is_right(rollout) for task, rollout in scored if task.label == label)
        for label in (positive, negative)
    }
    yes, pointwise = verdicts.count(positive), kind is Kind.POINTWISE
    letters = [letter for task, rollout in scored if (letter := _letter(task, rollout)) is not None]
    return JudgeMetrics(
        kind=kind,
        n=n,
        missing=len(rows) - n,
        parsed=len(verdicts),
        accuracy=clustered_proportion((task.problem_id, float(_is_right(r))) for task, r in scored),
        balanced_accuracy=balanced_proportion(
            ((task.problem_id, task.label, float(_is_right(r))) for task, r in scored), STRATA[kind]
        ),
        accuracy_parsed=_share(right, len(verdicts)),
        coverage=_share(len(verdicts), n),
        base_rate=_share(positives, n),
        chance=_share(max(positives, n - positives), n),
        precision=_share(hits[positive], yes) if pointwise else None,
        recall=_share(hits[positive], positives) if pointwise else None,
        specificity=_share(hits[negative], n - positives) if pointwise else None,
        f1=_share(2 * hits[positive], yes + positives) if pointwise else None,
        yes_rate=_share(yes, len(verdicts)) if pointwise else None,
        a_rate=_share(letters.count("A"), len(letters)),
        accuracy_mixed=clustered_proportion(
            (task.problem_id, float(_is_right(r))) for task, r in scored if task.source_group_mixed
        ),
        one_sided=is_one_sided(verdicts, [task.label for task, r in scored if verdict_of(r) is not None]),
    )


def verdict_of(rollout: Rollout) -> str | None:
    """The verdict that was read ("Yes", "No", "A" or "B"); None where none was, or where boxes disagree."""
    return rollout.score.answer if rollout.score and rollout.score.parse is Parse.OK else None


def is_one_sided(verdicts: Sequence[str], labels: Sequence[str]) -> bool | None:
    """Whether one verdict makes up at least 95 % although it is right in fewer than 80 % of these tasks.

    None where that cannot be told: fewer than 10 verdicts, or it is nearly always right, so that a good judge says it.

    Args:
        verdicts: those that could be read.
        labels: the right verdict of each.
    """
    if len(verdicts) < ONE_SIDED_FEWEST:
        return None
    commonest = max(sorted(set(verdicts)), key=verdicts.count)
    if verdicts.count(commonest) < ONE_SIDED_SHARE * len(verdicts):
        return False
    return True if labels.count(commonest) <= LABELS_ALIKE_SHARE * len(labels) else None


@dataclass(frozen=True, slots=True)
class SwappedAgreement:
    """What became of pairs asked in both orders.

    `pairs` asked twice; `readable`: both verdicts can be read; `agreement`: share of the readable ones that name the
    same candidate; `both_right`: share of all pairs for which both verdicts are right (order cannot give that away).
    `first_rate`: share of the readable disagreements that chose the first place twice.
    """

    pairs: int
    readable: int
    agreement: Estimate
    both_right: Estimate
    first_rate: float | None

    def to_dict(self) -> dict[str, float | int | None]:
        """Flat: estimates give three names each."""
        flat: dict[str, float | int | None] = {"pairs": self.pairs, "readable": self.readable}
        for name in ("agreement", "both_right"):
            estimate: Estimate = getattr(self, name)
            flat |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        return flat | {"first_rate": self.first_rate}


def swapped_agreement(groups: Sequence[Group]) -> SwappedAgreement:
    """Agreement of pairwise groups over (x, y) and (y, x) with equal view and template, rollout i against rollout i.

    A task asked in one order only is not counted.
    """
    waiting: dict[tuple[object, ...], Group] = {}
    rows: list[tuple[str, str | None, str | None, bool]] = []
    for group in groups:
        task = group.task
        if task.kind is not Kind.PAIRWISE:
            continue
        other = waiting.pop((task.sources[::-1], task.view, task.template_id), None)
        if other is None:
            waiting[task.sources, task.view, task.template_id] = group
            continue
        for one, two in zip(other.rollouts, group.rollouts, strict=False):
            if _is_scored(one) and _is_scored(two):
                both = _is_right(one) and _is_right(two)
                rows.append((task.problem_id, verdict_of(one), verdict_of(two), both))
    readable = [(problem, a, b) for problem, a, b, _ in rows if a is not None and b is not None]
    disagreements = [a for _, a, b in readable if a == b]
    return SwappedAgreement(
        pairs=len(rows),
        readable=len(readable),
        agreement=clustered_proportion((problem, float(a != b)) for problem, a, b in readable),
        both_right=clustered_proportion((problem, float(both)) for problem, _, _, both in rows),
        first_rate=_share(disagreements.count("A"), len(disagreements)),
    )


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Judgements whose probability of "Yes" lies in [low, high): their number, mean probability and share correct."""

    low: float
    high: float
    n: int
    probability: float | None
    correct: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration error over equal bins, Brier score, and the bins themselves."""

    n: int
    error: float | None
    brier: float | None
    bins: tuple[CalibrationBin, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain numbers; `bins` is a list of mappings."""
        return {"n": self.n, "error": self.error, "brier": self.brier, "bins": [asdict(item) for item in self.bins]}


def calibration_pairs(groups: Iterable[Group], probabilities: Mapping[str, float]) -> list[tuple[float, bool]]:
    """(probability of "Yes", candidate is correct) of the pointwise rollouts that have a probability, by rollout id."""
    return [
        (probabilities[rollout.id], group.task.label == "Yes")
        for group in groups
        for rollout in group.rollouts
        if rollout.id in probabilities
    ]


def calibration(judgements: Iterable[tuple[float, bool]], bins: int = CALIBRATION_BINS) -> Calibration:
    """ECE = sum_b (n_b / n) |mean probability_b - share correct_b| of (probability of "Yes", candidate is correct).

    The bins cut [0, 1] into equal parts, the last one closed (Naeini et al. 2015). Brier = mean (p - correct)^2.

    Raises:
        ValueError: a probability outside [0, 1], or no bins.
    """
    if bins < 1:
        raise ValueError("calibration needs at least one bin")
    cells: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for probability, correct in judgements:
        if not 0 <= probability <= 1:
            raise ValueError(f"{probability} is no probability")
        cells[min(int(probability * bins), bins - 1)].append((probability, correct))
    n = sum(map(len, cells))
    found = []
    for index, cell in enumerate(cells):
        mean = _share(math.fsum(p for p, _ in cell), len(cell))
        share = _share(sum(correct for _, correct in cell), len(cell))
        found.append(CalibrationBin(index / bins, (index + 1) / bins, len(cell), mean, share))
    if not n:
        return Calibration(0, None, None, tuple(found))
    gaps = [
        item.n * abs(item.probability - item.correct)
        for item in found
        if item.probability is not None and item.correct is not None
    ]
    brier = math.fsum((p - correct) ** 2 for cell in cells for p, correct in cell) / n
    return Calibration(n, math.fsum(gaps) / n, brier, tuple(found))


def _is_scored(rollout: Rollout) -> bool:
    return rollout.score is not None and rollout.score.correct is not None


def _is_right(rollout: Rollout) -> bool:
    return rollout.score is not None and rollout.score.correct is True


def _letter(task: Task, rollout: Rollout) -> str | None:
    """The letter the judge wrote, where the prompt asked for letters."""
    verdict = verdict_of(rollout)
    if verdict is None or (task.kind is Kind.PAIRWISE and not task.label_map):
        return verdict
    written = {meaning: word for word, meaning in (task.label_map or {}).items()}
    return written[verdict] if written.get(verdict) in ("A", "B") else None


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
