"""The pins of an installation with a GPU (constraints/gpu.txt): resolved for CUDA Linux, and checked.

python scripts/gpu_constraints.py            write constraints/gpu.txt anew
python scripts/gpu_constraints.py --check    they still resolve, for every Python that the package claims

Resolved by uv from the packages' metadata, so it takes no GPU, downloads no wheel and runs on any machine. vLLM
decides: it pins torch and with it the CUDA libraries. Our other pins follow constraints/cpu.txt where vLLM's allow it.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "constraints" / "gpu.txt"
PREFERRED = ROOT / "constraints" / "cpu.txt"
EXTRAS = ("gpu", "dev", "bitsandbytes", "report")
PLATFORM = "x86_64-manylinux_2_28"
SECONDS = 300
HEADER = f"""\
# What installs together on Linux x86-64 with an NVIDIA GPU: vLLM with the torch and CUDA libraries that it pins.
# Made by `python scripts/gpu_constraints.py`, which resolves the extras {", ".join(EXTRAS)} for every Python
# that the package claims; not edited by hand. `make setup` uses this file where nvidia-smi works; by hand:
# pip install -e ".[gpu]" -c constraints/gpu.txt
"""


UNREACHABLE = ("Failed to fetch", "Request failed", "error sending request")


class ResolveError(Exception):
    """No set of versions satisfies everything; says what pip's users would see."""


class IndexUnreachableError(ResolveError):
    """Nothing was found out: the package index did not answer."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="resolve with the pins as they are, and write nothing")
    parser.add_argument(
        "--unless-offline", action="store_true", help="an index that does not answer is said, and no failure"
    )
    options = parser.parse_args(arguments)
    try:
        if options.check:
            check(PINS)
        else:
            PINS.write_text(written(resolve_for_all()), encoding="utf-8")
            print(f"{PINS}: written")
    except ResolveError as error:
        print(f"gpu_constraints: {error}", file=sys.stderr)
        return int(not (options.unless_offline and isinstance(error, IndexUnreachableError)))
    return 0


def resolve_for_all() -> list[str]:
    """Lines `name==version` or `name==version ; marker`, near the versions of constraints/cpu.txt.

    Raises:
        ResolveError: there are none.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pins.txt"
        # uv keeps the versions of its output file where it can.
        out.write_text("\n".join(f"{name}=={version}" for name, version in pins(PREFERRED).items()), encoding="utf-8")
        oldest = str(claimed_pythons()[0])
        run_uv("--python-version", oldest, "--universal", "--fork-strategy", "fewest", "-o", str(out))
        return [shortened(line) for line in out.read_text(encoding="utf-8").splitlines() if line]


def check(constraints: Path) -> None:
    """Resolve within the constraints for every Python that the package claims, as pip will there.

    Raises:
        ResolveError: they contradict each other or a package that is needed; or one that is needed has no pin.
    """
    pinned = pins(constraints).keys()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.txt"
        for python in claimed_pythons():
            where = ("--python-version", python, "--python-platform", PLATFORM)
            run_uv(*where, "-c", str(constraints), "-o", str(out))
            found = pins(out)
            if loose := sorted(found.keys() - pinned):
                raise ResolveError(f"{constraints.name} has no pin for what Python {python} needs: {', '.join(loose)}.")
            print(f"Python {python}: {len(found)} packages, vllm {found['vllm']}, torch {found['torch']}", flush=True)


def run_uv(*arguments: str) -> None:
    """`uv pip compile` for our extras.

    Raises:
        ResolveError: what it says, where it finds no versions.
        IndexUnreachableError: it could not look.
    """
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-header"]
    command += ["--no-annotate", *(word for extra in EXTRAS for word in ("--extra", extra)), *arguments]
    # uv looks where pip does, as far as the environment says so.
    alike = {"SSL_CERT_FILE": os.environ.get("PIP_CERT"), "UV_DEFAULT_INDEX": os.environ.get("PIP_INDEX_URL")}
    environment = {name: value for name, value in alike.items() if value} | os.environ
    how: dict[str, Any] = {"capture_output": True, "text": True, "timeout": SECONDS, "check": False}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, **how)
    except subprocess.TimeoutExpired:
        raise IndexUnreachableError(f"no answer within {SECONDS} s: is the package index reachable?") from None
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        raise IndexUnreachableError(f"the package index cannot be reached:\n{done.stderr}")
    if done.returncode:
        raise ResolveError(f"the extras {', '.join(EXTRAS)} do not resolve:\n{done.stderr}")


def pins(file: Path) -> dict[str, str]:
    """Versions by package of a constraints file; the last of those that hold for different Pythons."""
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    wanted = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(one.name): spec.version for one in wanted for spec in one.specifier if spec.operator == "=="
    }


def shortened(line: str) -> str:
    """A line of uv's without what holds on every machine that this file is for."""
    pin, _, marker = line.partition(" ; ")
    kept = [clause for clause in re.findall(r"python_full_version \S+ '[^']+'", marker) if "'3.14'" not in clause]
    return f"{pin} ; {' and '.join(kept)}" if kept else pin


def written(lines: Sequence[str]) -> str:
    """The file: our direct dependencies first, then what these bring along."""
    direct = set(direct_dependencies(EXTRAS))
    own = {name: [line for line in lines if (line.partition("==")[0] in direct) is name] for name in (True, False)}
    return "\n".join((HEADER, "# Direct dependencies", *own[True], "", "# What these bring along", *own[False])) + "\n"


def direct_dependencies(extras: Sequence[str]) -> Iterator[str]:
    """Names that pyproject.toml asks for, in the package itself and in these extras and those that they take in."""
    wanted = list(project()["dependencies"])
    for extra in extras:
        wanted += project()["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        if requirement.name == project()["name"]:
            yield from direct_dependencies(sorted(requirement.extras))
        else:
            yield canonicalize_name(requirement.name)


def claimed_pythons() -> list[str]:
    """The versions in the package's classifiers, oldest first."""
    return re.findall(r"Python :: (3\.\d+)", "\n".join(project()["classifiers"]))


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


if __name__ == "__main__":
    sys.exit(main())
