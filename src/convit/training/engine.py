"""The training loop.

Everything random is a function of (seed, epoch, position): the order of the images and their augmentation
(:mod:`convit.data`), mixup and drop path (:mod:`convit.training.learner`). So the state of a run is its weights, the
optimiser's moments and two numbers, and the moving average or the loss scale if they are used. A run that was stopped
anywhere continues with the same bits.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from convit.classifier import Classifier
from convit.classifier_loading import load_folder
from convit.data import Draw, ImageSet, seeded
from convit.data.copies import Copies
from convit.device import pick_device
from convit.errors import InputError, counted, one_line
from convit.events import Advanced, EpochEnded, Listener, PassBegan, Said
from convit.layers import GatedPositionalSelfAttention
from convit.models import ConViT, create_model, load_weights
from convit.training.batches import TrainingBatches
from convit.training.distributed import ALONE, World
from convit.training.evaluation import Evaluation, best_record, epochs_since_best, evaluate
from convit.training.history import check_history
from convit.training.learner import Learner, decided
from convit.training.other_model import OtherModel
from convit.training.parameters import freeze
from convit.training.plan import Plan
from convit.training.run_folder import RunFolder
from convit.training.saving import Saver, going_on
from convit.training.speed import Foretelling, forward_seconds
from convit.training.state import Progress, State, load_state, states
from convit.training.stopping import StopRequest
from convit.training.supervisor import Supervisor

Measure = Callable[[Classifier, Copies], dict[str, Any]]
"""Gives further values for an epoch's line of ``metrics.jsonl``, as JSON values.

Called after each epoch with the present model, in evaluation mode, and the copies of the validation images. Its result
must depend on nothing else, or a resumed run would not give the same bits; it must not change the model.
"""


def measure_nothing(classifier: Classifier, images: Copies) -> dict[str, Any]:
    """A :data:`Measure` that adds nothing."""
    return {}


def starting_model(plan: Plan, other: OtherModel | None = None, *, load: bool = True) -> ConViT:
    """The model that a run starts from: drawn by seed; without ``load`` no weights are read, all come from a state."""
    options = plan.options
    name, shape = decided(options.model), {"num_classes": len(plan.class_names), **plan.model_args}
    with seeded(options.seed, Draw.START):
        if other is not None:
            return other.make(name, **shape)
        pretrained = options.pretrained and load
        model = create_model(name, drop_path_rate=options.drop_path, pretrained=pretrained, **shape)
    if options.weights is not None and load:
        load_weights(model, options.weights, new_head=not plan.keep_head)
    freeze(model, blocks=options.freeze, gates=options.freeze_gates, gpsa=options.freeze_gpsa)
    return model


class Trainer:
    """Runs a plan: epochs of steps, an evaluation after each, the best model and the exact state on disk.

    Args:
        plan: what to do.
        images: by split, ``"train"`` and ``"val"``.
        folder: where the results go; it exists.
        tell: the listener that gets the events.
        stop: checked before each step.
        world: the processes that run it together, each on its rows of every batch.
        measure: what to measure after each epoch.
        other: what is trained in place of a ConViT, if the plan is of it (:meth:`OtherModel.plan`).
        resumed: whether :meth:`resume` follows; then initial weights are not loaded, as the folder's state has them.
    """

    def __init__(
        self,
        plan: Plan,
        images: Mapping[str, ImageSet],
        folder: RunFolder,
        tell: Listener,
        stop: StopRequest,
        world: World = ALONE,
        measure: Measure = measure_nothing,
        *,
        other: OtherModel | None = None,
        resumed: bool = False,
    ) -> None:
        self.plan, self.images, self.folder, self.world = plan, images, folder, world
        self.tell, self.measure, self.other = tell, measure, other
        self.device = pick_device(plan.options.device)
        begun = resumed and bool(states(folder.checkpoints))
        self.learner = Learner(plan, starting_model(plan, other, load=not begun).to(self.device), world)
        self.model = self.learner.model
        self.classifier = Classifier(
            self.learner.best,
            plan.preprocess,
            plan.class_names,
            model_name=decided(plan.options.model),
            model_args=plan.model_args,
        )
        self.state = State(
            self.model,
            self.learner.optimizer,
            None if self.learner.ema is None else self.learner.ema.module,
            scaler=self.learner.scaler,
            plan=plan.fingerprint,
            options=plan.options.to_dict(),
        )
        self.copies = {
            split: plan.packs.measuring.copies(chosen.scaled(plan.preprocess.full_scale))
            for split, chosen in images.items()
            if split != "train"
        }
        """Of the images to measure on, by split."""
        self.batches = TrainingBatches(plan, images["train"], self.device, world)
        self.saver = Saver(folder, self.state, self.classifier, self.say, world, plan.options.save_minutes)
        self.supervisor = Supervisor(plan, self.batches, self.saver, stop, world)
        if world.watch is not None:
            world.watch.newest = lambda: f"{self.saver.newest()}; {going_on(folder.path)}"

    def saved(self) -> Classifier:
        """The best model, read from the run folder."""
        return load_folder(self.folder.path, self.device, create_model if self.other is None else self.other.make)

    @property
    def progress(self) -> Progress:
        """Where the run stands."""
        return self.state.progress

    def resume(self) -> None:
        """Loads the newest complete state of the folder; the run starts from its beginning if it has no state yet.

        Raises:
            InputError: no state is whole and of this plan.
        """
        try:
            list(self.folder.checkpoints.iterdir())
        except FileNotFoundError:
            pass
        except OSError as error:  # not "no state": that would advise to start again
            raise InputError(
                f"{self.folder.checkpoints}: cannot be read ({error.strerror}); expected the states of the run"
            ) from error
        if not states(self.folder.checkpoints):
            if self.folder.has_metrics:
                raise InputError(
                    f"{self.folder.checkpoints}: no state in it, though epochs were completed; expected the "
                    "checkpoints, or --overwrite to start again"
                )
            self.say("the run has no state yet: starting from the beginning")
            return
        passed_over = load_state(self.folder.checkpoints, self.state)
        self._check_progress()
        self.world.check_same("state", [self.progress.epoch, self.progress.step])
        for line in passed_over:
            self.say(line)
        if self.world.main:
            self.folder.write_metrics(self.progress.history)  # the line of its last epoch may be missing
        self.say(f"resuming after epoch {self.progress.epoch}, step {self.progress.step}")

    def _check_progress(self) -> None:
        """Raises InputError for a state that is whole, but says what no run of this plan would."""
        plan, progress = self.plan, self.progress
        try:
            check_history(progress.history)
            if len(progress.history) != progress.epoch:
                raise ValueError(f"records of {len(progress.history)} epochs, expected {progress.epoch}")
            if progress.epoch > plan.epochs or progress.step > plan.steps_per_epoch:
                raise ValueError(f"epoch {progress.epoch}, step {progress.step} of {plan.steps_per_epoch}")
        except ValueError as error:
            raise InputError(
                f"{self.folder.checkpoints}: not of this run ({one_line(error)}); expected what 'convit train' wrote"
            ) from error

    def fit(self) -> None:
        """Trains to the end, or until patience runs out.

        Raises:
            Stopped: it was asked to, and saved its state.
            InputError: the loss is not finite, an image cannot be decoded, the compiler failed, or the state could not
                be saved at the end.
        """
        plan, progress, supervisor = self.plan, self.progress, self.supervisor
        steps, size = plan.steps_per_epoch, plan.batch_size
        foretelling = Foretelling(plan, lambda: forward_seconds(self.learner), self.world.size)
        with supervisor.guard():
            while progress.epoch < plan.epochs and not self._out_of_patience(progress.history):
                self.tell(PassBegan(f"epoch {progress.epoch + 1}/{plan.epochs}", steps * size, progress.step * size))
                began = time.perf_counter() - progress.seconds
                batches = self.batches.of_epoch(progress.epoch, progress.step)
                for images, target in supervisor.until_stopped(batches):
                    loss = self.learner.step(images, target, progress.epoch, progress.step, supervisor.total_loss)
                    progress.end_step(loss, time.perf_counter() - began)
                    self.tell(Advanced(size, loss))
                    if foretold := foretelling.after_step(progress):
                        self.say(foretold)
                    self.saver.save_by_the_clock()

                record = self._record(self.validate())
                progress.end_epoch(record)
                self.saver.save(model=best_record(progress.history) is record)
                self.tell(EpochEnded(record, plan.epochs))
                if "stopped_early" in record:
                    done = f"after {progress.epoch} of {counted(plan.epochs, 'epoch')}"
                    self.say(f"no better epoch for {plan.options.patience}: stopped early, {done}")

    def validate(self) -> Evaluation:
        """The present model, or the average of its weights, on the validation images."""
        plan, images = self.plan, self.images["val"]
        self.tell(PassBegan("validation", len(images)))
        return evaluate(
            self.learner.evaluated,
            images,
            plan.preprocess,
            batch_size=max(64, plan.batch_size),
            workers=decided(plan.options.workers),
            copies=self.copies["val"],
            precision=plan.options.precision,
            on_batch=self.observe_batch,
            world=self.world,
        )

    def _record(self, result: Evaluation) -> dict[str, Any]:
        """The line of ``metrics.jsonl`` of the epoch whose steps are made."""
        plan, progress = self.plan, self.progress
        self.supervisor.check_finite(result.loss, "validation")
        shown = plan.steps_per_epoch * plan.batch_size
        record: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / plan.steps_per_epoch,
            "val_loss": result.loss,
            "val_images": result.num_images,
            "val_top1": result.top1,
            **({} if result.top5 is None else {"val_top5": result.top5}),
            "lr": self.learner.lr,
            "images": shown,
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(shown / progress.seconds, 1),
            "gates": [
                [round(gate, 4) for gate in module.gates.tolist()]
                for module in self.classifier.model.modules()
                if isinstance(module, GatedPositionalSelfAttention)
            ],
            **(self.measure(self.classifier, self.copies["val"]) if self.world.main else {}),
        }
        if progress.epoch + 1 < plan.epochs and self._out_of_patience([*progress.history, record]):
            record["stopped_early"] = True
        return record

    def _out_of_patience(self, history: list[dict[str, Any]]) -> bool:
        patience = self.plan.options.patience
        return patience is not None and epochs_since_best(history) >= patience

    def observe_batch(self, images: int) -> None:
        """Called after each batch of an evaluation: tells how many images all processes have done.

        Raises:
            Stopped: one of them was asked to; the state is saved.
        """
        self.tell(Advanced(self.supervisor.total_images(images)))

    def say(self, text: str) -> None:
        """Tells a line for a person."""
        self.tell(Said(text))
