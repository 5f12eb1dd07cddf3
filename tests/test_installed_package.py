"""The package as a stranger gets it: a wheel in an environment outside the checkout, every door opened from there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

import spark_kernel
from tests.helpers.jupyter_lab import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("spark_kernel", "workbench")
START_SECONDS = 300
SMALL = (
    *("--rounds", "1", "--problems.per-round", "4", "--rollout.samples", "4", "--rollout.max-new-tokens", "24"),
    *("--rollout.verdict-max-new-tokens", "24", "--evaluation.problems", "4", "--evaluation.samples", "2"),
    *("--threads", "1"),
)


@dataclass(frozen=True)
class Installation:
    """An environment that holds the wheel, and a folder to work in. The checkout is on no path."""

    place: Path
    work: Path
    wheel: Path

    @property
    def python(self) -> str:
        return str(self.place / "bin" / "python")

    @property
    def environment(self) -> dict[str, str]:
        """No way back to the checkout; JupyterLab's own files are those of the environment that runs the tests."""
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        share = Path(sys.prefix) / "share" / "jupyter"
        jupyter = {"JUPYTERLAB_DIR": str(share / "lab"), "JUPYTER_PATH": str(share), "HOME": str(self.work)}
        return {**kept, **jupyter, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, to its end; `python` and `workbench` are those installed there."""
        program = str(self.place / "bin" / command[0])
        return subprocess.run(
            [program, *command[1:]],
            cwd=self.work,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )

    @contextmanager
    def server(self, *arguments: str, says: str) -> Iterator[tuple[re.Match[str], subprocess.Popen[str]]]:
        """`workbench ...` in the background until it has said where it is; killed afterwards if it still runs."""
        log = self.work / f"{arguments[0]}.log"
        with log.open("w", encoding="utf-8") as output:
            process = subprocess.Popen(
                [str(self.place / "bin" / "workbench"), *arguments],
                cwd=self.work,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        try:
            deadline = time.monotonic() + START_SECONDS
            while (found := re.search(says, log.read_text(encoding="utf-8"))) is None:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.2)
            yield found, process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """The wheel, built from a copy of the sources and installed beside the libraries of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "notebooks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(source)], check=True)
    shutil.rmtree(source)
    (wheel,) = folder.glob("spark_workbench-*.whl")
    place = folder / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    install = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    # The heavy libraries of this environment, after its own packages. A folder named in a .pth file is searched, but
    # .pth files in it are not read: those of an editable installation would lead back to the checkout.
    (own,) = place.glob("lib/python*/site-packages")
    heavy = [path for path in sys.path if path.endswith("site-packages")]
    (own / "heavy-libraries.pth").write_text("\n".join(heavy) + "\n", encoding="utf-8")
    work = folder / "work"
    work.mkdir()
    found = Installation(place, work, wheel)
    where = "import spark_kernel, workbench; print(spark_kernel.__file__, workbench.__file__)"
    done = found.run("python", "-c", where)
    assert [Path(path).is_relative_to(own) for path in done.stdout.split()] == [True, True], done.stdout + done.stderr
    assert found.run("python", "-c", "import tests.helpers.cli").returncode != 0, "the checkout can be imported"
    return found


def test_the_wheel_has_the_version_and_every_file_that_is_not_code(installation: Installation) -> None:
    """Presets, templates, page files, the starter model and the recorded run, as the checkout has them."""
    assert installation.wheel.name.startswith(f"spark_workbench-{spark_kernel.__version__}-")
    names = set(zipfile.ZipFile(installation.wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name for name in tracked.stdout.splitlines() if (ROOT / name).is_file()}
    assert len(wanted) > 300
    assert wanted - names == set()
    version = installation.run("workbench", "--version")
    assert version.stdout.strip() == f"spark-workbench {spark_kernel.__version__}"
    metadata = "from importlib.metadata import version; print(version('spark-workbench'))"
    assert installation.run("python", "-c", metadata).stdout.strip() == spark_kernel.__version__


def test_a_run_its_report_and_its_panels(installation: Installation) -> None:
    done = installation.run("workbench", "run", "quickstart", *SMALL, "--out", "runs/first")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = installation.run("workbench", "report", "runs/first", "--html", "first.html", "--tables", "tables")
    assert report.returncode == 0, report.stderr
    assert "<script" in (installation.work / "first.html").read_text(encoding="utf-8")
    assert (installation.work / "tables" / "rollouts.parquet").is_file()
    program = (
        "import workbench\n"
        "from spark_kernel import RunReader, load_config\n"
        "from spark_kernel.config import preset_names\n"
        "assert RunReader('runs/first').rounds == [1]\n"
        "print(len([load_config(name) for name in preset_names()]))\n"
        "for run in (None, 'runs/first'):\n"
        "    panels = workbench.open(run)\n"
        "    print(len(panels.widget.children), *panels.widget.titles)\n"
    )
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    presets, recorded, own = done.stdout.strip().splitlines()
    assert int(presets) == len(list((ROOT / "spark_kernel" / "config" / "presets").glob("*.yaml")))
    assert recorded == own
    assert own.startswith("9 Controls Dashboard Rollouts ")


def test_the_app_starts_answers_and_ends(installation: Installation) -> None:
    with installation.server("app", "--port", "0", says=r"The app is at (http://\S+)") as (found, process):
        page = httpx.get(found[1], timeout=60)
        assert (page.status_code, "SPARK" in page.text) == (200, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) in (0, 130)


def test_the_lab_starts_with_copies_of_the_shipped_notebooks_and_ends(installation: Installation) -> None:
    port = free_port()
    arguments = ("lab", "2", "--no-browser", "--port", str(port), "--", "--allow-root")
    with installation.server(*arguments, says=r"http://127\.0\.0\.1:\d+/lab\S*\?token=(\w+)") as (found, process):
        url, token = f"http://127.0.0.1:{port}/", {"Authorization": f"token {found[1]}"}
        listed = httpx.get(url + "api/contents/spark-notebooks", headers=token, timeout=60).json()["content"]
        shipped = {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}
        assert {entry["name"] for entry in listed} == shipped
        start = httpx.get(url, headers=token, follow_redirects=False, timeout=60)
        assert "02_one_round_by_hand.ipynb" in start.headers["location"]
        kernels = httpx.get(url + "api/kernelspecs", headers=token, timeout=60).json()["kernelspecs"]
        assert kernels["python3"]["spec"]["argv"][0] == installation.python
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    for name in shipped:
        assert (installation.work / "spark-notebooks" / name).read_bytes() == (ROOT / "notebooks" / name).read_bytes()


def test_what_needs_a_checkout_says_so(installation: Installation) -> None:
    done = installation.run("workbench", "bench")
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*checkout.*\n", done.stderr), done.stderr
