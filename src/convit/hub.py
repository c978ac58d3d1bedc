"""The Hugging Face Hub: download and upload; each error of its client becomes one line."""

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import huggingface_hub
from huggingface_hub import errors

from convit.errors import InputError, one_line

_REPO_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
PATIENCE = 4.0
"""Seconds that the Hub has for a first answer. Its client tries for half a minute, and longer where names of hosts are
not answered for."""


def is_repo_id(name: str) -> bool:
    """Whether it could be ``owner/name``."""
    return _REPO_ID.fullmatch(name) is not None


def check_repo_id(repo_id: str) -> None:
    """Raises :class:`InputError` for what cannot be the name of a repository."""
    if not is_repo_id(repo_id):
        raise InputError(f"repo_id: got {repo_id!r}, expected 'owner/name' in letters, digits, '-', '_' and '.'")


def download(
    repo_id: str,
    config: str,
    weights: str,
    check: Callable[[Path], object],
    *,
    revision: str | None,
    token: str | None,
    cache_dir: str | Path | None,
) -> Path:
    """The folder in the Hub client's cache that holds two files of a repository.

    Args:
        repo_id: ``owner/name``.
        config: the name of the small file.
        weights: the name of the large file.
        check: raises :class:`InputError` if the small file is not what it should be, before the large one is fetched.
        revision, token, cache_dir: as the Hub's client takes them.

    Raises:
        InputError: no such repository, file or network.
    """
    where = f"{repo_id}: not loaded from the Hugging Face Hub"
    instead = "a repository that can be reached"
    with hub_faults(where, instead):
        path = fetch(repo_id, config, revision=revision, token=token, cache_dir=cache_dir)
    check(path)
    with hub_faults(where, instead):
        # The folder is called by its commit: both files are of the same one, whatever is pushed in between.
        huggingface_hub.hf_hub_download(repo_id, weights, revision=path.parent.name, token=token, cache_dir=cache_dir)
    return path.parent


def fetch(
    repo_id: str,
    file: str,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """A file of a repository, in the client's cache; without a network only if it is there already.

    Raises:
        Exception: one of the client's many, for :func:`hub_faults`; without a network after :data:`PATIENCE` seconds.
    """
    if huggingface_hub.try_to_load_from_cache(repo_id, file, cache_dir=cache_dir, revision=revision) is None:
        _reach(huggingface_hub.hf_hub_url(repo_id, file, revision=revision), token)
    return Path(huggingface_hub.hf_hub_download(repo_id, file, revision=revision, token=token, cache_dir=cache_dir))


def _reach(url: str, token: str | None) -> None:
    """Asks for the address once. Raises :class:`errors.LocalEntryNotFoundError` without any answer in time."""
    failed: list[Exception] = [TimeoutError(f"no answer in {PATIENCE:g} s")]

    def ask() -> None:
        try:
            huggingface_hub.get_hf_file_metadata(url, token=token, timeout=PATIENCE)
        except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled):
            failed.clear()  # an answer, or no wish for one: the download says what is wrong
        except Exception as error:
            failed[:] = [error]
        else:
            failed.clear()

    # A thread: no timeout ends the look-up of a name.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failed:
        raise errors.LocalEntryNotFoundError(one_line(failed[0])) from failed[0]


def upload(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool,
    token: str | None,
    commit_message: str,
    kind: Literal["model", "space"] = "model",
    only: Sequence[str] | None = None,
) -> str:
    """Uploads a folder's files, or only some, and makes the repository if need be; its address. A Space is a static
    one.

    Raises:
        InputError: no token, no network, or the Hub refuses.
    """
    instead = "a token that may write, from 'hf auth login' or token="
    instead += "; or save_pretrained(FOLDER)" if kind == "model" else f"; or upload {folder} by hand"
    with hub_faults(f"{repo_id}: nothing was uploaded", instead):
        if token is None and huggingface_hub.get_token() is None:
            raise InputError(f"{repo_id}: nothing was uploaded (no token); expected {instead}")
        api = huggingface_hub.HfApi(token=token)
        # None leaves it to the owner's settings, where False would make it public against them.
        sdk = "static" if kind == "space" else None
        url = api.create_repo(repo_id, private=private or None, exist_ok=True, repo_type=kind, space_sdk=sdk)
        if private and not api.repo_info(repo_id, repo_type=kind).private:
            raise InputError(f"private: {repo_id} is there and public, expected a private or new repository")
        api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=commit_message,
            repo_type=kind,
            allow_patterns=None if only is None else list(only),
        )
    return str(url)


@contextmanager
def hub_faults(what: str, instead: str) -> Iterator[None]:
    """Within it the many errors of the Hub's client become one :class:`InputError`."""
    reasons = (  # the first that fits: some are subclasses of later ones
        (errors.GatedRepoError, "its owner has to grant access first"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one that the token does not open"),
        (errors.RevisionNotFoundError, "no such revision"),
        (errors.LocalEntryNotFoundError, "the Hub was not reached, and it is not in the cache of downloads"),
        (errors.EntryNotFoundError, "the file is not in it"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set"),
    )
    try:
        yield
    except InputError:
        raise
    # HTTPError is that of the client's own HTTP library, and hf_xet reports a broken transfer as a RuntimeError.
    except (errors.HTTPError, errors.EntryNotFoundError, OSError, ValueError, RuntimeError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        said = f"{type(error).__name__}: {one_line(error)}"
        refused = f"{status}, the token is missing or may not do that" if status in (401, 403) else said
        reason = next((text for kind, text in reasons if isinstance(error, kind)), refused)
        raise InputError(f"{what} ({reason}); expected {instead}") from error
