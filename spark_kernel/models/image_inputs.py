"""Images as model inputs, each processed once: kept by file, bounded by bytes, put together for any batch.

A processor is given one image at a time. What it makes of a whole batch is put together from that: the tokens of an
image take the place of the one token that stands for it, and pixel tensors are laid side by side. In which of two ways
a processor lays them out (`LAYOUTS`) is found out by comparing with its own output, once for each kind of batch; where
neither is equal, the processor itself is asked every time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from spark_kernel.prompts.prompt import Prompt

CACHE_BYTES = 2**29
"""Most bytes of processed images that are kept; the one in use may be larger."""
KNOWN_IMAGES = 10_000
"""Images of which it is remembered what tokens they become, after their tensors are gone."""
CLOSE = 1e-5
"""Largest difference of a pixel value that counts as equal: a processor may round otherwise in a batch."""

FileKey = tuple[str, int, int]
"""Path, time of change in nanoseconds, size: another image under the same name is another image."""


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """What an image becomes in a prompt. `ids` [N]; `types`: other figures per token, by name, [N] each; `shapes`: of
    its tensors."""

    ids: tuple[int, ...]
    types: Mapping[str, tuple[int, ...]]
    shapes: Mapping[str, tuple[int, ...]]


class ImageInputs:
    """Prompts with images as the tensors that a model's processor makes of them.

    Args:
        processor: the model's.
        pad_id: the token that fills prompts up on the left.
        text_of: a prompt as text, with one token for each image.
        ids_of: the same as token ids.
        files_of: a prompt's image files in the order in which its text shows them.
        open_image: decodes a file.
        cache_bytes: most bytes of tensors that are kept.
    """

    def __init__(
        self,
        processor: Any,
        *,
        pad_id: int,
        text_of: Callable[[Prompt], str],
        ids_of: Callable[[Prompt], tuple[int, ...]],
        files_of: Callable[[Prompt], list[Path]],
        open_image: Callable[[Path], Any],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._processor = processor
        self._pad_id = pad_id
        self._text_of, self._ids_of, self._files_of, self._open = text_of, ids_of, files_of, open_image
        self.cache_bytes = cache_bytes
        self._mark = getattr(processor, "image_token", None)
        self._tensors: OrderedDict[FileKey, dict[str, Tensor]] = OrderedDict()
        self._tokens: OrderedDict[FileKey, ImageTokens] = OrderedDict()
        self._held = 0
        self._layouts: dict[tuple[bool, bool, bool], Layout | None] = {}

    def token_ids(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids of a prompt, those of its images in their places."""
        if self._layout([prompt]) is None:
            return tuple(int(token) for token in self._by_processor([prompt])["input_ids"][0])
        return self._expanded(prompt)["input_ids"]

    def tensors(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Left-padded `input_ids` and `attention_mask` [B, T], and whatever else the processor makes."""
        layout = self._layout(prompts)
        return self._by_processor(prompts) if layout is None else self._put_together(prompts, layout)

    # --- one image

    def _known(self, prompt: Prompt) -> list[ImageTokens]:
        """What the images of a prompt become, in order."""
        return [self._tokens_of(path) for path in self._files_of(prompt)]

    def _tokens_of(self, path: Path) -> ImageTokens:
        key = _key(path)
        if key not in self._tokens:
            self._tensors_of(path)
        self._tokens.move_to_end(key)
        return self._tokens[key]

    def _tensors_of(self, path: Path) -> dict[str, Tensor]:
        """The tensors of one image alone, from the cache or by the processor."""
        key = _key(path)
        if key in self._tensors:
            self._tensors.move_to_end(key)
            return self._tensors[key]
        made = self._call([self._mark or ""], [[self._open(path)]])
        ids = made.pop("input_ids")
        made.pop("attention_mask")
        types = {name: made.pop(name) for name in list(made) if made[name].shape == ids.shape}
        self._tokens[key] = ImageTokens(
            tuple(ids[0].tolist()),
            {name: tuple(row[0].tolist()) for name, row in types.items()},
            {name: tuple(tensor.shape) for name, tensor in made.items()},
        )
        self._tensors[key] = made
        self._held += _size(made)
        while self._held > self.cache_bytes and len(self._tensors) > 1:
            self._held -= _size(self._tensors.popitem(last=False)[1])
        while len(self._tokens) > KNOWN_IMAGES:
            forgotten, _ = self._tokens.popitem(last=False)
            self._held -= _size(self._tensors.pop(forgotten, {}))
        return made

    # --- a batch

    def _layout(self, prompts: Sequence[Prompt]) -> Layout | None:
        """How this processor lays out a batch of this kind; None where it must be asked itself.

        Kinds: whether there are several prompts, whether each has one image, and whether tensors have to be filled up
        to a common shape.
        """
        if self._mark is None:
            return None
        images = [self._known(prompt) for prompt in prompts]
        shapes = {name: {tokens.shapes[name][1:] for row in images for tokens in row} for name in _names(images)}
        one_each, filled = all(len(row) == 1 for row in images), any(len(found) > 1 for found in shapes.values())
        kind = (len(prompts) > 1, one_each, filled)
        if kind not in self._layouts:
            own = self._by_processor(prompts)
            equal = (layout for layout in LAYOUTS if _equal(self._put_together(prompts, layout), own))
            self._layouts[kind] = next(equal, None)
        return self._layouts[kind]

    def _expanded(self, prompt: Prompt) -> dict[str, tuple[int, ...]]:
        """A prompt's token ids and the other figures per token, each image in the place of its mark."""
        mark = self._processor.tokenizer.convert_tokens_to_ids(self._mark)
        images = iter(self._known(prompt))
        names = _names([self._known(prompt)], types=True)
        rows: dict[str, list[int]] = {name: [] for name in ("input_ids", *names)}
        for token in self._ids_of(prompt):
            image = next(images, None) if token == mark else None
            rows["input_ids"] += (token,) if image is None else image.ids
            for name in names:
                rows[name] += (0,) if image is None else image.types[name]
        return {name: tuple(row) for name, row in rows.items()}

    def _put_together(self, prompts: Sequence[Prompt], layout: Layout) -> dict[str, Tensor]:
        rows = [self._expanded(prompt) for prompt in prompts]
        names = list(dict.fromkeys(name for row in rows for name in row))
        lengths = [len(row["input_ids"]) for row in rows]
        width = max(lengths)
        fill = dict.fromkeys(names, 0) | {"input_ids": self._pad_id}
        result = {
            name: torch.tensor(
                [
                    [fill[name]] * (width - length) + list(row.get(name, (0,) * length))
                    for row, length in zip(rows, lengths, strict=True)
                ]
            )
            for name in names
        }
        result["attention_mask"] = torch.tensor([[0] * (width - length) + [1] * length for length in lengths])
        tensors = [[self._tensors_of(path) for path in self._files_of(prompt)] for prompt in prompts]
        for name in list(dict.fromkeys(name for row in tensors for one in row for name in one)):
            result[name] = layout([[one[name] for one in row] for row in tensors])
        return result

    def _by_processor(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """All prompts through the processor, in one batch."""
        return self._call(
            [self._text_of(prompt) for prompt in prompts],
            [[self._open(path) for path in self._files_of(prompt)] for prompt in prompts],
        )

    def _call(self, texts: list[str], images: list[list[Any]]) -> dict[str, Tensor]:
        batch = self._processor(
            text=texts,
            images=images,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        return {name: tensor for name, tensor in batch.items() if isinstance(tensor, Tensor)}


Layout = Callable[[list[list[Tensor]]], Tensor]
"""Tensors of single images, by prompt, to one tensor."""


def _one_after_another(rows: list[list[Tensor]]) -> Tensor:
    """All images of all prompts along the first axis (Qwen-VL, LLaVA)."""
    return torch.cat(list(_filled([tensor for row in rows for tensor in row])))


def _by_prompt(rows: list[list[Tensor]]) -> Tensor:
    """[B, images, ...] (Idefics): a prompt's along the second axis, filled up to the most that one has."""
    if any(tensor.ndim < 2 or len(tensor) != 1 for row in rows for tensor in row):
        return torch.zeros(0)  # no such layout
    filled = _filled([tensor for row in rows for tensor in row])
    joined = [[next(filled) for _ in row] for row in rows]
    empty = next(tensor for row in joined for tensor in row)[:, :0]
    return torch.cat(list(_filled([torch.cat(row, dim=1) if row else empty for row in joined])))


LAYOUTS: tuple[Layout, ...] = (_one_after_another, _by_prompt)


def _filled(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """Filled up with zeros behind, on all axes but the first, to a common shape."""
    largest = [max(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True)]
    for tensor in tensors:
        missing = [(0, most - size) for most, size in zip(largest[1:], tensor.shape[1:], strict=True)]
        yield functional.pad(tensor, [amount for pair in reversed(missing) for amount in pair])


def _equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(
        tensor.shape == expected[name].shape
        and bool(((tensor.double() - expected[name].double()).abs() <= CLOSE).all())
        for name, tensor in found.items()
    )


def _names(images: Sequence[Sequence[ImageTokens]], *, types: bool = False) -> list[str]:
    found = (tokens.types if types else tokens.shapes for row in images for tokens in row)
    return list(dict.fromkeys(name for names in found for name in names))


def _key(path: Path) -> FileKey:
    facts = path.stat()
    return str(path), facts.st_mtime_ns, facts.st_size


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
