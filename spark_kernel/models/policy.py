"""The policy: the one set of weights that is trained, and its version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spark_kernel.config.sections import LoraSection, ModelSection
from spark_kernel.errors import ModelError, StaleEngineError
from spark_kernel.models.adapter import Adapter
from spark_kernel.models.description import ModelDescription
from spark_kernel.models.group_forward import GroupForward
from spark_kernel.models.load import LoadedModel, load_model, no_progress_bars
from spark_kernel.models.prefix_form import choose_form
from spark_kernel.models.published_weights import PublishedWeights, Wanted
from spark_kernel.models.publishing import publish_weights
from spark_kernel.prompts.prompt import Prompt

SCORED_TOGETHER = 32
"""Prompts whose outputs are scored in one pass."""


class Policy:
    """A model that is being trained, with or without adapters.

    `network` is what computes (with peft: the wrapped model's inner model, adapters in place); `group_forward` is the
    one module through which it is run in training and scoring. `version` counts completed updates; in mid-update there
    is none.
    """

    def __init__(self, loaded: LoadedModel, lora: LoraSection = LoraSection(), seed: int = 0) -> None:
        self.loaded = loaded
        self.encoder = loaded.encoder
        self.device = loaded.device
        self._peft: Any | None = None
        self._version: int | None = 0
        if lora.enabled:
            self._peft = add_adapters(loaded.model, lora, seed)
        self.network: Any = self._peft.get_base_model() if self._peft is not None else loaded.model
        if lora.enabled and not lora.dora and loaded.autocast:
            _keep_inputs(self.network)
        self.group_forward = GroupForward(self.network)
        self.gradient_checkpointing = False
        for module in self.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            for name in ("attention_dropout", "dropout_p"):  # used in training mode without a module of its own
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)

    @property
    def version(self) -> int:
        """Completed updates.

        Raises:
            StaleEngineError: the weights are in mid-update.
        """
        if self._version is None:
            raise StaleEngineError("The policy is in mid-update: finish the update before sampling or scoring.")
        return self._version

    @property
    def description(self) -> ModelDescription:
        """What can be known of the model without its parameters."""
        return ModelDescription(self.encoder.name, self.encoder, self.loaded.context_length)

    def publish(self, wanted: Wanted = Wanted()) -> PublishedWeights:
        """The weights as they are, in the first wanted form that can be had.

        Raises:
            StaleEngineError: they are in mid-update.
            ModelError: none of the forms can be had.
        """
        return publish_weights(self, wanted)

    def begin_update(self) -> None:
        """From here to `finish_update` the weights have no version."""
        self._version = None

    def finish_update(self, version: int) -> None:
        """The weights are those of this version."""
        self._version = version

    @property
    def trainable(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Names and parameters that the optimizer moves."""
        return [(name, p) for name, p in self.network.named_parameters() if p.requires_grad]

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them, inside `recomputing`.

        Raises:
            ModelError: the architecture cannot.
        """
        try:
            self.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise ModelError(
                f"model.gradient_checkpointing is on, but {self.encoder.name} does not support it: switch it off."
            ) from error
        self.gradient_checkpointing = True

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Where gradients are taken: transformers recomputes activations only in training mode (dropout is 0)."""
        self.network.train(self.gradient_checkpointing)
        try:
            yield
        finally:
            self.network.eval()

    @contextmanager
    def initial(self) -> Iterator[Any]:
        """The network as it was at the start of the run, where adapters that began at zero can be switched off.

        Raises:
            ModelError: all weights are trained; a frozen copy is needed.
        """
        if self._peft is None:
            raise ModelError("All weights are trained: the initial policy needs a frozen copy.")
        with self._peft.disable_adapter():
            yield self.network

    @property
    def has_adapter(self) -> bool:
        """Whether adapters are trained rather than all weights."""
        return self._peft is not None

    def named_tensors(self, *, merged: bool = True) -> Iterator[tuple[str, Tensor]]:
        """Full weights under the base model's names, adapters merged or left out; the model itself is not touched."""
        layers = dict(self.network.named_modules()) if self._peft is not None else {}
        for name, tensor in self.network.state_dict().items():
            if "lora_" in name:
                continue
            module, inside, parameter = name.rpartition(".base_layer.")
            if inside and merged and parameter == "weight":
                tensor = _merged_weight(layers[module])
            yield (f"{module}.{parameter}" if inside else name), tensor

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the full weights, by the base model's names."""
        return {name: tuple(tensor.shape) for name, tensor in self.named_tensors(merged=False)}

    def adapter(self) -> Adapter | None:
        """The adapter, or None where all weights are trained."""
        if self._peft is None:
            return None
        from peft import get_peft_model_state_dict

        config = self._peft.peft_config["default"].to_dict()
        return Adapter(
            get_peft_model_state_dict(self._peft),
            {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()},
        )

    @torch.inference_mode()
    def score(self, prompts: Sequence[Prompt], outputs: Sequence[Sequence[Sequence[int]]]) -> list[list[list[float]]]:
        """Log-probabilities at temperature 1 of given output tokens: [prompt][output][T].

        Raises:
            StaleEngineError: the weights are in mid-update.
        """
        _ = self.version
        form = choose_form(self.network)
        results: list[list[list[float]]] = []
        for start in range(0, len(prompts), SCORED_TOGETHER):
            part = outputs[start : start + SCORED_TOGETHER]
            batch = form.batch(self.encoder, prompts[start : start + SCORED_TOGETHER], part, self.device)
            with self.loaded.arithmetic():
                logprobs, _entropy = self.group_forward(batch)
            flat = iter(logprobs.split([len(output) for group in part for output in group]))
            results += [[next(flat).tolist() for _ in group] for group in part]
        return results

    def save_description(self, folder: Path) -> None:
        """What an engine needs to build the network without its weights: configuration, tokenizer, processor."""
        self.network.config.save_pretrained(folder)
        self._save_tokenizer(folder)

    def save(self, folder: Path) -> None:
        """A Hugging Face folder: the whole model, or a peft adapter folder; safetensors, with the tokenizer."""
        owner = self._peft if self._peft is not None else self.network
        with no_progress_bars():
            owner.save_pretrained(folder, safe_serialization=True)
        self._save_tokenizer(folder)

    def load_adapter(self, folder: Path) -> None:
        """Put the adapter of a peft folder back.

        Raises:
            ModelError: it does not fit this model.
        """
        from peft import load_peft_weights, set_peft_model_state_dict

        result: Any = set_peft_model_state_dict(self._peft, load_peft_weights(str(folder), device="cpu"))
        if result.unexpected_keys:
            raise ModelError(f"The stored adapter is another model's: it has {result.unexpected_keys[0]}.")

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Put trained tensors back.

        Raises:
            ModelError: names or shapes differ from this model's.
        """
        own = dict(self.trainable)
        if own.keys() != tensors.keys():
            odd = sorted(own.keys() ^ tensors.keys())[:3]
            raise ModelError(f"The stored weights are another model's: they differ in {', '.join(odd)}.")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != tensors[name].shape:
                    raise ModelError(
                        f"The stored weights are another model's: {name} has shape {tuple(tensors[name].shape)}, "
                        f"not {tuple(parameter.shape)}."
                    )
                parameter.copy_(tensors[name])

    def _save_tokenizer(self, folder: Path) -> None:
        owner = self.encoder.processor if self.encoder.processor is not None else self.encoder.tokenizer
        owner.save_pretrained(folder)


def _keep_inputs(network: Any) -> None:
    """Let autocast alone decide the precision of an adapter's input: peft would keep a float32 copy of each."""
    from peft.tuners.lora import LoraLayer

    for module in network.modules():
        if isinstance(module, LoraLayer):
            module.cast_input_dtype_enabled = False


def _merged_weight(layer: Any) -> Tensor:
    """The weight of an adapted layer with its adapter merged; the layer keeps its own, to the last bit."""
    original = layer.base_layer.weight.detach().clone()
    layer.merge()
    try:
        return layer.base_layer.weight.detach().clone()
    finally:
        layer.unmerge()
        layer.base_layer.weight.data.copy_(original)


def load_policy(settings: ModelSection, *, seed: int = 0) -> Policy:
    """The model of the settings as a policy at version 0; `seed` draws the weights of new adapters.

    Raises:
        ModelError: it cannot be loaded, or no module matches the adapter's targets.
    """
    return Policy(load_model(settings), settings.lora, seed)


def add_adapters(model: Any, lora: LoraSection, seed: int) -> Any:
    """The model with fresh adapters in place, in float32; it computes as before.

    Raises:
        ModelError: no module matches the adapter's targets.
    """
    from peft import LoraConfig, get_peft_model

    targets: Any = list(lora.target_modules)
    if targets == ["all-linear"]:
        targets = "all-linear"
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=0.0,
        target_modules=targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return get_peft_model(model, config, autocast_adapter_dtype=True)
    except ValueError as error:
        if "arget modules" not in str(error):
            raise
        linear = sorted({n.rsplit(".", 1)[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)})
        raise ModelError(
            f"model.lora.target_modules = {list(lora.target_modules)} match no module of this model; it has "
            f"{', '.join(linear)} (or use all-linear)."
        ) from None
