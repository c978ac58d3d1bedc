"""The folder of a classifier, such as a run: which files it must have. Without PyTorch, so that a folder that is not
there is refused at once."""

from pathlib import Path

from convit import files
from convit.errors import InputError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
HUB = "hf:"
"""What stands before the name of a repository on the Hugging Face Hub."""


def check_source(source: str | Path) -> None:
    """Whether :func:`convit.load` can begin with a source.

    Raises:
        InputError: a folder without the files of a classifier, or no name of a repository.
    """
    if not str(source).startswith(HUB):
        check_folder(Path(source))
        return
    from convit.hub import check_repo_id

    check_repo_id(str(source).removeprefix(HUB))


def check_folder(folder: Path) -> None:
    """Whether the files of a classifier are in a folder.

    Raises:
        InputError: one is not.
    """
    for name in (CONFIG, WEIGHTS):
        if (folder / name).is_file():
            continue
        near = ""
        if not folder.exists():
            from convit.hub import is_repo_id

            near = f"; {HUB}{folder} would be a repository on the Hugging Face Hub" if is_repo_id(str(folder)) else ""
        raise InputError(f"{folder}: {lack(folder, name)}; expected a run folder of 'convit train'{near}")


def lack(folder: Path, name: str) -> str:
    """What is there in place of a file of a folder, for a message."""
    if not folder.is_dir():
        return _no_folder(folder)
    above = next((one for one in folder.parents[:2] if (one / CONFIG).is_file()), None)
    if above is not None and not (folder / name).exists():
        return f"no {name} in it; did you mean {above}?"
    return f"{name} in it is {files.kind_of(folder / name)}" if (folder / name).exists() else f"no {name} in it"


def _no_folder(path: Path) -> str:
    """What is in place of a run folder, and what it is good for."""
    if not path.exists():
        return "no such folder"
    uses = {".onnx": "an .onnx file is for 'convit predict' and 'convit bench'", ".pt2": "torch.export.load reads it"}
    use = uses.get(path.suffix.lower(), "")
    beside = f"did you mean {path.parent}?" if (path.parent / CONFIG).is_file() and path.parent != path else ""
    return "; ".join(filter(None, [f"{files.kind_of(path)}, no folder", use or beside]))
