r"""The starter's tokenizer: byte-level BPE in which every integer from 0 to 999 is one token.

A space before a number belongs to what stands before it (" add " + "25", " = " + "42"), so a number has the same
token with and without a space. Longer digit runs are cut into threes from the left. A LaTeX command keeps its brace
(`\boxed{`) and a tag its line break, which makes prompts short. Any UTF-8 text survives a round trip, by bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
SPECIAL = (PAD, START, END)
PIECES = "|".join(
    (
        r"[0-9]{1,3}",
        r"\\[A-Za-z]+\{?",
        r"</?[A-Za-z_]+>\n?",
        r" ?\p{L}+(?: (?=[0-9]))?",
        r" ?[^\s\p{L}0-9\\<]+(?: (?=[0-9]))?",
        r"\s+(?!\S)",
        r"\s+",
    )
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MAX_TOKENS = 1024


def train_tokenizer(texts: Iterable[str], word_tokens: int) -> Tokenizer:
    """A tokenizer of the special tokens, 256 bytes, the numbers 10 to 999 and about `word_tokens` pieces of words."""
    merges, pieces = _learn_merges(texts, word_tokens)
    vocabulary = {token: i for i, token in enumerate(SPECIAL)}
    for token in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary[token] = len(vocabulary)
    number_merges = []
    for number in range(10, 1000):
        digits = str(number)
        vocabulary[digits] = len(vocabulary)
        # Both ways to cut: whichever pair inside "321" is merged first, the whole is reached.
        cuts = [(digits[:i], digits[i:]) for i in range(1, len(digits))]
        number_merges += [(a, b) for a, b in cuts if b == "0" or not b.startswith("0")]
    for token in pieces:
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=number_merges + merges))
    tokenizer.pre_tokenizer = _splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer


def for_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer as transformers saves and loads it, with its chat template."""
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def prompt_text(user: str) -> str:
    """One user message and the opening of the answer, as CHAT_TEMPLATE renders them."""
    return f"{START}user\n{user}{END}\n{START}assistant\n"


def _splitter() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _learn_merges(texts: Iterable[str], word_tokens: int) -> tuple[list[tuple[str, str]], list[str]]:
    """The merges that BPE learns from the texts with digits left out, and the tokens they make."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.Split(Regex("[0-9]"), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=len(alphabet) + word_tokens, initial_alphabet=alphabet, show_progress=False, min_frequency=2
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    return merges, [a + b for a, b in merges]
