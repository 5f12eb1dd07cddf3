"""`workbench lab`: which notebooks, which kernel, which address; and one sentence where it cannot start."""

from __future__ import annotations

import importlib.util
import json
import socket
import sys
from pathlib import Path

import httpx
import pytest

from spark_kernel.errors import InputError
from tests.helpers.cli import workbench
from workbench import checkout
from workbench import shipped_notebooks as shipped
from workbench.commands import lab as lab_command
from workbench.reporting import run_report

ROOT = Path(__file__).resolve().parent.parent


def test_in_a_checkout_the_notebooks_are_worked_on_where_they_are() -> None:
    assert shipped.working_folder(None) == ROOT / "notebooks"
    assert [path.stem[:3] for path in shipped.shipped_notebooks()] == sorted(
        path.stem[:3] for path in shipped.shipped_notebooks()
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package were installed: notebooks among the environment's data files, and no checkout around it."""
    folder = tmp_path / "share" / "spark-workbench" / "notebooks"
    folder.mkdir(parents=True)
    for name in ("01_a.ipynb", "02_b.ipynb", "02_c.ipynb"):
        (folder / name).write_text(name, encoding="utf-8")
    monkeypatch.setattr(checkout, "PLACE", tmp_path / "site-packages")
    monkeypatch.setattr(shipped, "_installed", lambda: sorted(folder.glob("*.ipynb")))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


def test_from_a_package_they_are_copied_once_and_edits_are_kept(installed: Path) -> None:
    folder = shipped.working_folder(None)
    assert folder == installed / "spark-notebooks"
    assert (folder / "01_a.ipynb").read_text() == "01_a.ipynb"
    (folder / "01_a.ipynb").write_text("mine")
    (folder / "02_b.ipynb").unlink()
    assert shipped.working_folder(None) == folder
    assert (folder / "01_a.ipynb").read_text() == "mine"
    assert (folder / "02_b.ipynb").read_text() == "02_b.ipynb"
    elsewhere = installed / "elsewhere"
    elsewhere.mkdir()
    assert shipped.working_folder(elsewhere) == elsewhere
    assert sorted(path.name for path in elsewhere.iterdir()) == ["01_a.ipynb", "02_b.ipynb", "02_c.ipynb"]


def test_a_notebook_is_found_by_number_name_or_path(installed: Path) -> None:
    folder = shipped.working_folder(None)
    assert shipped.find_notebook(folder, None).name == "01_a.ipynb"
    assert shipped.find_notebook(folder, "1").name == "01_a.ipynb"
    assert shipped.find_notebook(folder, "02_c").name == "02_c.ipynb"
    assert shipped.find_notebook(folder, "02_c.ipynb").name == "02_c.ipynb"
    own = installed / "own.ipynb"
    own.write_text("")
    assert shipped.find_notebook(folder, str(own)) == own
    with pytest.raises(InputError, match=r'Several notebooks match "2" .* 02_b, 02_c'):
        shipped.find_notebook(folder, "2")
    with pytest.raises(InputError, match=r'There is no notebook "7" .* Notebooks: 01_a'):
        shipped.find_notebook(folder, "7")


def test_a_folder_that_cannot_be_used_is_refused(installed: Path) -> None:
    with pytest.raises(InputError, match="There is no folder nowhere"):
        shipped.working_folder(Path("nowhere"))
    (installed / "spark-notebooks").write_text("a file")
    with pytest.raises(InputError, match=r"cannot be copied to .*spark-notebooks.*--folder"):
        shipped.working_folder(None)


def test_an_installation_without_notebooks_says_so(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "_installed", list)
    with pytest.raises(InputError, match="has no notebooks"):
        shipped.working_folder(None)


def test_a_port_that_is_taken_or_none_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match=r"Port \d+ cannot be used"):
            lab_command.lab(["--port", str(taken.getsockname()[1]), "--", "--allow-root"])
    with pytest.raises(InputError, match="--port 70000 is refused"):
        lab_command.lab(["--port", "70000"])


def test_without_jupyterlab_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "jupyterlab" else find(name))
    with pytest.raises(InputError, match=r"needs jupyterlab: install the extra `notebook`"):
        lab_command.lab([])


def test_root_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(InputError, match="-- --allow-root"):
        lab_command.lab([])


def test_the_command_says_it_in_one_line() -> None:
    done = workbench("lab", "--folder", "/nonexistent/folder", "--", "--allow-root")
    assert done.returncode == 2
    assert done.stderr.startswith("error: There is no folder /nonexistent/folder")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_server_keeps_to_itself_and_its_kernel_is_this_interpreter(tmp_path: Path) -> None:
    from tests.helpers.jupyter_lab import lab_server

    # A kernel of the notebooks' name that another Python has registered, where it would come first.
    other = tmp_path / "other" / "kernels" / "python3"
    other.mkdir(parents=True)
    (other / "kernel.json").write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    with lab_server(tmp_path, "2", "--folder", str(tmp_path), JUPYTER_PATH=str(other.parents[1])) as server:
        kernels = server.get("api/kernelspecs")["kernelspecs"]
        assert kernels["python3"]["spec"]["argv"][0] == sys.executable
        assert httpx.get(server.url + "api/contents").status_code == 403
        assert "02_one_round_by_hand.ipynb" in {entry["name"] for entry in _listed(server.get, tmp_path)}
        start = httpx.get(server.url, headers={"Authorization": f"token {server.token}"}, follow_redirects=False)
        assert start.headers["location"].split("?")[0].endswith("02_one_round_by_hand.ipynb")
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((_another_address(), port), timeout=5)


def _listed(get, folder: Path) -> list[dict[str, str]]:
    return list(get(f"api/contents/{folder.name}")["content"])


def _another_address() -> str:
    """An address of this machine that is not 127.0.0.1; the whole of 127.0.0.0/8 is the machine itself on Linux."""
    return "127.0.0.2"


def test_a_report_names_the_command_as_it_can_be_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shell where the environment is active, beside a .venv, and where there is no script."""
    bin_folder = tmp_path / ".venv" / "bin"
    bin_folder.mkdir(parents=True)
    monkeypatch.setattr(sys, "executable", str(bin_folder / "python"))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert run_report.own_command() == f"{bin_folder / 'python'} -m workbench"
    script = bin_folder / "workbench"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert run_report.own_command() == ".venv/bin/workbench"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run_report.own_command() == str(script)
    monkeypatch.setenv("PATH", str(bin_folder))
    assert run_report.own_command() == "workbench"
