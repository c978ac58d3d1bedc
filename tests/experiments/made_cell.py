"""Stands in for ``convit.experiments.cell``: leaves a run folder of two epochs as that does, at once.

    python made_cell.py MODEL_FOLDER HOW CONFIG.yaml RUN_FOLDER [RIVAL]

HOW is ``well``; ``badly`` or ``dying``, without a result; or ``waiting`` after an epoch, until standard input ends.
"""

import json
import shutil
import sys
import time
import zlib
from pathlib import Path

import yaml


def main(model: Path, how: str, config: Path, run: Path) -> int:
    """Gives the exit status."""
    began = time.time()
    if how == "dying":
        return 7
    if how == "badly":
        print("a warning\nlr: got one that is too large", file=sys.stderr)
        return 2
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    options = yaml.safe_load(config.read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(options | {"epochs": 2}))
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for epoch in range(len(lines) + 1, 3):
        attention = {"gates": [[0.5, 0.7]], "non_locality": [[1.0, 2.0], [3.0, 3.0]]}
        record = {"epoch": epoch, "val_top1": 10.0 * epoch, "val_loss": 1.0, "images": 8, "seconds": 0.5}
        record |= {"train_loss": 1.5, **attention}
        metrics.write_text("".join(f"{line}\n" for line in [*lines, json.dumps(record)]))
        lines = metrics.read_text().splitlines()
        if how == "waiting":
            sys.stdin.read()
            return 143
    shutil.copy(model / "config.json", run)
    off = [f"no {kind} in {layers}" for kind in ("content", "position") for layers in (1, 2, 3)]
    (run / "masked.json").write_text(json.dumps(dict.fromkeys(["no position embedding", *off], 12.5)))
    (run.parents[1] / "speed.json").write_text(json.dumps({options["model"]: {"convit": 900.0, "twin": 1200.4}}))
    shutil.rmtree(run / "checkpoints")
    split, top1 = "val" if options["skip_test"] else "test", zlib.crc32(run.name.encode()) % 1000 / 10
    evaluation = {"split": split, "images": 50, "top1": top1, "top5": 100.0, "loss": 0.5}
    (run / "evaluation.json").write_text(json.dumps(evaluation | {"made": [began, time.time()]}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
