"""The folder of a classifier, such as a run: which files it must have. Without PyTorch, so that a folder that is not
there is refused at once."""

from pathlib import Path

from convit import files
from convit.errors import InputError

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FOLDS, FOLD = "folds.json", "fold-"
"""What ``convit train --folds`` writes when all are trained, and how the folder of each run begins."""
MOST_FOLDS = 1000
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


def fold_folders(folder: Path) -> tuple[Path, ...]:
    """The runs of a folder of ``convit train --folds``; none where it is another folder.

    Raises:
        InputError: not all of them are trained, or its ``folds.json`` is not what was written.
    """
    path = folder / FOLDS
    if not path.is_file():
        if (folder / f"{FOLD}1").is_dir() and not (folder / CONFIG).exists():
            raise InputError(f"{folder}: its folds are not all trained; expected them: convit train --resume {folder}")
        return ()
    try:
        count = files.parse_json(files.read(path, files.MOST_JSON))["folds"]
    except (OSError, ValueError, KeyError, TypeError):
        count = None
    if type(count) is not int or not 2 <= count <= MOST_FOLDS:
        raise InputError(f"{path}: not readable; expected what 'convit train --folds' wrote")
    return tuple(folder / f"{FOLD}{number}" for number in range(1, count + 1))


def refuse_folds(folder: Path, wanted: str) -> None:
    """Raises :class:`InputError` for a folder of several runs where one is ``wanted``."""
    if runs := fold_folders(folder):
        raise InputError(f"{folder}: {len(runs)} runs, of --folds; expected one of them {wanted}, such as {runs[0]}")


def check_folder(folder: Path) -> None:
    """Whether the files of a classifier are in a folder, or those of several that are averaged.

    Raises:
        InputError: one is not.
    """
    for run in fold_folders(folder) or (folder,):
        name = next((name for name in (CONFIG, WEIGHTS) if not (run / name).is_file()), None)
        if name is None:
            continue
        near = ""
        if not run.exists():
            from convit.hub import is_repo_id

            near = f"; {HUB}{run} would be a repository on the Hugging Face Hub" if is_repo_id(str(run)) else ""
        raise InputError(f"{run}: {lack(run, name)}; expected a run folder of 'convit train'{near}")


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
