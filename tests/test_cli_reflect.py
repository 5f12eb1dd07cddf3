"""What `workbench reflect` shows: live on a terminal, step by step elsewhere; model text cannot steer the terminal."""

from __future__ import annotations

import io

import pytest

from spark_kernel.rollout.engine import Completion
from spark_kernel.test_time.loop import self_correct_live
from tests.helpers.scripted_engine import ScriptedEngine, sum_problem
from tests.test_test_time_live import ScoringEngine, characters
from tests.test_test_time_loop import J, R, S, Script, settings
from workbench.commands.reflect_output import ChainPrinter, printable, show_probability

LINES = [(S, "5"), (J, "No"), (R, "1"), (J, "Yes")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class WordByWord(ScoringEngine):
    """Streams a word at a time."""

    def stream(self, prompt, sampling, on_text, *, check_stop=lambda: None) -> Completion:
        ((completion,),) = self.sample([prompt], sampling)
        words = completion.text.split(" ")
        for index, word in enumerate(words):
            check_stop()
            on_text(word if index == 0 else f" {word}", index + 1)
        return completion


def shown(engine: ScriptedEngine, out: io.StringIO, encode=characters) -> str:
    self_correct_live(engine, sum_problem(0), settings(), ChainPrinter(out), seed=0, encode=encode)
    return out.getvalue()


def test_a_terminal_shows_text_as_it_comes():
    seen: list[str] = []

    class Watched(Terminal):
        def flush(self) -> None:
            seen.append(self.getvalue())

    text = shown(WordByWord(Script(p0=list(LINES))), Watched())
    assert any(moment.endswith("Answer\nI") for moment in seen)
    assert any(moment.endswith("Answer\nI say") for moment in seen)
    assert "--- step 1: Answer\nI say \\boxed{5}\n[answer: 5; 3 tokens]\n" in text
    assert "--- step 2: Judgement (about step 1)\n" in text
    assert "[verdict: No, probability of Yes 0.800; 3 tokens]" in text


def test_elsewhere_each_step_is_printed_once_it_is_whole():
    text = shown(ScoringEngine(Script(p0=list(LINES))), io.StringIO())
    heads = [line for line in text.splitlines() if line.startswith("---")]
    assert heads == [
        "--- step 1: Answer, 3 tokens",
        "--- step 2: Judgement (about step 1), 3 tokens",
        "--- step 3: Reflection (about step 1), 3 tokens",
        "--- step 4: Judgement (about step 3), 3 tokens",
    ]
    assert text.count("I say") == 4
    assert text.count("[verdict: ") == 2


@pytest.mark.parametrize("out", [Terminal(), io.StringIO()])
def test_model_text_cannot_steer_the_terminal(out):
    evil = "\x1b]0;title\x07 \x1b[2J\r over \x9b31m \\boxed{4\x1b[1m}"
    text = shown(ScriptedEngine(lambda _prompt, _seed: evil), out, encode=None)
    assert "title" in text
    assert not set(text) & {"\x1b", "\x07", "\r", "\x9b", "\x08"}


def test_ordinary_text_is_printed_as_it_is():
    text = "Größe: 語 😀 — 5\u00a0€\n\tnext \\frac{1}{2}"
    assert printable(text) == text


def test_a_probability_that_is_not_0_is_not_shown_as_0():
    assert [show_probability(x) for x in (0.0, 1e-9, 0.0125, 0.5, 0.99999, 1.0)] == [
        "0.000", "< 0.001", "0.013", "0.500", "> 0.999", "1.000",
    ]  # fmt: skip
