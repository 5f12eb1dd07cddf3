"""Judge figures and round lines: against hand-made tables and a brute-force count."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.evaluate.intervals import clustered_mean, clustered_proportion
from spark_kernel.evaluate.judge_metrics import calibration, is_one_sided, judge_metrics, swapped_agreement
from spark_kernel.evaluate.judge_words import one_sided_sentence
from spark_kernel.evaluate.kind_stats import exclusion_counts, kind_stats, task_counts
from spark_kernel.records import (
    Exclusion,
    ExclusionReason,
    Group,
    Kind,
    Origin,
    Parse,
    Period,
    Rollout,
    Score,
    Task,
    View,
)


def task(name, kind=Kind.POINTWISE, label="Yes", *, problem=None, mixed=None, origin=Origin.SOLVE, **more):
    return Task(
        id=name,
        kind=kind,
        origin=origin,
        problem_id=problem or name,
        messages=(),
        label=label,
        verifier="verdict",
        template_id="t",
        round=1,
        source_group_mixed=mixed,
        **more,
    )


def rollout(owner, verdict, index=0, *, tokens=3, truncated=False):
    """An output of a task: a verdict, None (nothing read), or a Parse that says what happened."""
    if isinstance(verdict, Parse) and verdict in (Parse.TIMEOUT, Parse.CRASH):
        score = Score(None, None, verdict)
    elif verdict is None or isinstance(verdict, Parse):
        score = Score(0.0, False, verdict or Parse.NONE)
    else:
        score = Score(float(verdict == owner.label), verdict == owner.label, Parse.OK, verdict)
    ids = tuple(range(tokens))
    return Rollout(f"{owner.id}-{index}", owner.id, index, 1, ids, (0.0,) * tokens, "", truncated, 0.0, score)


def group(owner, *verdicts):
    return Group(owner, tuple(rollout(owner, verdict, index) for index, verdict in enumerate(verdicts)))


def test_pointwise_figures_of_a_hand_made_table():
    # label Yes: 3 Yes, 1 No, 1 unreadable.   label No: 2 Yes, 3 No, 1 ambiguous.   one timeout.
    groups = [
        group(task("a", label="Yes", mixed=True), "Yes", "Yes", None),
        group(task("b", label="Yes", mixed=False), "Yes", "No", Parse.TIMEOUT),
        group(task("c", label="No", mixed=True), "Yes", "No", Parse.AMBIGUOUS),
        group(task("d", label="No", mixed=False), "Yes", "No", "No"),
    ]
    found = judge_metrics(groups, Kind.POINTWISE)
    assert (found.n, found.missing, found.parsed) == (11, 1, 9)
    assert found.accuracy.value == pytest.approx(6 / 11)
    assert found.accuracy_parsed == pytest.approx(6 / 9)
    assert found.coverage == pytest.approx(9 / 11)
    assert found.balanced_accuracy.value == pytest.approx((3 / 5 + 3 / 6) / 2)
    assert found.precision == pytest.approx(3 / 5)
    assert found.recall == pytest.approx(3 / 5)
    assert found.specificity == pytest.approx(3 / 6)
    assert found.f1 == pytest.approx(3 / 5)
    assert found.yes_rate == pytest.approx(5 / 9)
    assert found.base_rate == pytest.approx(5 / 11)
    assert found.chance == pytest.approx(6 / 11)
    assert found.accuracy_mixed.value == pytest.approx(3 / 6)
    assert (found.accuracy_mixed.n, found.accuracy_mixed.clusters) == (6, 2)
    assert found.one_sided is None
    assert found.a_rate is None


def test_pairwise_figures():
    groups = [
        group(task("a", Kind.PAIRWISE, "A"), "A", "A", "B"),
        group(task("b", Kind.PAIRWISE, "B"), "A", "A", None),
    ]
    found = judge_metrics(groups, Kind.PAIRWISE)
    assert found.accuracy.value == pytest.approx(2 / 6)
    assert found.balanced_accuracy.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.a_rate == pytest.approx(4 / 5)
    assert (found.base_rate, found.chance) == (0.5, 0.5)
    assert (found.precision, found.recall, found.f1, found.yes_rate) == (None, None, None, None)


def test_a_rate_of_lettered_pointwise_prompts_counts_letters_not_meanings():
    groups = [
        group(task("a", label="Yes", label_map={"A": "Yes", "B": "No"}), "Yes", "No"),
        group(task("b", label="Yes", label_map={"A": "No", "B": "Yes"}), "No", "No"),
        group(task("c", label="Yes"), "Yes"),
    ]
    assert judge_metrics(groups, Kind.POINTWISE).a_rate == pytest.approx(3 / 4)


def test_nothing_to_judge_leaves_every_figure_undefined_and_only_counts_zero():
    found = judge_metrics([], Kind.POINTWISE).to_dict()
    counts = {"n", "missing", "parsed", "problems", "n_mixed"}
    assert {name for name, value in found.items() if value == 0} == counts
    assert all(found[name] is None for name in found.keys() - counts)
    assert judge_metrics([], Kind.PAIRWISE).defined() == dict.fromkeys(counts, 0.0)


def test_no_yes_verdict_leaves_precision_undefined_but_not_recall():
    found = judge_metrics([group(task("a"), "No"), group(task("b", label="No"), "No")], Kind.POINTWISE)
    assert found.precision is None
    assert (found.recall, found.f1) == (0.0, 0.0)


def test_one_label_alone_leaves_balanced_accuracy_undefined():
    found = judge_metrics([group(task("a"), "Yes"), group(task("b"), "No")], Kind.POINTWISE)
    assert found.balanced_accuracy.value is None
    assert found.chance == 1.0


def test_kinds_that_do_not_judge_are_refused_and_other_kinds_ignored():
    with pytest.raises(ValueError, match="verdicts"):
        judge_metrics([], Kind.SOLVE)
    assert judge_metrics([group(task("a", Kind.PAIRWISE, "A"), "A")], Kind.POINTWISE).n == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from("pqrs"),
            st.sampled_from(["Yes", "No"]),
            st.lists(st.sampled_from(["Yes", "No", None, Parse.AMBIGUOUS, Parse.CRASH]), max_size=5),
        ),
        max_size=12,
    )
)
def test_pointwise_figures_against_a_brute_force_confusion_matrix(rows):
    groups = [
        group(task(f"t{i}", label=label, problem=problem), *verdicts)
        for i, (problem, label, verdicts) in enumerate(rows)
    ]
    found = judge_metrics(groups, Kind.POINTWISE)
    pairs = [(label, v) for _, label, verdicts in rows for v in verdicts if v is not Parse.CRASH]
    count = {(a, b): sum(1 for pair in pairs if pair == (a, b)) for a in ("Yes", "No") for b in ("Yes", "No")}

    def ratio(part, whole):
        return None if whole == 0 else pytest.approx(part / whole)

    labels = {a: sum(1 for label, _ in pairs if label == a) for a in ("Yes", "No")}
    said_yes, said_no = (count["Yes", v] + count["No", v] for v in ("Yes", "No"))
    hits = count["Yes", "Yes"] + count["No", "No"]
    assert found.accuracy.value == ratio(hits, len(pairs))
    assert found.accuracy_parsed == ratio(hits, said_yes + said_no)
    assert found.precision == ratio(count["Yes", "Yes"], said_yes)
    assert found.recall == ratio(count["Yes", "Yes"], labels["Yes"])
    assert found.specificity == ratio(count["No", "No"], labels["No"])
    assert found.yes_rate == ratio(said_yes, said_yes + said_no)
    if labels["Yes"] and labels["No"]:
        sensitivity, specificity = count["Yes", "Yes"] / labels["Yes"], count["No", "No"] / labels["No"]
        assert found.balanced_accuracy.value == pytest.approx((sensitivity + specificity) / 2)
        if found.balanced_accuracy.low is not None:
            low, high = found.balanced_accuracy.low, found.balanced_accuracy.high
            assert 0 <= low <= found.balanced_accuracy.value + 1e-12 <= high + 2e-12


def test_a_judge_that_always_says_yes_is_flagged_and_scores_chance():
    groups = [group(task(f"t{i}", label="Yes" if i < 14 else "No"), "Yes") for i in range(20)]
    found = judge_metrics(groups, Kind.POINTWISE)
    assert found.one_sided is True
    assert found.accuracy.value == found.chance == 0.7
    assert found.balanced_accuracy.value == 0.5
    assert found.defined()["one_sided"] == 1.0


def test_one_sided_begins_at_95_percent_of_at_least_ten_verdicts():
    half = ["Yes", "No"] * 10
    assert is_one_sided(["Yes"] * 19 + ["No"], half) is True
    assert is_one_sided(["Yes"] * 18 + ["No"] * 2, half) is False
    assert is_one_sided(["No"] * 10, half[:10]) is True
    assert is_one_sided(["No"] * 9, half[:9]) is None


def test_where_the_labels_are_one_sided_nobody_is_blamed_for_it():
    assert is_one_sided(["A"] * 12, ["A"] * 12) is None  # a judge who is always right says nothing else
    assert is_one_sided(["A"] * 20, ["A"] * 17 + ["B"] * 3) is None
    assert is_one_sided(["A"] * 20, ["A"] * 16 + ["B"] * 4) is True
    assert is_one_sided(["B"] * 20, ["A"] * 20) is True
    assert is_one_sided(["A"] * 10 + ["B"] * 10, ["A"] * 20) is False


def test_the_sentence_names_verdict_share_number_and_how_often_it_is_right():
    figures = {"one_sided": True, "yes_rate": 0.03, "base_rate": 0.52, "parsed": 240}
    assert one_sided_sentence(figures) == 'It says "No" in 97% of 240 readable verdicts, where "No" is right in 48%.'
    pairs = {"one_sided": 1.0, "yes_rate": None, "a_rate": 0.96, "base_rate": 0.5, "parsed": 50.0}
    assert one_sided_sentence(pairs) == 'It says "A" in 96% of 50 readable verdicts, where "A" is right in 50%.'
    assert one_sided_sentence({**figures, "one_sided": False}) is None


def _pair(name, first, second, label, verdicts, *, view=View.ANSWER):
    return group(task(name, Kind.PAIRWISE, label, problem=name[0], sources=(first, second), view=view), *verdicts)


def test_swapped_agreement_names_candidates_not_letters():
    groups = [
        # the judge names x both times, x is right: agreement, both right
        _pair("p1", "x", "y", "A", ["A"]),
        _pair("p2", "y", "x", "B", ["B"]),
        # always the first place: disagreement
        _pair("q1", "u", "v", "A", ["A"]),
        _pair("q2", "v", "u", "B", ["A"]),
        # one verdict unreadable
        _pair("r1", "s", "t", "A", ["A"]),
        _pair("r2", "t", "s", "B", [None]),
        # one order only
        _pair("z1", "k", "l", "A", ["A"]),
    ]
    found = swapped_agreement(groups)
    assert (found.pairs, found.readable) == (3, 2)
    assert found.agreement.value == 0.5
    assert found.both_right.value == pytest.approx(1 / 3)
    assert found.first_rate == 1.0


def test_swapped_agreement_does_not_pair_different_views():
    groups = [
        _pair("p1", "x", "y", "A", ["A"], view=View.FULL),
        _pair("p2", "y", "x", "B", ["B"], view=View.ANSWER),
    ]
    assert swapped_agreement(groups).pairs == 0
    assert swapped_agreement(groups).agreement.value is None


def test_calibration_error_by_hand():
    judgements = [(0.95, True), (0.95, False), (0.2, False), (0.25, True), (1.0, True)]
    found = calibration(judgements, bins=2)
    # [0, .5): mean .225, correct .5, n 2;  [.5, 1]: mean 2.9/3, correct 2/3, n 3
    assert found.error == pytest.approx((2 * abs(0.225 - 0.5) + 3 * abs(2.9 / 3 - 2 / 3)) / 5)
    brier = (0.05**2 + 0.95**2 + 0.2**2 + 0.75**2 + 0) / 5
    assert found.brier == pytest.approx(brier)
    assert [item.n for item in found.bins] == [2, 3]
    assert calibration([]).error is None
    with pytest.raises(ValueError, match="probability"):
        calibration([(1.2, True)])


def test_probabilities_that_say_the_share_correct_are_calibrated():
    judgements = [(0.25, i % 4 == 0) for i in range(400)] + [(0.75, i % 4 != 0) for i in range(400)]
    assert calibration(judgements).error == pytest.approx(0.0)
    assert calibration([(1 - p, c) for p, c in judgements]).error == pytest.approx(0.5)


# ---------------------------------------------------------------------------------------------- a round's lines


def _answers(name, rewards, *, kind=Kind.SOLVE, origin=Origin.PROBLEM, problem=None):
    owner = replace(task(name, kind, "7", problem=problem, origin=origin), verifier="integer")
    rollouts = []
    for index, reward in enumerate(rewards):
        if reward is None:
            score = Score(None, None, Parse.CRASH)
        else:
            score = Score(reward, reward >= 1.0, Parse.OK if reward else Parse.NONE, "7" if reward else None)
        ids = tuple(range(index + 1))
        rollouts.append(Rollout(f"{name}-{index}", name, index, 1, ids, (0.0,) * len(ids), "", index == 0, 0.0, score))
    return Group(owner, tuple(rollouts))


def test_a_line_of_solve_rollouts():
    groups = [
        _answers("a", [1.0, 0.0, None]),
        _answers("b", [0.5, 0.5, 0.5]),
        _answers("c", [1.0, 1.0]),
        _answers("d", [None, None]),
    ]
    (line,) = kind_stats(groups, Period.POLICY)
    assert (line.period, line.kind, line.origin) == (Period.POLICY, Kind.SOLVE, Origin.PROBLEM)
    assert (line.n, line.groups, line.missing) == (7, 4, 3)
    rewards = [("a", 1.0), ("a", 0.0), *[("b", 0.5)] * 3, ("c", 1.0), ("c", 1.0)]
    expected = clustered_proportion(rewards)
    assert (line.reward_mean, line.reward_low, line.reward_high) == (expected.value, expected.low, expected.high)
    assert line.accuracy == pytest.approx(3 / 7)
    assert line.unparseable == pytest.approx(1 / 7)
    assert line.truncated == pytest.approx(4 / 10)
    assert line.length_mean == pytest.approx((6 + 6 + 3 + 3) / 10)
    assert line.all_correct == pytest.approx(1 / 3)
    assert line.mixed == pytest.approx(1 / 3)
    assert line.all_wrong == pytest.approx(1 / 3)
    assert line.zero_variance == pytest.approx(2 / 3)
    assert line.judge is None


def test_lines_are_split_by_kind_and_origin_in_a_fixed_order():
    groups = [
        _answers("e", [1.0, 0.0], kind=Kind.REFLECTION, origin=Origin.SOLVE),
        group(task("b", origin=Origin.REFLECTION), "Yes", "No"),
        group(task("a"), "Yes", "Yes"),
        group(task("c", Kind.PAIRWISE, "A"), "B", "B"),
    ]
    lines = kind_stats(groups, Period.REWARD)
    assert [(line.kind, line.origin) for line in lines] == [
        (Kind.POINTWISE, Origin.SOLVE),
        (Kind.POINTWISE, Origin.REFLECTION),
        (Kind.PAIRWISE, Origin.SOLVE),
        (Kind.REFLECTION, Origin.SOLVE),
    ]
    assert [line.n for line in lines] == [2, 2, 2, 2]
    assert lines[0].judge["accuracy"] == 1.0
    assert lines[1].judge["accuracy"] == 0.5
    assert "balanced_accuracy" not in lines[0].judge
    assert None not in lines[0].judge.values()
    assert lines[3].judge is None


def test_a_line_without_any_finding_has_counts_and_no_rates():
    (line,) = kind_stats([_answers("a", [None, None])], Period.POLICY)
    assert (line.n, line.groups, line.missing) == (0, 1, 2)
    assert (line.reward_mean, line.reward_low, line.accuracy, line.zero_variance) == (None, None, None, None)
    assert line.length_mean == 1.5
    assert kind_stats([], Period.POLICY) == ()


def test_rewards_outside_the_unit_range_get_the_plain_interval():
    groups = [_answers("a", [2.0, 0.0]), _answers("b", [1.0, 2.0])]
    (line,) = kind_stats(groups, Period.POLICY)
    expected = clustered_mean([("a", 2.0), ("a", 0.0), ("b", 1.0), ("b", 2.0)])
    assert (line.reward_mean, line.reward_low) == (expected.value, expected.low)


def test_counts_of_what_was_made_and_what_was_left_out():
    exclusions = [
        Exclusion(1, "recycle", ExclusionReason.NO_ANSWER, "x"),
        Exclusion(1, "recycle", ExclusionReason.NO_ANSWER, "y"),
        Exclusion(1, "queue", ExclusionReason.TOO_OLD, "z"),
    ]
    assert exclusion_counts(exclusions) == {"queue/too_old": 1, "recycle/no_answer": 2}
    assert task_counts([task("a"), task("b"), task("c", origin=Origin.REFLECTION)]) == {
        "pointwise/reflection": 1,
        "pointwise/solve": 2,
    }
