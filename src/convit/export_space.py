"""A classifier as a folder for a static host: its web page, and a README.md that makes it a Space of the Hub."""

import re
from pathlib import Path

from convit import files, hub
from convit.classifier import CARD, Classifier
from convit.errors import InputError
from convit.export_web import WebPage, web_page
from convit.model_card import MARKER, space_card

PAGE = "index.html"


def export_space(classifier: Classifier, folder: str | Path, *, license: str | None = None) -> WebPage:
    """Writes a folder with the page of :func:`convit.export_web.export_web` as ``index.html``, and a ``README.md``: the
    card of the model, whose front matter makes the folder a static Space of the Hugging Face Hub.

    Args:
        classifier: what to export.
        folder: where to; made if need be. An older ``index.html`` is replaced.
        license: such as ``"mit"``, for the card.

    Raises:
        InputError: as :func:`convit.export_web.export_web`; the folder has a README.md that convit did not write.
            Nothing is written then.
    """
    if license is not None and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license) is None:
        raise InputError(f"license: got {license!r}, expected a name such as mit, apache-2.0 or cc-by-4.0")
    folder = Path(folder)
    card = folder / CARD
    if card.exists() and MARKER.encode() not in files.read(card):
        raise InputError(f"{card}: exists and was not written by convit; expected a folder without it")
    text = space_card(classifier.described(), license=license)
    document, weights, difference = web_page(classifier)
    folder.mkdir(parents=True, exist_ok=True)
    files.write(folder / PAGE, document)
    files.write(card, text)
    return WebPage(path=folder / PAGE, bytes=len(document.encode()), weights=weights, difference=difference)


def push_space(folder: str | Path, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Uploads a folder of :func:`export_space`, ``index.html`` and ``README.md`` alone, to a static Space of the Hub.

    Args:
        folder: what to upload.
        repo_id: ``owner/name``; the Space is made if need be.
        private: whether nobody else may see it.
        token: one that may write [that of ``hf auth login``, or ``HF_TOKEN``].

    Returns:
        The address of the Space.

    Raises:
        InputError: another form of name, no token, no network, or the Hub refuses.
    """
    hub.check_repo_id(repo_id)
    return hub.upload(
        folder,
        repo_id,
        private=private,
        token=token,
        commit_message="Upload a convit classifier as a web page",
        kind="space",
        only=(PAGE, CARD),
    )
