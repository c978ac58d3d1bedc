"""The training step and all that it changes: weights, optimiser, learning rate, loss scale, moving average."""

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

import numpy as np
import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convit.data import Draw, seeded
from convit.device import autocast
from convit.models import ConViT
from convit.training.distributed import ALONE, World
from convit.training.objective import Objective, class_weights
from convit.training.optimizers import make_optimizer
from convit.training.parallel import data_parallel, draw_by_rows, share_batch_norm
from convit.training.parameters import hold_frozen_norms, parameter_groups
from convit.training.plan import Plan
from convit.training.teacher import make_distiller

T = TypeVar("T")


class Learner:
    """A model in training.

    Args:
        plan: how to train it.
        model: on the device where it is trained.
        world: the processes that train it together.
    """

    def __init__(self, plan: Plan, model: ConViT, world: World = ALONE) -> None:
        self.plan, self.world, options = plan, world, plan.options
        self.device = next(model.parameters()).device
        if world.size > 1:
            share_batch_norm(model)
        self.rows = draw_by_rows(model) if world.size * options.accumulate > 1 else None
        self.model = model
        self.ema = ModelEmaV3(model, decay=options.ema_decay) if options.ema_decay else None
        groups = parameter_groups(
            model,
            weight_decay=decided(options.weight_decay),
            layer_decay=decided(options.layer_decay),
            position_lr=decided(options.position_lr),
        )
        self.optimizer = make_optimizer(groups, decided(options.opt), decided(options.lr))
        self.scheduler = _scheduler(plan, self.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.objective = _objective(plan, self.device)
        self.distiller = make_distiller(options, plan.class_names, plan.preprocess, self.device)
        self._forward = self._callable(model)
        self.evaluated = self._forward if self.best is model else self._callable(self.best)
        """:attr:`best` as it is called: compiled if the plan says so."""
        if world.size > 1:
            self._forward = data_parallel(self._forward, self.device)

    def _callable(self, model: nn.Module) -> nn.Module:
        compiled: nn.Module = torch.compile(model) if self.plan.options.compile else model  # type: ignore[assignment]
        return compiled

    @property
    def best(self) -> ConViT:
        """The model that is evaluated and saved: the moving average if there is one."""
        model: ConViT = self.model if self.ema is None else self.ema.module
        return model

    @property
    def lr(self) -> float:
        """The learning rate of the last step, of parameters whose own is neither smaller nor larger."""
        group = min(self.optimizer.param_groups, key=lambda group: abs(group.get("lr_scale", 1.0) - 1.0))
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def step(
        self, images: Tensor, target: Tensor, epoch: int, step: int, total: Callable[[float], float] = lambda loss: loss
    ) -> float:
        """One update of the weights; everything random in it is a function of (seed, epoch, step).

        Args:
            images: (B, 3, H, W); of several processes, this one's share of the batch.
            target: (B,).
            epoch: from 0.
            step: its number in the epoch, from 0.
            total: a function from this process's loss to that of the whole step; called before the weights change, so
                if it raises, they are unchanged.

        Returns:
            The mean loss of the step's images, in nats, as ``total`` gave it.
        """
        self.model.train()
        hold_frozen_norms(self.model)
        number = epoch * self.plan.steps_per_epoch + step
        self.scheduler.step_update(number)
        self.optimizer.zero_grad(set_to_none=True)
        images, target = images.to(self.device), target.to(self.device)
        with self._draws(epoch, step):
            images, target = self.objective.mix(images, target)
        loss = total(self._gradients(images, target, epoch, step))
        self._update(number)
        return loss

    @contextlib.contextmanager
    def _draws(self, epoch: int, step: int) -> Iterator[None]:
        """Within it all draws are those of a step, the same in every process and every part of the batch."""
        with seeded(self.plan.options.seed, Draw.STEP, epoch, step):
            if self.device.type == "cuda":
                torch.cuda.manual_seed(int(torch.randint(2**62, ()).item()))
            yield

    def _gradients(self, images: Tensor, target: Tensor, epoch: int, step: int) -> float:
        """Adds up the gradients of the mean loss over the parts of the batch."""
        count, size = self.plan.options.accumulate, self.world.size
        batch_size = len(images) * size
        rows = self.world.rows(batch_size).to(self.device)
        total = 0.0
        parts = zip(images.tensor_split(count), target.tensor_split(count), rows.tensor_split(count), strict=True)
        for number, (part, its_target, its_rows) in enumerate(parts, start=1):
            if self.rows is not None:
                self.rows.batch_size, self.rows.shown = batch_size, its_rows
            with self._draws(epoch, step), self._exchange(last=number == count):
                loss = self._loss(part, its_target) / batch_size
                self.scaler.scale(loss * size if size > 1 else loss).backward()  # the mean is taken over the processes
            total += loss.item()
        return total

    def _loss(self, images: Tensor, target: Tensor) -> Tensor:
        """The sum of the losses of images."""
        with autocast(self.device, self.plan.options.precision):
            logits = self._forward(images)
            answers = None if self.distiller is None else self.distiller.teacher(images)
        loss = self.objective.loss(logits.float(), target)
        if self.distiller is not None and answers is not None:
            loss = self.distiller.loss(loss, logits.float(), answers)
        return loss

    def _exchange(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """Processes exchange their gradients once, with the last part of a batch."""
        forward = self._forward
        waits = isinstance(forward, DistributedDataParallel) and not last
        return cast(DistributedDataParallel, forward).no_sync() if waits else contextlib.nullcontext()

    def _update(self, number: int) -> None:
        """The optimiser's step, clipped; fp16 whose gradients overflowed leaves it out and scales less."""
        if self.plan.options.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.options.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=number + 1)


def decided(value: T | None) -> T:
    """The value of an option of a plan, which leaves none open."""
    assert value is not None
    return value


def _objective(plan: Plan, device: torch.device) -> Objective:
    options, weights = plan.options, None
    if options.class_weights == "balanced":
        weights = class_weights(np.array(plan.facts.counts["train"])).to(device)
    return Objective(
        len(plan.class_names),
        mixup=decided(options.mixup),
        cutmix=decided(options.cutmix),
        mix_prob=decided(options.mix_prob),
        label_smoothing=decided(options.label_smoothing),
        weights=weights,
    )


def _scheduler(plan: Plan, optimizer: torch.optim.Optimizer) -> CosineLRScheduler:
    steps, options = plan.steps_per_epoch, plan.options
    return CosineLRScheduler(
        optimizer,
        t_initial=max(2, plan.epochs * steps),  # timm warns of 1
        lr_min=min(decided(options.min_lr), decided(options.lr)),
        warmup_t=round(decided(options.warmup_epochs) * steps),
        warmup_lr_init=decided(options.warmup_lr),
        warmup_prefix=False,
        t_in_epochs=False,
    )
