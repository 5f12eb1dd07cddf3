"""What the terminal's report says about the test-time loop and the methods beside it."""

from __future__ import annotations

from workbench.reporting.figure_rows import held_out_rows, loop_notes, show_figure


def accuracy(value: float) -> dict[str, object]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 20}


LOOP = {
    "before": accuracy(0.5),
    "after": accuracy(0.6),
    "transitions": {"right_right": 9, "wrong_right": 3, "right_wrong": 1, "wrong_wrong": 7},
    "mcnemar_p": 0.625,
}


def test_the_loop_s_p_value_and_a_vote_that_could_not_spend_its_budget_are_said() -> None:
    full = {"accuracy": accuracy(0.7), "limited": False}
    summary = {"lines": {"loop": LOOP, "vote": full | {"limited": True}, "best_of": full, "weighted_vote": full}}
    notes = loop_notes({3: summary})
    assert notes[0] == (
        "Round 3, test-time loop: 3 wrong answers became right, 1 right ones wrong; McNemar's exact p 0.62."
    )
    assert notes[1].startswith("Round 3, majority vote: all samples together cost less than the loop")
    assert len(notes) == 2


def test_methods_stand_below_the_loop_and_older_evaluations_show_a_dash() -> None:
    new = {"lines": {"loop": LOOP, "vote": {"accuracy": accuracy(0.7), "limited": False}}}
    rows = held_out_rows({0: {"lines": {"loop": LOOP}}, 3: new})
    labels = [label for label, _ in rows]
    assert labels[-1] == "  majority vote at the loop's token cost"
    assert [show_figure(figure) for figure in rows[-1][1]] == ["-", "70.0% [60.0, 80.0] n 20"]
    assert len(loop_notes({0: {"lines": {}}})) == 0
