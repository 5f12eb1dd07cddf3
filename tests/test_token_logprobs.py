"""Log-probabilities and entropies in chunks: equal to the plain way, and never more than a chunk of logits alive."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from spark_kernel.models import token_logprobs as head_module
from spark_kernel.models.token_logprobs import OutputHead, plain_logprobs, token_logprobs


def heads(size: int, vocabulary: int, dtype: torch.dtype) -> dict[str, OutputHead]:
    torch.manual_seed(0)
    plain, biased = (torch.nn.Linear(size, vocabulary, bias=bias, dtype=dtype) for bias in (False, True))
    wrapped = torch.nn.Sequential(torch.nn.Linear(size, vocabulary, dtype=dtype))
    return {
        "plain": OutputHead(plain),
        "biased": OutputHead(biased),
        "capped": OutputHead(plain, factor=2.0, divisor=3.0, cap=1.5),
        "wrapped": OutputHead(wrapped),
    }


def both(head: OutputHead, rows: int, chunk_rows: int, temperature: float, dtype: torch.dtype) -> list[list[Any]]:
    """Value, entropy and gradients, by the plain way and in chunks."""
    vocabulary = 11
    torch.manual_seed(1)
    hidden, targets = torch.randn(rows, 6, dtype=dtype), torch.randint(0, vocabulary, (rows,))
    weights = torch.randn(rows, dtype=dtype)
    results = []
    for chunked in (False, True):
        leaf = hidden.clone().requires_grad_()
        head.module.zero_grad()
        if chunked:
            logprobs, entropy = token_logprobs(
                leaf,
                targets,
                head,
                temperature=temperature,
                chunk_logits=chunk_rows * vocabulary,
                vocabulary=vocabulary,
            )
        else:
            logprobs, entropy = plain_logprobs(leaf, targets, head, temperature)
        assert not entropy.requires_grad
        (logprobs * weights).sum().backward()
        gradients = [parameter.grad.clone() for parameter in head.module.parameters() if parameter.grad is not None]
        results.append([logprobs.detach(), entropy, leaf.grad, *gradients])
    return results


@pytest.mark.parametrize("name", ["plain", "biased", "capped", "wrapped"])
@settings(max_examples=25)
@given(rows=st.integers(1, 9), chunk_rows=st.integers(1, 10), temperature=st.sampled_from([1.0, 0.7, 2.5]))
def test_equal_to_the_plain_way(name: str, rows: int, chunk_rows: int, temperature: float) -> None:
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        plain, chunked = both(heads(6, 11, dtype)[name], rows, chunk_rows, temperature, dtype)
        assert len(plain) == len(chunked) >= 4
        for expected, found in zip(plain, chunked, strict=True):
            torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_plain_is_what_softmax_says() -> None:
    head = heads(6, 11, torch.float64)["biased"]
    hidden, targets = torch.randn(4, 6, dtype=torch.float64), torch.tensor([0, 3, 10, 3])
    logprobs, entropy = plain_logprobs(hidden, targets, head, 0.5)
    for row in range(4):
        distribution = torch.distributions.Categorical(logits=head(hidden[row]) / 0.5)
        assert float(logprobs[row].detach()) == pytest.approx(float(distribution.log_prob(targets[row])))
        assert float(entropy[row]) == pytest.approx(float(distribution.entropy()))


def test_a_gradient_at_another_target_is_told_apart() -> None:
    """Negative control: a gradient scattered to the wrong token is noticed."""
    head = heads(6, 11, torch.float64)["plain"]
    leaf = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    gradients = []
    for targets in ([1, 2, 3], [1, 2, 4]):
        logprobs, _ = token_logprobs(leaf, torch.tensor(targets), head, chunk_logits=11, vocabulary=11)
        gradients.append(torch.autograd.grad(logprobs.sum(), leaf)[0])
    assert torch.equal(gradients[0][:2], gradients[1][:2])
    assert not torch.allclose(gradients[0][2], gradients[1][2])


def test_bfloat16_autocast_is_that_of_the_plain_way() -> None:
    head = OutputHead(torch.nn.Linear(16, 40, bias=False))
    hidden, targets = torch.randn(6, 16).bfloat16(), torch.randint(0, 40, (6,))
    gradients = []
    for chunked in (False, True):
        leaf = hidden.clone().requires_grad_()
        head.module.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if chunked:
                logprobs, _ = token_logprobs(leaf, targets, head, chunk_logits=80, vocabulary=40)
            else:
                logprobs, _ = plain_logprobs(leaf, targets, head, 1.0)
        assert logprobs.dtype == torch.float32
        logprobs.sum().backward()
        assert head.module.weight.grad is not None
        gradients.append((logprobs.detach(), leaf.grad, head.module.weight.grad.clone()))
    for expected, found in zip(*gradients, strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


class LargestAlive(TorchDispatchMode):
    """Elements of all tensors with a given last dimension that are alive at once: its largest value."""

    def __init__(self, width: int, *ignored: torch.Tensor) -> None:
        super().__init__()
        self.width, self.alive, self.largest = width, 0, 0
        self._storages = {tensor.untyped_storage()._cdata for tensor in ignored}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.dim() == 2 and tensor.shape[-1] == self.width:
                storage = tensor.untyped_storage()
                key, count = storage._cdata, tensor.numel()
                if key not in self._storages:
                    self._storages.add(key)
                    self.alive += count
                    self.largest = max(self.largest, self.alive)
                    weakref.finalize(storage, self._freed, key, count)
        return out

    def _freed(self, key: int, count: int) -> None:
        self._storages.discard(key)
        self.alive -= count


def peak_logits(vocabulary: int, chunk_logits: int | None, rows: int = 64) -> int:
    """The most elements of [n, V] tensors alive at once in a forward and a backward pass; None: the plain way."""
    head = OutputHead(torch.nn.Linear(4, vocabulary, bias=False))
    hidden, targets = torch.randn(rows, 4, requires_grad=True), torch.randint(0, vocabulary, (rows,))
    with LargestAlive(vocabulary, head.module.weight) as watch:
        if chunk_logits is None:
            logprobs, _ = plain_logprobs(hidden, targets, head, 1.0)
        else:
            logprobs, _ = token_logprobs(hidden, targets, head, chunk_logits=chunk_logits, vocabulary=vocabulary)
        logprobs.sum().backward()
    return watch.largest


def test_logits_alive_do_not_grow_with_the_vocabulary() -> None:
    chunk = 4 * 8_192
    small, large = peak_logits(8_192, chunk), peak_logits(32_768, chunk)
    assert small == large == 2 * chunk  # the logits of one chunk and their softmax
    assert peak_logits(32_768, None) >= 4 * peak_logits(8_192, None) * 0.9  # negative control: the plain way grows
    assert peak_logits(32_768, None) > 10 * large


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of a GPU, its kernels not compiled."""
    monkeypatch.setattr(head_module, "can_compile", lambda _device: True)
    monkeypatch.setattr(head_module, "compiled", lambda function: function)


@pytest.mark.parametrize("name", ["plain", "biased"])
@pytest.mark.parametrize(("rows", "chunk_rows"), [(7, 3), (7, 7), (1, 4)])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_way_of_a_gpu_is_equal_too(
    monkeypatch: pytest.MonkeyPatch, name: str, rows: int, chunk_rows: int, temperature: float
) -> None:
    as_on_a_gpu(monkeypatch)
    plain, chunked = both(heads(6, 11, torch.float64)[name], rows, chunk_rows, temperature, torch.float64)
    for expected, found in zip(plain, chunked, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_way_of_a_gpu_with_another_slope_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control, which also shows that the test above ran the GPU's way."""
    as_on_a_gpu(monkeypatch)
    original = head_module._slope
    monkeypatch.setattr(head_module, "_slope", lambda *arguments: 1.01 * original(*arguments))
    plain, chunked = both(heads(6, 11, torch.float64)["plain"], 7, 3, 1.0, torch.float64)
    assert not torch.allclose(plain[2], chunked[2], rtol=1e-3)


def test_under_autocast_the_head_computes_in_its_precision() -> None:
    """Hidden states that a norm in float32 left in float32 go through the head as they do in sampling."""
    head = OutputHead(torch.nn.Linear(16, 40, bias=False))
    hidden, targets = torch.randn(6, 16), torch.randint(0, 40, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = head(hidden)
        logprobs, _ = token_logprobs(hidden, targets, head, vocabulary=40)
    assert expected.dtype == torch.bfloat16
    exact = torch.log_softmax(expected.float(), dim=-1)[torch.arange(6), targets]
    torch.testing.assert_close(logprobs, exact, rtol=0, atol=1e-6)
    unrounded = torch.log_softmax(hidden @ head.module.weight.T, dim=-1)[torch.arange(6), targets]
    assert not torch.allclose(logprobs, unrounded, rtol=0, atol=1e-5)
