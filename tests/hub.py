"""A folder laid out as the Hugging Face Hub's client lays out its cache."""

from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


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
