"""The training loop.

Everything random is a function of (seed, epoch, position): the order of the images and their augmentation
(:mod:`convit.data`), mixup and drop path (:mod:`convit.train.learner`). So the state of a run is its weights, the
optimiser's moments and two numbers, with a moving average or a loss scale where they are on, and a run that was stopped
anywhere goes on to the same bits.
"""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from torch import nn

from convit.classifier import Classifier
from convit.data import EpochSampler, SampleDataset, seeded, training_transform
from convit.device import pick_device
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention
from convit.models import ConViT, create_model, load_weights
from convit.train.distributed import ALONE, World
from convit.train.evaluation import Evaluation, best_record, epochs_since_best, evaluate
from convit.train.freezing import freeze_parts
from convit.train.learner import Learner
from convit.train.observer import Observer, Stopped, StopRequest
from convit.train.plan import Plan
from convit.train.run_folder import RunFolder
from convit.train.saving import Saver
from convit.train.state import Parts, Progress, load_state, states
from convit.train.workers import WorkerDied, batches, end_workers, make_loader

_START = 101  # keeps the draws for the weights apart from those of convit.data and of the steps


class Trainer:
    """Runs a plan: epochs of steps, an evaluation after each, the best model and the exact state on disk.

    Args:
        plan: what to do.
        folder: where the results go; it exists.
        observer: hears how it goes on.
        stop: asked before each step.
        world: the processes that run it together, each on its share of every batch.
        run: which run it is, as ``identity.json`` says; a state of another one is not taken up.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        observer: Observer,
        stop: StopRequest,
        world: World = ALONE,
        run: str | None = None,
    ) -> None:
        self.plan, self.folder, self.observer, self.stop, self.world = plan, folder, observer, stop, world
        self.device = pick_device(plan.config.run.device)
        self.learner = Learner(plan, self._start().to(self.device), world)
        self.model = self.learner.model
        self.classifier = Classifier(
            self.learner.best,
            plan.preprocess,
            plan.class_names,
            model_name=plan.model_name,
            model_args=plan.model_args,
        )
        ema = self.learner.ema
        self.parts = Parts(
            self.model,
            self.learner.optimizer,
            None if ema is None else ema.module,
            scaler=self.learner.scaler,
            run=run,
        )
        self.saver = Saver(folder, self.parts, self.classifier, self.say, world)
        self.progress = Progress()
        self._losses = [0.0]  # of the last step, by process
        self._agreed: int | None = None  # the signal that all processes know of
        if world.watch is not None:
            world.watch.newest = self.saver.newest
        self._make_loader()

    def _start(self) -> ConViT:
        """The model that training starts from: drawn by seed, or loaded; the first blocks frozen if asked for."""
        plan, options = self.plan, self.plan.config.model
        begun = bool(states(self.folder.checkpoints)) and plan.config.run.resume  # then all comes from the state
        with seeded(plan.config.run.seed, _START):
            model = create_model(
                plan.model_name,
                num_classes=len(plan.class_names),
                drop_path_rate=options.drop_path,
                pretrained=options.pretrained and not begun,
                **plan.model_args,
            )
        if options.weights is not None and not begun:
            load_weights(model, options.weights, new_head=not plan.keep_head)
        freeze_parts(model, options)
        return model

    def _make_loader(self) -> None:
        plan, seed = self.plan, self.plan.config.run.seed
        transform = training_transform(plan.preprocess, plan.augmentation)
        dataset = SampleDataset(plan.train, transform, seed=seed, cache=plan.cache)
        self.sampler = EpochSampler(
            len(dataset),
            seed=seed,
            repeats=plan.values.repeated_augmentation,
            balance=plan.train.targets if plan.config.source.balanced_sampling else None,
            share=(plan.batch_size, self.world.rows(plan.batch_size).numpy()) if self.world.size > 1 else None,
        )
        self.loader = make_loader(
            dataset,
            plan.workers,
            batch_size=plan.batch_size // self.world.size,
            sampler=self.sampler,
            drop_last=True,
            pin_memory=self.device.type == "cuda",
        )

    def resume(self) -> None:
        """Takes up the newest whole state of the folder; the beginning, if the run ended before its first."""
        if not states(self.folder.checkpoints):
            if self.folder.has_metrics:
                raise InputError(
                    f"{self.folder.checkpoints}: no state in it, though epochs were completed; expected the "
                    "checkpoints, or --overwrite to start again"
                )
            self.say("the run has no state yet: starting from the beginning")
            return
        self.progress, passed_over = load_state(self.folder.checkpoints, self.parts)
        self.world.check_same("state", [self.progress.epoch, self.progress.step])
        for line in passed_over:
            self.say(line)
        if self.world.main:
            self.folder.write_metrics(self.progress.history)  # the line of its last epoch may be missing
        self.say(f"resuming after epoch {self.progress.epoch}, step {self.progress.step}")

    def say(self, text: str) -> None:
        """Tells the observer and the log."""
        self.observer.message(text)
        self._log(text)

    def _log(self, text: str) -> None:
        if self.world.main:
            with contextlib.suppress(OSError):  # a full disk: the line was said, and training goes on
                self.folder.log(text)

    def fit(self) -> None:
        """Trains to the end, or until patience runs out.

        Raises:
            Stopped: it was asked to, and saved its state.
            InputError: the loss is no longer a number, an image does not decode, the compiler failed, or where the run
                ended could not be saved.
        """
        try:
            while self.progress.epoch < self.plan.epochs and not self._out_of_patience():
                self._train_epoch()
                self._end_epoch()
        except WorkerDied as died:
            if self.world.size > 1:  # the others are in the middle of a step, which is not saved
                raise InputError(
                    f"process {self.world.rank}: {died}; {self.saver.newest()}: continue with --resume, with "
                    f"fewer --workers than {self.plan.workers} if it happens again"
                ) from died
            self.saver.insist(self.progress, before=f"{died}; ")
            raise InputError(
                f"{died}; the state is saved in {self.folder.path}: continue with --resume, with fewer --workers than "
                f"{self.plan.workers} if it happens again"
            ) from died
        finally:
            end_workers(self.loader)
        if self.world.any(self.saver.fault is not None):
            self.saver.insist(self.progress)

    def _out_of_patience(self) -> bool:
        patience = self.plan.config.optim.patience
        return patience is not None and epochs_since_best(self.progress.history) >= patience

    def _train_epoch(self) -> None:
        plan, progress = self.plan, self.progress
        steps = plan.steps_per_epoch
        self.observer.begin(
            f"epoch {progress.epoch + 1}/{plan.epochs}", steps * plan.batch_size, progress.step * plan.batch_size
        )
        self.sampler.set_epoch(progress.epoch, start=progress.step * plan.batch_size)
        began = time.perf_counter() - progress.seconds
        saved = time.monotonic()
        minutes = plan.config.run.save_minutes or math.inf
        for images, target in batches(self.loader):
            self._check_stop()
            with self._compiler_named():
                self.learner.step(images, target, progress.epoch, progress.step, self._check_step)
            loss = sum(self._losses)
            progress.step += 1
            progress.loss_sum += loss
            progress.seconds = time.perf_counter() - began
            self.observer.advance(plan.batch_size, loss)
            late = time.monotonic() - saved >= 60 * minutes
            if self.world.any(late) if plan.config.run.save_minutes else late:
                self.saver.save(progress)
                saved = time.monotonic()

    def _evaluate(self) -> Evaluation:
        plan = self.plan
        self.observer.begin("validation", len(plan.val))
        self.learner.gather()
        with self._compiler_named():
            return evaluate(
                self.learner.evaluated,
                plan.val,
                plan.preprocess,
                batch_size=max(64, plan.batch_size),
                workers=plan.workers,
                cache=plan.cache,
                precision=plan.config.optim.precision,
                on_batch=self.hear_batch,
                world=self.world,
            )

    def _end_epoch(self) -> None:
        plan, progress = self.plan, self.progress
        shown = plan.steps_per_epoch * plan.batch_size
        result = self._evaluate()
        self._check_finite(result.loss, "validation")
        record: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / plan.steps_per_epoch,
            "val_loss": result.loss,
            "val_top1": result.top1,
            **({"val_top5": result.top5} if len(plan.class_names) > 5 else {}),
            "lr": self.learner.lr,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(shown / progress.seconds, 1),
            "gates": [[round(gate, 4) for gate in gates] for gates in _gates(self.classifier.model)],
            **(self.observer.measure(self.classifier, plan.val) if self.world.main else {}),
        }
        progress.history.append(record)
        if early := self._out_of_patience() and progress.epoch + 1 < plan.epochs:
            record["stopped_early"] = True
        progress.epoch, progress.step, progress.seconds, progress.loss_sum = progress.epoch + 1, 0, 0.0, 0.0
        self.saver.save(progress, model=best_record(progress.history) is record)
        self.observer.end_epoch(record, plan.epochs)
        self._log(_line(record, plan.epochs))
        if early:
            patience = plan.config.optim.patience
            self.say(f"no better epoch for {patience}: stopped early, after {progress.epoch} of {plan.epochs} epochs")

    @contextlib.contextmanager
    def _compiler_named(self) -> Iterator[None]:
        """Turns a fault of torch.compile, which is lazy, into one line."""
        try:
            yield
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            inner = getattr(error, "inner_exception", error)
            reason = next((line.strip() for line in str(inner).splitlines() if line.strip()), type(inner).__name__)
            raise InputError(f"compile: {reason}; expected a compiler that works: leave out --compile") from error

    def _hear(self, value: float) -> list[float]:
        """A number from every process, and whether any of them was asked to stop."""
        told = self.world.gather(value, self.stop.signum or 0)
        self._agreed = int(max(signum for _, signum in told)) or None
        return [number for number, _ in told]

    def hear_batch(self, images: int) -> None:
        """After each batch of an evaluation: tells the observer, and stops if one of the processes was asked to.

        Raises:
            Stopped: the state is saved.
        """
        told = self._hear(images)
        self._check_stop()
        self.observer.advance(int(sum(told)))

    def _check_step(self, loss: float) -> None:
        self._losses = self._hear(loss)
        if not math.isfinite(sum(self._losses)):
            self._check_finite(sum(self._losses), f"step {self.progress.step + 1} (images {self._names_of_batch()})")

    def _names_of_batch(self) -> str:
        """The images of the step that is being made, of the processes whose loss is no number."""
        size = self.plan.batch_size
        keys = self.sampler.keys(self.progress.epoch)[self.progress.step * size :]
        bad = [rank for rank, loss in enumerate(self._losses) if not math.isfinite(loss)]
        rows = [row for rank in bad for row in self.world.rows(size, rank).tolist()]
        names = [self.plan.train.where(keys[row][1]) for row in rows]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    def _check_finite(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"loss: got {loss} in epoch {self.progress.epoch + 1}, {where}, expected a number; nothing of it is "
                f"saved; try a lower --lr than {self.plan.lr:g}"
            )

    def _check_stop(self) -> None:
        """Stops where all processes know that one of them was asked to."""
        signum = self.stop.signum if self.world.size == 1 else self._agreed
        if signum is None:
            return
        stopped = Stopped(signum, self.folder.path)
        unfinished = not self.progress.history  # better an unfinished model than none
        if unfinished:
            self.learner.gather()
        self.saver.insist(self.progress, model=unfinished, before="stopped, but not saved: ")
        self._log(str(stopped))
        self.world.barrier()  # it is saved
        raise stopped


def _gates(model: nn.Module) -> list[list[float]]:
    """The gates of every GPSA layer, by layer and head."""
    return [module.gates.tolist() for module in model.modules() if isinstance(module, GatedPositionalSelfAttention)]


def _line(record: dict[str, Any], epochs: int) -> str:
    top5 = f"top-5 {record['val_top5']:.2f}%, " if "val_top5" in record else ""
    return (
        f"epoch {record['epoch']}/{epochs}: train loss {record['train_loss']:.4f}, val loss {record['val_loss']:.4f}, "
        f"top-1 {record['val_top1']:.2f}%, {top5}{record['images_per_second']:.0f} images/s"
    )
