"""Modules of the package without the package's ``__init__``, which takes PyTorch and seconds to import."""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def put_off_package() -> None:
    """Lets modules of the package be imported without its ``__init__``, which imports PyTorch for the public names."""
    if "convit" not in sys.modules and (spec := importlib.util.find_spec("convit")):  # finds it, and does not run it
        sys.modules["convit"] = importlib.util.module_from_spec(spec)


def complete_package() -> None:
    """Runs the ``__init__`` that was put off."""
    package = sys.modules["convit"]
    spec = package.__spec__
    if not hasattr(package, "__all__") and spec is not None and spec.loader is not None:
        spec.loader.exec_module(package)


@contextmanager
def light_modules() -> Iterator[None]:
    """Within it the package is put off; whoever imports it after this gets all of it."""
    alone = "convit" not in sys.modules
    put_off_package()
    try:
        yield
    finally:
        if alone:
            del sys.modules["convit"]  # its light modules stay: each class is there once
