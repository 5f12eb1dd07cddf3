"""Live comparison without a page: events become cards, the desk answers one question at a time, stop signs work."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from spark_kernel.errors import InputError, ModelError
from spark_kernel.records import ImageRef
from tests.helpers.app_guard import red_png
from tests.helpers.app_server import PacedEngine, PacedModels, wait_until
from tests.helpers.hostile_runs import HOSTILE
from workbench.app.cards import SELF_JUDGED, chains_html, one_block, status_line
from workbench.app.catalog import ModelChoice
from workbench.app.desk import Ended, Finding, ModelDesk
from workbench.app.limits import LOCAL
from workbench.app.live import LiveChain, tell_all
from workbench.app.question import make_question
from workbench.app.tabs.live import Waiting
from workbench.text_diff import diff_html

CHOICE = ModelChoice("model", "nowhere")


def asked(models: PacedModels, *, choice: ModelChoice = CHOICE, stop: threading.Event | None = None, **settings):
    """Everything that happened to one question."""
    desk = ModelDesk(models)
    events: list = []
    try:
        desk.ask(choice, make_question("What is 40 + 2?", LOCAL, **settings), events.append, stop or threading.Event())
        assert wait_until(lambda: bool(events) and isinstance(events[-1], Ended))
    finally:
        desk.close()
    return events


def test_a_chain_grows_event_by_event_and_ends_with_what_was_returned() -> None:
    events = asked(PacedModels())
    chain = LiveChain("model")
    texts = []
    for event in events:
        chain = tell_all(chain, [event])
        if chain.steps:
            texts.append(chain.steps[0].text)
    assert "Adding" in texts  # a part of the first answer was shown before it was whole
    assert (chain.state, chain.over, [card.kind.value for card in chain.steps]) == (
        "done", True, ["solve", "pointwise", "reflection", "pointwise"],
    )  # fmt: skip
    assert chain.attempt is not None
    assert chain.attempt.final.answer == "42"
    assert chain.final_judged
    assert chain.steps[1].yes == pytest.approx(0.5)  # the engine of this test finds both words equally likely
    assert chain.tokens == chain.attempt.tokens


def test_cards_show_three_columns_the_judges_probability_the_diff_and_that_nobody_verified() -> None:
    page = chains_html([tell_all(LiveChain("model"), asked(PacedModels()))])
    for text in ("First answer", "Self-judgement", "Reflected answer", SELF_JUDGED, "Final answer: 42", "50%"):
        assert text in page
    assert "<del>" in page
    assert "<ins>" in page
    assert "verifier" not in page
    assert "\n" not in page


def test_a_verifier_speaks_only_where_a_gold_answer_is_given() -> None:
    events = asked(PacedModels(), gold="42")
    found = [event for event in events if isinstance(event, Finding)]
    assert [(finding.index, finding.correct) for finding in found] == [(0, False), (2, True)]
    page = chains_html([tell_all(LiveChain("model", gold=True), events)])
    assert "verifier: wrong" in page
    assert "verifier: right" in page
    assert SELF_JUDGED not in page


def test_a_gold_answer_that_is_no_use_is_said_at_once() -> None:
    models = PacedModels()
    assert "no use" in asked(models, gold="about six", verifier="integer")[-1].problem
    assert models.engine.words == 0


def test_an_answer_that_was_never_judged_is_called_that() -> None:
    models = PacedModels(PacedEngine(write=lambda prompt, _: "I do not know."))
    chain = tell_all(LiveChain("model"), asked(models, reflections=1))
    assert not chain.final_judged
    assert "never judged" in chains_html([chain])
    assert "no answer could be read" in chains_html([chain])


def test_an_image_is_refused_politely_by_a_model_without_eyes_and_used_by_one_that_has_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(red_png())
    image = ImageRef(hashlib.sha256(red_png()).hexdigest(), str(tmp_path / "a.png"))
    blind, seeing = PacedModels(), PacedModels(eyes=True)
    assert "no eyes" in asked(blind, image=image)[-1].problem
    assert blind.engine.words == 0
    asked(seeing, image=image)
    assert seeing.engine.prompts[0].images == (tmp_path / "a.png",)


def test_stop_ends_sampling_within_a_token_and_says_so() -> None:
    models = PacedModels(PacedEngine(write=lambda *_: "word " * 5000, pause=0.01))
    desk, stop, events = ModelDesk(models), threading.Event(), []
    desk.ask(CHOICE, make_question("What?", LOCAL, new_tokens=2000), events.append, stop)
    assert wait_until(lambda: models.engine.words > 5)
    stop.set()
    assert wait_until(lambda: isinstance(events[-1], Ended))
    written = models.engine.words
    time.sleep(0.1)
    assert models.engine.words == written < 1000
    assert events[-1].stopped
    chain = tell_all(LiveChain("model"), events)
    assert "Stopped" in chains_html([chain])
    assert "stopped" in status_line([chain])
    desk.close()


def test_a_question_that_was_stopped_while_it_waited_costs_no_token() -> None:
    stop = threading.Event()
    stop.set()
    models = PacedModels()
    assert asked(models, stop=stop)[-1].stopped
    assert models.engine.words == 0


def test_a_model_that_cannot_be_loaded_is_said_and_the_next_question_is_answered() -> None:
    def load(choice: ModelChoice):
        if choice.name == "broken":
            raise ModelError("The model broken cannot be loaded: it is damaged.")
        if choice.name == "crash":
            raise RuntimeError("out of memory")
        return PacedModels()(choice)

    desk, ends = ModelDesk(load), []
    for name in ("broken", "crash", "sound"):
        events: list = []
        desk.ask(ModelChoice(name, name), make_question("What?", LOCAL), events.append, threading.Event())
        assert wait_until(lambda events=events: bool(events) and isinstance(events[-1], Ended))
        ends.append(events[-1])
    desk.close()
    assert "damaged" in ends[0].problem
    assert "log says why" in ends[1].problem
    assert "memory" not in ends[1].problem
    assert ends[2].problem == ""


def test_the_desk_keeps_the_models_that_were_used_last() -> None:
    models = PacedModels()
    desk = ModelDesk(models, keep=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        events: list = []
        desk.ask(ModelChoice(name, name), make_question("What?", LOCAL), events.append, threading.Event())
        assert wait_until(lambda events=events: bool(events) and isinstance(events[-1], Ended))
    desk.close()
    assert models.loaded == ["a", "b", "c", "b"]


def test_hostile_text_of_a_model_is_inert_while_it_streams_and_afterwards() -> None:
    events = asked(PacedModels(PacedEngine(write=lambda *_: HOSTILE)), reflections=1)
    for count in range(1, len(events) + 1):
        page = chains_html([tell_all(LiveChain("<script>model"), events[:count])])
        lowered = page.lower()
        for bad in ("<script", "<img", "<iframe", "<b onclick", 'href="javascript', 'src="http'):
            assert bad not in lowered
        assert page.count("<div") == page.count("</div>")


def test_diff_marks_words_and_escapes_them() -> None:
    assert diff_html("a <b> c", "a <i> c") == "a &lt;<del>b</del><ins>i</ins>&gt; c"
    assert diff_html("same", "same") == "same"


def test_one_block_has_no_line_that_would_end_it() -> None:
    assert one_block("<pre>a\n\nb\r\n</pre>") == "<pre>a&#10;&#10;b&#10;</pre>"


def test_waiting_counts_by_client_and_stops_by_page() -> None:
    waiting = Waiting(2)
    first, second = waiting.enter("me", "page 1"), waiting.enter("me", "page 2")
    with pytest.raises(InputError, match="come back"):
        waiting.enter("me", "page 3")
    other = waiting.enter("you", "page 4")
    waiting.stop("page 1")
    assert (first.is_set(), second.is_set(), other.is_set()) == (True, False, False)
    waiting.leave("me", "page 1", first)
    assert not waiting.running("page 1")
    waiting.enter("me", "page 3")
    waiting.stop("nobody's page")
