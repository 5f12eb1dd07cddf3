"""A chain in one line: answers, verdicts and the end, with a gold answer and without one; models that are scripted."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from spark_kernel.prompts.prompt import Prompt
from tests.helpers.app_server import PacedEngine, PacedModels, wait_until
from workbench.app.cards import chains_html
from workbench.app.catalog import Catalog, ModelChoice
from workbench.app.desk import Ended, ModelDesk
from workbench.app.limits import LOCAL
from workbench.app.live import LiveChain, tell_all
from workbench.app.model_lines import BUILT_IN_LINES, OTHERS, model_line
from workbench.app.question import make_question
from workbench.app.story import ACCEPTED, REJECTED, UNREADABLE, ending, turns


def writes(*outputs: str) -> Callable[[Prompt, int], str]:
    """Step k writes outputs[k]: an answer, or "Yes" and "No" in whatever words the judge is asked for."""

    def write(prompt: Prompt, _: int) -> str:
        text = "\n".join(message.text for message in prompt.messages)
        said = outputs[int(prompt.task_id.rpartition("-")[2])]
        means = re.search(r"\\boxed\{A\} means (\w+)", text)
        if said in ("Yes", "No") and means:
            said = "A" if (means[1] in ("Yes", "right", "correct")) == (said == "Yes") else "B"
        return f"So \\boxed{{{said}}}" if said else "Nothing in a box."

    return write


def chain_of(*outputs: str, gold: str = "", faithful: bool = False) -> LiveChain:
    desk, events = ModelDesk(PacedModels(PacedEngine(writes(*outputs)))), []
    question = make_question("What is 40 + 2?", LOCAL, gold=gold, view="full", faithful=faithful)
    try:
        desk.ask(ModelChoice("model", "nowhere"), question, events.append, threading.Event())
        assert wait_until(lambda: bool(events) and isinstance(events[-1], Ended))
    finally:
        desk.close()
    chain = tell_all(LiveChain("model", bool(gold)), events)
    assert chain.state == "done", chain.problem
    return chain


@pytest.mark.parametrize(
    ("outputs", "gold", "end"),
    [
        (("42", "Yes"), "", "accepted at once"),
        (("41", "No", "42", "Yes"), "", "changed"),
        (("42", "No", "42", "Yes"), "", "looked at again, and kept"),
        (("41", "No", "42", "No", "43", "No"), "", "back to 41"),
        (("41", ""), "", "kept"),
        (("42", "Yes"), "42", "right"),
        (("41", "No", "42", "Yes"), "42", "corrected"),
        (("42", "No", "43", "Yes"), "42", "spoilt"),
        (("41", "Yes"), "42", "wrong, and not noticed"),
        (("41", "No", "43", "No", "44", "No"), "42", "back to 41, wrong, and not corrected"),
        (("42", "No", "43", "No", "44", "No"), "42", "back to 42, right"),
        (("", "41", "Yes"), "42", "wrong, and not noticed"),
    ],
)
def test_how_a_chain_ended(outputs: tuple[str, ...], gold: str, end: str) -> None:
    chain = chain_of(*outputs, gold=gold)
    assert ending(chain) == end
    # What the line says is what the chips say.
    page = chains_html([chain])
    assert f": {end}</span></p>" in page
    verified = [card.correct for card in chain.steps if card.verified]
    if end.endswith(("right", "corrected", "spoilt")) and gold and "not corrected" not in end:
        assert (end != "spoilt") in verified


def test_the_turns_say_what_was_said_of_each_answer() -> None:
    told = turns(chain_of("41", "No", "42", ""))
    assert [(turn.answer, turn.said) for turn in told] == [("41", REJECTED), ("42", UNREADABLE)]
    told = turns(chain_of("42", "Yes"))
    assert [(turn.answer, turn.said) for turn in told] == [("42", ACCEPTED)]


def test_a_chain_that_still_runs_has_no_end() -> None:
    assert ending(LiveChain("model")) is None
    assert ending(LiveChain("model", state="stopped")) is None


def test_verdicts_are_told_by_word_mark_and_shape_and_the_prompt_can_be_read() -> None:
    page = chains_html([chain_of("41", "No", "42", "Yes")])
    assert "sw-said-no" in page
    assert "✗" in page
    assert "sw-said-yes" in page
    assert "✓" in page
    assert page.count("what the model was asked") == 4
    assert "What is 40 + 2?" in page


def test_letters_are_explained_where_the_prompt_asks_for_letters() -> None:
    for number in range(40):
        question = make_question(f"What is 40 + {number}?", LOCAL)
        engine = PacedEngine(lambda prompt, _: r"\boxed{A}")
        desk, events = ModelDesk(PacedModels(engine)), []
        desk.ask(ModelChoice("model", "nowhere"), question, events.append, threading.Event())
        assert wait_until(lambda events=events: bool(events) and isinstance(events[-1], Ended))
        desk.close()
        chain = tell_all(LiveChain("model"), events)
        judged = next((card.step for card in chain.steps if card.kind.judges), None)
        if judged is not None and judged.label_map:
            meant = ", ".join(f"{word} means {meaning}" for word, meaning in judged.label_map.items())
            assert f"{meant} here" in chains_html([chain])
            return
    raise AssertionError("no prompt asked for letters")


def test_two_models_stand_side_by_side_and_one_has_the_width_alone() -> None:
    chain = chain_of("42", "Yes")
    assert "sw-two" in chains_html([chain, chain])
    assert "sw-two" not in chains_html([chain])


def test_every_model_has_a_sentence(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, ["owner/model"], downloaded=False)
    for choice in catalog.model_choices():
        assert model_line(catalog, choice) == BUILT_IN_LINES.get(choice.path, OTHERS)
    assert set(BUILT_IN_LINES) == {choice.path for choice in catalog.model_choices()} - {"owner/model"}
