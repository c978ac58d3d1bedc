"""One run of a grid: ``python -m convit.experiments.cell CONFIG.yaml RUN_FOLDER < PIPE``.

Does what ``convit train --config CONFIG.yaml --out RUN_FOLDER`` does, or goes on where that run stopped, and then
removes its state, of no more use. When standard input ends it saves the run and stops, so it does not outlive who
started it, however that one ended.
"""

import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from convit.entry import train
from convit.errors import InputError, one_line
from convit.training.run_folder import RunFolder
from convit.training.stopping import Stopped


def main(config: Path, run: Path) -> int:
    """Makes the run; 2 for what is wrong with it, on the last line of standard error, 128 + a signal's number."""
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    try:
        if not RunFolder(run).is_run:
            train(config=config, out=run)
        elif not (run / "evaluation.json").is_file():
            train(resume=run)
        shutil.rmtree(run / "checkpoints")
    except Stopped as stopped:
        return 128 + stopped.signum
    except (InputError, OSError) as error:
        print(one_line(error, 2000), file=sys.stderr)
        return 2
    return 0


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), Path(sys.argv[2])))
