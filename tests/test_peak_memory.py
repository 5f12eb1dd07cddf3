"""The peak of memory is this process's own, and grows with what it holds."""

from __future__ import annotations

import subprocess
import sys

from spark_kernel.training.peak_memory import peak_memory


def test_the_peak_grows_with_what_is_held() -> None:
    before = peak_memory()["process"]
    held = bytearray(300 << 20)
    for place in range(0, len(held), 4096):
        held[place] = 1
    assert peak_memory()["process"] >= max(before, 300 << 20)


def test_a_child_does_not_have_its_parents_peak() -> None:
    held = bytearray(b"\1") * (600 << 20)
    code = (
        "import sys, types; cuda = types.SimpleNamespace(is_available=lambda: False); "
        "sys.modules['torch'] = types.SimpleNamespace(cuda=cuda); "  # torch alone needs several hundred megabytes
        "from spark_kernel.training.peak_memory import peak_memory; print(peak_memory()['process'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(held) // 2
