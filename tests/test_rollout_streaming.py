"""Streaming: the pieces add up to the whole output's text, no piece shows half a character, a stop acts at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError, Stopped
from spark_kernel.models.policy import Policy, load_policy
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.records import Message
from spark_kernel.rollout.engine import Sampling
from spark_kernel.rollout.streaming import CONTEXT, WINDOW, IncrementalText, StreamingEngine, stream_one
from spark_kernel.rollout.transformers_engine import TransformersEngine
from tests.helpers.scripted_engine import ScriptedEngine
from tests.helpers.tiny_models import byte_tokenizer, save_talkative_llama, save_tiny_llama


def byte_fallback_tokenizer() -> PreTrainedTokenizerFast:
    """As in Llama 2: a leading space is dropped, and a byte that is no character decodes to one mark of its own."""
    vocab = {"<unk>": 0, **{f"<0x{byte:02X}>": byte + 1 for byte in range(256)}, "▁word": 257, "▁": 258, "é": 259}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], unk_token="<unk>", byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


TOKENIZERS = {"bytes": byte_tokenizer(), "byte fallback": byte_fallback_tokenizer()}


def decoder(name: str):
    return lambda ids: TOKENIZERS[name].decode(list(ids), skip_special_tokens=True)


def pieces_of(name: str, ids: list[int]) -> tuple[list[str], str]:
    decode = decoder(name)
    text = IncrementalText(decode)
    pieces = [text.push(token) for token in ids]
    whole = decode(ids)
    return [*pieces, text.rest(whole)], whole


def ids_of(name: str, text: str) -> list[int]:
    if name == "bytes":
        return list(TOKENIZERS[name](text, add_special_tokens=False)["input_ids"])
    words = {" word": 257, " ": 258, "é": 259}
    ids: list[int] = []
    while text:
        word = next((word for word in words if text.startswith(word)), None)
        ids += [words[word]] if word else [byte + 1 for byte in text[0].encode()]
        text = text[len(word or text[0]) :]
    return ids


texts = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" é語😀word")), max_size=120)


@settings(max_examples=60)
@given(st.sampled_from(sorted(TOKENIZERS)), texts)
def test_text_comes_out_whole_and_never_broken(name: str, text: str) -> None:
    pieces, whole = pieces_of(name, ids_of(name, text))
    assert whole == (text if name == "bytes" else text.removeprefix(" "))
    assert "".join(pieces) == whole
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(max_examples=60)
@given(st.lists(st.one_of(st.integers(0, 255), st.integers(128, 255)), max_size=3 * WINDOW))
def test_bytes_that_are_no_text_come_out_as_in_the_whole_output(ids: list[int]) -> None:
    pieces, whole = pieces_of("bytes", ids)
    assert "".join(pieces) == whole


def test_a_character_is_shown_with_its_last_byte() -> None:
    ids = TOKENIZERS["bytes"]("a😀b", add_special_tokens=False)["input_ids"]
    pieces, _ = pieces_of("bytes", ids)
    assert pieces == ["a", "", "", "", "😀", "b", ""]


def test_the_cost_of_a_token_does_not_grow_with_the_output() -> None:
    decoded = []

    def decode(ids):
        decoded.append(len(ids))
        return decoder("bytes")(ids)

    text = IncrementalText(decode)
    for _ in range(50):
        for token in TOKENIZERS["bytes"]("some words and 語 ", add_special_tokens=False)["input_ids"]:
            text.push(token)
    assert text.tokens == 50 * 19
    assert max(decoded) <= WINDOW + 1
    assert sum(decoded) < text.tokens * (WINDOW + CONTEXT)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TransformersEngine]:
    def engine(folder: Path) -> TransformersEngine:
        policy: Policy = load_policy(ModelSection(path=str(folder)))
        return TransformersEngine(policy)

    return {
        "tiny": engine(save_tiny_llama(tmp_path_factory.mktemp("tiny"))),
        "talkative": engine(save_talkative_llama(tmp_path_factory.mktemp("talkative"))),
    }


def recorder():
    pieces: list[tuple[str, int]] = []
    return pieces, lambda text, tokens: pieces.append((text, tokens))


def prompt(seed: int) -> Prompt:
    return Prompt(f"task-{seed}", (Message.of("user", "hello " * (seed % 3 + 1)),), (seed,))


@pytest.mark.parametrize("model", ["tiny", "talkative"])
@pytest.mark.parametrize("sampling", [Sampling(70), Sampling(70, temperature=0), Sampling(9, top_p=0.9, top_k=40)])
def test_a_streamed_output_is_the_sampled_one(engines, model: str, sampling: Sampling) -> None:
    engine = engines[model]
    assert isinstance(engine, StreamingEngine)
    lengths = set()
    for seed in range(6):
        pieces, on_text = recorder()
        streamed = stream_one(engine, prompt(seed), sampling, on_text)
        ((sampled,),) = engine.sample([prompt(seed)], sampling)
        assert (streamed.token_ids, streamed.text) == (sampled.token_ids, sampled.text)
        assert (streamed.logprobs, streamed.truncated) == (sampled.logprobs, sampled.truncated)
        assert "".join(text for text, _ in pieces) == sampled.text
        counts = [tokens for _, tokens in pieces]
        assert counts == sorted(counts)
        assert not counts or counts[-1] <= len(sampled.token_ids)
        lengths.add(len(sampled.token_ids))
    assert len(lengths) > 1 or model == "tiny"


def test_pieces_come_while_the_output_is_being_sampled(engines) -> None:
    log: list[str] = []
    engines["tiny"].stream(
        prompt(1), Sampling(30), lambda _text, tokens: log.append("text"), check_stop=lambda: log.append("token")
    )
    assert log.count("token") == 30
    assert log.index("text") < 5
    assert log[-1] == "text"


def test_a_stop_acts_at_the_next_token(engines) -> None:
    asked = []

    def check() -> None:
        if asked:
            raise Stopped

    with pytest.raises(Stopped):
        engines["tiny"].stream(prompt(1), Sampling(60), lambda _text, tokens: asked.append(tokens), check_stop=check)
    assert len(asked) == 1
    ((after,),) = engines["tiny"].sample([prompt(1)], Sampling(60))
    assert len(after.token_ids) == 60


def test_what_does_not_fit_is_refused(engines) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        engines["tiny"].stream(prompt(1), Sampling(5000), lambda *_: None)


def test_an_engine_that_cannot_stream_delivers_in_one_piece() -> None:
    engine = ScriptedEngine(lambda _prompt, _seed: "one two three")
    assert not isinstance(engine, StreamingEngine)
    pieces, on_text = recorder()
    completion = stream_one(engine, prompt(0), Sampling(9), on_text)
    assert pieces == [("one two three", 3)]
    assert completion.text == "one two three"
