"""Pushing a folder to a repository on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spark_kernel.errors import InputError

WEIGHTS = (".safetensors", ".bin", ".gguf")
"""Files that decide what a repository is loaded as; two sets of them do not go together."""


def check_repository(repository: str, *, private: bool) -> None:
    """Whether a push could work, before anything is made: token, network, name, and who may see the repository.

    Raises:
        InputError: says what is missing and what to do.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise InputError(f'--push "{repository}" is no repository name: write OWNER/NAME.') from None
    if repository.count("/") != 1:
        raise InputError(f'--push "{repository}" names no owner: write OWNER/NAME.')
    if get_token() is None:
        raise InputError(
            "--push needs a Hugging Face token with write access, and there is none here: run `hf auth login` or set "
            "HF_TOKEN. The checkpoint stays as it is; without --push the folder is written all the same."
        )
    api = HfApi()
    with _explained(repository):
        api.whoami()
        try:
            info = api.model_info(repository)
        except RepositoryNotFoundError:
            return
    if private and not info.private:
        raise InputError(
            f"{repository} exists and is public: --private cannot hide it. Make it private in its settings, or choose "
            "another repository."
        )


def push_folder(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Create the repository if need be and upload a folder; the address of the result.

    Raises:
        InputError: the hub cannot be reached or refuses, or the repository holds other weights.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    with _explained(repository):
        url = str(api.create_repo(repository, private=private, exist_ok=True))
        there = {name for name in api.list_repo_files(repository) if name.endswith(WEIGHTS)}
    others = sorted(there - {path.relative_to(folder).as_posix() for path in folder.rglob("*")})
    if others:
        raise InputError(
            f"{repository} holds other weights already ({', '.join(others[:3])}), with which these do not go "
            f"together: choose another repository. The folder {folder} is complete."
        )
    with _explained(repository, f" The folder {folder} is complete: `hf upload {repository} {folder}` tries again."):
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return url


@contextmanager
def _explained(repository: str, rest: str = "") -> Iterator[None]:
    """Turn what the hub's client raises into one sentence."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except (HTTPError, OSError, ValueError, RuntimeError) as error:  # refused, no network, bad metadata, torn upload
        reason = (" ".join(str(error).split()) or type(error).__name__)[:300].rstrip(".")
        raise InputError(
            f"{repository} could not be pushed to: {reason}. The checkpoint stays as it is.{rest}"
        ) from error
