"""``timm.create_model`` finds the models after ``import convit``, which does not import timm.

Where timm is imported already, the names are added to its registry at once; else right after its own import, whoever
imports it. Imports nothing heavy.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

TIMM, ENTRY_POINTS = "timm", "convit.timm_names.convit"


def add_to_timm() -> None:
    """Adds the names to timm's registry, now or when timm is imported."""
    if sys.modules.get(TIMM) is not None:
        importlib.import_module(ENTRY_POINTS)
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds timm as it is found without it, with a loader that does one thing more."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != TIMM:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


class _Loader(Loader):
    """Loads timm by its own loader, then adds the names."""

    def __init__(self, own: Loader, finder: MetaPathFinder) -> None:
        self.own, self.finder = own, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.own
        self.own.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        importlib.import_module(ENTRY_POINTS)
