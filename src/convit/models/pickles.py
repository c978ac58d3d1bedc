"""Files that ``torch.save`` wrote: tensors and plain containers of them, never objects.

PyTorch's restricted reader makes tensors, dicts, lists, numbers and texts. What training programs put beside the
weights and what no weight is, numbers of NumPy or paths, is read as an empty stand-in: of the names in such a file
nothing is imported, and nothing is called. Everything else is refused by its name.
"""

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from convit.errors import InputError, one_line


class LeftOut:
    """Stands for a value that is not read."""

    def __new__(cls, *args: object, **named: object) -> "LeftOut":
        return super().__new__(cls)

    def __init__(self, *args: object, **named: object) -> None:
        """Keeps nothing."""

    def __setstate__(self, state: object) -> None:
        """Keeps nothing."""

    def __hash__(self) -> int:
        return id(self)


class _Dict:
    """Stands for kinds of dict: what it makes is a plain one."""

    def __new__(cls, *args: object) -> Any:
        return {}


class _List:
    """Stands for kinds of list."""

    def __new__(cls, *args: object) -> Any:
        return []


_ARRAYS = [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")]
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path", "PurePath")
STANDS_FOR: dict[str, type] = {
    **dict.fromkeys([*_ARRAYS, "numpy.dtype", "numpy.ndarray", "numpy.core.multiarray.ndarray"], LeftOut),
    **{f"{module}.{name}": LeftOut for module in ("pathlib", "pathlib._local") for name in _PATHS},
    **{f"builtins.{name}": LeftOut for name in ("list", "dict", "tuple", "int", "float", "str", "bool")},
    **{f"builtins.{name}": LeftOut for name in ("range", "slice", "frozenset")},
    **{f"datetime.{name}": LeftOut for name in ("datetime", "date", "time", "timedelta", "timezone")},
    **dict.fromkeys(("argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion"), LeftOut),
    **dict.fromkeys(("decimal.Decimal", "fractions.Fraction", "uuid.UUID", "typing.Any"), LeftOut),
    **{f"omegaconf.{name}": LeftOut for name in ("dictconfig.DictConfig", "listconfig.ListConfig", "nodes.AnyNode")},
    **{f"omegaconf.base.{name}": LeftOut for name in ("ContainerMetadata", "Metadata")},
    "collections.defaultdict": _Dict,
    "lightning.fabric.utilities.data.AttributeDict": _Dict,
    "lightning_fabric.utilities.data.AttributeDict": _Dict,
    "lightning.pytorch.utilities.parsing.AttributeDict": _Dict,
    "pytorch_lightning.utilities.parsing.AttributeDict": _Dict,
    "collections.deque": _List,
}
"""Names in such files, and what is made in their place."""


MOST_PICKLE = 16 << 20
"""Bytes of names and small values: those of 100,000 tensors have 10 million."""
_KINDS = (
    (re.compile(r"(^|/)code/|(^|/)constants\.pkl$"), "a TorchScript program", "torch.jit.load(FILE).state_dict()"),
    (re.compile(r"(^|/)archive_format$|(^|/)models/"), "an exported program", "torch.export.load(FILE).state_dict"),
)
"""Other files of PyTorch by what is in them, in words, and where their weights are."""


def _check_archive(path: Path) -> None:
    """Looks at a zip file before PyTorch reads it, which does not compare its checksums.

    Raises:
        InputError: a file of something else; a changed bit; a compressed part, which could be of any size: PyTorch
            writes none.
    """
    if not zipfile.is_zipfile(path):
        return  # PyTorch's older form
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            for kind, what, where in _KINDS:
                if any(kind.search(part.filename) for part in parts):
                    raise InputError(f"{path}: {what}; expected its weights alone, such as torch.save({where}, FILE)")
            if any(part.filename.endswith(".npy") for part in parts):
                raise InputError(f"{path}: arrays of NumPy; expected .safetensors, or what torch.save wrote")
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise InputError(f"{path}: compressed, expected what torch.save wrote, which is not")
            for part in parts:
                if part.filename.endswith(".pkl") and part.file_size > MOST_PICKLE:
                    raise InputError(f"{path}: {part.file_size} bytes of names, expected at most {MOST_PICKLE}")
                if part.CRC:  # PyTorch writes none where it is told so
                    with archive.open(part) as stream:
                        while stream.read(1 << 20):
                            pass
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError) as error:
        raise InputError(f"{path}: damaged ({one_line(error)}); expected a whole copy of it") from error


def read_pickle(path: Path) -> Any:
    """What ``torch.save`` wrote.

    Raises:
        InputError: a file of something else, a damaged one, or one that names code or other objects.
    """
    _check_archive(path)
    known: Any = [(stand_in, name) for name, stand_in in STANDS_FOR.items()]
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(known):
            warnings.simplefilter("ignore")  # about pickle's versions
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|class) (\S+)", str(error))
        if wanted:
            raise InputError(
                f"{path}: refused, it carries code or objects ({wanted[1][:200]}); "
                "expected tensors alone, such as torch.save(model.state_dict(), FILE)"
            ) from error
        raise InputError(f"{path}: not a file of weights; expected .safetensors, or what torch.save wrote") from error
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # PyTorch's readers raise of every kind for a damaged file
        raise InputError(f"{path}: damaged, or no file of weights; expected .safetensors or .pth, whole") from error
