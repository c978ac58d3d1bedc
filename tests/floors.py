"""Prints the oldest versions that pyproject.toml allows, as constraints for pip: ``python tests/floors.py > FILE``."""

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def floors() -> list[str]:
    """``name==version`` for each requirement ``name>=version`` of the package and of its extras but [dev]."""
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    found = {}
    for line in wanted:
        if line.startswith("convit["):
            continue
        name, floor = re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()
        found[name] = f"{name}=={floor}"
    return sorted(found.values())


if __name__ == "__main__":
    print(*floors(), sep="\n")
