"""All that a step changes, and the step: weights, optimiser, learning rate, loss scale, moving average."""

from collections.abc import Callable

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from convit.data import seeded
from convit.models import ConViT
from convit.train.evaluation import AUTOCAST
from convit.train.objective import Objective, class_weights
from convit.train.plan import Plan

_STEP = 102  # keeps the draws of the steps apart from those of convit.data and for the weights


class Learner:
    """A model in training.

    Args:
        plan: how to train it.
        model: on the device where it is trained.
    """

    def __init__(self, plan: Plan, model: ConViT) -> None:
        self.plan = plan
        self.device = next(model.parameters()).device
        options = plan.config.optim
        if options.channels_last:
            model = model.to(memory_format=torch.channels_last)
        self.model = model
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        layer_decay = plan.values.layer_decay
        self.optimizer = create_optimizer_v2(
            model,
            opt="adamw",
            lr=plan.lr,
            weight_decay=plan.values.weight_decay,
            layer_decay=layer_decay if layer_decay != 1 else None,
        )
        self.scheduler = _scheduler(plan, self.optimizer)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=options.precision == "fp16")
        self.ema: ModelEmaV3 | None = None
        if plan.values.ema_decay > 0:
            self.ema = ModelEmaV3(model, decay=plan.values.ema_decay, use_warmup=options.ema_warmup)
        weights = class_weights(plan.train.counts()) if options.class_weights == "balanced" else None
        classes = len(plan.class_names)
        self.objective = Objective(plan.values, classes, None if weights is None else weights.to(self.device))
        self._forward = self._callable(model)
        self._forward_best = self._forward if self.ema is None else self._callable(self.best)

    def _callable(self, model: nn.Module) -> nn.Module:
        compiled: nn.Module = torch.compile(model) if self.plan.config.optim.compile else model  # type: ignore[assignment]
        return compiled

    @property
    def best(self) -> ConViT:
        """The model that is evaluated and saved: the moving average if there is one."""
        model: ConViT = self.model if self.ema is None else self.ema.module
        return model

    @property
    def evaluated(self) -> nn.Module:
        """:attr:`best` as it is called: compiled if the plan says so."""
        return self._forward_best

    def step(self, images: Tensor, target: Tensor, epoch: int, step: int, check: Callable[[float], None]) -> float:
        """One update of the weights; everything random in it is a function of (seed, epoch, step).

        Args:
            images: (B, 3, H, W).
            target: (B,).
            epoch: from 0.
            step: its number in the epoch, from 0.
            check: told the loss before it counts; may raise, and then nothing has changed.

        Returns:
            The mean loss of the images.
        """
        self.model.train()
        number = epoch * self.plan.steps_per_epoch + step
        self.scheduler.step_update(number)
        self.optimizer.zero_grad(set_to_none=True)
        images = images.to(self.device, memory_format=self.layout)
        target = target.to(self.device)
        with seeded(self.plan.config.run.seed, _STEP, epoch, step):
            if self.device.type == "cuda":
                torch.cuda.manual_seed(int(torch.randint(2**62, ()).item()))
            loss = self._gradients(*self.objective.mix(images, target), check)
        self._update(number)
        return loss

    def _gradients(self, images: Tensor, target: Tensor, check: Callable[[float], None]) -> float:
        """Adds up the gradients of the mean loss over the parts of the batch."""
        options = self.plan.config.optim
        dtype = AUTOCAST[options.precision]
        total = 0.0
        parts = zip(images.tensor_split(options.accumulate), target.tensor_split(options.accumulate), strict=True)
        for part, its_target in parts:
            with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
                logits = self._forward(part)
            loss = self.objective.loss(logits.float(), its_target) / len(images)
            total += loss.item()
            check(total)
            self.scaler.scale(loss).backward()
        return total

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
