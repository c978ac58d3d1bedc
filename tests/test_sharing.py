"""A classifier that is shared arrives whole, and nothing private with it; the Hub's errors are a line.

No test reaches the network: the Hub is a cache built by hand, or a fake in place of the client.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import errors

import convit
from convit.classifier import Classifier
from convit.classifier_loading import load
from convit.errors import InputError
from convit.model_card import TrainingFacts
from tests import helpers
from tests.hub import COMMIT, FakeHub, add_to_cache, no_network
from tests.test_classifier import CLASSES
from tests.test_classifier import made as classifier_made

__all__ = ["no_network"]  # a fixture

FACTS = TrainingFacts(
    data="flowers",
    train_images=83,
    val_images=11,
    test_images=17,
    epochs=29,
    best_epoch=23,
    batch_size=8,
    lr=0.002,
    weight_decay=0.05,
    seed=0,
    val_top1=90.909,
    val_top5=100.0,
    test_top1=88.235,
    test_top5=100.0,
)
FILES = {"config.json", "model.safetensors", "README.md"}
made = partial(classifier_made, training=FACTS)


def logits(classifier: Classifier) -> torch.Tensor:
    x = torch.linspace(-1, 1, 2 * 3 * 8 * 12).reshape(2, 3, 8, 12)
    with torch.inference_mode():
        return classifier.model.eval()(x)


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [FACTS, TrainingFacts(data="x"), None])
def test_round_trip(training: TrainingFacts | None, tmp_path: Path) -> None:
    made(training=training).save_pretrained(tmp_path / "a")
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    loaded = load(tmp_path / "a")
    assert torch.equal(logits(loaded), logits(made()))
    assert (loaded.class_names, loaded.preprocess, loaded.training) == (CLASSES, made().preprocess, training)
    loaded.save_pretrained(tmp_path / "b")  # what it knows of its training is handed on
    assert (tmp_path / "b/README.md").read_bytes() == (tmp_path / "a/README.md").read_bytes()
    assert convit.load(tmp_path / "b").training == training


def test_a_card_is_only_replaced_by_a_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("My project\n")
    with pytest.raises(InputError, match=r"README.md: exists and was not written by convit; expected a folder without"):
        made().save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]  # refused before anything was written
    made().save_pretrained(tmp_path, card="my own\n")
    assert (tmp_path / "README.md").read_text() == "my own\n"
    (tmp_path / "README.md").unlink()
    made(training=None).save_pretrained(tmp_path)
    made().save_pretrained(tmp_path)
    assert "flowers" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("name", ["/no/such", "missing", "./a/b", "a/b/c", "a b/c", "owner/name"])
def test_no_such_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has no hf: in front is never looked for on the Hub: a stranger's model would answer."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(InputError, match="no such folder; expected a run folder") as caught:
        load(name)
    assert ("; hf:owner/name would be a repository" in str(caught.value)) == (name == "owner/name")


@pytest.mark.parametrize("name", ["hf:", "hf:a", "hf:a/b/c", "hf:a b/c", "hf:a/b\n", "hf:../x"])
def test_no_name_of_a_repository(name: str) -> None:
    with pytest.raises(InputError, match=r"repo_id: got .*, expected 'owner/name'"):
        load(name)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    made().save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"revision: got 'v1' for the folder .*, expected none"):
        load(tmp_path, revision="v1")


# -- from the Hub ----------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of downloads, laid out as the Hub's client lays it out, on a machine without a network."""
    made().save_pretrained(tmp_path / "saved")
    files = {name: (tmp_path / "saved" / name).read_bytes() for name in ("config.json", "model.safetensors")}
    add_to_cache(tmp_path / "cache", "ann/flowers", files)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def in_snapshot(cache: Path, name: str) -> Path:
    return cache / f"models--ann--flowers/snapshots/{COMMIT}/{name}"


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_offline_from_the_cache(revision: str | None, cache: Path) -> None:
    loaded = load("hf:ann/flowers", revision=revision, cache_dir=cache)
    assert torch.equal(logits(loaded), logits(made()))
    assert (loaded.class_names, loaded.training) == (CLASSES, FACTS)


def test_timm_reads_the_repository(cache: Path) -> None:
    model = timm.create_model("hf-hub:ann/flowers", pretrained=True, cache_dir=cache).eval()
    x = torch.randn(2, 3, 8, 12)
    assert torch.equal(model(x), made().model.eval()(x))


def test_a_folder_of_the_same_name_is_another_one(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made(class_names=("x", "y")).save_pretrained(tmp_path / "ann/flowers")
    assert load("ann/flowers").class_names == ("x", "y")
    assert load("hf:ann/flowers", cache_dir=cache).class_names == CLASSES


def refused(cache: Path, *words: str, name: str = "hf:ann/flowers", **options: Any) -> None:
    helpers.refused(lambda: load(name, cache_dir=cache, **options), *words)


def test_not_in_the_cache(cache: Path) -> None:
    words = (
        "ann/trees: not loaded from the Hugging Face Hub (the Hub was not reached, and it is "
        "not in the cache of downloads); expected a repository that can be reached"
    )
    refused(cache, words, name="hf:ann/trees")
    refused(cache, "not in the cache", revision="v2")
    refused(cache, "'ann--x/flowers'", name="hf:ann--x/flowers")
    in_snapshot(cache, "model.safetensors").unlink()
    refused(cache, "ann/flowers: not loaded", "not in the cache")


def test_what_was_downloaded_is_checked(cache: Path) -> None:
    config = in_snapshot(cache, "config.json")
    whole = config.read_text()
    in_snapshot(cache, "model.safetensors").write_bytes(b"cos\nsystem\n(S'ls'\ntR.")
    refused(cache, "model.safetensors: not a whole .safetensors file")
    config.write_text(whole.replace("convit_micro_patch4_32", "os.system"))
    refused(cache, "config.json: model: got 'os.system'")


def test_somebody_elses_model_is_refused_before_its_weights_are_loaded(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_snapshot(cache, "config.json").write_text('{"architectures": ["BertModel"]}')
    asked = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append(filename)
        return str(in_snapshot(cache, filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    refused(cache, "config.json: not a model's configuration")
    assert asked == ["config.json"]


def test_both_files_are_of_one_commit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append((repo_id, filename, options["revision"], options["token"]))
        return str(in_snapshot(cache, filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    load("hf:ann/flowers", revision="v1", token="hf_x")
    assert asked == [("ann/flowers", "config.json", "v1", "hf_x"), ("ann/flowers", "model.safetensors", COMMIT, "hf_x")]


def http(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    """An error of the client as it comes: several lines long."""
    # A stand-in: the HTTP library, and so the class of the response, depends on the client's version.
    response: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return kind(f"{status} Client Error. (Request ID: Root=1-6)\n\nSee https://x for url.\nMore.", response=response)


# A file that is not there: since huggingface_hub 1.0 a class of its own.
NO_ENTRY: Any = getattr(errors, "RemoteEntryNotFoundError", errors.EntryNotFoundError)
HUB_ERRORS: list[tuple[Callable[[], Exception], str]] = [
    (lambda: http(errors.RepositoryNotFoundError, 401), "no such repository, or a private one that the token does not"),
    (lambda: http(errors.GatedRepoError, 403), "its owner has to grant access first"),
    (lambda: http(errors.RevisionNotFoundError, 404), "no such revision"),
    (lambda: http(NO_ENTRY, 404), "the file is not in it"),
    (lambda: http(errors.HfHubHTTPError, 403), "403, the token is missing or may not do that"),
    (lambda: http(errors.HfHubHTTPError, 500), "HfHubHTTPError: 500 Client Error. (Request ID: Root=1-6) See"),
    (lambda: errors.OfflineModeIsEnabled("Cannot reach"), "HF_HUB_OFFLINE is set"),
    (lambda: errors.HTTPError("broken\noff"), "HTTPError: broken off"),  # type: ignore[attr-defined]
    (lambda: OSError(28, "No space left on device"), "No space left on device"),
    (lambda: ValueError("Invalid metadata in README.md.\n- x"), "ValueError: Invalid metadata in README.md. - x"),
    (lambda: RuntimeError("Data processing error: CAS"), "RuntimeError: Data processing error: CAS"),
]


@pytest.mark.parametrize(("error", "words"), HUB_ERRORS)
def test_errors_of_a_download_are_one_line(
    error: Callable[[], Exception], words: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*args: Any, **options: Any) -> NoReturn:
        raise error()

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    refused(cache, "ann/flowers: not loaded", words, "; expected a repository that can be reached")


# -- to the Hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    return FakeHub.instead_of_the_client(monkeypatch)


def test_push(hub: FakeHub, tmp_path: Path) -> None:
    assert made().push_to_hub("ann/flowers", commit_message="first") == "https://huggingface.co/ann/flowers"
    assert hub.created == {
        "repo_id": "ann/flowers",
        "private": None,
        "exist_ok": True,
        "repo_type": "model",
        "space_sdk": None,
    }
    assert (hub.token, hub.message) == (None, "first")
    assert set(hub.uploaded) == FILES
    assert b'load("hf:ann/flowers")' in hub.uploaded["README.md"]
    for name, content in hub.uploaded.items():  # and what arrives is the model
        (tmp_path / name).write_bytes(content)
    assert torch.equal(logits(load(tmp_path)), logits(made()))


def test_push_with_a_card_and_a_token_of_ones_own(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    made().push_to_hub("ann/flowers", token="hf_given", card="mine")
    assert (hub.token, hub.uploaded["README.md"]) == ("hf_given", b"mine")
    assert not any(b"hf_given" in content for content in hub.uploaded.values())


def test_nothing_private_is_uploaded(hub: FakeHub, tmp_path: Path) -> None:
    made().save(tmp_path)
    (tmp_path / "config.yaml").write_text(f"data: {tmp_path}\n")
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    convit.load(tmp_path).push_to_hub("ann/flowers")
    assert set(hub.uploaded) == FILES
    for content in hub.uploaded.values():
        assert not any(path.encode() in content for path in (str(tmp_path), str(Path.cwd()), os.path.expanduser("~/")))


def test_private_stays_private(hub: FakeHub) -> None:
    with pytest.raises(InputError, match="private: ann/flowers is there and public, expected a private or new"):
        made().push_to_hub("ann/flowers", private=True)
    assert not hub.uploaded
    hub.is_private = True
    made().push_to_hub("ann/flowers", private=True)
    assert hub.created["private"] is True
    assert set(hub.uploaded) == FILES


def test_push_without_a_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(InputError, match=r"^ann/flowers: nothing was uploaded \(no token\); expected a token that may"):
        made().push_to_hub("ann/flowers")
    assert not hub.created


@pytest.mark.parametrize("repo_id", ["flowers", "a/b/c", "ann/", "../x", "ann/fl owers", 'ann/"+x'])
def test_push_to_no_repository(repo_id: str, hub: FakeHub) -> None:
    with pytest.raises(InputError, match=r"repo_id: got .*, expected 'owner/name'"):
        made().push_to_hub(repo_id)
    with pytest.raises(InputError, match="repo_id: got"):
        made().card(repo_id)
    assert not hub.created


@pytest.mark.parametrize(("error", "words"), HUB_ERRORS)
def test_errors_of_an_upload_are_one_line(error: Callable[[], Exception], words: str, hub: FakeHub) -> None:
    hub.error = error()
    message = helpers.refused(lambda: made().push_to_hub("ann/flowers"), words)
    assert message.startswith("ann/flowers: nothing was uploaded (")
    assert message.endswith("; or save_pretrained(FOLDER)")
