"""What is refused before images are read: names and paths that are not there, weights that cannot be fetched.

Without PyTorch, so that the command says it at once.
"""

from pathlib import Path

from convit.data.sources import kind_of_source
from convit.errors import InputError
from convit.files import kind_of
from convit.models.published import fetch_published
from convit.models.sizes import SMALLEST_PUBLISHED, check_name
from convit.training.options import RUN_CONFIG, Asked


def look_ahead(asked: Asked) -> None:
    """Checks names and paths; with ``pretrained`` it fetches the weights.

    Raises:
        InputError: no such model, file, folder or data set; no network.
    """
    if asked.resume is not None:
        check_begun(asked.resume)
        return
    if asked.data is not None:
        kind_of_source(asked.data, asked.split_folders)
    if asked.model is not None:
        check_name(asked.model)
    for name in ("weights", "teacher_weights"):
        check_weights(name.replace("_", "-"), getattr(asked, name))
    if asked.pretrained:
        fetch_published(asked.model or SMALLEST_PUBLISHED)


def check_weights(word: str, path: Path | None) -> None:
    """Whether the weights that an option names are there.

    Raises:
        InputError: they are not.
    """
    if path is not None and not path.exists():
        raise InputError(f"{word}: no such file or folder {path}; expected .safetensors, .pth, or a run folder")


def check_begun(run: Path, word: str = "resume") -> None:
    """Whether there is a run, which the option ``word`` names.

    Raises:
        InputError: there is none.
    """
    if not (run / RUN_CONFIG).is_file():
        there = f"{kind_of(run)}, no folder" if run.exists() else "no such folder"
        found = "no run in it" if run.is_dir() else there
        raise InputError(f"{word}: {run}: {found}; expected the folder of a run that was begun")
