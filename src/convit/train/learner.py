"""All that a step changes, and the step: weights, optimiser, learning rate, loss scale, moving average."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import cast

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from convit.data import seeded
from convit.models import ConViT
from convit.train.distill import make_distiller
from convit.train.distributed import ALONE, World
from convit.train.evaluation import AUTOCAST
from convit.train.freezing import hold_frozen_norms
from convit.train.objective import Objective, class_weights
from convit.train.parallel import (
    check_divisible,
    check_parallel,
    data_parallel,
    draw_by_rows,
    shard,
    share_batch_norm,
    whole,
)
from convit.train.param_groups import parameter_groups
from convit.train.plan import Plan

_STEP = 102  # keeps the draws of the steps apart from those of convit.data and for the weights


class Learner:
    """A model in training.

    Args:
        plan: how to train it.
        model: on the device where it is trained.
        world: the processes that train it together.
    """

    def __init__(self, plan: Plan, model: ConViT, world: World = ALONE) -> None:
        self.plan, self.world = plan, world
        self.device = next(model.parameters()).device
        options = plan.config.optim
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)
        if options.accumulate > 1:
            check_divisible(model)
        if world.size > 1:
            check_parallel(plan.config.run.parallel, options, model)
            share_batch_norm(model)
        self.rows = draw_by_rows(model) if world.size * options.accumulate > 1 else None
        self.model = model
        self.ema: ModelEmaV3 | None = None
        if plan.values.ema_decay > 0:
            self.ema = ModelEmaV3(model, decay=plan.values.ema_decay, use_warmup=options.ema_warmup)
        self._whole: ConViT | None = None  # of a model in parts
        if world.size > 1 and plan.config.run.parallel == "fsdp":
            self._whole = copy.deepcopy(model)
            shard(model, self.device, world)
            if self.ema is not None:
                shard(self.ema.module, self.device, world)
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        values = plan.values
        rates = {"layer_decay": values.layer_decay, "position_lr": values.position_lr}
        groups = parameter_groups(model, weight_decay=values.weight_decay, **rates)
        self.optimizer = create_optimizer_v2(groups, opt="adamw", lr=plan.lr)
        self.scheduler = _scheduler(plan, self.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        weights = class_weights(plan.train.counts()) if options.class_weights == "balanced" else None
        classes = len(plan.class_names)
        self.objective = Objective(plan.values, classes, None if weights is None else weights.to(self.device))
        self.distiller = make_distiller(plan.config.distill, plan.class_names, plan.preprocess, self.device)
        self._forward = self._callable(model)
        self._forward_best = self._forward if self.best is model else self._callable(self.best)
        if world.size > 1 and self._whole is None:
            self._forward = data_parallel(self._forward, self.device)

    def _callable(self, model: nn.Module) -> nn.Module:
        compiled: nn.Module = torch.compile(model) if self.plan.config.optim.compile else model  # type: ignore[assignment]
        return compiled

    @property
    def best(self) -> ConViT:
        """The model that is evaluated and saved: the moving average if there is one; a copy if it is in parts."""
        return self._whole if self._whole is not None else self._averaged

    @property
    def _averaged(self) -> ConViT:
        model: ConViT = self.model if self.ema is None else self.ema.module
        return model

    @property
    def lr(self) -> float:
        """The learning rate of the last step, of parameters whose own is neither smaller nor larger."""
        group = min(self.optimizer.param_groups, key=lambda group: abs(group.get("lr_scale", 1.0) - 1.0))
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def gather(self) -> None:
        """Makes :attr:`best` what the model is now, which takes all processes; without parts it is that anyway."""
        if self._whole is not None:
            self._whole.load_state_dict({key: whole(value) for key, value in self._averaged.state_dict().items()})

    @property
    def evaluated(self) -> nn.Module:
        """:attr:`best` as it is called: compiled if the plan says so."""
        return self._forward_best

    def step(self, images: Tensor, target: Tensor, epoch: int, step: int, check: Callable[[float], None]) -> float:
        """One update of the weights; everything random in it is a function of (seed, epoch, step).

        Args:
            images: (B, 3, H, W); of several processes, this one's share of the batch.
            target: (B,).
            epoch: from 0.
            step: its number in the epoch, from 0.
            check: told the loss before it counts; may raise, and then nothing has changed.

        Returns:
            The mean loss of the images; of several processes, this one's part of the sum that it is.
        """
        self.model.train()
        hold_frozen_norms(self.model)
        number = epoch * self.plan.steps_per_epoch + step
        self.scheduler.step_update(number)
        self.optimizer.zero_grad(set_to_none=True)
        images = images.to(self.device, memory_format=self.layout)
        target = target.to(self.device)
        with self._draws(epoch, step):
            images, target = self.objective.mix(images, target)
        loss = self._gradients(images, target, epoch, step)
        check(loss)
        self._update(number)
        return loss

    @contextlib.contextmanager
    def _draws(self, epoch: int, step: int) -> Iterator[None]:
        """Within it all draws are those of a step, the same in every process and every part of the batch."""
        with seeded(self.plan.config.run.seed, _STEP, epoch, step):
            if self.device.type == "cuda":
                torch.cuda.manual_seed(int(torch.randint(2**62, ()).item()))
            yield

    def _gradients(self, images: Tensor, target: Tensor, epoch: int, step: int) -> float:
        """Adds up the gradients of the mean loss over the parts of the batch."""
        count, size = self.plan.config.optim.accumulate, self.world.size
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
        dtype = AUTOCAST[self.plan.config.optim.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            logits = self._forward(images)
            answers = None if self.distiller is None else self.distiller.answers(images)
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
        if self.plan.values.clip_grad > 0:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.values.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model, step=number + 1)


def _scheduler(plan: Plan, optimizer: torch.optim.Optimizer) -> CosineLRScheduler:
    steps = plan.steps_per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=max(2, plan.epochs * steps),  # timm warns of 1
        lr_min=min(plan.values.min_lr, plan.lr),
        warmup_t=round(plan.values.warmup_epochs * steps),
        warmup_lr_init=plan.warmup_lr,
        warmup_prefix=False,
        t_in_epochs=False,
    )
