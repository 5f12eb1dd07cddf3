"""Thinking: which part of an output counts, what is recorded of it, and that no judge is shown any."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.policy import load_policy
from spark_kernel.prompts.build import pointwise_task, reflection_task, show
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.thinking import TAGS, final_part, opened_thought
from spark_kernel.prompts.verdicts import read_answer, read_verdict
from spark_kernel.records import Message, Origin, Parse, Problem, Rollout, Score, View
from spark_kernel.rollout.engine import Completion, Sampling
from spark_kernel.rollout.transformers_engine import TransformersEngine
from spark_kernel.rollout.vllm_requests import Output, completions
from spark_kernel.test_time.verdict_probability import verdict_opening
from tests.helpers.tiny_models import CHAT_TEMPLATE, byte_tokenizer, save_tiny_llama

OPENS = CHAT_TEMPLATE.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
SWITCHED = CHAT_TEMPLATE.replace(
    "assistant\n{% endif",
    "assistant\n<think>\n{% if enable_thinking is defined and not enable_thinking %}\n</think>\n\n{% endif %}{% endif",
)
CHANNELS = (
    r"<|channel|>analysis<|message|>Maybe \boxed{7}?<|end|><|start|>assistant<|channel|>final<|message|>So \boxed{8}."
)


@pytest.mark.parametrize(
    ("text", "final"),
    [
        *((f"{tags.opening}a {tags.closing}b", "b") for tags in TAGS),
        *((f"{tags.opening}a", "") for tags in TAGS),
        *((f"a{tags.closing}b", "b") for tags in TAGS),
        (CHANNELS, r"So \boxed{8}."),
        (CHANNELS.partition("<|start|>")[0], ""),
        (CHANNELS + "<|return|>", r"So \boxed{8}."),
        ("<|channel|>commentary to=tool<|message|>{}<|call|>", ""),
        ("<|channel|>final <|constrain|>json<|message|>x", "x"),
        ("<think>a [THINK]b</think>c", "c"),
        ("<think>a</thinking>b", ""),
        ("x <thinking>a</thinking>y <think>b</think>z", "x y z"),
        ("no thoughts", "no thoughts"),
    ],
)
def test_the_final_part_of_an_output(text: str, final: str) -> None:
    assert final_part(text) == final


@given(st.lists(st.sampled_from([tag for t in TAGS[:4] for tag in (t.opening, t.closing)] + ["a", "b "]), max_size=12))
def test_what_is_final_has_no_thinking_left(pieces: list[str]) -> None:
    final = final_part("".join(pieces))
    assert final_part(final) == final


def test_many_tags_are_read_in_linear_time() -> None:
    """Two hundred thousand of them: a quadratic reading would not end."""
    assert final_part("<think>" * 200_000) == ""
    assert final_part("</think>" * 200_000 + "x") == "x"
    assert final_part("<|channel|>" * 200_000) == ""


@pytest.mark.parametrize(
    ("ending", "opened"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<|im_start|>assistant\n<think>\n\n</think>\n\n", ""),
        ("[INST]", ""),
        ("<|assistant|>\n[THINK]", "[THINK]"),
    ],
)
def test_a_thought_that_the_template_opens(ending: str, opened: str) -> None:
    assert opened_thought(ending) == opened
    assert final_part(r"Maybe \boxed{7}", opened) == ("" if opened else r"Maybe \boxed{7}")


def saved_encoder(
    folder: Path, template: str, special: tuple[str, ...] = (), **settings: Mapping[str, object]
) -> tuple[PromptEncoder, TransformersEngine]:
    """A tiny model whose tokenizer has this template and these special tokens, and its engine."""
    tokenizer = byte_tokenizer()
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    tokenizer.chat_template = template
    save_tiny_llama(folder, tokenizer=tokenizer)
    policy = load_policy(ModelSection(path=str(folder), **settings))  # type: ignore[arg-type]
    return policy.encoder, TransformersEngine(policy)


def recorded(encoder: PromptEncoder, text: str, ended: bool = True) -> str:
    """The text that is recorded of an output with these characters and special tokens, by either engine."""
    ids = [*encoder.tokenizer(text, add_special_tokens=False)["input_ids"], *([encoder.eos_ids[0]] if ended else [])]
    (text_here,) = encoder.decode([ids])
    prompt = Prompt("t", (Message.of("user", "?"),), (1,))
    ((by_vllm,),) = completions(encoder, [prompt], [Output(tuple(ids), (0.0,) * len(ids), ended)], 0.0)
    assert by_vllm.text == text_here
    return text_here


@pytest.mark.parametrize("special", [(), ("<think>", "</think>")])
def test_tags_stay_in_the_text_and_ends_do_not(tmp_path: Path, special: tuple[str, ...]) -> None:
    encoder, _ = saved_encoder(tmp_path, CHAT_TEMPLATE, special)
    whole = r"<think>At first \boxed{Yes}, but</think> \boxed{No}"
    assert recorded(encoder, f"{whole}<|im_end|><|pad|>") == whole
    assert read_verdict(recorded(encoder, whole), ("Yes", "No")).verdict == "No"
    assert read_answer(recorded(encoder, r"<think>Maybe \boxed{7}? Let me", ended=False)) is None


def test_the_marks_of_channels_stay_and_other_special_tokens_do_not(tmp_path: Path) -> None:
    marks = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
    encoder, _ = saved_encoder(tmp_path / "channels", CHAT_TEMPLATE, marks)
    assert recorded(encoder, CHANNELS) == CHANNELS
    assert read_answer(CHANNELS) == "8"
    plain, _ = saved_encoder(tmp_path / "plain", CHAT_TEMPLATE, ("<|end|>", "<think>"))
    assert recorded(plain, "<think>x<|end|>y") == "<think>xy"  # without channels it ends a turn and is no mark


def test_a_thought_that_the_prompt_opened_begins_the_text(tmp_path: Path) -> None:
    encoder, engine = saved_encoder(tmp_path, OPENS, ("<think>", "</think>"))
    assert encoder.opened_thought == "<think>\n"
    assert read_answer(recorded(encoder, r"Maybe \boxed{7}? Let me check", ended=False)) is None
    closed = recorded(encoder, r"Maybe \boxed{8}</think> \boxed{7}")
    assert (closed, read_answer(closed)) == ("<think>\n" + r"Maybe \boxed{8}</think> \boxed{7}", "7")
    assert encoder.output_ids(closed) == encoder.text_ids(r"Maybe \boxed{8}</think> \boxed{7}")
    prompt = Prompt("t", (Message.of("user", "What is 1 + 1?"),), (3,))
    ((sampled,),) = engine.sample([prompt], Sampling(20))
    assert sampled.text == "<think>\n" + encoder.decode_pieces([sampled.token_ids])[0]
    pieces: list[str] = []
    streamed = engine.stream(prompt, Sampling(20), lambda piece, _: pieces.append(piece))
    assert "".join(pieces) == streamed.text == sampled.text


def test_a_question_that_names_a_tag_opens_no_thought(tmp_path: Path) -> None:
    encoder, _ = saved_encoder(tmp_path, CHAT_TEMPLATE)
    assert "<think>" in encoder.chat_text([Message.of("user", "What does <think> mean?")])
    assert encoder.opened_thought == ""


def test_own_tags_are_a_setting_and_are_recorded_as_the_usual_ones(tmp_path: Path) -> None:
    tags = {"<scratch>": "</scratch>"}
    template = OPENS.replace("<think>", "<scratch>")
    encoder, _ = saved_encoder(tmp_path, template, ("<scratch>", "</scratch>"), thinking_tags=tags)
    text = recorded(encoder, r"\boxed{7}</scratch> \boxed{8}")
    assert text == "<think>\n" + r"\boxed{7}</think> \boxed{8}"
    assert read_answer(text) == "8"
    assert encoder.output_ids(text) == encoder.text_ids(r"\boxed{7}</scratch> \boxed{8}")
    assert read_answer(r"<scratch>\boxed{7}</scratch> no") == "7"  # without the setting it is a text like any other
    with pytest.raises(ValueError, match="an opening tag needs a closing one"):
        ModelSection(thinking_tags={"<a>": "<a>"})


@pytest.mark.parametrize("opening", ["<think>", "[THINK]", "<|channel|>analysis<|message|>"])
def test_no_prompt_shows_thinking(opening: str) -> None:
    closing = {"<think>": "</think>", "[THINK]": "[/THINK]"}.get(
        opening, "<|end|><|start|>assistant<|channel|>final<|message|>"
    )
    text = rf"{opening}secret \boxed{{9}}{closing}It is \boxed{{7}}."
    problem = Problem("p", "What?", "7", "exact")
    rollout = Rollout("r", "t", 0, 0, (), (), text, False, score=Score(1.0, True, Parse.OK, "7"))
    for view in View:
        for build in (pointwise_task, reflection_task):
            task = build(problem, rollout, origin=Origin.SOLVE, view=view, mixed=False, seed=0, round=1)
            asked = task.messages[-1].text
            assert "secret" not in asked
            assert "7" in asked
    assert show(f"{opening}secret, cut off", View.FULL) == "(no answer)"


def test_the_probability_is_read_at_a_box_outside_thoughts() -> None:
    assert verdict_opening(r"\boxed{No} <think>\boxed{Yes}</think>", ("Yes", "No")) == r"\boxed{"


def test_what_a_template_is_given_decides_whether_it_opens_a_thought(tmp_path: Path) -> None:
    encoder, _ = saved_encoder(tmp_path, SWITCHED)
    assert encoder.opened_thought == "<think>\n"
    off = load_policy(ModelSection(path=str(tmp_path), chat_template_kwargs={"enable_thinking": False})).encoder
    assert off.opened_thought == ""
    assert off.chat_text([Message.of("user", "?")]).endswith("</think>\n\n")


def test_an_output_without_any_thought_is_as_before(tmp_path: Path) -> None:
    encoder, engine = saved_encoder(tmp_path, CHAT_TEMPLATE)
    ((sampled,),) = engine.sample([Prompt("t", (Message.of("user", "?"),), (1,))], Sampling(9))
    assert isinstance(sampled, Completion)
    plain = encoder.tokenizer.batch_decode([list(sampled.token_ids)], skip_special_tokens=True)[0]
    assert sampled.text == plain
    assert torch.isfinite(torch.tensor(sampled.logprobs)).all()


def test_arguments_that_the_program_decides_are_refused() -> None:
    from spark_kernel.config import validate_config

    with pytest.raises(InputError, match=r"model.chat_template_kwargs .* add_generation_prompt cannot be given"):
        validate_config({"model": {"chat_template_kwargs": {"add_generation_prompt": False}}})
