"""One run of a grid: ``python -m convit.experiments.cell CONFIG.yaml RUN_FOLDER [RIVAL] < PIPE``.

Does what ``convit train --config CONFIG.yaml --out RUN_FOLDER`` does, or goes on where that run stopped, and then
removes its state, of no more use. With the name of a rival it is that which is trained, in place of the ConViT. When
standard input ends it saves the run and stops, so it does not outlive who started it, however that one ended.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from convit.entry import start
from convit.errors import InputError, one_line
from convit.experiments.rivals import RIVALS
from convit.training.options import Asked, asked_from
from convit.training.run import train
from convit.training.run_folder import RunFolder
from convit.training.stopping import Stopped


def main(config: Path, run: Path, rival: str | None = None) -> int:
    """Makes the run; 2 for what is wrong with it, on the last line of standard error, 128 + a signal's number."""
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    try:
        if not RunFolder(run).is_run:
            _train(asked_from(config, {"out": run}), rival)
        elif not (run / "evaluation.json").is_file():
            _train(asked_from(None, {"resume": run}), rival)
        shutil.rmtree(run / "checkpoints")
    except Stopped as stopped:
        return 128 + stopped.signum
    except (InputError, OSError) as error:
        print(one_line(error, 2000), file=sys.stderr)
        return 2
    return 0


def _train(asked: Asked, rival: str | None) -> None:
    other = RIVALS[rival].other if rival else None
    if other is None:
        start(asked)
    else:
        train(asked, other=other)  # without attention, which there is none of to record


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
