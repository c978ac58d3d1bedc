"""The training loop.

Everything random is a function of (seed, epoch, position): the order of the images and their augmentation
(:mod:`convit.data`), mixup and drop path (here, seeded before each step). So the state of a run is its weights, the
optimiser's moments and two numbers, and a run that was stopped anywhere goes on to the same bits.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn

from convit.classifier import Classifier
from convit.data import EpochSampler, SampleDataset, seeded, training_transform
from convit.device import pick_device
from convit.errors import InputError
from convit.layers import GatedPositionalSelfAttention
from convit.models import ConViT, create_model, load_weights
from convit.train.evaluation import best_record, evaluate
from convit.train.observer import Observer, Stopped, StopRequest
from convit.train.plan import Plan
from convit.train.run_folder import RunFolder
from convit.train.state import Progress, load_state, save_state, states
from convit.train.workers import WorkerDied, batches, end_workers, make_loader

_START, _STEP = 101, 102  # keep the draws for the weights and for the steps apart from those of convit.data


class Trainer:
    """Runs a plan: epochs of steps, an evaluation after each, the best model and the exact state on disk.

    Args:
        plan: what to do.
        folder: where the results go; it exists.
        observer: hears how it goes on.
        stop: asked before each step.
    """

    def __init__(self, plan: Plan, folder: RunFolder, observer: Observer, stop: StopRequest) -> None:
        self.plan, self.folder, self.observer, self.stop = plan, folder, observer, stop
        self.config = plan.config
        optim, augment = plan.config.optim, plan.config.augment
        self.seed = plan.config.run.seed
        self.device = pick_device(plan.config.run.device)
        model = self._start()
        self.classifier = Classifier(
            model.to(self.device),
            plan.preprocess,
            plan.class_names,
            model_name=plan.model_name,
            model_args=plan.model_args,
        )
        self.model = self.classifier.model
        self.optimizer = create_optimizer_v2(
            self.model,
            opt="adamw",
            lr=plan.lr,
            weight_decay=optim.weight_decay,
            layer_decay=optim.layer_decay if optim.layer_decay != 1 else None,
        )
        steps = plan.steps_per_epoch
        self.scheduler = CosineLRScheduler(
            self.optimizer,
            t_initial=max(2, plan.epochs * steps),  # timm warns of 1
            lr_min=min(optim.min_lr, plan.lr),
            warmup_t=round(plan.warmup_epochs * steps),
            warmup_lr_init=plan.lr / 100,
            warmup_prefix=False,
            t_in_epochs=False,
        )
        self.mixup: Mixup | None = None
        mixup, cutmix = augment.mixup or 0.0, augment.cutmix or 0.0
        if augment.mix_prob > 0 and (mixup > 0 or cutmix > 0):
            self.mixup = Mixup(
                mixup_alpha=mixup,
                cutmix_alpha=cutmix,
                prob=augment.mix_prob,
                label_smoothing=augment.label_smoothing,
                num_classes=len(plan.class_names),
            )
        self.loss: Callable[[Tensor, Tensor], Tensor] = (
            SoftTargetCrossEntropy() if self.mixup else nn.CrossEntropyLoss(label_smoothing=augment.label_smoothing)
        )
        self.progress = Progress()
        self._make_loader()

    def _start(self) -> ConViT:
        """The model that training starts from: drawn by seed, or loaded; the first blocks frozen if asked for."""
        plan, options = self.plan, self.plan.config.model
        begun = bool(states(self.folder.checkpoints)) and plan.config.run.resume  # then all comes from the state
        with seeded(self.seed, _START):
            model = create_model(
                plan.model_name,
                num_classes=len(plan.class_names),
                drop_path_rate=options.drop_path,
                pretrained=options.pretrained and not begun,
                **plan.model_args,
            )
        if options.weights is not None and not begun:
            load_weights(model, options.weights, new_head=not plan.keep_head)
        model.freeze(options.freeze)
        return model

    def _make_loader(self) -> None:
        plan = self.plan
        transform = training_transform(plan.preprocess, plan.augmentation)
        dataset = SampleDataset(plan.train, transform, seed=self.seed, cache=plan.cache)
        self.sampler = EpochSampler(len(dataset), seed=self.seed)
        self.loader = make_loader(
            dataset,
            plan.workers,
            batch_size=plan.batch_size,
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
        self.progress, damaged = load_state(self.folder.checkpoints, self.model, self.optimizer)
        for line in damaged:
            self.say(line)
        self.folder.write_metrics(self.progress.history)  # the line of its last epoch may be missing
        self.say(f"resuming after epoch {self.progress.epoch}, step {self.progress.step}")

    def say(self, text: str) -> None:
        """Tells the observer and the log."""
        self.observer.message(text)
        self.folder.log(text)

    def fit(self) -> None:
        """Trains to the end.

        Raises:
            Stopped: it was asked to, and saved its state.
            InputError: the loss is no longer a number, or an image does not decode.
        """
        try:
            while self.progress.epoch < self.plan.epochs:
                self._train_epoch()
                self._end_epoch()
        except WorkerDied as died:
            save_state(self.folder.checkpoints, self.model, self.optimizer, self.progress)
            raise InputError(
                f"{died}; the state is saved in {self.folder.path}: continue with --resume, with fewer --workers than "
                f"{self.plan.workers} if it happens again"
            ) from died
        finally:
            end_workers(self.loader)

    def _train_epoch(self) -> None:
        plan, progress = self.plan, self.progress
        steps = plan.steps_per_epoch
        self.observer.begin(
            f"epoch {progress.epoch + 1}/{plan.epochs}", steps * plan.batch_size, progress.step * plan.batch_size
        )
        self.model.train()
        self.sampler.set_epoch(progress.epoch, start=progress.step * plan.batch_size)
        began = time.perf_counter() - progress.seconds
        for images, target in batches(self.loader):
            self._check_stop()
            loss = self._step(images.to(self.device), target.to(self.device))
            progress.step += 1
            progress.loss_sum += loss
            progress.seconds = time.perf_counter() - began
            self.observer.advance(plan.batch_size, loss)

    def _step(self, images: Tensor, target: Tensor) -> float:
        progress = self.progress
        self.scheduler.step_update(progress.epoch * self.plan.steps_per_epoch + progress.step)
        with seeded(self.seed, _STEP, progress.epoch, progress.step):
            if self.device.type == "cuda":
                torch.cuda.manual_seed(int(torch.randint(2**62, ()).item()))
            if self.mixup is not None:
                images, target = self.mixup(images, target)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.optim.precision == "bf16"):
                logits = self.model(images)
            loss = self.loss(logits.float(), target)
            value = loss.item()
            self._check_finite(value, f"step {progress.step + 1} (images {self._names_of_batch()})")
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        if self.config.optim.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_grad)
        self.optimizer.step()
        return value

    def _end_epoch(self) -> None:
        plan, progress = self.plan, self.progress
        steps = plan.steps_per_epoch
        self.observer.begin("validation", len(plan.val))

        def on_batch(images: int) -> None:
            self._check_stop()
            self.observer.advance(images)

        result = evaluate(
            self.model,
            plan.val,
            plan.preprocess,
            batch_size=max(64, plan.batch_size),
            workers=plan.workers,
            cache=plan.cache,
            precision=self.config.optim.precision,
            on_batch=on_batch,
        )
        self._check_finite(result.loss, "validation")
        record: dict[str, Any] = {
            "epoch": progress.epoch + 1,
            "train_loss": progress.loss_sum / steps,
            "val_loss": result.loss,
            "val_top1": result.top1,
            **({"val_top5": result.top5} if len(plan.class_names) > 5 else {}),
            "lr": max(group["lr"] for group in self.optimizer.param_groups),
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(steps * plan.batch_size / progress.seconds, 1),
            "gates": [[round(gate, 4) for gate in gates] for gates in _gates(self.model)],
            **self.observer.measure(self.classifier, plan.val),
        }
        progress.history.append(record)
        if best_record(progress.history) is record:
            self.classifier.save(self.folder.path)
        progress.epoch, progress.step, progress.seconds, progress.loss_sum = progress.epoch + 1, 0, 0.0, 0.0
        save_state(self.folder.checkpoints, self.model, self.optimizer, progress)
        self.folder.write_metrics(progress.history)
        self.observer.end_epoch(record, plan.epochs)
        self.folder.log(_line(record, plan.epochs))

    def _names_of_batch(self) -> str:
        """The images of the step that is being made."""
        first = self.progress.step * self.plan.batch_size
        keys = self.sampler.keys(self.progress.epoch)[first : first + self.plan.batch_size]
        names = [self.plan.train.where(index) for _, index in keys]
        return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")

    def _check_finite(self, loss: float, where: str) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"loss: got {loss} in epoch {self.progress.epoch + 1}, {where}, expected a number; nothing of it is "
                f"saved; try a lower --lr than {self.plan.lr:g}"
            )

    def _check_stop(self) -> None:
        if self.stop.signum is None:
            return
        save_state(self.folder.checkpoints, self.model, self.optimizer, self.progress)
        if not self.progress.history:
            self.classifier.save(self.folder.path)  # better an unfinished model than none
        stopped = Stopped(self.stop.signum, self.folder.path)
        self.folder.log(str(stopped))
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
