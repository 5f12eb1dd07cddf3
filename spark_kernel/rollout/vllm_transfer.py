"""Full weights to a running vLLM server through vLLM's own weight transfer: over NCCL, from GPU to GPU, no file."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from spark_kernel.errors import InputError
from spark_kernel.rollout.vllm_endpoint import ServerUnavailableError, VllmEndpoint
from spark_kernel.rollout.vllm_requests import one_line

BACKEND = "nccl"
TRANSFER_FLAGS = '--weight-transfer-config \'{"backend": "nccl"}\''
"""What a server must be started with besides `vllm_endpoint.START_FLAGS`."""


class Tensors(Protocol):
    """What is transferred: the same names, shapes and order every time it is iterated."""

    def described(self) -> Sequence[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order of iteration."""
        ...

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and tensors, one after the other."""
        ...


class Transfer(Protocol):
    """An open way to a server."""

    def send(self) -> None:
        """Replace its weights by those that the tensors give now."""
        ...

    def close(self) -> None:
        """Give the connection up."""
        ...


class NcclTransfer:
    """vLLM's trainer side of a transfer to one server, which is rank 1 and up of a group whose rank 0 is this process.

    Every tensor goes in the precision of the server's weights. The server takes part in every step, so a server that
    dies in mid-transfer leaves the group unusable: open a new one.

    Args:
        endpoint: the server, started with `TRANSFER_FLAGS`.
        tensors: what is sent; it must give CUDA tensors.
        dtype: of the server's weights, as torch names it.
        address: of this machine, as the server reaches it; None: as vLLM finds it.

    Raises:
        InputError: vLLM is not installed here, or has no such transfer.
        ServerUnavailableError: the group could not be formed.
    """

    def __init__(self, endpoint: VllmEndpoint, tensors: Tensors, dtype: str, address: str | None = None) -> None:
        import torch

        try:
            from vllm.distributed.weight_transfer import nccl_engine
            from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource
            from vllm.utils.network_utils import get_ip
        except ImportError as error:
            raise InputError(
                f'rollout.server.transfer = "nccl" needs vLLM 0.32 where training runs ({error}): install it, or use '
                '"folder".'
            ) from None
        precision = getattr(torch, dtype)

        class Source(WeightSource):
            """The tensors in the server's precision."""

            def metadata(self) -> list[Any]:
                return [ParamMeta(name, precision, shape) for name, shape in tensors.described()]

            def __iter__(self) -> Iterator[tuple[str, Any]]:
                return ((name, tensor.detach().to(precision)) for name, tensor in tensors)

        self._url = endpoint.url
        info = nccl_engine.NCCLTrainerInitInfo(
            rank=0,
            master_address=address or get_ip(),
            master_port=_free_port(),
            world_size=1 + endpoint.workers(),
        )
        try:
            self._engine = nccl_engine.NCCLTrainerWeightTransferEngine.trainer_init(
                info, client=endpoint, source=Source()
            )
        except RuntimeError as error:  # torch's and NCCL's own
            raise self._failed("could not be joined for a transfer", error) from error

    def send(self) -> None:
        """Replace the server's weights.

        Raises:
            ServerUnavailableError: the server or the transfer failed.
        """
        try:
            self._engine.send_weights()
        except (RuntimeError, ValueError) as error:
            raise self._failed("got no whole transfer", error) from error

    def close(self) -> None:
        """Leave the group; calling it twice is fine."""
        self._engine.shutdown()

    def _failed(self, what: str, error: Exception) -> ServerUnavailableError:
        return ServerUnavailableError(f"The vLLM server at {self._url} {what} over NCCL ({one_line(str(error))})")


def check_transfer(url: str, backend: str | None, device: str) -> None:
    """Whether weights can go over NCCL.

    Args:
        url: the server's address, for the message.
        backend: what the server says of its transfer; None: it has none.
        device: the type of the learner's device.

    Raises:
        InputError: no GPU on this side, or a server that is not set up for it.
    """
    if device != "cuda":
        raise InputError(
            f'rollout.server.transfer = "nccl" goes from GPU to GPU, and training is on {device}: use "folder".'
        )
    if backend != BACKEND:
        found = "no weight transfer" if backend is None else f"weight transfer by {backend}"
        raise InputError(
            f"The server at {url} has {found}: start it with {TRANSFER_FLAGS}, or set rollout.server.transfer = "
            '"folder".'
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
