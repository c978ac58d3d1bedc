"""Saves the best model and the state. If the disk is full, training continues, and saving is tried again."""

import copy
import time
from collections.abc import Callable
from pathlib import Path

from convit.classifier import Classifier
from convit.errors import InputError
from convit.files import sync
from convit.training.distributed import ALONE, World
from convit.training.run_folder import RunFolder
from convit.training.state import State, own_states, save_state


class Saver:
    """Writes the best model, the state and the metrics of a run, in this order.

    So the best model of a state is always on the disk. Old files are kept until the new ones are complete.

    Args:
        folder: where to.
        state: of the run.
        classifier: the model as it is evaluated.
        say: told in one line what could not be written.
        world: the processes that train. All have to call the methods, one of them writes.
        minutes: how often to save between the epochs too; None for not at all.
    """

    def __init__(
        self,
        folder: RunFolder,
        state: State,
        classifier: Classifier,
        say: Callable[[str], None],
        world: World = ALONE,
        minutes: float | None = None,
    ) -> None:
        self.folder, self.state, self.classifier, self.say, self.world = folder, state, classifier, say, world
        self.minutes = minutes
        self.fault: OSError | None = None
        """Why the last attempt failed, if it did."""
        self._unwritten: Classifier | None = None  # a best model that waits for room, as it was then
        self._last = time.monotonic()

    def save(self, *, model: bool = False) -> bool:
        """Writes where the run stands, and with ``model`` the model as it is now; False if it could not be written."""
        self._last = time.monotonic()
        if not self.world.main:
            return True
        best = self.classifier if model else self._unwritten
        try:
            if best is not None:
                best.write(self.folder.path)
                sync(self.folder.path)
                best = self._unwritten = None
            save_state(self.folder.checkpoints, self.state)
            if self.state.progress.history:
                self.folder.write_metrics(self.state.progress.history)
        except OSError as error:
            self.fault = error
            if best is self.classifier:
                self._unwritten = copy.deepcopy(best).to("cpu")
            why = error.strerror or error
            self.say(f"could not save ({why}): training goes on, and this is tried again; {self.newest()}")
            return False
        if self.fault is not None:
            self.fault = None
            self.say("saved again: there is room")
        return True

    def save_by_the_clock(self) -> None:
        """Writes where the run stands, if the minutes since the last time are over on any process."""
        if self.minutes is not None and self.world.any(time.monotonic() - self._last >= 60 * self.minutes):
            self.save()

    def insist(self, *, model: bool = False, before: str = "") -> None:
        """Writes where the run stands, where that is the last chance.

        Raises:
            InputError: it could not be written; ``before`` stands before it.
        """
        if not self.save(model=model):
            assert self.fault is not None
            where, why = self.fault.filename or self.folder.path, self.fault.strerror or self.fault
            raise InputError(
                f"{before}{where}: {why}; expected a place with room that can be written to; "
                f"{self.newest()}: make room, and {going_on(self.folder.path)}"
            ) from self.fault

    def newest(self) -> str:
        """Says what there is to go on from."""
        newest = next(own_states(self.folder.checkpoints, self.state), None)
        return f"the newest state in {self.folder.path} is {newest.name}" if newest else "no state is saved yet"


def going_on(folder: Path) -> str:
    """Says how a run is continued."""
    return f"continue with 'convit train --resume {folder}'"
