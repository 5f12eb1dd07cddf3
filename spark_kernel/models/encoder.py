"""From messages to token ids, positions and model inputs, for text models and vision-language models alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spark_kernel.errors import InputError, ModelError
from spark_kernel.models.image_inputs import ImageInputs
from spark_kernel.models.positions import PositionRule, Positions, TextPositions, on_all_axes, position_rule
from spark_kernel.prompts.prompt import Prompt
from spark_kernel.prompts.thinking import marks_among, opened_thought, own_tags, recorded_tags
from spark_kernel.records import ImagePart, Message, TextPart

ENCODING_CACHE = 20_000
MAX_IMAGE_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Left-padded prompts as model inputs.

    `input_ids`, `attention_mask`: [B, T]. `positions`: of the prompts and of what follows them. `images`: the
    processor's image tensors, empty without images. `lengths`: real tokens of each prompt [B].
    """

    input_ids: Tensor
    attention_mask: Tensor
    positions: Positions
    images: Mapping[str, Tensor]
    lengths: tuple[int, ...]

    def model_inputs(self) -> dict[str, Tensor]:
        """The keyword arguments of the model's forward pass."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "position_ids": self.positions.prompt,
            **self.images,
        }


class PromptEncoder:
    """A tokenizer, the image processor of a model that has eyes, and how the network counts positions.

    Text that happens to spell a special token (a candidate answer with "<|im_end|>" or "<image>" in it) is model
    or user text, not structure: it is broken apart before the chat template is applied.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template and an end-of-sequence token.
        processor: the model's processor where it reads images, else None.
        eos_ids: every token that ends an output.
        name: the model's, for messages.
        template_arguments: what the chat template is given besides the messages, such as `enable_thinking`.
        thinking_tags: the model's own thinking tags, from opening to closing, besides those that are known.

    Raises:
        ModelError: no chat template, or no end-of-sequence token.
    """

    def __init__(
        self,
        tokenizer: Any,
        processor: Any | None,
        eos_ids: Sequence[int],
        name: str,
        *,
        template_arguments: Mapping[str, Any] | None = None,
        thinking_tags: Mapping[str, str] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.processor = processor
        self.eos_ids = tuple(eos_ids)
        self.name = name
        template_owner = processor if processor is not None else tokenizer
        if not getattr(template_owner, "chat_template", None):
            raise ModelError(
                f"The model {name} has no chat template, so its prompts cannot be written: use an instruction-tuned "
                "model, or add a chat_template.jinja to its folder."
            )
        if not self.eos_ids:
            raise ModelError(
                f"The tokenizer of {name} has no end-of-sequence token, so outputs would never end: set eos_token in "
                "its tokenizer_config.json or eos_token_id in generation_config.json."
            )
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.eos_ids[0]
        specials = set(tokenizer.all_special_tokens)
        specials |= {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        if processor is not None and getattr(processor, "image_token", None):
            specials.add(str(processor.image_token))
        self._template_arguments = dict(template_arguments or {})
        self._thinking_tags = dict(thinking_tags or {})
        self._kept = marks_among(specials, self._thinking_tags)
        self._specials = sorted((token for token in specials if len(token) > 1), key=len, reverse=True)
        self._rule: PositionRule = TextPositions()
        self._images = None if processor is None else self._image_inputs(processor)
        self._ids_of = lru_cache(maxsize=ENCODING_CACHE)(self._encode_text)

    def _image_inputs(self, processor: Any) -> ImageInputs:
        return ImageInputs(
            processor,
            pad_id=self.pad_id,
            text_of=lambda prompt: self.chat_text(prompt.messages),
            ids_of=self.unexpanded_ids,
            files_of=self._placed,
            open_image=_open,
        )

    @property
    def reads_images(self) -> bool:
        """Whether the model takes images."""
        return self.processor is not None

    def count_as(self, network: Any) -> None:
        """Take positions as this network wants them; before that they are text positions."""
        self._rule = position_rule(network)

    def chat_text(self, messages: Sequence[Message]) -> str:
        """The messages under the chat template, up to where the assistant begins."""
        return self._templated(messages, add_generation_prompt=True)

    @cached_property
    def opened_thought(self) -> str:
        """What the chat template ends in where it opens a thought, as it stands before recorded texts; else empty."""
        probe = (Message.of("user", "?"),)
        begun, before = self.chat_text(probe), self._templated(probe, add_generation_prompt=False)
        same = next((i for i, (a, b) in enumerate(zip(begun, before, strict=False)) if a != b), len(before))
        written = begun[same:]
        return recorded_tags(opened_thought(written, self._thinking_tags), self._thinking_tags)

    def prompt_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids of a prompt, image tokens included."""
        if not prompt.images:
            return self._ids_of(prompt.messages)
        return self._seeing(prompt).token_ids(prompt)

    def unexpanded_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids of a prompt with one token for each image: for an engine that expands images itself."""
        return self._ids_of(prompt.messages)

    def count_tokens(self, prompt: Prompt) -> int:
        """The length of a prompt in tokens."""
        return len(self.prompt_ids(prompt))

    def collate(self, prompts: Sequence[Prompt], device: torch.device) -> PromptBatch:
        """Left-padded model inputs for some prompts.

        Raises:
            InputError: images for a model without eyes.
        """
        if any(prompt.images for prompt in prompts):
            batch = self._seeing(next(prompt for prompt in prompts if prompt.images)).tensors(prompts)
            mask = batch.pop("attention_mask").to(device)
            ids = batch.pop("input_ids").to(device)
            extras = {name: tensor.to(device) for name, tensor in batch.items()}
        else:
            rows = [self.prompt_ids(prompt) for prompt in prompts]
            width = max(len(row) for row in rows)
            ids = torch.tensor([[self.pad_id] * (width - len(row)) + list(row) for row in rows], device=device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
            extras = {}
        positions = self._rule.positions(ids, mask, extras)
        return PromptBatch(
            ids, mask, positions, self._rule.model_inputs(extras), tuple(int(n) for n in mask.sum(dim=1))
        )

    def step_positions(self, places: Tensor) -> Tensor:
        """Where the next token of each row stands, from its place [B]: [B, 1], or [A, B, 1]."""
        return on_all_axes(places.unsqueeze(1), self._rule.axes)

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Outputs' token ids as the texts that are recorded.

        A text begins with the thought that the chat template opened, if it does; special tokens are left out, but for
        those that mark thinking; the model's own tags are written as `<think>` and `</think>`.
        """
        texts = self.decode_pieces(rows)
        return [self.opened_thought + recorded_tags(text, self._thinking_tags) for text in texts]

    def decode_pieces(self, rows: Sequence[Sequence[int]]) -> list[str]:
        """Token ids as text as the model wrote it: special tokens left out, but for those that mark thinking."""
        if not self._kept:
            return [str(t) for t in self.tokenizer.batch_decode([list(row) for row in rows], skip_special_tokens=True)]
        kept = [[token for token in row if token not in self._dropped_ids] for row in rows]
        return [str(text) for text in self.tokenizer.batch_decode(kept, skip_special_tokens=False)]

    def output_ids(self, text: str) -> tuple[int, ...]:
        """The token ids of a recorded output, or of its beginning, as they follow the prompt."""
        return self.text_ids(own_tags(text.removeprefix(self.opened_thought), self._thinking_tags))

    def text_ids(self, text: str) -> tuple[int, ...]:
        """The token ids of a bare piece of text, without special tokens added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _dropped_ids(self) -> frozenset[int]:
        """Special tokens that leave no trace in a text: those that mark no thinking, and those that end an output."""
        ids = {int(token) for token in self.tokenizer.all_special_ids}
        ids |= {int(i) for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = {int(i): str(token) for i, token in self.tokenizer.added_tokens_decoder.items()}
        ended = {i for i in (*self.eos_ids, self.pad_id) if i in ids}
        return frozenset({i for i in ids if named.get(i) not in self._kept} | ended)

    def _templated(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        chat = [self._harmless(message).to_chat() for message in messages]
        owner = self.processor if self.processor is not None else self.tokenizer
        if self.processor is not None:
            chat = [_with_parts(message) for message in chat]
        return str(
            owner.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=add_generation_prompt, **self._template_arguments
            )
        )

    def _encode_text(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        return self.text_ids(self.chat_text(messages))

    def _seeing(self, prompt: Prompt) -> ImageInputs:
        """What turns images into tensors.

        Raises:
            InputError: this model has no eyes.
        """
        if self._images is None:
            raise InputError(
                f"The model {self.name} reads no images, but {prompt.task_id} has some: use a vision-language model."
            )
        return self._images

    def open_images(self, prompt: Prompt) -> list[Any]:
        """The prompt's images, decoded, in the order in which its messages show them."""
        return [_open(path) for path in self._placed(prompt)]

    def _placed(self, prompt: Prompt) -> list[Path]:
        """The image files in the order in which the messages show them."""
        return [
            prompt.images[part.index]
            for message in prompt.messages
            for part in message.parts
            if isinstance(part, ImagePart)
        ]

    def _harmless(self, message: Message) -> Message:
        parts = tuple(TextPart(self._broken(p.text)) if isinstance(p, TextPart) else p for p in message.parts)
        return Message(message.role, parts)

    def _broken(self, text: str) -> str:
        for token in self._specials:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


def _open(path: Path) -> Any:
    """A decoded image."""
    from spark_kernel.problems.images import open_image  # needs PIL, which a text-only machine may lack

    return open_image(path, MAX_IMAGE_PIXELS)


def _with_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Processors' chat templates expect a list of parts even where there is only text."""
    if isinstance(message["content"], str):
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
    return message
