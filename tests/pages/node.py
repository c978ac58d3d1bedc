"""Runs the pages' JavaScript in node, without a browser."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from convit import pages

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")
SETUP = """
const fs = require("node:fs");
const given = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const bytes = (file) => new Uint8Array(fs.readFileSync(file));
const floats = (file) => new Float32Array(bytes(file).buffer);
"""


def run(scripts: Sequence[str], code: str, folder: Path, given: dict[str, Any]) -> Any:
    """What ``code``, the body of an async function after the scripts, returns, by JSON.

    ``given`` is there as ``given``; an array in it is written to a file, which ``floats`` or ``bytes`` reads.
    """
    assert NODE is not None
    plain = {}
    for name, value in given.items():
        if isinstance(value, np.ndarray):
            value.tofile(folder / f"{name}.bin")
            value = str(folder / f"{name}.bin")
        plain[name] = value
    (folder / "given.json").write_text(json.dumps(plain), "utf-8")
    text = "\n".join([*map(pages.part, scripts), SETUP])
    main = f"(async () => {{ {code} }})().then((found) => console.log(JSON.stringify(found)));"
    (folder / "script.js").write_text(f"{text}\n{main}", "utf-8")
    done = subprocess.run(
        [NODE, folder / "script.js", folder / "given.json"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
