"""Ends a run before its last epoch, on signals and failures, so that the training loop need not handle them."""

import contextlib
import math
from collections.abc import Iterator

from torch import Tensor

from convit.errors import InputError
from convit.training.batches import TrainingBatches
from convit.training.distributed import ALONE, World
from convit.training.plan import Plan
from convit.training.saving import Saver, going_on
from convit.training.stopping import Stopped, StopRequest
from convit.training.workers import WorkerDied


class Supervisor:
    """Ends a run cleanly: at a signal, a loss that is not finite, the death of a process that loads images, an error of
    the compiler, a disk that stays full. Of several processes, all end at the same step.

    Args:
        plan: of the run.
        batches: that it learns from.
        saver: of its state.
        stop: whether this process was asked to stop.
        world: the processes that train together.
    """

    def __init__(
        self, plan: Plan, batches: TrainingBatches, saver: Saver, stop: StopRequest, world: World = ALONE
    ) -> None:
        self.plan, self.batches, self.saver, self.stop, self.world = plan, batches, saver, stop, world
        self._agreed: int | None = None  # the signal that all processes know of

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Within it the run trains; at its end all is saved.

        Raises:
            InputError: one line for what ended it, or where it ended could not be saved.
        """
        try:
            yield
        except WorkerDied as died:
            raise self._worker_died(died) from died
        except RuntimeError as error:
            if fault := _of_the_compiler(error):
                raise fault from error
            raise
        finally:
            self.batches.close()
        if self.world.any(self.saver.fault is not None):
            self.saver.insist()

    def until_stopped(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches, each after a look whether to stop.

        Raises:
            Stopped: the state is saved.
        """
        for batch in batches:
            self._check_stop()
            yield batch

    def total_loss(self, loss: float) -> float:
        """The loss of a step from this process's part of it, before it counts.

        Raises:
            InputError: it is no number; which images they are.
        """
        losses = self._hear(loss)
        total = sum(losses)
        if not math.isfinite(total):
            progress = self.saver.state.progress
            bad = [rank for rank, loss in enumerate(losses) if not math.isfinite(loss)]
            names = self.batches.names(progress.epoch, progress.step, bad)
            shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            self.check_finite(total, f"step {progress.step + 1} (images {shown})")
        return total

    def total_images(self, images: int) -> int:
        """How many images all processes have done, from how many this one has, after a batch of an evaluation.

        Raises:
            Stopped: one of them was asked to; the state is saved.
        """
        total = sum(self._hear(images))
        self._check_stop()
        return int(total)

    def check_finite(self, loss: float, where: str) -> None:
        """Refuses to go on with a loss that is no number."""
        if not math.isfinite(loss):
            raise InputError(
                f"loss: got {loss} in epoch {self.saver.state.progress.epoch + 1}, {where}, expected a number; nothing "
                f"of it is saved; try a lower --lr than {self.plan.options.lr:g}"
            )

    def _hear(self, value: float) -> list[float]:
        """A number from every process, and whether any of them was asked to stop."""
        told = self.world.gather(value, self.stop.signum or 0)
        self._agreed = int(max(signum for _, signum in told)) or None
        return [number for number, _ in told]

    def _check_stop(self) -> None:
        """Stops where all processes know that one of them was asked to."""
        signum = self.stop.signum if self.world.size == 1 else self._agreed
        if signum is None:
            return
        stopped = Stopped(signum, self.saver.folder.path)
        unfinished = not self.saver.state.progress.history  # better an unfinished model than none
        self.saver.insist(model=unfinished, before="stopped, but not saved: ")
        if self.world.main:
            self.saver.folder.log(str(stopped))
        self.world.barrier()  # it is saved
        raise stopped

    def _worker_died(self, died: WorkerDied) -> InputError:
        """What to raise for it; the state is saved, unless other processes are in the middle of a step."""
        folder = self.saver.folder.path
        fewer = f"{going_on(folder)}, with fewer --workers than {self.plan.options.workers} if it happens again"
        if self.world.size > 1:
            return InputError(f"process {self.world.rank}: {died}; {self.saver.newest()}: {fewer}")
        self.saver.insist(before=f"{died}; ")
        return InputError(f"{died}; the state is saved in {folder}: {fewer}")


def _of_the_compiler(error: RuntimeError) -> InputError | None:
    """A fault of torch.compile, which is lazy, in one line; None for another fault."""
    if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        return None
    inner = getattr(error, "inner_exception", error)
    reason = next((line.strip() for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
    return InputError(f"compile: {reason}; expected a compiler that works: leave out --compile")
