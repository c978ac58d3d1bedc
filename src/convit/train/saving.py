"""Writing what must not be lost, on a disk that may be full: training goes on, and the writing is tried again."""

import copy
from collections.abc import Callable

from convit.classifier import Classifier
from convit.errors import InputError
from convit.train.distributed import ALONE, World
from convit.train.run_folder import RunFolder
from convit.train.state import Parts, Progress, own_states, save_state, sync, tensors_of


class Saver:
    """Writes the best model, the state and the metrics of a run, in this order.

    So a state never knows of a best model that is not on the disk. What is there stays until the new is whole.

    Args:
        folder: where to.
        parts: what a state holds.
        classifier: the model as it is evaluated.
        say: told in one line what could not be written.
        world: the processes that train. All have to call the methods, one of them writes.
    """

    def __init__(
        self,
        folder: RunFolder,
        parts: Parts,
        classifier: Classifier,
        say: Callable[[str], None],
        world: World = ALONE,
    ) -> None:
        self.folder, self.parts, self.classifier, self.say, self.world = folder, parts, classifier, say, world
        self.fault: OSError | None = None
        """Why the last attempt failed, if it did."""
        self._unwritten: Classifier | None = None  # a best model that waits for room, as it was then

    def save(self, progress: Progress, *, model: bool = False) -> bool:
        """Writes where the run stands, and with ``model`` the model as it is now; False if it could not be written."""
        tensors = tensors_of(self.parts) if self.parts.sharded else None  # takes all processes
        if not self.world.main:
            return True
        best = self.classifier if model else self._unwritten
        try:
            if best is not None:
                best.save(self.folder.path)
                sync(self.folder.path)
                best = self._unwritten = None
            save_state(self.folder.checkpoints, self.parts, progress, tensors)
            if progress.history:
                self.folder.write_metrics(progress.history)
        except OSError as error:
            self.fault = error
            if best is self.classifier:
                self._unwritten = copy.deepcopy(best).to("cpu")
            self._clear()
            self.say(f"could not save ({_reason(error)}): training goes on, and this is tried again; {self.newest()}")
            return False
        if self.fault is not None:
            self.fault = None
            self.say("saved again: there is room")
        return True

    def insist(self, progress: Progress, *, model: bool = False, before: str = "") -> None:
        """Writes where the run stands, where that is the last chance.

        Raises:
            InputError: it could not be written; ``before`` stands before it.
        """
        if not self.save(progress, model=model):
            assert self.fault is not None
            where = self.fault.filename or self.folder.path
            raise InputError(
                f"{before}{where}: {_reason(self.fault)}; expected a place with room that can be written to; "
                f"{self.newest()}: make room, and continue with --resume"
            ) from self.fault

    def newest(self) -> str:
        """Says what there is to go on from."""
        newest = next(own_states(self.folder.checkpoints, self.parts), None)
        return f"the newest state in {self.folder.path} is {newest.name}" if newest else "no state is saved yet"

    def _clear(self) -> None:
        """Removes half-written files: they are no use, and a full disk needs their room."""
        for path in self.folder.path.glob(".*.tmp"):
            if path.is_file():
                path.unlink(missing_ok=True)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
