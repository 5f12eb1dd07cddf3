"""Finding and loading a model: hub id, folder, GGUF file, built-in or downloaded name."""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.models.devices import BFLOAT16_CAPABILITY, query_driver, why_no_cuda
from spark_kernel.models.encoder import PromptEncoder
from spark_kernel.models.grouped_attention import use_grouped_attention

BUILT_IN = {
    "builtin:starter": "starter",
    "builtin:starter-2-spark": "starter_2_spark",
    "builtin:starter-2": "starter_2",
}
FEWEST_FOR_BFLOAT16 = 5_000_000
"""Parameters from which a CPU with bfloat16 instructions is faster in bfloat16 (docs/sampling.md)."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, with its encoder.

    `model` is the plain Hugging Face model, before any adapter. `autocast`: the arithmetic runs in bfloat16 over
    float32 weights. `context_length`: most tokens of prompt and output together.
    """

    model: Any
    encoder: PromptEncoder
    device: torch.device
    autocast: bool
    context_length: int

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The precision in which sampling and training compute; both must use the same."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            yield


def models_folder() -> Path:
    """Where `workbench models get` puts models: $SPARK_MODELS, else spark-workbench/models in the user's cache."""
    if folder := os.environ.get("SPARK_MODELS"):
        return Path(folder).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "spark-workbench" / "models"


def resolve_model(path: str) -> str:
    """A model reference as a folder, a GGUF file, or else a hub id.

    Raises:
        ModelError: a path that does not exist, or an unknown built-in name.
    """
    if path.startswith("builtin:"):
        if path not in BUILT_IN:
            raise ModelError(f'There is no built-in model "{path}"; there is {", ".join(BUILT_IN)}.')
        return str(resources.files("spark_kernel.models") / BUILT_IN[path])
    if (models_folder() / path / "config.json").is_file():
        return str(models_folder() / path)
    local = Path(path).expanduser()
    if path.endswith(".gguf"):
        if not local.is_file():
            raise ModelError(f"There is no GGUF file {path}.")
        return str(local)
    if local.is_dir():
        if not (local / "config.json").is_file():
            raise ModelError(f"The folder {path} holds no config.json, so it is no Hugging Face model folder.")
        return str(local)
    looks_like_hub_id = path.count("/") == 1 and not path.startswith((".", "/", "~"))
    if not looks_like_hub_id:
        raise ModelError(
            f'There is no model "{path}": give a folder, a .gguf file, a hub id (owner/name), {", ".join(BUILT_IN)}, '
            "or a name that `workbench models list` shows (`workbench models get NAME` downloads one)."
        )
    return path


def pick_device(wanted: str) -> torch.device:
    """The torch device for a setting.

    Raises:
        ModelError: a device that this machine or this torch does not have; says why.
    """
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ModelError(f'model.device = "{wanted}" is refused: auto, cpu, cuda or cuda:N.') from None
    if device.type == "cuda" and not torch.cuda.is_available():
        why = why_no_cuda(query_driver())
        raise ModelError(f'model.device = "{wanted}", but torch finds no CUDA device here: {why}; or use cpu.')
    return device


def load_model(settings: ModelSection) -> LoadedModel:
    """Load model and encoder; dropout off, evaluation mode.

    Raises:
        ModelError: the model cannot be found, read, or used for chat.
    """
    source = resolve_model(settings.path)
    device = pick_device(settings.device)
    encoder, config = _load_encoder(settings, source)
    model: Any = _from_pretrained(settings, source, config, _weight_dtype(settings))
    model.to(device)
    model.eval()
    use_grouped_attention(model)
    encoder.count_as(model)
    return LoadedModel(
        model=model,
        encoder=encoder,
        device=device,
        autocast=autocasts(settings, device, sum(p.numel() for p in model.parameters())),
        context_length=_context_length(model.config),
    )


def computes_in_bfloat16(device: torch.device, parameters: int) -> bool:
    """Whether `dtype: auto` runs a model of this size in bfloat16: on a GPU or a CPU that has the instructions."""
    if device.type != "cpu":
        return device.type == "cuda" and has_bfloat16(device)
    able = torch.cpu.get_capabilities()
    return parameters >= FEWEST_FOR_BFLOAT16 and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def has_bfloat16(device: torch.device) -> bool:
    """Whether a CUDA device computes in bfloat16 itself."""
    return torch.cuda.get_device_capability(device) >= BFLOAT16_CAPABILITY


def autocasts(settings: ModelSection, device: torch.device, parameters: int) -> bool:
    """Whether the arithmetic is bfloat16 over weights of which some or all are float32.

    Beside `dtype: auto` that is so for adapters (float32) over bfloat16 weights on a GPU.
    """
    if settings.dtype == "auto":
        return computes_in_bfloat16(device, parameters)
    return settings.dtype == "bfloat16" and settings.lora.enabled and device.type == "cuda"


def load_encoder(settings: ModelSection) -> tuple[PromptEncoder, int]:
    """The encoder and the context length, for checks that come before the weights are loaded.

    Raises:
        ModelError: as `load_model`.
    """
    encoder, config = _load_encoder(settings, resolve_model(settings.path))
    return encoder, _context_length(config)


def load_skeleton(settings: ModelSection) -> nn.Module | None:
    """The network without weights, on torch's meta device: every shape and dtype, no memory.

    None where the stored weights are quantized, so that their size does not follow from the shapes.

    Raises:
        ModelError: as `load_model`.
    """
    from transformers import AutoConfig

    source = resolve_model(settings.path)
    with _explained(settings.path):
        config = AutoConfig.from_pretrained(_folder_of(source), **_keywords(settings, source))
        if getattr(config, "quantization_config", None) is not None:
            return None
        with torch.device("meta"):
            return _auto_class(config).from_config(
                config, dtype=_weight_dtype(settings), trust_remote_code=settings.trust_remote_code
            )


def _context_length(config: Any) -> int:
    """Most tokens of prompt and output together; without a bound in the configuration, practically none."""
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 2**31)


def _load_encoder(settings: ModelSection, source: str) -> tuple[PromptEncoder, Any]:
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    keywords = _keywords(settings, source)
    folder = _folder_of(source)
    with _explained(settings.path):
        config = AutoConfig.from_pretrained(folder, **keywords)
        tokenizer = AutoTokenizer.from_pretrained(folder, **keywords)
    processor = _load_processor(settings, folder) if getattr(config, "vision_config", None) is not None else None
    try:
        generation_eos = GenerationConfig.from_pretrained(folder, revision=settings.revision or "main").eos_token_id
    except OSError:  # no generation_config.json: the tokenizer's token has to do
        generation_eos = None
    listed = generation_eos if isinstance(generation_eos, list) else [generation_eos]
    eos_ids = dict.fromkeys(token for token in [*listed, tokenizer.eos_token_id] if token is not None)
    encoder = PromptEncoder(
        tokenizer,
        processor,
        tuple(eos_ids),
        settings.path,
        template_arguments=settings.chat_template_kwargs,
        thinking_tags=settings.thinking_tags,
    )
    return encoder, config


def _load_processor(settings: ModelSection, folder: str) -> Any:
    from transformers import AutoProcessor

    with _explained(settings.path):
        try:
            return AutoProcessor.from_pretrained(
                folder,
                revision=settings.revision or "main",
                trust_remote_code=settings.trust_remote_code,
                backend="torchvision" if _has_torchvision() else "pil",
            )
        except ImportError as error:
            raise ModelError(
                f"The image processor of {settings.path} needs a package that is missing here: {_one_line(error)}."
            ) from None


def _weight_dtype(settings: ModelSection) -> torch.dtype:
    """Weights that are trained are held in float32 unless asked otherwise; frozen ones on a GPU as they are used."""
    frozen_on_gpu = settings.dtype == "auto" and settings.lora.enabled and pick_device(settings.device).type == "cuda"
    return torch.bfloat16 if settings.dtype == "bfloat16" or frozen_on_gpu else torch.float32


def _auto_class(config: Any) -> Any:
    """The transformers class that a model of this configuration is loaded by."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    with_eyes = getattr(config, "vision_config", None) is not None
    return AutoModelForImageTextToText if with_eyes else AutoModelForCausalLM


def _from_pretrained(settings: ModelSection, source: str, config: Any, dtype: torch.dtype) -> nn.Module:
    auto = _auto_class(config)
    with _explained(settings.path), no_progress_bars():
        model = auto.from_pretrained(_folder_of(source), dtype=dtype, **_keywords(settings, source))
    if source.endswith(".gguf"):
        return _plain_copy(auto, model, dtype)
    return model


def _plain_copy(auto: Any, model: Any, dtype: torch.dtype) -> nn.Module:
    """A GGUF model as an ordinary one: as loaded it counts as quantized and refuses to be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = auto.from_config(config, dtype=dtype)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain


def _keywords(settings: ModelSection, source: str) -> dict[str, Any]:
    keywords: dict[str, Any] = {
        "revision": settings.revision or "main",
        "trust_remote_code": settings.trust_remote_code,
    }
    if source.endswith(".gguf"):
        keywords["gguf_file"] = Path(source).name
    return keywords


def _folder_of(source: str) -> str:
    return str(Path(source).parent) if source.endswith(".gguf") else source


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """transformers' bars for reading and writing weights off, and afterwards as they were."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _has_torchvision() -> bool:
    from transformers.utils.import_utils import is_torchvision_available

    return bool(is_torchvision_available())


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn what transformers raises for a missing, damaged or unreachable model into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:  # JSON errors are ValueErrors
        if path.count("/") == 1 and not Path(path).exists():
            raise ModelError(
                f"The model {path} is neither a folder here nor could it be fetched from the hub "
                f"({_one_line(error)}). Check the name and the network, or give a folder."
            ) from error
        raise ModelError(f"The model {path} cannot be loaded: {_one_line(error)}.") from error


def _one_line(error: BaseException) -> str:
    text = re.split(r"(?<=[a-z)'])\. ", " ".join(str(error).split()))[0]
    return textwrap.shorten(text, 200, placeholder=" ...").rstrip(".") or type(error).__name__
