"""The Hugging Face Hub without a network: a folder laid out as its client lays out its cache, and a fake client."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Self

import huggingface_hub
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each test of a module that imports this, nothing reaches for the network."""

    def forbidden(*args: Any, **kwargs: Any) -> NoReturn:
        raise SystemError(f"reached for the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)


def add_to_cache(cache: Path, repo_id: str, files: dict[str, bytes]) -> None:
    """Puts the files of a repository into the cache, as if they had been downloaded from its main branch."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    (repo / "blobs").mkdir()
    for number, (name, content) in enumerate(files.items()):
        blob = repo / "blobs" / f"{number:040x}"
        blob.write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / blob.name)


class FakeHub:
    """In place of ``HfApi``: keeps what would be uploaded."""

    def __init__(self) -> None:
        self.token: str | None = None
        self.created: dict[str, Any] = {}
        self.uploaded: dict[str, bytes] = {}
        self.message = ""
        self.is_private = False
        self.error: Exception | None = None

    @classmethod
    def instead_of_the_client(cls, monkeypatch: pytest.MonkeyPatch) -> Self:
        """A hub that a test's uploads go to, with a saved token."""
        fake = cls()
        monkeypatch.setattr(huggingface_hub, "HfApi", fake)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_saved")
        return fake

    def __call__(self, token: str | None = None) -> Self:
        self.token = token
        return self

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.created = {"repo_id": repo_id, **options}
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        assert repo_type == self.created["repo_type"]
        return SimpleNamespace(private=self.is_private)

    def upload_folder(
        self, *, repo_id: str, folder_path: str, commit_message: str, repo_type: str, allow_patterns: list[str] | None
    ) -> None:
        if self.error is not None:
            raise self.error
        assert (repo_id, repo_type) == (self.created["repo_id"], self.created["repo_type"])
        self.message = commit_message
        there = {str(path.relative_to(folder_path)): path for path in Path(folder_path).rglob("*") if path.is_file()}
        self.uploaded = {
            name: path.read_bytes() for name, path in there.items() if allow_patterns is None or name in allow_patterns
        }
